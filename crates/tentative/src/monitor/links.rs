//! Files with several names, for an ordinary user: his overlays have no index, so that a name parts from the others when
//! it is copied up, and nothing says later what it was copied from.
//!
//! Before a call can copy such a file up by the name that it is given, the copy is made here and held (`files/links.rs`).
//! Calls that move a name or add one are made here in the program's place, since the copy ends up under another name. It
//! never changes what a call does, and never refuses one: where something cannot be found out the kernel goes on, and
//! the commit refuses the file.

use std::{
    ffi::OsStr,
    fs,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{MetadataExt as _, PermissionsExt as _},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps, linkat, openat, openat2,
        renameat_with, unlinkat, utimensat,
    },
    io::Errno,
};
use tentative_sys::kin::{FileIdentity, as_file_identity};

use super::{CURRENT_DIRECTORY, Call, Caller, Outcome, rename::Place};
use crate::files::links::{Links, Name};

const OPEN_FOLLOWS_NOT: u64 = OFlags::NOFOLLOW.bits() as u64;
const AT_FOLLOWS_NOT: u64 = AtFlags::SYMLINK_NOFOLLOW.bits() as u64;
const SET_USER_OR_GROUP: u32 = 0o6000;

/// Calls that change a file that is there: holds the copy that they make.
pub(super) fn change(call: &mut Call<'_>) -> Outcome {
    let Some(links) = &call.scope.links else { return Outcome::CONTINUE };
    if call.sees_other_paths() {
        return Outcome::CONTINUE;
    }
    let at = |index| call.int(index);
    let unless = |index: usize, bit: u64| call.word(index) & bit == 0;
    let (directory, path, follows) = match call.pathway.name {
        "fchmod" | "fchown" | "fsetxattr" | "fremovexattr" => {
            let _told_later = hold_open(call, links, at(0));
            return Outcome::CONTINUE;
        }
        "open" => (CURRENT_DIRECTORY, 0, unless(1, OPEN_FOLLOWS_NOT)),
        "openat" => (at(0), 1, unless(2, OPEN_FOLLOWS_NOT)),
        "openat2" => match open_how(call) {
            Some(flags) => (at(0), 1, flags & OPEN_FOLLOWS_NOT == 0),
            None => return Outcome::CONTINUE,
        },
        "fchmodat" | "futimesat" => (at(0), 1, true),
        "fchmodat2" | "utimensat" => (at(0), 1, unless(3, AT_FOLLOWS_NOT)),
        "fchownat" => (at(0), 1, unless(4, AT_FOLLOWS_NOT)),
        "setxattrat" | "removexattrat" => (at(0), 1, unless(2, AT_FOLLOWS_NOT)),
        "lchown" | "lsetxattr" | "lremovexattr" => (CURRENT_DIRECTORY, 0, false),
        // creat, truncate, chmod, chown, setxattr, removexattr, utime, utimes
        _ => (CURRENT_DIRECTORY, 0, true),
    };
    if let Some(path) = call.read_string(call.word(path)).filter(|path| can_be_covered(path)) {
        // What cannot be held is told from the rest by the commit.
        let _told_later = hold(call, links, (directory, &path), follows);
    }
    Outcome::CONTINUE
}

/// Most of what scripts open for writing.
fn can_be_covered(path: &[u8]) -> bool {
    !path.starts_with(b"/dev/") || path.starts_with(b"/dev/shm/")
}

/// The flags of openat2(2); none when it does not write to a file that is there.
fn open_how(call: &Call<'_>) -> Option<u64> {
    let bytes = call.read(call.word(2), 8)?;
    let flags = u64::from_ne_bytes(bytes.try_into().ok()?);
    let bits = OFlags::from_bits_retain(u32::try_from(flags).ok()?);
    let writes = bits.intersects(OFlags::WRONLY | OFlags::RDWR | OFlags::TRUNC);
    (writes && !bits.contains(OFlags::EXCL)).then_some(flags)
}

