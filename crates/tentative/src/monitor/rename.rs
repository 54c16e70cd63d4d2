//! Renaming a directory that exists below an overlay.
//!
//! The kernel says EXDEV in an overlay made by (or for) an ordinary user, and programs do not expect it. The monitor
//! does the rename in the program's place: the kernel's own where that works, else a helper that makes the new
//! directory, moves the content and removes the old one. Never follows the paths twice: both parents are held.

use std::{
    io::Write as _,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::PathBuf,
};

use rustix::{
    fs::{
        AtFlags, Dir, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
        chmodat, fchmod, fchown, fgetxattr, flistxattr, fsetxattr, futimens, mkdirat, openat, renameat_with,
        statat, unlinkat,
    },
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    process::{Signal, set_parent_process_death_signal},
};
use tentative_sys::kin::{Cloned, FileIdentity, Namespaces, as_file_identity, clone_into, exit_now};

use super::{CURRENT_DIRECTORY, Call, Caller, Outcome, links};
use crate::{
    files::{links::Links, mountinfo},
    world::{Pending, Wait},
};

/// A name in a directory that is held open.
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    pub(super) name: PathBuf,
}

/// rename(2), renameat(2) and renameat2(2).
pub(super) fn rename(call: &mut Call<'_>) -> Outcome {
    if call.sees_other_paths() {
        return Outcome::CONTINUE;
    }
    let at = |index| call.int(index);
    let (from_directory, from, to_directory, to, flags) = match call.pathway.name {
        "rename" => (CURRENT_DIRECTORY, 0, CURRENT_DIRECTORY, 1, 0),
        "renameat" => (at(0), 1, at(2), 3, 0),
        _ => (at(0), 1, at(2), 3, call.int(4) as u32),
    };
    let Some(from) = place(call, from_directory, from) else { return Outcome::CONTINUE };
    let Some(mut is_directory) = is_directory(&from) else { return Outcome::CONTINUE };
    let flags = RenameFlags::from_bits_retain(flags);
    let exchanges = flags.contains(RenameFlags::EXCHANGE);
    // Only directories have the difficulty, and names of files that have others.
    if !is_directory && !exchanges && call.scope.links.is_none() {
        return Outcome::CONTINUE;
    }
    let Some(to) = place(call, to_directory, to) else { return Outcome::CONTINUE };
    if !call.still_waits() {
        return Outcome::CONTINUE;
    }
    is_directory |= exchanges && self::is_directory(&to) == Some(true);
    if !is_directory {
        return links::rename(call, &from, &to, flags).unwrap_or(Outcome::CONTINUE);
    }
    if holds_mounts(call, &from) || holds_mounts(call, &to) {
        // The monitor is in another mount namespace, in which the kernel takes mounts away instead of refusing.
        return Outcome::error(Errno::BUSY);
    }
    let identity = call.caller.identity();
    let identity = FileIdentity { uid: identity.uid, gid: identity.gid };
    let renamed = as_file_identity(identity, || {
        renameat_with(&from.directory, &from.name, &to.directory, &to.name, flags)
    });
    match renamed {
        Err(Errno::XDEV) if same_mount(&from, &to) => start(call, &from, &to, flags, identity),
        other => other.map_or_else(Outcome::error, |()| Outcome::value(0)),
    }
}

fn is_directory(place: &Place) -> Option<bool> {
    let status = statat(&place.directory, &place.name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(status.st_mode) == FileType::Directory)
}

fn place(call: &Call<'_>, directory: i32, argument: usize) -> Option<Place> {
    let path = call.read_string(call.word(argument))?;
    let path = call.caller.absolute(directory, &path)?;
    let (directory, name) = Caller::parent_of(call.scope.root(), &path)?;
    // These the kernel refuses.
    (!matches!(name.as_os_str().as_bytes(), b"." | b".." | b"")).then_some(Place { directory, name })
}

/// Whether something is mounted at a name or below it, in the sandbox.
fn holds_mounts(call: &Call<'_>, place: &Place) -> bool {
    let Some(path) = links::canonical(place) else { return true };
    let list = format!("/proc/{}/mountinfo", call.scope.init.as_raw_nonzero());
    let points = std::fs::read(list).map(|list| mountinfo::points(&list)).unwrap_or_default();
    points.iter().any(|point| point.starts_with(&path))
}

