//! The terminal's foreground group, and signal dispositions of a fresh child.
//!
//! Never waits: SIGTTOU is blocked while the foreground changes, so that a background caller is not stopped.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::{io::Errno, process::Pid, termios};

use crate::raw::syscall;

/// Size of the kernel's signal set in bytes.
const SIGNAL_SET_SIZE: usize = 8;

/// The foreground group of a terminal; none when it is another pid namespace's or there is none.
pub fn foreground_group(terminal: impl AsFd) -> Option<Pid> {
    termios::tcgetpgrp(terminal).ok()
}

/// Makes a group the foreground of a terminal, also from the background.
///
/// # Errors
/// What tcsetpgrp(3) says.
pub fn become_foreground(terminal: BorrowedFd<'_>, group: Pid) -> Result<(), Errno> {
    with_terminal_output_unblocked(|| termios::tcsetpgrp(terminal, group))
}

/// Runs `act` with SIGTTOU blocked, so that acting on a terminal from the background does not stop this process.
pub fn with_terminal_output_unblocked<R>(act: impl FnOnce() -> R) -> R {
    let blocked: u64 = 1 << (libc::SIGTTOU - 1);
    let mut before: u64 = 0;
    mask(libc::SIG_BLOCK, Some(&blocked), Some(&mut before));
    let result = act();
    mask(libc::SIG_SETMASK, Some(&before), None);
    result
}

/// Puts every signal back to its default and blocks none: for a child that is about to execute a program or that
/// lives on without the parent's handlers. `keep_ignored` leaves ignored signals ignored, as execve(2) does.
pub fn reset_signals(keep_ignored: bool) {
    for signal in 1..=64 {
        // [handler, flags, restorer, mask]
        let mut action = [0usize; 4];
        if keep_ignored {
            let arguments = [signal, 0, (&raw mut action) as usize, SIGNAL_SET_SIZE, 0, 0];
            // SAFETY: without a new action rt_sigaction(2) only writes the kernel's struct, of four words here.
            let answer = unsafe { syscall(libc::SYS_rt_sigaction, arguments) };
            if answer.is_err() || action[0] == libc::SIG_IGN {
                continue;
            }
        }
        let action = [libc::SIG_DFL, 0, 0, 0];
        let arguments = [signal, (&raw const action) as usize, 0, SIGNAL_SET_SIZE, 0, 0];
        // SAFETY: the default disposition runs no code of this process; SIGKILL and SIGSTOP say EINVAL, harmlessly.
        let _unchangeable = unsafe { syscall(libc::SYS_rt_sigaction, arguments) };
    }
    let none: u64 = 0;
    mask(libc::SIG_SETMASK, Some(&none), None);
}

/// Lets the kernel reap every child of this process unseen (SIGCHLD ignored).
pub fn ignore_children() {
    let action = [libc::SIG_IGN, 0, 0, 0];
    let arguments = [libc::SIGCHLD as usize, (&raw const action) as usize, 0, SIGNAL_SET_SIZE, 0, 0];
    // SAFETY: ignoring a signal runs no code of this process.
    let _cannot_fail = unsafe { syscall(libc::SYS_rt_sigaction, arguments) };
}

fn mask(how: i32, new: Option<&u64>, old: Option<&mut u64>) {
    let new = new.map_or(0, |set| core::ptr::from_ref(set) as usize);
    let old = old.map_or(0, |set| core::ptr::from_mut(set) as usize);
    // SAFETY: the kernel reads one set and writes one, of eight bytes each, where they are given.
    let _never_fails =
        unsafe { syscall(libc::SYS_rt_sigprocmask, [how as usize, new, old, SIGNAL_SET_SIZE, 0, 0]) };
}