fn hold(call: &Call<'_>, links: &Links, at: (i32, &[u8]), follows: bool) -> Option<()> {
    let path = call.caller.absolute(at.0, at.1)?;
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, !follows);
    let file = match openat2(call.scope.root(), &path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(file) => file,
        Err(Errno::NOENT) => {
            // It may be made now.
            let name = links.name(&canonical(&place(call, &path)?)?)?;
            return name.is_gone().ok();
        }
        Err(_) => return None,
    };
    let path = path_of(&file)?;
    let name = links.name(&path)?;
    // What is open stays what it is, and cannot become a name of another copy.
    if !at.1.is_empty()
        && name.is_untouched()
        && call.still_waits()
        && let Some(copy) = name.copied()
        && let (Some(copy), Some(place)) = (place(call, &copy), place(call, &path))
        && as_file_identity(identity(call), || join(&copy, &place)).is_ok()
    {
        return Some(());
    }
    hold_copy(call, links, &file, &path)
}

fn hold_copy(call: &Call<'_>, links: &Links, file: &OwnedFd, path: &Path) -> Option<()> {
    let name = links.name(path)?;
    if !name.is_untouched() {
        return name.note_unclear().ok();
    }
    if !call.still_waits() {
        return None;
    }
    as_file_identity(identity(call), || copy_up(file));
    if name.is_untouched() { None } else { links.hold(&name, path).ok() }
}

/// Of a file that is open, perhaps for reading only.
fn hold_open(call: &Call<'_>, links: &Links, number: i32) -> Option<()> {
    let path = call.caller.absolute(number, b"")?;
    if let Some(path) = path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        // It has no name any more by which it could be held.
        return links.name(Path::new(OsStr::from_bytes(path)))?.is_unclear().ok();
    }
    hold(call, links, (number, b""), true)
}

/// Makes a name that was not copied up one of the copy that its file has by another name, which may be changed by now.
fn join(copy: &Place, name: &Place) -> Result<(), Errno> {
    let directory = rustix::fs::fstat(&name.directory)?;
    let aside = format!(".tentative-link-{}", std::process::id());
    linkat(&copy.directory, &copy.name, &name.directory, &aside, AtFlags::empty())?;
    if let Err(errno) =
        renameat_with(&name.directory, &aside, &name.directory, &name.name, RenameFlags::empty())
    {
        unlinkat(&name.directory, &aside, AtFlags::empty())?;
        return Err(errno);
    }
    // The program did nothing to the directory. Whoever may write to it without owning it leaves the time of now.
    let _not_the_owner = utimensat(&name.directory, ".", &times(&directory), AtFlags::empty());
    Ok(())
}

fn times(status: &rustix::fs::Stat) -> Timestamps {
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps {
        last_access: time(status.st_atime, status.st_atime_nsec as _),
        last_modification: time(status.st_mtime, status.st_mtime_nsec as _),
    }
}

/// Makes the kernel copy the file up without a change, if the caller may make it.
fn copy_up(file: &OwnedFd) {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if openat(CWD, &path, flags, Mode::empty()).is_ok() {
        return;
    }
    // His own file may be closed to him.
    if let Ok(metadata) = fs::metadata(&path)
        && metadata.mode() & SET_USER_OR_GROUP == 0
    {
        // Refused: it will be refused to the caller, too.
        let _not_allowed = fs::set_permissions(&path, fs::Permissions::from_mode(metadata.mode() & 0o7777));
    }
}

fn identity(call: &Call<'_>) -> FileIdentity {
    let identity = call.caller.identity();
    FileIdentity { uid: identity.uid, gid: identity.gid }
}

fn place(call: &Call<'_>, path: &Path) -> Option<Place> {
    let (directory, name) = Caller::parent_of(call.scope.root(), path)?;
    Some(Place { directory, name })
}

/// The path inside of an open object, without symbolic links.
fn path_of(file: &OwnedFd) -> Option<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()
}

/// The path inside of a name.
pub(super) fn canonical(place: &Place) -> Option<PathBuf> {
    Some(path_of(&place.directory)?.join(&place.name))
}

/// Renames something that is no directory; none when the kernel may do it.
pub(super) fn rename(call: &Call<'_>, from: &Place, to: &Place, flags: RenameFlags) -> Option<Outcome> {
    let links = call.scope.links.as_ref()?;
    let renamed = rename_held(links, from, to, flags, |from, to| {
        as_file_identity(identity(call), || {
            renameat_with(&from.directory, &from.name, &to.directory, &to.name, flags)
        })
    })?;
    Some(renamed.map_or_else(Outcome::error, |()| Outcome::value(0)))
}

