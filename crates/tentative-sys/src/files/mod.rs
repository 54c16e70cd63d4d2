//! Raw mechanisms of the file layer that rustix does not wrap: file handles, leases, locks, mount attributes.

pub mod handle;
pub mod lease;
pub mod lock;
pub mod mount;

use rustix::io::Errno;

/// The error of the libc call just made.
fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error())
        .expect("a failed libc call leaves a number in errno")
}
