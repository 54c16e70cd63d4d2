//! Attributes of one mount (`mount_setattr(2)`, Linux 5.12).

use std::{
    ffi::CStr,
    os::fd::{AsFd, AsRawFd},
};

use rustix::io::Errno;

/// `struct mount_attr`.
#[repr(C)]
struct Attributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

const _: () = assert!(size_of::<Attributes>() == 32);

/// `MOUNT_ATTR_RDONLY`.
const READ_ONLY: u64 = 1;
/// `MOUNT_ATTR_NODEV`.
const NO_DEVICES: u64 = 4;

/// Makes the mount that `mount` refers to (a descriptor from `open_tree` or `fsmount`) read-only: it alone, or with
/// every mount below it.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN over the mount namespace, `ENOSYS` before Linux 5.12.
pub fn set_read_only<Fd: AsFd>(mount: Fd, recursive: bool) -> Result<(), Errno> {
    set(mount, READ_ONLY, recursive)
}

/// Lets no device be opened through the mount that `mount` refers to: it alone, or every mount below it, too.
///
/// # Errors
/// As [`set_read_only`].
pub fn deny_devices<Fd: AsFd>(mount: Fd, recursive: bool) -> Result<(), Errno> {
    set(mount, NO_DEVICES, recursive)
}

fn set<Fd: AsFd>(mount: Fd, attributes: u64, recursive: bool) -> Result<(), Errno> {
    let attributes = Attributes { set: attributes, clear: 0, propagation: 0, user_namespace: 0 };
    let empty: &CStr = c"";
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: mount_setattr wants a terminated path and a `mount_attr` of the size given: `Attributes` has its layout.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(crate::files::last_errno()) }
}
