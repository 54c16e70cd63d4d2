//! The sandbox's `/dev`: harmless nodes, its own terminals, and what the policy allows by name.
//!
//! Never makes a device node: the host's own are shown at the same path.

use std::{
    fs::{self, File},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use rustix::mount::MountAttrFlags;

use super::{
    init::{Building, Failure},
    mounts::{fresh, rebind},
};
use crate::layer::Layer;

/// Nodes that hold no state anybody could change.
const HARMLESS: &[&str] = &["null", "zero", "full", "random", "urandom", "tty"];

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
    let failed = |error: std::io::Error| Failure::io(&error, "/dev");
    fresh("tmpfs", &[("mode", "0755")], MountAttrFlags::MOUNT_ATTR_NOSUID, &dev)?;
    for name in HARMLESS {
        show_node(&Path::new("/dev").join(name), &dev.join(name))?;
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
        let errno = rustix::io::Errno::IO;
        Failure::new(errno, error.to_string())
    })?;
    for device in building.blueprint.devices {
        let inside = building.blueprint.point.join(device.strip_prefix("/").unwrap_or(device));
        if let Some(parent) = inside.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        show_node(device, &inside)?;
    }
    Ok(())
}

/// Shows one node; a host without it has none inside either.
fn show_node(node: &Path, inside: &Path) -> Result<(), Failure> {
    if !node.exists() {
        return Ok(());
    }
    File::create(inside).map_err(|error| Failure::io(&error, inside.display().to_string()))?;
    rebind(node, inside, false)
}
