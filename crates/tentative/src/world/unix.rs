//! Unix sockets of the outside: by path they lie below the overlay, which refuses connections; by abstract name they are
//! in another network namespace.

use std::path::{Path, PathBuf};

use rustix::{
    fs::{AtFlags, CWD, FileType, statat},
    io::Errno,
    net::{SocketAddrUnix, SocketFlags, SocketType, socket_with},
};

use super::{listeners, rules::hint, socket::ProgramSocket};
use crate::{
    monitor::{CURRENT_DIRECTORY, Call, Caller, Outcome},
    policy::Action,
};

/// Connects to a socket by path.
pub(super) fn connect_to_path(call: &mut Call<'_>, path: &Path) -> Outcome {
    let Some(path) = socket_outside(call, path) else { return Outcome::CONTINUE };
    let target = format!("unix {}", path.display());
    let allowed = call.rules.unix(&path);
    if allowed != Some(Action::Allow) {
        return refuse(call, target, allowed, format!("--allow unix:{}", path.display()));
    }
    let address = SocketAddrUnix::new(&path);
    connect(call, target, address)
}

/// Connects to a socket by abstract name.
pub(super) fn connect_to_name(call: &mut Call<'_>, name: &[u8]) -> Outcome {
    if listeners::has_abstract_inside(call, name) || !listeners::has_abstract_outside(name) {
        return Outcome::CONTINUE;
    }
    let shown = String::from_utf8_lossy(name).into_owned();
    let target = format!("unix @{shown}");
    let allowed = call.rules.unix_abstract(name);
    if allowed != Some(Action::Allow) {
        return refuse(call, target, allowed, format!("--allow unix:@{shown}"));
    }
    let address = SocketAddrUnix::new_abstract_name(name);
    connect(call, target, address)
}

/// Sends one datagram to a socket by path or abstract name, if that is outside.
pub(super) fn send(call: &mut Call<'_>, to: &super::address::Address, payload: &[u8]) -> Outcome {
    use super::address::Address;
    let (target, allowed, rule, address) = match to {
        Address::UnixPath(path) => {
            let Some(path) = socket_outside(call, path) else { return Outcome::CONTINUE };
            let shown = path.display().to_string();
            let allowed = call.rules.unix(&path);
            (format!("unix {shown}"), allowed, format!("--allow unix:{shown}"), SocketAddrUnix::new(&path))
        }
        Address::UnixAbstract(name) => {
            if listeners::has_abstract_inside(call, name) || !listeners::has_abstract_outside(name) {
                return Outcome::CONTINUE;
            }
            let shown = String::from_utf8_lossy(name).into_owned();
            let allowed = call.rules.unix_abstract(name);
            let address = SocketAddrUnix::new_abstract_name(name);
            (format!("unix @{shown}"), allowed, format!("--allow unix:@{shown}"), address)
        }
        _ => return Outcome::CONTINUE,
    };
    if allowed != Some(Action::Allow) {
        return refuse(call, target, allowed, rule);
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let sent =
        socket_with(rustix::net::AddressFamily::UNIX, SocketType::DGRAM, flags, None).and_then(|socket| {
            rustix::net::sendto(&socket, payload, rustix::net::SendFlags::NOSIGNAL, &address?)
        });
    call.escaped(target, sent.err());
    sent.map_or_else(Outcome::error, |length| Outcome::value(length as i64))
}

fn refuse(call: &mut Call<'_>, target: String, allowed: Option<Action>, rule: String) -> Outcome {
    call.blocked(target, Errno::CONNREFUSED, hint(allowed, || rule));
    Outcome::error(Errno::CONNREFUSED)
}

fn connect(call: &mut Call<'_>, target: String, address: Result<SocketAddrUnix, Errno>) -> Outcome {
    let done = ProgramSocket::of(call, call.int(0)).and_then(|socket| {
        let counterpart = socket.counterpart()?;
        rustix::net::connect(&counterpart, &address?)?;
        socket.replace(call, &counterpart)
    });
    call.escaped(target, done.err());
    done.map_or_else(Outcome::error, |()| Outcome::value(0))
}

/// The path of a socket that exists outside, if that is what the path names inside too; one that was bound inside is
/// another file.
fn socket_outside(call: &Call<'_>, path: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = call.caller.absolute(CURRENT_DIRECTORY, path.as_os_str().as_bytes())?;
    let (directory, name) = Caller::parent_of(call.scope.root(), &path)?;
    let inside = statat(&directory, &name, AtFlags::empty()).ok()?;
    let outside = statat(CWD, &path, AtFlags::empty()).ok()?;
    let is_socket = FileType::from_raw_mode(inside.st_mode) == FileType::Socket;
    // The overlay shows the inode number of the file below.
    (is_socket && inside.st_ino == outside.st_ino && inside.st_mode == outside.st_mode).then_some(path)
}
