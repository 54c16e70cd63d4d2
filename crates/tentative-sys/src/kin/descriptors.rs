//! Passing one descriptor over a unix socket, by hand: no allocation, no errno.
//!
//! One byte travels with it, so that the end of the stream can be told from a message.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::raw::syscall;

/// Flags of a sendmsg(2) that our filter lets pass without asking the monitor.
///
/// A helper that has just installed the filter hands its listener to the monitor this way; asking would wait for a
/// monitor that does not have the listener yet. MSG_PROBE keeps internet sockets from sending anything at all, so no
/// crossing can hide behind it.
pub const UNRECORDED_SEND: u32 = (libc::MSG_NOSIGNAL | MSG_PROBE) as u32;

const MSG_PROBE: i32 = 0x10;

#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    fd: RawFd,
    padding: i32,
}

const _: () = assert!(size_of::<Control>() == 24);
const _: () = assert!(core::mem::offset_of!(Control, fd) == 16);

const CONTROL_LENGTH: usize = 20;

/// Sends a descriptor and one byte over a unix socket.
///
/// # Errors
/// What sendmsg(2) says.
pub fn send_fd_raw(socket: RawFd, fd: RawFd) -> Result<(), Errno> {
    let mut byte = 1u8;
    let mut vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let header =
        libc::cmsghdr { cmsg_len: CONTROL_LENGTH, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
    let mut control = Control { header, fd, padding: 0 };
    let message = message(&mut vector, &mut control);
    loop {
        let arguments = [socket as usize, (&raw const message) as usize, UNRECORDED_SEND as usize, 0, 0, 0];
        // SAFETY: the message names one byte and one control block, which both live in this frame.
        match unsafe { syscall(libc::SYS_sendmsg, arguments) } {
            Err(Errno::INTR) => {}
            other => return other.map(|_| ()),
        }
    }
}

/// Receives what [`send_fd_raw`] sent; `EPIPE` at the end of the stream or when no descriptor came along.
///
/// # Errors
/// What recvmsg(2) says.
pub fn receive_fd_raw(socket: RawFd) -> Result<RawFd, Errno> {
    let mut byte = 0u8;
    let mut vector = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let header = libc::cmsghdr { cmsg_len: 0, cmsg_level: 0, cmsg_type: 0 };
    let mut control = Control { header, fd: -1, padding: 0 };
    let mut message = message(&mut vector, &mut control);
    loop {
        let arguments =
            [socket as usize, (&raw mut message) as usize, libc::MSG_CMSG_CLOEXEC as usize, 0, 0, 0];
        // SAFETY: the message names one byte and one control block, which both live in this frame.
        match unsafe { syscall(libc::SYS_recvmsg, arguments) } {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    let whole = control.header.cmsg_len == CONTROL_LENGTH && control.header.cmsg_type == libc::SCM_RIGHTS;
    if whole && control.fd >= 0 { Ok(control.fd) } else { Err(Errno::PIPE) }
}

/// Receives a descriptor as an owned one.
///
/// # Errors
/// As [`receive_fd_raw`].
pub fn receive_fd(socket: impl AsFd) -> Result<OwnedFd, Errno> {
    let fd = receive_fd_raw(socket.as_fd().as_raw_fd())?;
    // SAFETY: the kernel has just installed this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn message(vector: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all-zero bytes are a msghdr without name, vector and control (its padding differs between libcs).
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = vector;
    message.msg_iovlen = 1;
    message.msg_control = (control as *mut Control).cast();
    message.msg_controllen = size_of::<Control>() as _;
    message
}
