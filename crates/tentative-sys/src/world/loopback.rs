//! Bringing up the loopback interface of a fresh network namespace (netdevice(7)).

use std::os::fd::AsRawFd;

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};

use crate::raw::syscall;

/// `struct ifreq` with flags.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    padding: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == 40);

/// Brings up `lo` in this process's network namespace.
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN in it.
pub fn loopback_up() -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut name = [0; 16];
    name[..2].copy_from_slice(b"lo");
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as u16;
    let request = InterfaceRequest { name, flags, padding: [0; 22] };
    let arguments =
        [socket.as_raw_fd() as usize, libc::SIOCSIFFLAGS as usize, (&raw const request) as usize, 0, 0, 0];
    // SAFETY: SIOCSIFFLAGS reads one `struct ifreq`, which lives here.
    unsafe { syscall(libc::SYS_ioctl, arguments) }?;
    Ok(())
}
