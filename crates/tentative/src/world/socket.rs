//! The program's socket, and one of the same kind in the host's network.

use std::{
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd, RawFd},
    sync::LazyLock,
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::Errno,
    net::{
        AddressFamily, Protocol as Number, SocketFlags, SocketType, getsockname, socket_with,
        sockopt::{socket_domain, socket_protocol, socket_type},
    },
};
use tentative_sys::world::{add_fd, copy_socket_options, network_of};

use super::address::Protocol;
use crate::monitor::Call;

/// The host's network, as the kernel numbers it.
static HOST_NETWORK: LazyLock<Option<u64>> = LazyLock::new(|| {
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).ok()?;
    network_of(&probe).ok()
});

/// A copy of the program's descriptor with what there is to know about it.
pub(super) struct ProgramSocket {
    pub(super) number: RawFd,
    pub(super) copy: OwnedFd,
    pub(super) domain: AddressFamily,
    pub(super) kind: SocketType,
    protocol: Option<Number>,
    /// Whether it is in the host's network already: put there by us, or accepted from one that was.
    pub(super) is_outside: bool,
}

impl ProgramSocket {
    /// The socket that an argument names.
    pub(super) fn of(call: &Call<'_>, number: RawFd) -> Result<ProgramSocket, Errno> {
        let copy = call.caller.descriptor(number)?;
        let network = network_of(&copy)?;
        Ok(ProgramSocket {
            number,
            domain: socket_domain(&copy)?,
            kind: socket_type(&copy)?,
            protocol: socket_protocol(&copy)?,
            is_outside: Some(network) == *HOST_NETWORK,
            copy,
        })
    }

    pub(super) fn protocol(&self) -> Protocol {
        match self.kind {
            SocketType::STREAM | SocketType::SEQPACKET => Protocol::Tcp,
            SocketType::DGRAM => Protocol::Udp,
            _ => Protocol::Raw,
        }
    }

    /// Whether calls on it wait.
    pub(super) fn blocks(&self) -> bool {
        fcntl_getfl(&self.copy).is_ok_and(|flags| !flags.contains(OFlags::NONBLOCK))
    }

    /// A socket of the same kind, options and local port in the monitor's network; calls on it do not wait.
    pub(super) fn counterpart(&self) -> Result<OwnedFd, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(self.domain, self.kind, flags, self.protocol)?;
        copy_socket_options(&self.copy, &socket);
        if matches!(self.domain, AddressFamily::INET | AddressFamily::INET6)
            && let Ok(local) = getsockname(&self.copy)
            && let Ok(local) = SocketAddr::try_from(local)
            && local.port() != 0
            && !local.ip().is_loopback()
        {
            rustix::net::bind(&socket, &local)?;
        }
        Ok(socket)
    }

    /// Puts a socket in the place of the program's, blocking or not as that was.
    pub(super) fn replace(&self, call: &Call<'_>, socket: &OwnedFd) -> Result<(), Errno> {
        let flags = fcntl_getfl(&self.copy)?;
        fcntl_setfl(socket, flags)?;
        let close_on_exec = call.caller.closes_on_exec(self.number);
        add_fd(call.listener, call.notification.id, socket.as_fd(), self.number, close_on_exec)
    }
}
