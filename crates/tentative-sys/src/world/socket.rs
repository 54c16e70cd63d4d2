//! What the monitor needs to put a socket of its own in the place of a program's: identity, options.
//!
//! Option values are copied as bytes; nothing here knows what they mean.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::{
    io::Errno,
    process::{PidfdGetfdFlags, pidfd_getfd},
};

use crate::raw::syscall;

/// Level and name of a socket option (setsockopt(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOption {
    /// Protocol level.
    pub level: i32,
    /// Option.
    pub name: i32,
}

/// Options that travel from a program's socket to the one that replaces it.
const COPIED: &[SocketOption] = &[
    SocketOption { level: libc::SOL_SOCKET, name: libc::SO_KEEPALIVE },
    SocketOption { level: libc::SOL_SOCKET, name: libc::SO_REUSEADDR },
    SocketOption { level: libc::SOL_SOCKET, name: libc::SO_REUSEPORT },
    SocketOption { level: libc::SOL_SOCKET, name: libc::SO_BROADCAST },
    SocketOption { level: libc::SOL_SOCKET, name: libc::SO_OOBINLINE },
    SocketOption { level: libc::SOL_SOCKET, name: libc::SO_LINGER },
    SocketOption { level: libc::SOL_SOCKET, name: libc::SO_RCVTIMEO },
    SocketOption { level: libc::SOL_SOCKET, name: libc::SO_SNDTIMEO },
    SocketOption { level: libc::SOL_SOCKET, name: libc::SO_PASSCRED },
    SocketOption { level: libc::SOL_SOCKET, name: libc::SO_TIMESTAMP },
    SocketOption { level: libc::IPPROTO_IP, name: libc::IP_TOS },
    SocketOption { level: libc::IPPROTO_IP, name: libc::IP_TTL },
    SocketOption { level: libc::IPPROTO_IP, name: libc::IP_PKTINFO },
    SocketOption { level: libc::IPPROTO_IP, name: libc::IP_RECVERR },
    SocketOption { level: libc::IPPROTO_IPV6, name: libc::IPV6_V6ONLY },
    SocketOption { level: libc::IPPROTO_IPV6, name: libc::IPV6_RECVPKTINFO },
    SocketOption { level: libc::IPPROTO_TCP, name: libc::TCP_NODELAY },
    SocketOption { level: libc::IPPROTO_TCP, name: libc::TCP_KEEPIDLE },
    SocketOption { level: libc::IPPROTO_TCP, name: libc::TCP_KEEPINTVL },
    SocketOption { level: libc::IPPROTO_TCP, name: libc::TCP_KEEPCNT },
    SocketOption { level: libc::IPPROTO_TCP, name: libc::TCP_USER_TIMEOUT },
];

/// Copies the ordinary options of one socket to another; what either does not know is left alone.
pub fn copy_socket_options(from: impl AsFd, to: impl AsFd) {
    for option in COPIED {
        let mut value = [0u8; 64];
        let mut length: u32 = 64;
        let common = [option.level as usize, option.name as usize, value.as_mut_ptr() as usize];
        let from = from.as_fd().as_raw_fd() as usize;
        let get = [from, common[0], common[1], common[2], (&raw mut length) as usize, 0];
        // SAFETY: the kernel writes at most `length` bytes to the value and the length itself, both in this frame.
        if unsafe { syscall(libc::SYS_getsockopt, get) }.is_err() {
            continue;
        }
        let to = to.as_fd().as_raw_fd() as usize;
        let set = [to, common[0], common[1], common[2], length as usize, 0];
        // SAFETY: the kernel reads `length` bytes of the value, which it has just written.
        // An option that the new socket does not take is one that its kind does not have.
        let _not_of_this_kind = unsafe { syscall(libc::SYS_setsockopt, set) };
    }
}

/// Copies descriptor number `fd` out of another process.
///
/// # Errors
/// `EBADF` when it has no such descriptor, `EPERM` when this process may not trace it.
pub fn descriptor_of(pidfd: impl AsFd, fd: RawFd) -> Result<OwnedFd, Errno> {
    pidfd_getfd(pidfd, fd, PidfdGetfdFlags::empty())
}

/// `SO_NETNS_COOKIE` (Linux 5.14).
const NETWORK_COOKIE: usize = 71;

/// A number that names the network namespace that a socket belongs to.
///
/// # Errors
/// What getsockopt(2) says.
pub fn network_of(socket: impl AsFd) -> Result<u64, Errno> {
    let mut cookie = 0u64;
    let mut length = 8u32;
    let socket = socket.as_fd().as_raw_fd() as usize;
    let level = libc::SOL_SOCKET as usize;
    let arguments =
        [socket, level, NETWORK_COOKIE, (&raw mut cookie) as usize, (&raw mut length) as usize, 0];
    // SAFETY: the kernel writes at most eight bytes to the cookie and the length itself, both in this frame.
    unsafe { syscall(libc::SYS_getsockopt, arguments) }?;
    Ok(cookie)
}
