//! Ending the calling process by a signal, so that whoever waits for it sees what it would have seen of the program that
//! was run.
//!
//! Never returns to code that could go on half-ended: if the signal does not end the process, the caller gets to know.

use rustix::process::{Resource, Rlimit, Signal, getpid, kill_process, setrlimit};

/// Ends the calling process by a signal, without leaving a core file of it.
///
/// Returns only if the signal did not end it: its number is none that does.
pub fn end_by_signal(number: i32) {
    // The core file that matters was written by the program that got the signal first.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // A limit that cannot be set costs a core file too many, which is no reason to end otherwise.
    let _ = setrlimit(Resource::Core, none);
    restore_default(number);
    if let Some(signal) = Signal::from_named_raw(number) {
        // Fails only for a signal number that the kernel does not know; then the caller ends by status.
        let _ = kill_process(getpid(), signal);
    }
}

fn restore_default(number: i32) {
    // SAFETY: `signal` with SIG_DFL installs no handler; a number that is no signal is refused with EINVAL.
    unsafe { libc::signal(number, libc::SIG_DFL) };
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is to memory of the right size and alignment, which `sigemptyset` fills.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: the set was filled above; a number that is no signal is refused with EINVAL.
    unsafe { libc::sigaddset(set.as_mut_ptr(), number) };
    // SAFETY: the set was filled above, and the old mask is not asked for, which a null pointer says.
    unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_do_not_end_a_process_return() {
        end_by_signal(libc::SIGCONT);
        end_by_signal(0);
    }
}
