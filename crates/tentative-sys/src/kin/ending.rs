//! Ending a forked process, and letting go of what it inherited.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::trap::trap;

/// Ends this process at once: no destructor, exit handler or buffer of the process it was forked from runs.
pub fn exit_now(status: i32) -> ! {
    loop {
        // SAFETY: takes a number and does not return.
        let _never = unsafe { trap(libc::SYS_exit_group, [status as usize, 0, 0, 0, 0, 0]) };
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
    unsafe { trap(libc::SYS_close_range, [first, last, 0, 0, 0, 0]) }?;
    Ok(())
}
