//! Signals as a descriptor (signalfd(2)): a runner waits for them beside everything else and forwards them.
//!
//! No handler ever runs.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::{
    raw::syscall,
    threads::state::{block, set_mask},
};

/// Size of the kernel's signal set in bytes.
const SIGNAL_SET_SIZE: usize = 8;
/// Size of `struct signalfd_siginfo`.
const INFO_SIZE: usize = 128;

/// Signals that arrive at a descriptor instead of interrupting; dropping it lets them interrupt again.
#[derive(Debug)]
pub struct SignalQueue {
    fd: OwnedFd,
    mask_before: u64,
}

impl SignalQueue {
    /// Takes the signals with these numbers.
    ///
    /// # Errors
    /// What signalfd(2) says.
    pub fn open(signals: &[i32]) -> Result<SignalQueue, Errno> {
        let set: u64 = signals.iter().fold(0, |set, signal| set | 1 << (signal - 1));
        let flags = (libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) as usize;
        let arguments = [usize::MAX, (&raw const set) as usize, SIGNAL_SET_SIZE, flags, 0, 0];
        // SAFETY: the kernel reads one set of eight bytes, which lives here.
        let fd = unsafe { syscall(libc::SYS_signalfd4, arguments) }?;
        // SAFETY: the kernel has just made this descriptor for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Ok(SignalQueue { fd, mask_before: block(set) })
    }

    /// The next signal that has arrived, by number.
    pub fn next_signal(&self) -> Option<i32> {
        let mut info = [0u8; INFO_SIZE];
        match rustix::io::read(&self.fd, &mut info) {
            Ok(INFO_SIZE) => Some(u32::from_ne_bytes([info[0], info[1], info[2], info[3]]) as i32),
            _ => None,
        }
    }
}

impl AsFd for SignalQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SignalQueue {
    fn drop(&mut self) {
        set_mask(self.mask_before);
    }
}