/// Across mounts EXDEV is the right answer.
fn same_mount(from: &Place, to: &Place) -> bool {
    let mount = |place: &Place| {
        let flags = AtFlags::EMPTY_PATH;
        rustix::fs::statx(&place.directory, "", flags, rustix::fs::StatxFlags::MNT_ID)
            .ok()
            .map(|x| x.stx_mnt_id)
    };
    mount(from).is_some() && mount(from) == mount(to)
}

/// Lets a helper do it: it may take long, and others must not wait.
fn start(call: &Call<'_>, from: &Place, to: &Place, flags: RenameFlags, identity: FileIdentity) -> Outcome {
    let Ok((reader, writer)) = pipe_with(PipeFlags::CLOEXEC) else { return Outcome::error(Errno::NOMEM) };
    match clone_into(Namespaces::NONE) {
        Ok(Cloned::Child) => {
            // A copy of the monitor that only moves files and never returns to its frames.
            let _dies_with_monitor = set_parent_process_death_signal(Some(Signal::KILL));
            let links = call.scope.links.as_ref();
            let moved = as_file_identity(identity, || match flags.contains(RenameFlags::EXCHANGE) {
                true => exchange(links, from, to),
                false => move_directory(links, from, to, flags),
            });
            let errno = moved.map_or_else(Errno::raw_os_error, |()| 0);
            // A monitor that is gone needs no answer.
            let _monitor_gone = std::fs::File::from(writer).write_all(&errno.to_ne_bytes());
            exit_now(0)
        }
        Ok(Cloned::Parent { pid, .. }) => Outcome::Later(Pending {
            listener: call.listener_id,
            call: call.notification.id,
            socket: reader,
            wait: Wait::Helper(pid),
        }),
        Err(errno) => Outcome::error(errno),
    }
}

fn move_directory(links: Option<&Links>, from: &Place, to: &Place, flags: RenameFlags) -> Result<(), Errno> {
    check_target(to, flags)?;
    // Under a name of its own until it is whole; that directory is not below, so the kernel can rename it.
    let made = Place {
        directory: rustix::io::fcntl_dupfd_cloexec(&to.directory, 3)?,
        name: PathBuf::from(format!(".tentative-rename-{}", std::process::id())),
    };
    if let Err(errno) = move_tree(links, from, &made) {
        // What was moved goes back; what cannot go back stays under the new name, and nothing is lost.
        let _best_that_can_be_done = (move_content(links, &made, from), remove(&made));
        return Err(errno);
    }
    renameat_with(&made.directory, &made.name, &to.directory, &to.name, flags)?;
    remove(from)
}

/// Exchanges two objects by way of a third name.
fn exchange(links: Option<&Links>, from: &Place, to: &Place) -> Result<(), Errno> {
    let aside = Place {
        directory: rustix::io::fcntl_dupfd_cloexec(&to.directory, 3)?,
        name: PathBuf::from(format!(".tentative-exchange-{}", std::process::id())),
    };
    move_one(links, from, &aside)?;
    if let Err(errno) = move_one(links, to, from) {
        let _best_that_can_be_done = move_one(links, &aside, from);
        return Err(errno);
    }
    move_one(links, &aside, to)
}

fn move_one(links: Option<&Links>, from: &Place, to: &Place) -> Result<(), Errno> {
    let held = links.and_then(|links| links::rename_held(links, from, to, RenameFlags::empty(), rename_one));
    match held.unwrap_or_else(|| rename_one(from, to)) {
        Err(Errno::XDEV) => move_directory(links, from, to, RenameFlags::empty()),
        other => other,
    }
}

/// The kernel's conditions on the target, which it did not come to.
fn check_target(to: &Place, flags: RenameFlags) -> Result<(), Errno> {
    let Ok(status) = statat(&to.directory, &to.name, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
    if flags.contains(RenameFlags::NOREPLACE) {
        return Err(Errno::EXIST);
    }
    if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
        return Err(Errno::NOTDIR);
    }
    if entries(&open(to)?)?.is_empty() { Ok(()) } else { Err(Errno::NOTEMPTY) }
}

