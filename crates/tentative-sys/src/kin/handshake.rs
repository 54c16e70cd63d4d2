//! The handshake with the monitor of a transaction around this one: a prctl(2) that the filter notifies.
//!
//! Without such a monitor the kernel does not know the number.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::raw::syscall;

/// The prctl option of the handshake; the pathway table names it too.
pub const HANDSHAKE: usize = 0x5454_4e54;

const ASK: usize = 1;
const JOIN: usize = 2;

/// Asks for a socket to the monitor around this process.
///
/// # Errors
/// `EINVAL` when there is none.
pub fn ask_monitor() -> Result<OwnedFd, Errno> {
    // SAFETY: takes numbers only; a kernel that is asked itself says EINVAL.
    let fd = unsafe { syscall(libc::SYS_prctl, [HANDSHAKE, ASK, 0, 0, 0, 0]) }?;
    // SAFETY: the monitor has just installed this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Joins, with this process and its descendants, the transaction whose runner got the socket.
///
/// # Errors
/// `EPERM` when the monitor does not know the socket.
pub fn join_monitor(socket: RawFd) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    unsafe { syscall(libc::SYS_prctl, [HANDSHAKE, JOIN, socket as usize, 0, 0, 0]) }?;
    Ok(())
}
