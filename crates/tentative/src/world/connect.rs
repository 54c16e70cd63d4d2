//! connect(2): to the sandbox's own loopback it is the kernel's business; outside it is the policy's.

use std::net::SocketAddr;

use rustix::{io::Errno, net::getpeername};

use super::{
    address::{Address, Protocol, canonical},
    hosts, listeners,
    pending::{Pending, Wait},
    rules::hint,
    socket::ProgramSocket,
    unix,
};
use crate::{
    monitor::{Call, Outcome},
    policy::Action,
};

/// connect(2).
pub(crate) fn connect(call: &mut Call<'_>) -> Outcome {
    // What cannot be decoded the kernel refuses for itself; what it could decode by then is in the namespace.
    let Some(address) = Address::read(call, call.word(1), call.word(2)) else { return Outcome::CONTINUE };
    match address {
        Address::Inet(to) => match ProgramSocket::of(call, call.int(0)) {
            Ok(socket) => to_host(call, &socket, to),
            Err(_) => Outcome::CONTINUE,
        },
        Address::UnixPath(path) => unix::connect_to_path(call, &path),
        Address::UnixAbstract(name) => unix::connect_to_name(call, &name),
        Address::Unspecified | Address::Other(_) => Outcome::CONTINUE,
    }
}

fn to_host(call: &mut Call<'_>, socket: &ProgramSocket, to: SocketAddr) -> Outcome {
    let protocol = socket.protocol();
    let target = format!("{protocol} {}", canonical(to));
    if !socket.is_outside && stays_inside(call, protocol, to) {
        return Outcome::CONTINUE;
    }
    if call.rules.net(to) == Some(Action::Allow) {
        return connect_outside(call, socket, to, target);
    }
    refuse(call, socket, to, target)
}

/// Whether somebody inside takes it.
pub(super) fn stays_inside(call: &Call<'_>, protocol: Protocol, to: SocketAddr) -> bool {
    canonical(to).ip().is_loopback() && listeners::listens_inside(call, protocol, to)
}

/// Records a refusal. To the loopback the kernel then says itself that nobody listens; elsewhere there is no network.
pub(super) fn refuse(call: &mut Call<'_>, socket: &ProgramSocket, to: SocketAddr, target: String) -> Outcome {
    let hint = hint(call.rules.net(to), || match hosts::is_name_server(canonical(to)) {
        // Allowing a host by its name includes looking that up.
        true => {
            "it looked up a name: run again with --allow net:NAME:PORT to let it connect there".to_owned()
        }
        false => format!("--allow net:{}", canonical(to)),
    });
    let loopback = canonical(to).ip().is_loopback();
    let errno = if loopback { Errno::CONNREFUSED } else { Errno::NETUNREACH };
    call.blocked(target, errno, hint);
    if loopback && !socket.is_outside { Outcome::CONTINUE } else { Outcome::error(errno) }
}

fn connect_outside(call: &mut Call<'_>, socket: &ProgramSocket, to: SocketAddr, target: String) -> Outcome {
    // A second call on a socket of ours asks how the first one went, or sends a datagram socket elsewhere.
    let again = socket.is_outside
        && (socket.protocol() != Protocol::Tcp || !socket.blocks() || getpeername(&socket.copy).is_ok());
    if again {
        let connected = rustix::net::connect(&socket.copy, &to);
        if !matches!(connected, Err(Errno::ISCONN | Errno::ALREADY)) {
            call.escaped(target, connected.err());
        }
        return connected.map_or_else(Outcome::error, |()| Outcome::value(0));
    }
    let counterpart = match socket.counterpart() {
        Ok(counterpart) => counterpart,
        Err(errno) => return Outcome::error(errno),
    };
    let connected = rustix::net::connect(&counterpart, &to);
    call.escaped(target, connected.err().filter(|errno| *errno != Errno::INPROGRESS));
    match connected {
        Err(Errno::INPROGRESS) if socket.blocks() => Outcome::Later(Pending {
            listener: call.listener_id,
            call: call.notification.id,
            socket: counterpart,
            wait: Wait::Connection {
                target: socket.number,
                close_on_exec: call.caller.closes_on_exec(socket.number),
            },
        }),
        Ok(()) | Err(Errno::INPROGRESS) => match socket.replace(call, &counterpart) {
            Ok(()) => connected.map_or_else(Outcome::error, |()| Outcome::value(0)),
            Err(errno) => Outcome::error(errno),
        },
        Err(errno) => Outcome::error(errno),
    }
}
