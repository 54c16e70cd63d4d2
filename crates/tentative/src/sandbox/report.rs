//! What init and the builder say to each other: one message a packet.
//!
//! Never carries anything from the code that will run inside; init is ours until the sandbox is ready.

use std::os::fd::AsFd;

use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send as send_packet},
};

use super::error::{SandboxError, Step};

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// From init: map the ids of my user namespace.
    WantsUsers,
    /// From the builder: done.
    UsersMapped,
    /// From init: the sandbox is up.
    Ready,
    /// From the builder: make it as it was.
    Renew,
    /// From init: a step failed, and init ends.
    Failed {
        /// Which step.
        step: Step,
        /// Why.
        errno: Errno,
        /// On what.
        detail: String,
    },
}

const LARGEST: usize = 4096;

pub(super) fn send(socket: impl AsFd, message: &Message) -> Result<(), Errno> {
    let mut packet = Vec::new();
    match message {
        Message::WantsUsers => packet.push(b'U'),
        Message::UsersMapped => packet.push(b'M'),
        Message::Ready => packet.push(b'R'),
        Message::Renew => packet.push(b'N'),
        Message::Failed { step, errno, detail } => {
            packet.extend([b'F', *step as u8]);
            packet.extend(errno.raw_os_error().to_ne_bytes());
            packet.extend(detail.bytes().take(LARGEST - 6));
        }
    }
    send_packet(socket, &packet, SendFlags::NOSIGNAL)?;
    Ok(())
}

pub(super) fn receive(socket: impl AsFd) -> Result<Message, SandboxError> {
    let mut packet = [0u8; LARGEST];
    let length = loop {
        match recv(&socket, &mut packet[..], RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Err(SandboxError::Died),
            Err(error) => return Err(SandboxError::Socket(error)),
            Ok((length, _)) => break length,
        }
    };
    match packet[..length] {
        [b'U'] => Ok(Message::WantsUsers),
        [b'M'] => Ok(Message::UsersMapped),
        [b'R'] => Ok(Message::Ready),
        [b'N'] => Ok(Message::Renew),
        [b'F', step, a, b, c, d, ref detail @ ..] => Ok(Message::Failed {
            step: Step::from_number(step).ok_or(SandboxError::Died)?,
            errno: Errno::from_raw_os_error(i32::from_ne_bytes([a, b, c, d])),
            detail: String::from_utf8_lossy(detail).into_owned(),
        }),
        _ => Err(SandboxError::Died),
    }
}
