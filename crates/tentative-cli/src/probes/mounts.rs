//! Mounts: the new mount calls, and an overlay of the kind that covers file systems, on the store's own file system.

use std::{fs, os::unix::fs::FileTypeExt, path::Path};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
        fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
        open_tree,
    },
    thread::UnshareFlags,
};
use tentative_sys::probe::enter_namespaces;

use super::{Failure, Need, Probe, namespaces::enter_user_namespace, remedy, store::Scratch};

/// fsopen, fsmount, open_tree and move_mount.
pub(super) const MOUNT_API: Probe = Probe {
    name: "mount-api",
    title: "mount calls (fsopen, open_tree, move_mount)",
    need: Need::Required,
    attempt: |store| {
        let scratch = Scratch::make(store)?;
        enter_mount_namespace()?;
        let tmpfs = mounted("tmpfs", &[]).map_err(|errno| refused("mount a tmpfs", errno))?;
        attach(&tmpfs, scratch.path()).map_err(|errno| refused("attach it", errno))?;
        open_tree(CWD, scratch.path(), OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
            .map_err(|errno| refused("copy a mount", errno))?;
        Ok("a tmpfs was mounted, attached and copied".to_owned())
    },
};

/// An overlay with `userxattr`, with its upper directory in the store.
pub(super) const OVERLAY: Probe = Probe {
    name: "overlay",
    title: "overlay with userxattr on the store's file system",
    need: Need::Required,
    attempt: |store| {
        let scratch = Scratch::make(store)?;
        let [lower, upper, work, merged] =
            ["lower", "upper", "work", "merged"].map(|name| scratch.path().join(name));
        for directory in [&lower, &upper, &work, &merged] {
            fs::create_dir(directory).map_err(|error| step("make directories", &error))?;
        }
        fs::write(lower.join("kept"), "lower").map_err(|error| step("write a file", &error))?;
        fs::write(lower.join("deleted"), "lower").map_err(|error| step("write a file", &error))?;
        enter_mount_namespace()?;
        let options = [("lowerdir", &lower), ("upperdir", &upper), ("workdir", &work)];
        let options = options.map(|(key, path)| (key, path.to_string_lossy().into_owned()));
        let overlay = mounted("overlay", &options).map_err(|errno| no_overlay("mount it", errno))?;
        attach(&overlay, &merged).map_err(|errno| no_overlay("attach it", errno))?;
        fs::write(merged.join("kept"), "upper").map_err(|error| step("write through it", &error))?;
        fs::remove_file(merged.join("deleted")).map_err(|error| step("delete through it", &error))?;
        let whiteout = fs::symlink_metadata(upper.join("deleted"))
            .is_ok_and(|metadata| metadata.file_type().is_char_device());
        let below = fs::read_to_string(lower.join("kept")).unwrap_or_default();
        if whiteout && below == "lower" {
            Ok("a file was changed and one deleted without touching those below".to_owned())
        } else {
            Err(Failure { found: "its upper directory does not show the changes".to_owned(), remedy: None })
        }
    },
};

fn enter_mount_namespace() -> Result<(), Failure> {
    enter_user_namespace()?;
    enter_namespaces(UnshareFlags::NEWNS).map_err(|errno| refused("enter a mount namespace", errno))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|errno| refused("make mounts private", errno))
}

/// A new mount of a file system type, attached nowhere yet.
fn mounted(kind: &str, options: &[(&str, String)]) -> Result<std::os::fd::OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, value.as_str())?;
    }
    if kind == "overlay" {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn attach(mount: &std::os::fd::OwnedFd, at: &Path) -> Result<(), Errno> {
    move_mount(mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

fn refused(doing: &str, errno: Errno) -> Failure {
    let failure = Failure::step(doing, errno);
    match errno {
        Errno::NOSYS => failure.remedy("this kernel lacks it: Linux 6.1 or newer is needed"),
        _ => match remedy::user_namespaces(errno) {
            Some(remedy) => failure.remedy(remedy),
            None => failure,
        },
    }
}

fn no_overlay(doing: &str, errno: Errno) -> Failure {
    let failure = Failure::step(doing, errno);
    match errno {
        Errno::NODEV => failure.remedy("as root: modprobe overlay"),
        Errno::INVAL => failure.remedy(
            "the store's file system cannot hold an overlay's upper directory: set TENTATIVE_HOME to a directory on \
             ext4, xfs, btrfs or tmpfs",
        ),
        _ => refused(doing, errno),
    }
}

fn step(doing: &str, error: &std::io::Error) -> Failure {
    Failure::step(doing, Errno::from_io_error(error).unwrap_or(Errno::IO))
}
