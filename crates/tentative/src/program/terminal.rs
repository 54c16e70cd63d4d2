//! The controlling terminal: handed to the program while it runs in the foreground, and taken back.
//!
//! A runner in the background never takes the terminal.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    process::Pid,
};
use tentative_sys::kin::{become_foreground, foreground_group, group_of};

/// The controlling terminal of the runner.
pub(super) struct Terminal {
    fd: OwnedFd,
    /// None when an outer pid namespace numbers it.
    own_group: Option<Pid>,
    /// Whether the runner had it when it began.
    was_foreground: bool,
}

impl Terminal {
    /// The controlling terminal; none without one.
    pub(super) fn open() -> Option<Terminal> {
        let fd = openat(CWD, "/dev/tty", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let own_group = group_of(0).ok().and_then(Pid::from_raw);
        let was_foreground = own_group.is_some() && foreground_group(&fd) == own_group;
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
        if self.own_group.is_some() && foreground_group(&self.fd) == self.own_group {
            let _hung_up = become_foreground(self.fd.as_fd(), group);
        }
    }

    /// Takes the foreground back, if it was given.
    pub(super) fn take_back(&self) {
        let Some(own) = self.own_group.filter(|_| self.was_foreground) else { return };
        if foreground_group(&self.fd) != Some(own) {
            let _hung_up = become_foreground(self.fd.as_fd(), own);
        }
    }
}
