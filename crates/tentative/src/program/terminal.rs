//! The controlling terminal: handed to the program while it runs in the foreground, and taken back.
//!
//! A runner in the background never takes the terminal.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    process::{Pid, getpgrp},
};
use tentative_sys::kin::{become_foreground, foreground_group};

/// The controlling terminal of the runner.
pub(super) struct Terminal {
    fd: OwnedFd,
    own_group: Pid,
    /// Whether the runner had it when it began.
    was_foreground: bool,
}

impl Terminal {
    /// The controlling terminal; none without one.
    pub(super) fn open() -> Option<Terminal> {
        let fd = openat(CWD, "/dev/tty", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let own_group = getpgrp();
        let was_foreground = foreground_group(&fd) == Some(own_group);
        Some(Terminal { fd, own_group, was_foreground })
    }

    /// Gives the foreground to a group of the program, if the runner had it when it began.
    pub(super) fn hand_over(&self, group: Pid) {
        if self.was_foreground {
            // A terminal that hung up meanwhile has no foreground to give.
            let _hung_up = become_foreground(self.fd.as_fd(), group);
        }
    }

    /// Gives the foreground to the program again after the runner was continued in it.
    pub(super) fn hand_over_again(&self, group: Pid) {
        if foreground_group(&self.fd) == Some(self.own_group) {
            let _hung_up = become_foreground(self.fd.as_fd(), group);
        }
    }

    /// Takes the foreground back, if it was given.
    pub(super) fn take_back(&self) {
        if self.was_foreground && foreground_group(&self.fd) != Some(self.own_group) {
            let _hung_up = become_foreground(self.fd.as_fd(), self.own_group);
        }
    }
}
