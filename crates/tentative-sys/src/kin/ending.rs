//! Ending a forked process, and letting go of what it inherited.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::io::Errno;

use crate::raw::syscall;

/// Ends this process at once: no destructor, exit handler or buffer of the process it was forked from runs.
pub fn exit_now(status: i32) -> ! {
    loop {
        // SAFETY: takes a number and does not return.
        let _never = unsafe { syscall(libc::SYS_exit_group, [status as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Closes every descriptor from 3 on but one.
///
/// For a process that never returns to the frames that own them.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_all_but(keep: BorrowedFd<'_>) -> Result<(), Errno> {
    let keep = keep.as_raw_fd() as usize;
    if keep > 3 {
        close_range(3, keep - 1)?;
    }
    close_range(keep.max(2) + 1, u32::MAX as usize)
}

fn close_range(first: usize, last: usize) -> Result<(), Errno> {
    // SAFETY: takes numbers only; the callers never use the descriptors again.
    unsafe { syscall(libc::SYS_close_range, [first, last, 0, 0, 0, 0]) }?;
    Ok(())
}

/// Lends a descriptor that is known by its number; none when no such descriptor is open.
pub fn with_number<R>(number: RawFd, act: impl FnOnce(BorrowedFd<'_>) -> R) -> Option<R> {
    // SAFETY: fcntl(F_GETFD) takes numbers only.
    unsafe { syscall(libc::SYS_fcntl, [number as usize, libc::F_GETFD as usize, 0, 0, 0, 0]) }.ok()?;
    // SAFETY: it is open, as was just asked, and this crate's callers have one thread that closes nothing meanwhile.
    Some(act(unsafe { BorrowedFd::borrow_raw(number) }))
}

/// Closes a descriptor that was inherited and that nothing in this process owns.
///
/// # Errors
/// What close(2) says.
pub fn close_number(number: RawFd) -> Result<(), Errno> {
    // SAFETY: takes a number only; for a process that is about to execute a program.
    unsafe { syscall(libc::SYS_close, [number as usize, 0, 0, 0, 0, 0]) }?;
    Ok(())
}

/// Puts a copy of a descriptor at a number, which survives execve(2).
///
/// # Errors
/// What dup3(2) says.
pub fn duplicate_onto(fd: impl AsFd, number: RawFd) -> Result<(), Errno> {
    let fd = fd.as_fd().as_raw_fd() as usize;
    // SAFETY: takes numbers only; for a process that is about to execute a program.
    unsafe { syscall(libc::SYS_dup3, [fd, number as usize, 0, 0, 0, 0]) }?;
    Ok(())
}