/// Renames with `act` and keeps what that makes of names whose files have others; none when neither is such a name.
pub(super) fn rename_held(
    links: &Links,
    from: &Place,
    to: &Place,
    flags: RenameFlags,
    act: impl FnOnce(&Place, &Place) -> Result<(), Errno>,
) -> Option<Result<(), Errno>> {
    let (old_path, new_path) = (canonical(from)?, canonical(to)?);
    let may_replace = !flags.contains(RenameFlags::NOREPLACE);
    if may_replace && is_there(from) && is_there(to) && links.are_same_file(&old_path, &new_path) {
        // As rename(2) has it for two names of one file, which they need not be inside.
        return Some(Ok(()));
    }
    let (old, new) = (links.name(&old_path), links.name(&new_path));
    // The kernel may still refuse it: such a name is asked for before it is believed.
    for (path, name) in [(&old_path, &new_path), (&new_path, &old_path)] {
        let _found_by_no_name = links.note_name(path, name);
    }
    if old.is_none() && new.is_none() {
        return None;
    }
    for name in [&old, &new].into_iter().flatten() {
        let _told_later = name.note_unclear();
    }
    let (moves_old, moves_new) = (is_copied_by_moving(&old), is_copied_by_moving(&new));
    if let Err(errno) = act(from, to) {
        return Some(Err(errno));
    }
    keep(links, old.as_ref(), moves_old.then_some(&new_path));
    // Exchanged: a rename leaves nothing at the old path.
    keep(links, new.as_ref(), (moves_new && is_there(from)).then_some(&old_path));
    Some(Ok(()))
}

fn is_there(place: &Place) -> bool {
    rustix::fs::statat(&place.directory, &place.name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

fn is_copied_by_moving(name: &Option<Name<'_>>) -> bool {
    name.as_ref().is_some_and(Name::is_untouched)
}

/// After a name was moved away or replaced. What cannot be kept is told from the rest by the commit.
fn keep(links: &Links, name: Option<&Name<'_>>, moved_to: Option<&PathBuf>) {
    let Some(name) = name else { return };
    if let Some(path) = moved_to {
        let _told_later = links.hold(name, path);
    }
    let _told_later = name.is_gone();
}

/// link(2) and linkat(2).
pub(super) fn link(call: &mut Call<'_>) -> Outcome {
    link_held(call).unwrap_or(Outcome::CONTINUE)
}

fn link_held(call: &Call<'_>) -> Option<Outcome> {
    let links = call.scope.links.as_ref()?;
    if call.sees_other_paths() {
        return None;
    }
    let at = |index| call.int(index);
    let (from_directory, from, to_directory, to, flags) = match call.pathway.name {
        "link" => (CURRENT_DIRECTORY, 0, CURRENT_DIRECTORY, 1, AtFlags::empty()),
        _ => (at(0), 1, at(2), 3, AtFlags::from_bits_retain(call.int(4) as u32)),
    };
    let to = place(call, &call.caller.absolute(to_directory, &call.read_string(call.word(to))?)?)?;
    let new_path = canonical(&to)?;
    if let Some(new) = links.name(&new_path).filter(|_| !is_there(&to)) {
        let _told_later = new.is_gone();
    }
    // By a descriptor: it was held when that was opened for writing.
    let from = call.read_string(call.word(from)).filter(|path| !path.is_empty())?;
    let path = call.caller.absolute(from_directory, &from)?;
    let mut open = OFlags::PATH | OFlags::CLOEXEC;
    open.set(OFlags::NOFOLLOW, !flags.contains(AtFlags::SYMLINK_FOLLOW));
    let file = openat2(call.scope.root(), &path, open, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
    let old_path = path_of(&file)?;
    let _found_by_no_name = links.note_name(&old_path, &new_path);
    let old = links.name(&old_path)?;
    if !old.is_untouched() {
        let _told_later = old.note_unclear();
        return None;
    }
    let from = place(call, &old_path)?;
    if !call.still_waits() {
        return None;
    }
    let linked = as_file_identity(identity(call), || {
        linkat(&from.directory, &from.name, &to.directory, &to.name, AtFlags::empty())
    });
    if !old.is_untouched() {
        let _told_later = links.hold(&old, &old_path);
    }
    Some(linked.map_or_else(Outcome::error, |()| Outcome::value(0)))
}
