//! Quiescing pools of threads: lets libraries end their own threads before the process is cloned.
//!
//! Libraries such as OpenBLAS register handlers with pthread_atfork(3) that end their pool before a fork; they start
//! it again when they need it. The C library runs these handlers in `fork` and nowhere else, so this forks a child that
//! ends at once. It is done only while other threads run, since it copies the page tables. Invariant: the host's own
//! waiting and SIGCHLD handler see nothing of that child.

use std::{io, time::Duration};

use crate::transplant;

/// How long a thread that was joined may take to leave the kernel's list.
const LEAVING: Duration = Duration::from_millis(50);

/// Lets libraries end their pools if other threads run; returns how many threads there are then.
///
/// # Errors
/// What fork(2) said.
pub fn quiesce() -> io::Result<usize> {
    let threads = transplant::count_threads()?;
    if threads <= 1 {
        return Ok(threads);
    }
    with_signals_blocked(run_fork_handlers)?;
    let mut waited = Duration::ZERO;
    loop {
        let threads = transplant::count_threads()?;
        if threads <= 1 || waited >= LEAVING {
            return Ok(threads);
        }
        std::thread::sleep(Duration::from_millis(1));
        waited += Duration::from_millis(1);
    }
}

fn empty_set() -> libc::sigset_t {
    // SAFETY: an all-zero set is a valid, empty one.
    unsafe { std::mem::zeroed() }
}

fn with_signals_blocked(action: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let (mut all, mut before) = (empty_set(), empty_set());
    // SAFETY: wants a set to write to.
    let _cannot_fail = unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: wants a set to read and one to write, which live on this stack.
    let _cannot_fail = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
    let done = action();
    // SAFETY: the set that the call before wrote.
    let _cannot_fail =
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    done
}

fn child_signal_pending() -> bool {
    let mut pending = empty_set();
    // SAFETY: wants a set to write to.
    let _cannot_fail = unsafe { libc::sigpending(&raw mut pending) };
    // SAFETY: wants an initialised set and a signal's number.
    unsafe { libc::sigismember(&raw const pending, libc::SIGCHLD) == 1 }
}

fn run_fork_handlers() -> io::Result<()> {
    let was_pending = child_signal_pending();
    // SAFETY: the child calls `_exit` and nothing else, which a child of a process with threads may.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends the child without running anything of the program's.
        unsafe { libc::_exit(0) };
    }
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: wants the number of a child that nobody else waits for, and allows a null status.
    while unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) } < 0 {
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            break;
        }
    }
    if !was_pending {
        take_child_signal();
    }
    Ok(())
}

/// Takes the child's SIGCHLD, which is blocked, before the host could see it.
fn take_child_signal() {
    let mut set = empty_set();
    // SAFETY: wants an initialised set and a signal's number.
    let _cannot_fail = unsafe { libc::sigaddset(&raw mut set, libc::SIGCHLD) };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: wants a set and a time to read; a null pointer instead of the details is allowed.
    let _none_if_ignored =
        unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const now) };
}
