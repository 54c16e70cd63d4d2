//! Mechanisms tried out one at a time, in a process that was started for it and ends right after.
//!
//! Never called in a process that does anything else: it changes the namespaces of the caller for good.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::{
    io::Errno,
    thread::{UnshareFlags, unshare_unsafe},
};

use crate::{
    memory::{PAGE, maps::Vma, marks, pages::Entry},
    raw,
    world::{Answer, Instruction, add_fd, install_filter_raw, receive, respond},
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

/// The step at which a filter with a listener failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerError {
    /// Installing it; `EBUSY` when a filter with a listener is on this process already.
    Install(Errno),
    /// Receiving the call.
    Receive(Errno),
    /// Handing a descriptor to the caller.
    HandOver(Errno),
    /// Answering the call.
    Answer(Errno),
    /// The caller did not get the answer, or not the descriptor.
    Lost,
}

/// Puts a filter on a thread of its own, receives the one call that it notifies, hands that thread a descriptor and
/// answers with a number.
///
/// # Errors
///
/// The step that failed.
pub fn listener_round_trip() -> Result<(), ListenerError> {
    const ANSWER: i32 = 4711;
    const TARGET: i32 = 200;
    let (to_us, from_filtered) = std::sync::mpsc::channel();
    let filtered = std::thread::spawn(move || {
        // What was sent cannot get lost: the other end waits for it.
        let _ = to_us.send(install_filter_raw(&notify_one_call()));
        rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get())
    });
    let listener = from_filtered.recv().map_err(|_| ListenerError::Lost)?.map_err(ListenerError::Install)?;
    // SAFETY: the kernel has just made this descriptor for the thread above, which shares our table and leaves it to us.
    let listener = unsafe { OwnedFd::from_raw_fd(listener) };
    let call = receive(&listener).map_err(ListenerError::Receive)?;
    let handed = add_fd(&listener, call.id, listener.as_fd(), TARGET, true).map_err(ListenerError::HandOver);
    // Answered whatever became of the descriptor, so that the thread comes to its end.
    respond(&listener, call.id, Answer::Value(i64::from(ANSWER))).map_err(ListenerError::Answer)?;
    let answered = filtered.join().map_err(|_| ListenerError::Lost)?;
    handed?;
    // SAFETY: the descriptor was installed at this number just now and nobody else knows of it.
    drop(unsafe { OwnedFd::from_raw_fd(TARGET) });
    if answered == Some(ANSWER) { Ok(()) } else { Err(ListenerError::Lost) }
}

/// Notifies `getppid` and lets everything else pass.
fn notify_one_call() -> [Instruction; 4] {
    let instruction =
        |code, jump_true, jump_false, operand| Instruction { code, jump_true, jump_false, operand };
    [
        // Load the call's number, which is the first word of what a filter sees.
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 0, 1, libc::SYS_getppid as u32),
        instruction(0x06, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        instruction(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

/// The step at which write protection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarksError {
    /// Opening a userfaultfd with asynchronous write protection.
    Open(Errno),
    /// Mapping memory to try it on, or reading the page map.
    Prepare(Errno),
    /// Marking pages.
    Arm(Errno),
    /// A written page kept its mark, or one that was not written lost it.
    Wrong,
}

/// Marks two pages, writes one of them, and looks at which mark is left.
///
/// # Errors
///
/// The step that failed.
pub fn marks_round_trip() -> Result<(), MarksError> {
    let fd = marks::open().map_err(MarksError::Open)?;
    // SAFETY: the kernel has just made this descriptor for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let pagemap = std::fs::File::open("/proc/self/pagemap")
        .map_err(|error| MarksError::Prepare(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    let length = 2 * PAGE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice replaces nothing.
    let start = unsafe { raw::mmap(0, length, protection, flags, -1, 0) }.map_err(MarksError::Prepare)?;
    let vma = Vma { start, end: start + length, protection, ..Vma::default() };
    marks::arm(fd.as_raw_fd() as usize, pagemap.as_raw_fd() as usize, &vma).map_err(MarksError::Arm)?;
    // SAFETY: the address is the first byte of the mapping made above, readable and writable, known to nobody else.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(start).write_volatile(1) };
    let mut entries = [0_u64; 2];
    let read = raw::pread_words(pagemap.as_raw_fd() as usize, &mut entries, start / PAGE * 8);
    // SAFETY: the mapping was made above and nothing refers to it any more.
    let unmapped = unsafe { raw::munmap(start, length) };
    read.and(unmapped).map_err(MarksError::Prepare)?;
    let [written, untouched] = entries.map(|entry| Entry(entry).marked());
    if !written && untouched { Ok(()) } else { Err(MarksError::Wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_answered_through_the_listener() {
        // A machine under a foreign listener says so, which is the other thing that this is for.
        assert!(matches!(listener_round_trip(), Ok(()) | Err(ListenerError::Install(Errno::BUSY))));
    }

    #[test]
    fn a_written_page_loses_its_mark() {
        // Kernels before 6.7 do not have it, and say so when it is opened.
        assert!(matches!(marks_round_trip(), Ok(()) | Err(MarksError::Open(_))));
    }
}
