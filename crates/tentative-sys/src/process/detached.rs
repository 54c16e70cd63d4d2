//! Starting a program that nobody waits for: no child of the caller's, none of its descriptors, no signal to it.
//!
//! The tasks in between share the caller's memory and may touch their stack and the arguments only.

use std::{
    ffi::{CStr, CString},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::io::Errno;

use crate::{arch, raw, transplant};

const STACK: usize = 64 << 10;
/// The number at which the program finds its socket.
pub const SOCKET: i32 = 3;

struct Start<'a> {
    program: &'a CStr,
    arguments: &'a [*const libc::c_char],
    environment: *const *const libc::c_char,
    socket: i32,
    inner_top: *mut u8,
    errno: i32,
}

/// Starts `program` with its standard streams on `/dev/null` and a socket as its only other descriptor.
///
/// # Errors
/// What clone(2) or execve(2) said.
pub fn start_detached(program: &CStr, arguments: &[CString], socket: BorrowedFd<'_>) -> Result<(), Errno> {
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    let mut pointers: Vec<*const libc::c_char> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(core::ptr::null());
    let mut stacks = vec![0u128; 2 * STACK / 16];
    let base = stacks.as_mut_ptr().cast::<u8>();
    let mut start = Start {
        program,
        arguments: &pointers,
        // SAFETY: the C library's list; the caller's thread reads it as getenv does.
        environment: unsafe { environ },
        socket: socket.as_raw_fd(),
        inner_top: base.wrapping_add(STACK),
        errno: 0,
    };
    let mask = crate::threads::state::set_mask(u64::MAX);
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK) as usize;
    let argument = (&raw mut start).cast();
    // SAFETY: the task has half of the fresh stacks, and the caller sleeps until it is gone.
    let between = unsafe { arch::clone_on_stack(flags, base.wrapping_add(2 * STACK), outer, argument) };
    crate::threads::state::set_mask(mask);
    if between < 0 {
        return Err(Errno::from_raw_os_error(-between as i32));
    }
    transplant::reap_helper(between as i32);
    // SAFETY: the tasks wrote it through shared memory while the caller slept.
    let errno = unsafe { core::ptr::read_volatile(&raw const start.errno) };
    if errno == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(errno)) }
}

/// Takes ownership of the socket that a detached program finds at a number; to be called once for it.
///
/// # Errors
/// `ENOTSOCK` or `EBADF` when there is no unix socket at that number.
pub fn take_socket(number: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: looked at only; a closed number makes the call fail.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number.max(0)) };
    if rustix::net::sockopt::socket_domain(borrowed)? != rustix::net::AddressFamily::UNIX {
        return Err(Errno::NOTSOCK);
    }
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)?;
    // SAFETY: whoever started this program opened the socket for it alone, and the caller takes it once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The task in between: the program becomes its child and is nobody's when it ends.
unsafe extern "C" fn outer(argument: *mut u8) -> ! {
    // SAFETY: the caller's value, and the caller sleeps.
    let start = unsafe { &mut *argument.cast::<Start<'_>>() };
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK) as usize | libc::SIGCHLD as usize;
    // SAFETY: the other half of the stacks; this task sleeps until execve.
    let made = unsafe { arch::clone_on_stack(flags, start.inner_top, inner, argument) };
    if made < 0 {
        start.errno = -made as i32;
    }
    raw::exit_group(0)
}

/// The task that becomes the program; it has its own copy of the descriptors.
unsafe extern "C" fn inner(argument: *mut u8) -> ! {
    // SAFETY: the caller's value; the tasks above sleep.
    let start = unsafe { &mut *argument.cast::<Start<'_>>() };
    if let Err(errno) = become_program(start) {
        start.errno = errno.raw_os_error();
    }
    raw::exit_group(127)
}

fn become_program(start: &Start<'_>) -> Result<(), Errno> {
    // Out of the way of the numbers that are set now.
    let socket = raw::fcntl(start.socket as usize, libc::F_DUPFD as usize, 10)?;
    let null = raw::open(b"/dev/null\0", libc::O_RDWR)?;
    let null = raw::fcntl(null, libc::F_DUPFD as usize, 10)?;
    for number in 0..3 {
        raw::dup3(null, number, 0)?;
    }
    raw::dup3(socket, SOCKET as usize, 0)?;
    // SAFETY: closes this task's own copies.
    unsafe { raw::syscall(libc::SYS_close_range, [SOCKET as usize + 1, u32::MAX as usize, 0, 0, 0, 0]) }?;
    // SAFETY: a session of its own, so that the terminal's signals do not reach it.
    unsafe { raw::syscall(libc::SYS_setsid, [0; 6]) }?;
    crate::threads::state::set_mask(0);
    let arguments = [
        start.program.as_ptr() as usize,
        start.arguments.as_ptr() as usize,
        start.environment as usize,
        0,
        0,
        0,
    ];
    // SAFETY: NUL-terminated strings in NULL-terminated lists, which the sleeping caller keeps alive.
    unsafe { raw::syscall(libc::SYS_execve, arguments) }.map(drop)
}
