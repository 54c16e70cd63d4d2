//! Paths that lead to what belongs to the host: settings, control groups, devices, other processes, shared memory.
//!
//! Only records. The kernel goes on with every call whatever is found here: the sandbox shows such things read-only or
//! does not have them, so a path that is changed behind the monitor's back reaches nothing either. Invariant: nothing
//! is decided by a path that the program can still change.

use std::{
    ffi::OsString,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, StatVfsMountFlags, fstat, fstatvfs, major,
        minor, openat, openat2, readlinkat, statat, statvfs,
    },
    io::Errno,
};

use super::{Call, Caller, Outcome};
use crate::{
    effect::{Class, Decision},
    kin::{exists_outside, name_of},
    layer::Layer,
    sandbox::is_harmless,
};

/// What the kernel shows each process of itself alone: the monitor would see its own.
const OWN: &[&str] = &["/proc/self", "/proc/thread-self", "/dev/fd"];

/// What a path leads to.
struct Found {
    layer: Layer,
    class: Class,
    target: String,
    errno: Option<Errno>,
    hint: Option<String>,
}

impl Found {
    fn refused(layer: Layer, target: String, errno: Errno) -> Found {
        Found { layer, class: Class::Blocked, target, errno: Some(errno), hint: None }
    }
}

/// A call that would change what a path names, below the directory of a descriptor.
pub(super) fn note(call: &mut Call<'_>, directory: RawFd, argument: usize) -> Outcome {
    if let Some(found) = look(call, directory, argument)
        && call.still_waits()
    {
        let decision = if found.class == Class::Blocked { Decision::Denied } else { Decision::Allowed };
        call.record_in(found.layer, found.class, decision, found.target, found.errno, found.hint);
    }
    Outcome::CONTINUE
}

fn look(call: &Call<'_>, directory: RawFd, argument: usize) -> Option<Found> {
    // The filter has told the others by their flags; these are behind a pointer.
    if call.pathway.name == "openat2" && !writes(open_flags(call)?) {
        return None;
    }
    let path = PathBuf::from(OsString::from_vec(call.caller.read_string(call.word(argument))?));
    let own_root = own_root(call);
    let root = own_root.as_ref().map_or(call.scope.root(), AsFd::as_fd);
    let path = if path.is_absolute() {
        path
    } else {
        let path = call.caller.absolute(directory, path.as_os_str().as_bytes())?;
        match (&own_root, call.caller.root()) {
            (Some(_), Some(above)) => Path::new("/").join(path.strip_prefix(above).unwrap_or(&path)),
            _ => path,
        }
    };
    look_at(call, root, &path)
}

fn look_at(call: &Call<'_>, root: BorrowedFd<'_>, path: &Path) -> Option<Found> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    match openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(file) => shown_inside(call, file.as_fd()),
        Err(_) => match plain(path).strip_prefix("/proc/self/root") {
            // A detour by the caller's own root, which the monitor cannot follow.
            Ok(rest) => look_at(call, root, &Path::new("/").join(rest)),
            Err(_) => not_inside(call, root, &plain(path)),
        },
    }
}

/// The caller's root, where it may be another than the sandbox's.
fn own_root(call: &Call<'_>) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let link = || format!("/proc/{}/root", call.caller.tid());
    call.noticed.roots_moved.then(|| openat(CWD, link(), flags, Mode::empty()).ok()).flatten()
}

/// The path without what goes up and back.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// What is there and cannot be changed, and devices that the policy allows.
fn shown_inside(call: &Call<'_>, file: BorrowedFd<'_>) -> Option<Found> {
    let status = fstat(file).ok()?;
    let kind = FileType::from_raw_mode(status.st_mode);
    let removes = matches!(call.pathway.name, "rmdir" | "unlinkat");
    match kind {
        FileType::CharacterDevice | FileType::BlockDevice if !removes => {
            let (major, minor) = (major(status.st_rdev), minor(status.st_rdev));
            let kind = if kind == FileType::BlockDevice { "block" } else { "character" };
            let target = || format!("{} ({kind} device {major}:{minor})", name(file));
            match is_mounted(file, StatVfsMountFlags::NODEV) {
                true => Some(Found::refused(Layer::World, target(), Errno::ACCESS)),
                false if is_harmless(major, minor) => None,
                // Only what the policy allows is there.
                false => Some(Found {
                    layer: Layer::World,
                    class: Class::Escaped,
                    target: target(),
                    errno: None,
                    hint: None,
                }),
            }
        }
        FileType::Directory if !removes => None,
        _ if is_mounted(file, StatVfsMountFlags::RDONLY) => {
            let target = name(file);
            refused_as_read_only(call, Path::new(&target))
        }
        _ => None,
    }
}

