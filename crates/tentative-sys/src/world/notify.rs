//! Notifications of a filter's listener: receive, answer, hand over a descriptor. See seccomp_unotify(2).
//!
//! Never interprets a notification.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use rustix::io::Errno;

use crate::raw::syscall;

/// One system call that waits for the monitor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// Names the waiting call.
    pub id: u64,
    /// The calling thread, as the reader's pid namespace numbers it; 0 when it is not in there.
    pub tid: u32,
    /// None yet.
    pub flags: u32,
    /// Number of the system call.
    pub number: i32,
    /// Audit architecture of the call.
    pub architecture: u32,
    /// Instruction pointer.
    pub instruction_pointer: u64,
    /// The six arguments.
    pub arguments: [u64; 6],
}

const _: () = assert!(size_of::<Notification>() == 80);

/// What a waiting call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel goes on with the call.
    Continue,
    /// The call returns this value.
    Value(i64),
    /// The call fails.
    Error(Errno),
}

#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

#[repr(C)]
struct AddFd {
    id: u64,
    flags: u32,
    source: u32,
    target: u32,
    target_flags: u32,
}

const _: () = assert!(size_of::<Response>() == 24);
const _: () = assert!(size_of::<AddFd>() == 24);

const FLAG_CONTINUE: u32 = 1;
const ADDFD_SETFD: u32 = 1;

const fn request(direction: u32, number: u32, size: usize) -> usize {
    ((direction << 30) | ((size as u32) << 16) | ((b'!' as u32) << 8) | number) as usize
}

const RECEIVE: usize = request(3, 0, size_of::<Notification>());
const SEND: usize = request(3, 1, size_of::<Response>());
const ID_VALID: usize = request(1, 2, 8);
const ADD_FD: usize = request(1, 3, size_of::<AddFd>());
const SET_FLAGS: usize = request(1, 4, 8);

/// Takes the next waiting call; blocks while there is none.
///
/// # Errors
/// `ENOENT` when the caller was killed meanwhile, else what ioctl(2) says.
pub fn receive(listener: impl AsFd) -> Result<Notification, Errno> {
    let mut notification = Notification::default();
    control(listener.as_fd(), RECEIVE, (&raw mut notification) as usize)?;
    Ok(notification)
}

/// Answers a waiting call.
///
/// # Errors
/// `ENOENT` when the caller is gone.
pub fn respond(listener: impl AsFd, id: u64, answer: Answer) -> Result<(), Errno> {
    let response = match answer {
        Answer::Continue => Response { id, value: 0, error: 0, flags: FLAG_CONTINUE },
        Answer::Value(value) => Response { id, value, error: 0, flags: 0 },
        Answer::Error(error) => Response { id, value: 0, error: -error.raw_os_error(), flags: 0 },
    };
    control(listener.as_fd(), SEND, (&raw const response) as usize).map(|_| ())
}

/// Whether the call still waits: what was read through the caller's pid since then was really the caller's.
pub fn is_waiting(listener: impl AsFd, id: u64) -> bool {
    control(listener.as_fd(), ID_VALID, (&raw const id) as usize).is_ok()
}

/// Installs a copy of `fd` in the caller, over `target`.
///
/// # Errors
/// `ENOENT` when the caller is gone, `EBADF` when `target` is beyond its limits.
pub fn add_fd(
    listener: impl AsFd,
    id: u64,
    fd: BorrowedFd<'_>,
    target: RawFd,
    close_on_exec: bool,
) -> Result<(), Errno> {
    let target_flags = if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 };
    let message =
        AddFd { id, flags: ADDFD_SETFD, source: fd.as_raw_fd() as u32, target: target as u32, target_flags };
    control(listener.as_fd(), ADD_FD, (&raw const message) as usize).map(|_| ())
}

/// Installs a copy of `fd` in the caller, closed on exec, at a number that is free there, and says which.
///
/// # Errors
/// `ENOENT` when the caller is gone, `EMFILE` when its limit is reached.
pub fn add_new_fd(listener: impl AsFd, id: u64, fd: BorrowedFd<'_>) -> Result<RawFd, Errno> {
    let source = fd.as_raw_fd() as u32;
    let message = AddFd { id, flags: 0, source, target: 0, target_flags: libc::O_CLOEXEC as u32 };
    control(listener.as_fd(), ADD_FD, (&raw const message) as usize).map(|number| number as RawFd)
}

/// Asks for the caller's and the monitor's processor to be shared, which halves the round trip (Linux 6.6).
///
/// # Errors
/// `EINVAL` on older kernels.
pub fn wake_up_synchronously(listener: impl AsFd) -> Result<(), Errno> {
    control(listener.as_fd(), SET_FLAGS, 1).map(|_| ())
}

fn control(listener: BorrowedFd<'_>, request: usize, argument: usize) -> Result<usize, Errno> {
    loop {
        let arguments = [listener.as_raw_fd() as usize, request, argument, 0, 0, 0];
        // SAFETY: the callers pass the struct that each request names, with the size that is encoded in it.
        match unsafe { syscall(libc::SYS_ioctl, arguments) } {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}
