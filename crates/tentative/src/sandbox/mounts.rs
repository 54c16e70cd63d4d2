//! The sandbox's file system tree: covers, `/proc`, `/sys`, kernel settings, and the change of root.
//!
//! Runs in init, in a mount namespace of its own. It never changes a mount outside: every mount was made private first.

use std::{
    error::Error as _,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};
use tentative_sys::files::mount::set_read_only;

use super::init::{Building, Failure};
use crate::{files::plan::Privilege, layer::Layer};

/// Kernel settings and controls in `/proc` that belong to the whole host.
const HOST_SETTINGS: &[&str] = &["sys", "sysrq-trigger", "irq", "bus", "fs", "scsi", "acpi", "mtrr"];

const LOW_PORTS: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

impl Building<'_> {
    /// A path of the sandbox, where it is while building.
    pub(super) fn inside(&self, path: &str) -> PathBuf {
        match self.blueprint.contains(Layer::Files) {
            true => self.blueprint.point.join(path.trim_start_matches('/')),
            false => PathBuf::from(path),
        }
    }
}

pub(super) fn covers(building: &Building<'_>) -> Result<(), Failure> {
    let Some(plan) = building.blueprint.plan.filter(|_| building.blueprint.contains(Layer::Files)) else {
        return Ok(());
    };
    plan.mount(building.blueprint.point).map_err(|error| {
        let errno = error.source().and_then(|source| source.downcast_ref::<Errno>()).copied();
        let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        let errno = errno.or_else(|| io.and_then(Errno::from_io_error)).unwrap_or(Errno::IO);
        Failure::new(errno, format!("{error}: {errno}"))
    })
}

pub(super) fn proc(building: &Building<'_>) -> Result<(), Failure> {
    let target = building.inside("/proc");
    if building.blueprint.contains(Layer::Kin) {
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        return match fresh("proc", &[], attributes, &target) {
            // Inside another sandbox of root's.
            Err(Failure { errno: Errno::PERM, .. }) => {
                fresh("proc", &[], attributes | MountAttrFlags::MOUNT_ATTR_RDONLY, &target)
            }
            other => other,
        };
    }
    if building.blueprint.contains(Layer::Files) {
        return rebind(Path::new("/proc"), &target, false);
    }
    Ok(())
}

pub(super) fn sys(building: &Building<'_>) -> Result<(), Failure> {
    if building.blueprint.contains(Layer::Files) && Path::new("/sys/kernel").exists() {
        return rebind(Path::new("/sys"), &building.inside("/sys"), true);
    }
    Ok(())
}

/// Makes the host's settings in `/proc` read-only for root; an ordinary user cannot write them anyway.
pub(super) fn settings(building: &Building<'_>) -> Result<(), Failure> {
    let fresh = building.blueprint.contains(Layer::Kin) || building.blueprint.contains(Layer::Files);
    if building.blueprint.privilege == Privilege::User || !fresh {
        return Ok(());
    }
    for name in HOST_SETTINGS {
        let path = building.inside("/proc").join(name);
        match copy_of(&path, true) {
            // This kernel has no such setting.
            Err(Failure { errno: Errno::NOENT, .. }) => {}
            tree => attach(&tree?, &path)?,
        }
    }
    Ok(())
}

pub(super) fn allow_low_ports() -> Result<(), Failure> {
    match fs::write(LOW_PORTS, "0") {
        // A kernel without the setting has no low ports to allow.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|error| Failure::io(&error, LOW_PORTS)),
    }
}

pub(super) fn pivot(building: &Building<'_>) -> Result<(), Failure> {
    if !building.blueprint.contains(Layer::Files) {
        return Ok(());
    }
    rustix::process::chdir(building.blueprint.point)?;
    // The old root is stacked below the new one and let go: no directory is needed for it (pivot_root(2)).
    rustix::process::pivot_root(".", ".").map_err(|errno| Failure::new(errno, "pivot_root"))?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(|errno| Failure::new(errno, "the old root"))?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// Mounts a fresh instance of a kernel file system.
pub(super) fn fresh(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
    target: &Path,
) -> Result<(), Failure> {
    let failed = |errno: Errno| Failure::new(errno, format!("{kind} on {}: {errno}", target.display()));
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed)?;
    fsconfig_set_string(&context, "source", "tentative").map_err(failed)?;
    for (option, value) in options {
        fsconfig_set_string(&context, *option, *value).map_err(failed)?;
    }
    fsconfig_create(&context).map_err(failed)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(failed)?;
    make_directory(target)?;
    move_mount(&mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(failed)
}

/// Shows a tree of the outside at a path of the sandbox, read-only or as it is.
pub(super) fn rebind(source: &Path, target: &Path, read_only: bool) -> Result<(), Failure> {
    let tree = copy_of(source, read_only)?;
    if source.is_dir() {
        make_directory(target)?;
    }
    attach(&tree, target)
}

fn copy_of(source: &Path, read_only: bool) -> Result<OwnedFd, Failure> {
    let failed = |errno: Errno| Failure::new(errno, format!("{}: {errno}", source.display()));
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, source, flags).map_err(failed)?;
    if read_only {
        set_read_only(&tree, true).map_err(failed)?;
    }
    Ok(tree)
}

fn attach(tree: &OwnedFd, target: &Path) -> Result<(), Failure> {
    move_mount(tree, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|errno| Failure::new(errno, format!("{}: {errno}", target.display())))
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists && !path.is_dir() => {
            Err(Failure::io(&error, path.display().to_string()))
        }
        _ => Ok(()),
    }
}