/// What the sandbox does not have, or does not let be made.
fn not_inside(call: &Call<'_>, root: BorrowedFd<'_>, path: &Path) -> Option<Found> {
    if let Some(number) = process_of(path) {
        let elsewhere = !call.scope.has_process(number) && exists_outside(number);
        let target = || format!("pid {number}{}: {}", name_of(number), path.display());
        return elsewhere.then(|| Found::refused(Layer::Kin, target(), Errno::NOENT));
    }
    if OWN.iter().any(|own| path.starts_with(own)) {
        return None;
    }
    let layer = layer_of(path);
    let outside = || statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok().filter(|_| layer != Layer::Files);
    match Caller::parent_of(root, path) {
        // A link to something of the caller's own, as `/dev/stdout` is.
        Some((directory, last)) if statat(&directory, &last, AtFlags::SYMLINK_NOFOLLOW).is_ok() => None,
        Some((directory, _)) if makes(call) && is_mounted(directory.as_fd(), StatVfsMountFlags::RDONLY) => {
            let refused = refused_as_read_only(call, path)?;
            Some(Found { hint: device_hint(path, outside().as_ref()), ..refused })
        }
        _ => {
            let hint = device_hint(path, Some(&outside()?));
            Some(Found { hint, ..Found::refused(layer, path.display().to_string(), Errno::NOENT) })
        }
    }
}

/// What the sandbox shows read-only, unless it is so outside or somebody inside has made it so.
fn refused_as_read_only(call: &Call<'_>, path: &Path) -> Option<Found> {
    let layer = layer_of(path);
    let whole = path.ancestors().find_map(|above| statvfs(above).ok());
    let outside_too = whole.is_some_and(|system| system.f_flag.contains(StatVfsMountFlags::RDONLY));
    let made_inside = call.noticed.roots_moved && layer == Layer::Files;
    let target = path.display().to_string();
    (!outside_too && !made_inside).then(|| Found::refused(layer, target, Errno::ROFS))
}

/// The option that lets a device of the host through.
fn device_hint(path: &Path, outside: Option<&Stat>) -> Option<String> {
    let kind = FileType::from_raw_mode(outside?.st_mode);
    let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
    (is_device && layer_of(path) == Layer::World).then(|| format!("--allow device:{}", path.display()))
}

/// Whether the call would make what is not there.
fn makes(call: &Call<'_>) -> bool {
    match call.pathway.name {
        "creat" | "mkdir" | "mkdirat" => true,
        _ => open_flags(call).is_some_and(|flags| flags.contains(OFlags::CREATE)),
    }
}

/// The flags of a call that opens; none of any other, or when they cannot be read.
fn open_flags(call: &Call<'_>) -> Option<OFlags> {
    let bits = match call.pathway.name {
        "open" => call.int(1) as u32,
        "openat" => call.int(2) as u32,
        // `struct open_how` begins with them.
        "openat2" => u32::from_ne_bytes(call.read(call.word(2), 8)?.get(..4)?.try_into().ok()?),
        _ => return None,
    };
    Some(OFlags::from_bits_retain(bits))
}

/// Whether the flags are of an open that can change what is there already.
fn writes(flags: OFlags) -> bool {
    flags.intersects(OFlags::RWMODE | OFlags::TRUNC) && !flags.contains(OFlags::CREATE | OFlags::EXCL)
}

/// The process whose files in `/proc` a path names.
fn process_of(path: &Path) -> Option<i32> {
    path.strip_prefix("/proc").ok()?.components().next()?.as_os_str().to_str()?.parse().ok()
}

fn layer_of(path: &Path) -> Layer {
    let below = |directory: &str| path.starts_with(directory);
    match () {
        () if below("/dev/shm") || below("/dev/mqueue") || below("/dev/pts") => Layer::Kin,
        () if below("/dev") || below("/proc") || below("/sys") => Layer::World,
        () => Layer::Files,
    }
}

fn is_mounted(file: BorrowedFd<'_>, flag: StatVfsMountFlags) -> bool {
    fstatvfs(file).is_ok_and(|system| system.f_flag.contains(flag))
}

/// The path at which the sandbox shows an open file.
fn name(file: BorrowedFd<'_>) -> String {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    readlinkat(CWD, link, Vec::new()).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
