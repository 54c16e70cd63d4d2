//! Crash points: named places where a test kills the process, to prove that it may die there.
//!
//! Without the feature `crash-points` a point is nothing. With it, `TENTATIVE_CRASH_AT=name:N` kills the process by
//! SIGKILL when it comes to the point `name` for the N-th time; `*:N` counts every point. `TENTATIVE_CRASH_LOG=fd`
//! writes each name that is passed to that descriptor. A point never allocates or locks,
//! so it may stand in code that runs with raw system calls only.

/// Dies here when the environment says so; see the module.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

#[cfg(feature = "crash-points")]
pub use armed::point;

#[cfg(feature = "crash-points")]
mod armed {
    use std::{
        ffi::CStr,
        os::fd::BorrowedFd,
        sync::atomic::{AtomicU64, Ordering},
    };

    /// How many matching points this process has passed.
    static PASSED: AtomicU64 = AtomicU64::new(0);

    /// Dies here when the environment says so; see the module.
    pub fn point(name: &'static str) {
        log(name);
        let Some(wanted) = variable(c"TENTATIVE_CRASH_AT") else { return };
        let Some(colon) = wanted.iter().rposition(|byte| *byte == b':') else { return };
        let (at, number) = (&wanted[..colon], decimal(&wanted[colon + 1..]));
        if at != b"*" && at != name.as_bytes() {
            return;
        }
        if PASSED.fetch_add(1, Ordering::SeqCst) + 1 == number {
            // A failed kill would let a test pass that proved nothing: spin, so that its timeout tells.
            loop {
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
        }
    }

    fn log(name: &'static str) {
        let Some(number) = variable(c"TENTATIVE_CRASH_LOG") else { return };
        let number = i32::try_from(decimal(number)).unwrap_or(i32::MAX);
        // SAFETY: `borrow_raw` asks for a descriptor that stays open; the test that set the variable holds it open, and
        // a closed one only makes the write fail.
        let log = unsafe { BorrowedFd::borrow_raw(number) };
        // The log is the test's own; when it is gone there is nobody left to tell.
        let _ = rustix::io::write(log, name.as_bytes());
        let _ = rustix::io::write(log, b"\n");
    }

    fn variable(name: &CStr) -> Option<&'static [u8]> {
        // SAFETY: `getenv` asks for a terminated name, which a CStr is. Tests that set the variables do so before the
        // process starts, so the environment is not written meanwhile.
        let value = unsafe { libc::getenv(name.as_ptr()) };
        if value.is_null() {
            return None;
        }
        // SAFETY: `from_ptr` asks for a terminated string that lives; getenv returned one out of the environment.
        Some(unsafe { CStr::from_ptr(value) }.to_bytes())
    }

    fn decimal(digits: &[u8]) -> u64 {
        digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit.wrapping_sub(b'0')))
    }
}