/// Makes `to` like `from`, with its content, and leaves `from` empty.
fn move_tree(links: Option<&Links>, from: &Place, to: &Place) -> Result<(), Errno> {
    let status = statat(&from.directory, &from.name, AtFlags::SYMLINK_NOFOLLOW)?;
    // What is below one that he cannot look into nobody could commit.
    let opens = status.st_mode & 0o700 == 0o500;
    let open_to = |mode: u32| {
        chmodat(&from.directory, &from.name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())
    };
    // Its owner may rename a directory that he may not write to. If it is somebody else's, what follows is refused.
    let _not_the_owner = opens.then(|| open_to(status.st_mode | 0o700));
    let moved = mkdirat(&to.directory, &to.name, Mode::RWXU)
        .and_then(|()| move_content(links, from, to))
        .and_then(|()| copy_attributes(&open(from)?, &open(to)?, &status));
    if moved.is_err() && opens {
        let _as_far_as_it_can_go_back = open_to(status.st_mode);
    }
    moved
}

fn move_content(links: Option<&Links>, from: &Place, to: &Place) -> Result<(), Errno> {
    let (source, target) = (open(from)?, open(to)?);
    for name in entries(&source)? {
        let below = |directory: &OwnedFd| -> Result<Place, Errno> {
            let directory = rustix::io::fcntl_dupfd_cloexec(directory, 3)?;
            Ok(Place { directory, name: name.clone() })
        };
        let (inner, made) = (below(&source)?, below(&target)?);
        let held = links
            .and_then(|links| links::rename_held(links, &inner, &made, RenameFlags::empty(), rename_one));
        let renamed = held.unwrap_or_else(|| rename_one(&inner, &made));
        if renamed != Err(Errno::XDEV) {
            renamed?;
            continue;
        }
        move_tree(links, &inner, &made)?;
        remove(&inner)?;
    }
    Ok(())
}

fn rename_one(from: &Place, to: &Place) -> Result<(), Errno> {
    renameat_with(&from.directory, &from.name, &to.directory, &to.name, RenameFlags::empty())
}

fn remove(place: &Place) -> Result<(), Errno> {
    unlinkat(&place.directory, &place.name, AtFlags::REMOVEDIR)
}

fn open(place: &Place) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(&place.directory, &place.name, flags, Mode::empty())
}

fn entries(directory: &OwnedFd) -> Result<Vec<PathBuf>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory.as_fd())? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(PathBuf::from(std::ffi::OsStr::from_bytes(name)));
        }
    }
    Ok(names)
}

/// Owner, extended attributes, mode and times as they were, in an order in which none undoes another.
fn copy_attributes(from: &OwnedFd, to: &OwnedFd, status: &Stat) -> Result<(), Errno> {
    match fchown(to, Some(Uid::from_raw(status.st_uid)), Some(Gid::from_raw(status.st_gid))) {
        // An ordinary user's directories are his own already.
        Err(Errno::PERM | Errno::INVAL) => {}
        other => other?,
    }
    copy_extended_attributes(from, to)?;
    fchmod(to, Mode::from_raw_mode(status.st_mode & 0o7777))?;
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(status.st_atime, status.st_atime_nsec as _),
        last_modification: time(status.st_mtime, status.st_mtime_nsec as _),
    };
    futimens(to, &times)
}

fn copy_extended_attributes(from: &OwnedFd, to: &OwnedFd) -> Result<(), Errno> {
    let mut names = vec![0u8; 65_536];
    let length = match flistxattr(from, names.as_mut_slice()) {
        // A file system without them.
        Err(Errno::NOTSUP) => return Ok(()),
        other => other?,
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 65_536];
        let Ok(length) = fgetxattr(from, name, value.as_mut_slice()) else { continue };
        match fsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            // Attributes of security modules are given by the kernel.
            Err(Errno::PERM | Errno::NOTSUP) => {}
            other => other?,
        }
    }
    Ok(())
}
