//! The terminal's foreground group and settings, and signal dispositions of a fresh child.
//!
//! Never waits: SIGTTOU is blocked while the foreground changes, so that a background caller is not stopped. What says
//! raw neither allocates nor touches errno, for whoever shares or copies another process's memory.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::{io::Errno, process::Pid};

use crate::{
    raw::syscall,
    threads::state::{Action, SIGNALS, action, block, set_action, set_mask},
};

/// The foreground group of a terminal; none when it is another pid namespace's or there is none.
pub fn foreground_group(terminal: impl AsFd) -> Option<Pid> {
    foreground_group_raw(terminal.as_fd().as_raw_fd()).ok().and_then(Pid::from_raw)
}

/// Makes a group the foreground of a terminal, also from the background.
///
/// # Errors
/// What tcsetpgrp(3) says.
pub fn become_foreground(terminal: BorrowedFd<'_>, group: Pid) -> Result<(), Errno> {
    become_foreground_raw(terminal.as_raw_fd(), group.as_raw_pid())
}

/// The number of a terminal's foreground group; zero when it is another pid namespace's.
pub(crate) fn foreground_group_raw(terminal: i32) -> Result<i32, Errno> {
    let mut group = 0i32;
    let pointer = (&raw mut group) as usize;
    // SAFETY: the kernel writes one process id.
    unsafe { syscall(libc::SYS_ioctl, [terminal as usize, libc::TIOCGPGRP as usize, pointer, 0, 0, 0]) }?;
    Ok(group)
}

/// Makes a group the foreground of a terminal, also from the background.
pub(crate) fn become_foreground_raw(terminal: i32, group: i32) -> Result<(), Errno> {
    let pointer = (&raw const group) as usize;
    // SAFETY: the kernel reads one process id.
    unsafe { set(terminal, libc::TIOCSPGRP as usize, pointer) }
}

/// Sets something of a terminal without being stopped for it in the background.
///
/// # Safety
/// The pointer is to what the request reads.
unsafe fn set(terminal: i32, request: usize, pointer: usize) -> Result<(), Errno> {
    let mask = block(1 << (libc::SIGTTOU - 1));
    // SAFETY: the caller's promise.
    let done = unsafe { syscall(libc::SYS_ioctl, [terminal as usize, request, pointer, 0, 0, 0]) };
    set_mask(mask);
    done.map(drop)
}

/// `struct termios2`.
type Settings = [u8; 44];

/// The settings of terminals: whoever has one open has the same, so a rollback puts them back.
#[derive(Debug, Default)]
pub struct Terminals(Vec<(i32, Settings)>);

impl Terminals {
    /// Reads those of the terminals among some descriptors.
    #[must_use]
    pub fn capture(numbers: impl Iterator<Item = i32>) -> Terminals {
        Terminals(numbers.filter_map(|number| Some((number, settings(number)?))).collect())
    }

    /// Puts them back where they are others now, also from the background.
    pub fn restore(&self) {
        for (number, before) in self.0.iter().filter(|(number, before)| settings(*number) != Some(*before)) {
            let pointer = before.as_ptr() as usize;
            // SAFETY: the kernel reads one structure of the size that is in the call's number.
            let _hung_up = unsafe { set(*number, libc::TCSETS2 as usize, pointer) };
        }
    }
}

/// The settings of a descriptor's terminal; none for what is no terminal.
fn settings(number: i32) -> Option<Settings> {
    let mut settings: Settings = [0; 44];
    let pointer = settings.as_mut_ptr() as usize;
    // SAFETY: the kernel writes one structure of the size that is in the call's number.
    let read =
        unsafe { syscall(libc::SYS_ioctl, [number as usize, libc::TCGETS2 as usize, pointer, 0, 0, 0]) };
    read.is_ok().then_some(settings)
}

/// Puts every signal back to its default and blocks none: for a child that is about to execute a program or that
/// lives on without the parent's handlers. `keep_ignored` leaves ignored signals ignored, as execve(2) does.
pub fn reset_signals(keep_ignored: bool) {
    for signal in 1..=SIGNALS {
        if !keep_ignored || action(signal).handler != libc::SIG_IGN {
            set_action(signal, &Action::default());
        }
    }
    set_mask(0);
}

/// Lets the kernel reap every child of this process unseen (SIGCHLD ignored).
pub fn ignore_children() {
    set_action(libc::SIGCHLD as usize, &Action { handler: libc::SIG_IGN, ..Action::default() });
}
