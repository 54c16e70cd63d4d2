//! What an interpreter wants before and after its process is cloned: empty buffers and its fork handlers.
//!
//! The limited API has no `PyOS_BeforeFork`, but every CPython exports it, so it is looked up in the process.
//! `PyOS_AfterFork_Child` is never called: it would reset threading, locks and random numbers, and a commit would
//! carry that over. Invariant: each `before` is followed by one `after` in every process in which `begin` returns.

use std::ffi::{CStr, c_void};

use pyo3::prelude::*;

/// The interpreter's two handlers.
#[derive(Clone, Copy)]
pub(crate) struct ForkHandlers {
    before: unsafe extern "C" fn(),
    after_in_parent: unsafe extern "C" fn(),
}

fn look_up(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: dlsym wants a NUL-terminated name and a handle; RTLD_DEFAULT is one.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

fn handler(name: &CStr) -> Option<unsafe extern "C" fn()> {
    let address = look_up(name)?;
    // SAFETY: CPython declares both as `void f(void)` in every version since 3.7.
    Some(unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn()>(address) })
}

impl ForkHandlers {
    /// Finds them; an interpreter without them cannot be cloned.
    pub(crate) fn find() -> Option<ForkHandlers> {
        let (before, after_in_parent) = (handler(c"PyOS_BeforeFork")?, handler(c"PyOS_AfterFork_Parent")?);
        Some(ForkHandlers { before, after_in_parent })
    }

    /// Runs the handlers of `os.register_at_fork(before=…)`, takes the interpreter's locks, and lets the libraries'
    /// pools of threads end.
    pub(crate) fn before(self, _py: Python<'_>) {
        // SAFETY: wants the interpreter's lock, which the token proves.
        unsafe { (self.before)() };
        // What still runs, or why that is not known, is said by the transaction's own check.
        let _checked_later = tentative_sys::threads::quiesce::quiesce();
    }

    /// Releases the locks and runs the handlers of `after_in_parent=…`.
    pub(crate) fn after_in_parent(self, _py: Python<'_>) {
        // SAFETY: wants the interpreter's lock and a `before` in this process's past; `begin` and `commit` pair them.
        unsafe { (self.after_in_parent)() };
    }
}

/// Writes out what Python and C hold in the buffers of the standard streams, so that nothing appears twice.
pub(crate) fn flush(py: Python<'_>) {
    if let Ok(sys) = py.import("sys") {
        for stream in ["stdout", "stderr", "__stdout__", "__stderr__"] {
            // A stream that is closed, None or broken has nothing that could appear twice.
            let _nothing_to_flush = sys.getattr(stream).and_then(|stream| stream.call_method0("flush"));
        }
    }
    // SAFETY: fflush with a null pointer flushes every output stream of the C library.
    let _as_far_as_it_goes = unsafe { libc::fflush(std::ptr::null_mut()) };
}
