//! Sends with an address: each is a crossing like connect(2), made by the monitor with its own copy of the data.

use std::net::SocketAddr;

use rustix::{
    io::Errno,
    net::{SendFlags, getpeername},
};

use super::{
    address::{Address, Protocol, canonical},
    connect::{refuse, stays_inside},
    socket::ProgramSocket,
    unix,
};
use crate::{
    monitor::{Call, Outcome},
    policy::Action,
};

/// The longest datagram.
const LONGEST: u64 = 65_536;
/// The kernel's limit on the pieces of one message (UIO_MAXIOV).
const MOST_PIECES: u64 = 1024;
const MESSAGE_HEADER: usize = 56;
const MESSAGE_IN_VECTOR: u64 = 64;

/// One message that a program wants to send.
struct Message {
    to: Address,
    payload: Vec<u8>,
}

/// sendto(2) with an address.
pub(crate) fn sendto(call: &mut Call<'_>) -> Outcome {
    let Some(to) = Address::read(call, call.word(4), call.word(5)) else { return Outcome::CONTINUE };
    let Some(payload) = read_pieces(call, &[(call.word(1), call.word(2))]) else { return Outcome::CONTINUE };
    send(call, &Message { to, payload })
}

/// sendmsg(2).
pub(crate) fn sendmsg(call: &mut Call<'_>) -> Outcome {
    match read_message(call, call.word(1)) {
        Some(message) => send(call, &message),
        None => Outcome::CONTINUE,
    }
}

/// sendmmsg(2): where the first message crosses it alone is sent, which the call may always do.
pub(crate) fn sendmmsg(call: &mut Call<'_>) -> Outcome {
    let count = call.word(2).min(MOST_PIECES);
    let first = (0..count).find_map(|index| {
        let at = call.word(1).checked_add(index * MESSAGE_IN_VECTOR)?;
        read_message(call, at).map(|message| (index, message))
    });
    let Some((index, message)) = first else { return Outcome::CONTINUE };
    let outcome = send(call, &message);
    let Outcome::Now(tentative_sys::world::Answer::Value(length)) = outcome else { return outcome };
    if index > 0 {
        // Messages without an address go before this one; the program sends them by a call of their own.
        return Outcome::error(Errno::NOBUFS);
    }
    let length = u32::try_from(length).unwrap_or(0).to_ne_bytes();
    match call.caller.write(call.word(1) + MESSAGE_HEADER as u64, &length) {
        Some(()) => Outcome::value(1),
        None => Outcome::error(Errno::FAULT),
    }
}

/// A message with an address from a `struct msghdr`; none without one, or when it cannot be read.
fn read_message(call: &Call<'_>, address: u64) -> Option<Message> {
    let header = call.read(address, MESSAGE_HEADER)?;
    let word = |at: usize| header.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
    let (name, name_length) = (word(0)?, word(8)? & 0xffff_ffff);
    let (pieces, count) = (word(16)?, word(24)?);
    if name == 0 || name_length == 0 || count > MOST_PIECES {
        return None;
    }
    let to = Address::read(call, name, name_length)?;
    let vector = call.read(pieces, usize::try_from(count * 16).ok()?)?;
    let pieces: Vec<(u64, u64)> = vector
        .chunks_exact(16)
        .filter_map(|piece| {
            let (base, length) = piece.split_at(8);
            Some((u64::from_ne_bytes(base.try_into().ok()?), u64::from_ne_bytes(length.try_into().ok()?)))
        })
        .collect();
    Some(Message { to, payload: read_pieces(call, &pieces)? })
}

fn read_pieces(call: &Call<'_>, pieces: &[(u64, u64)]) -> Option<Vec<u8>> {
    let mut payload = Vec::new();
    for (base, length) in pieces {
        if payload.len() as u64 + length > LONGEST {
            return None;
        }
        payload.extend(call.read(*base, usize::try_from(*length).ok()?)?);
    }
    Some(payload)
}

fn send(call: &mut Call<'_>, message: &Message) -> Outcome {
    match &message.to {
        Address::Inet(to) => match ProgramSocket::of(call, call.int(0)) {
            Ok(socket) => to_host(call, &socket, *to, &message.payload),
            Err(_) => Outcome::CONTINUE,
        },
        other => unix::send(call, other, &message.payload),
    }
}

fn to_host(call: &mut Call<'_>, socket: &ProgramSocket, to: SocketAddr, payload: &[u8]) -> Outcome {
    let protocol = socket.protocol();
    let target = format!("{protocol} {}", canonical(to));
    if protocol == Protocol::Tcp {
        return to_host_by_stream(call, socket, to, target);
    }
    if !socket.is_outside && stays_inside(call, protocol, to) {
        return Outcome::CONTINUE;
    }
    if call.rules.net(to) != Some(Action::Allow) {
        return refuse(call, socket, to, target);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let sent = if socket.is_outside {
        rustix::net::sendto(&socket.copy, payload, flags, &to)
    } else {
        socket.counterpart().and_then(|counterpart| {
            let sent = rustix::net::sendto(&counterpart, payload, flags, &to)?;
            socket.replace(call, &counterpart)?;
            Ok(sent)
        })
    };
    call.escaped(target, sent.err());
    sent.map_or_else(Outcome::error, |length| Outcome::value(length as i64))
}

/// A connected stream ignores the address. Without a connection this is TCP fast open, which connects: where the policy
/// lets it through the program is told that there is no such thing, and connects by the call of that name.
fn to_host_by_stream(call: &mut Call<'_>, socket: &ProgramSocket, to: SocketAddr, target: String) -> Outcome {
    if socket.is_outside {
        return Outcome::error(Errno::ISCONN);
    }
    if getpeername(&socket.copy).is_ok() || stays_inside(call, Protocol::Tcp, to) {
        return Outcome::CONTINUE;
    }
    if call.rules.net(to) == Some(Action::Allow) {
        return Outcome::error(Errno::OPNOTSUPP);
    }
    refuse(call, socket, to, target)
}
