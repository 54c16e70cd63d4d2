//! The sandbox's `/dev`: harmless nodes, its own terminals, and what the policy allows by name.
//!
//! A privileged user's harmless nodes are made afresh, an ordinary user is shown the host's own.

use std::{
    fs::{self, File},
    io,
    ops::RangeInclusive,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, RawMode, ResolveFlags, chmodat, fstat, makedev, mknodat,
        openat, openat2, statat,
    },
    io::Errno,
    mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};
use tentative_sys::files::mount::set_read_only;

use super::{
    init::{Building, Failure},
    mounts::{fresh, rebind},
};
use crate::{files::plan::Privilege, layer::Layer};

/// Nodes that hold no state anybody could change, with their numbers (the kernel's admin-guide/devices.txt).
const HARMLESS: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Terminals: what they show is no change of a device.
const TERMINALS: &[(u32, RangeInclusive<u32>)] = &[(5, 0..=2), (136, 0..=u32::MAX)];

/// Whether opening a device changes nothing outside.
pub(crate) fn is_harmless(major: u32, minor: u32) -> bool {
    HARMLESS.iter().any(|(_, of, number)| (*of, *number) == (major, minor))
        || TERMINALS.iter().any(|(of, numbers)| *of == major && numbers.contains(&minor))
}

const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

pub(super) fn devices(building: &Building<'_>) -> Result<(), Failure> {
    let Some(plan) = building.blueprint.plan.filter(|_| building.blueprint.contains(Layer::Files)) else {
        return Ok(());
    };
    let dev = building.inside("/dev");
    let failed = |error: io::Error| Failure::io(&error, "/dev");
    lay_proc_below(building, &dev)?;
    fresh("tmpfs", &[("mode", "0755")], MountAttrFlags::MOUNT_ATTR_NOSUID, &dev)?;
    for (name, major, minor) in HARMLESS {
        let inside = dev.join(name);
        if building.blueprint.privilege == Privilege::User || make_node(&inside, *major, *minor).is_err() {
            show_node(&Path::new("/dev").join(name), &inside)?;
        }
    }
    for (name, target) in LINKS {
        symlink(target, dev.join(name)).map_err(failed)?;
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fresh("devpts", &[("ptmxmode", "0666"), ("mode", "0620")], attributes, &dev.join("pts"))?;
    let shared_memory = dev.join("shm");
    fs::create_dir(&shared_memory).map_err(failed)?;
    fs::set_permissions(&shared_memory, fs::Permissions::from_mode(0o1777)).map_err(failed)?;
    plan.mount_devices(building.blueprint.point).map_err(|error| {
        let errno = Errno::IO;
        Failure::new(errno, error.to_string())
    })?;
    for device in building.blueprint.devices {
        show_allowed(device, building.blueprint.point)
            .map_err(|errno| Failure::new(errno, format!("{}: {errno}", device.display())))?;
    }
    seal(&dev)
}

/// Lets nothing be made or changed in `/dev` itself: what is written to a device that is not there must not become a file.
fn seal(dev: &Path) -> Result<(), Failure> {
    let failed = |errno: Errno| Failure::new(errno, format!("{}: {errno}", dev.display()));
    let mount = openat(CWD, dev, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    set_read_only(&mount, false).map_err(failed)
}

/// Lays a whole `/proc` into a directory below `/dev`, where nobody can reach it: the kernel lets a user namespace made
/// inside mount a fresh `/proc` only if one without covers is there, and root's has some. It is read-only, so that a
/// fresh one has to be, too: root in a namespace of his own is root of the host where a setting asks who writes it.
fn lay_proc_below(building: &Building<'_>, dev: &Path) -> Result<(), Failure> {
    if building.blueprint.privilege == Privilege::User || !building.blueprint.contains(Layer::Kin) {
        return Ok(());
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    fresh("tmpfs", &[("mode", "0700")], attributes, dev)?;
    rebind(&building.inside("/proc"), &dev.join("proc"), true)
}

/// Makes one node, which costs a sixth of showing the host's.
fn make_node(inside: &Path, major: u32, minor: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, inside, FileType::CharacterDevice, mode, makedev(major, minor))?;
    // The builder's mask does not count for devices.
    chmodat(CWD, inside, mode, AtFlags::empty())
}

/// Shows one node; a host without it has none inside either.
fn show_node(node: &Path, inside: &Path) -> Result<(), Failure> {
    if !node.exists() {
        return Ok(());
    }
    File::create_new(inside).map_err(|error| Failure::io(&error, inside.display().to_string()))?;
    rebind(node, inside, false)
}

/// Shows a node that the policy allows. It is looked at again, by the descriptor that is shown: whatever else is shown here
/// is written to outside. Nothing is made but in the sandbox's own `/dev`, and no link is followed on the way.
fn show_allowed(device: &Path, point: &Path) -> Result<(), Errno> {
    let node = openat(CWD, device, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if !is_device(fstat(&node)?.st_mode) {
        return Err(Errno::NODEV);
    }
    let (Some(parent), Some(name)) = (device.parent(), device.file_name()) else { return Err(Errno::INVAL) };
    let parent = fs::canonicalize(parent).map_err(|error| errno_of(&error))?;
    let below = parent.strip_prefix("/").unwrap_or(&parent);
    let is_own = parent.starts_with("/dev");
    if is_own {
        fs::create_dir_all(point.join(below)).map_err(|error| errno_of(&error))?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, point, flags, Mode::empty())?;
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let directory = openat2(&root, below, flags, Mode::empty(), resolve)?;
    match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) if is_device(there.st_mode) => {}
        Err(Errno::NOENT) if is_own => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(&directory, name, flags, Mode::empty())?;
        }
        other => return other.and(Err(Errno::EXIST)),
    }
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&node, "", flags)?;
    move_mount(&tree, "", &directory, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn is_device(mode: RawMode) -> bool {
    matches!(FileType::from_raw_mode(mode), FileType::CharacterDevice | FileType::BlockDevice)
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
