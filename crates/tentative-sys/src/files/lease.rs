//! Write leases as a question: does anybody else have this file open? Never keeps a lease.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// The answer to [`is_open_elsewhere`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenElsewhere {
    /// Nobody else has it open or mapped.
    No,
    /// Somebody has.
    Yes,
    /// The kernel does not tell this caller (not the owner and without CAP_LEASE), or the file system has no leases.
    Unknown,
}

/// Asks whether anybody but this descriptor (opened for reading only) has the regular file open or mapped.
///
/// The kernel grants a write lease exactly when nobody else does (`fcntl(2)`, F_SETLEASE). It is given back at once.
pub fn is_open_elsewhere<Fd: AsFd>(file: Fd) -> OpenElsewhere {
    let raw = file.as_fd().as_raw_fd();
    // SAFETY: F_SETLEASE takes an int and touches no memory of the caller.
    let taken = unsafe { libc::fcntl(raw, libc::F_SETLEASE, libc::F_WRLCK) };
    if taken != 0 {
        return match crate::files::last_errno() {
            Errno::AGAIN => OpenElsewhere::Yes,
            _ => OpenElsewhere::Unknown,
        };
    }
    // SAFETY: as above. Releasing a lease that was just taken cannot fail, and closing the descriptor releases it too.
    unsafe { libc::fcntl(raw, libc::F_SETLEASE, libc::F_UNLCK) };
    OpenElsewhere::No
}
