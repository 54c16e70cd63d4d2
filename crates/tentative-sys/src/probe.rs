//! Mechanisms tried out one at a time, in a process that was started for it and ends right after.
//!
//! Never called in a process that does anything else: it changes the namespaces of the caller for good.

use rustix::{
    io::Errno,
    thread::{UnshareFlags, unshare_unsafe},
};

/// Moves the calling process into new namespaces.
///
/// # Errors
///
/// What unshare(2) says: `EPERM`, `ENOSPC` at a limit, `EINVAL` where the kernel was built without one, or with several
/// threads.
pub fn enter_namespaces(flags: UnshareFlags) -> Result<(), Errno> {
    assert!(!flags.contains(UnshareFlags::FILES), "descriptor tables are not namespaces");
    // SAFETY: what makes it unsafe is unsharing the descriptor table, which the assertion above keeps out.
    unsafe { unshare_unsafe(flags) }
}

/// Makes a child with a chosen pid in the pid namespace for children, and waits until it has ended.
///
/// # Errors
///
/// What clone3(2) says: `EPERM` without the capability, `EEXIST` if the pid is taken, `ENOSYS` where clone3 is filtered.
pub fn child_with_pid(pid: i32) -> Result<(), Errno> {
    let wanted = [pid];
    let mut arguments = libc::clone_args {
        flags: 0,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: wanted.as_ptr() as u64,
        set_tid_size: 1,
        cgroup: 0,
    };
    let size = size_of::<libc::clone_args>();
    // SAFETY: the arguments live until the call returns and ask for a plain fork (no shared memory, no stack of its own);
    // the child makes no call but `_exit`, so locks that other threads held do not matter.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size) };
    match child {
        // SAFETY: `_exit` ends the child at once and touches no memory.
        0 => unsafe { libc::_exit(0) },
        -1 => Err(last_errno()),
        _ => {
            let child =
                rustix::process::Pid::from_raw(i32::try_from(child).unwrap_or(0)).ok_or(Errno::INVAL)?;
            rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty())?;
            Ok(())
        }
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
