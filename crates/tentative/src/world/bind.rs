//! bind(2) and listen(2): inside, or on a port of the host's that the policy allows.

use std::net::SocketAddr;

use rustix::{
    io::Errno,
    net::{getsockname, sockopt::set_socket_reuseaddr},
};

use super::{address::Address, rules::hint, socket::ProgramSocket};
use crate::{
    effect::{Class, Decision},
    monitor::{Call, Outcome},
    policy::Action,
};

/// bind(2).
pub(crate) fn bind(call: &mut Call<'_>) -> Outcome {
    let Some(Address::Inet(at)) = Address::read(call, call.word(1), call.word(2)) else {
        return Outcome::CONTINUE;
    };
    let Ok(socket) = ProgramSocket::of(call, call.int(0)) else { return Outcome::CONTINUE };
    let target = format!("{} {at}", socket.protocol());
    if at.port() != 0 && call.rules.listen(at.port()) == Some(Action::Allow) {
        let bound = bind_outside(call, &socket, at);
        call.escaped(target, bound.err());
        return bound.map_or_else(Outcome::error, |()| Outcome::value(0));
    }
    if socket.is_outside {
        let hint = hint(call.rules.listen(at.port()), || format!("--allow listen:{}", at.port()));
        call.blocked(target, Errno::ACCESS, hint);
        return Outcome::error(Errno::ACCESS);
    }
    if at.port() != 0 {
        // It succeeds, and nobody outside can reach it.
        let hint = hint(call.rules.listen(at.port()), || format!("--allow listen:{}", at.port()));
        call.record(Class::Contained, Decision::Allowed, target, None, hint);
    }
    Outcome::CONTINUE
}

/// listen(2): a socket of the host's network was either bound by us or must not listen.
pub(crate) fn listen(call: &mut Call<'_>) -> Outcome {
    let Ok(socket) = ProgramSocket::of(call, call.int(0)) else { return Outcome::CONTINUE };
    if !socket.is_outside {
        return Outcome::CONTINUE;
    }
    let local = getsockname(&socket.copy).ok().and_then(|local| SocketAddr::try_from(local).ok());
    let Some(local) = local else { return Outcome::CONTINUE };
    if call.rules.listen(local.port()) == Some(Action::Allow) {
        return Outcome::CONTINUE;
    }
    call.blocked(format!("{} {local}", socket.protocol()), Errno::ACCESS, None);
    Outcome::error(Errno::ACCESS)
}

fn bind_outside(call: &Call<'_>, socket: &ProgramSocket, at: SocketAddr) -> Result<(), Errno> {
    let counterpart = socket.counterpart()?;
    // The port may still be in use by the same program's last run.
    set_socket_reuseaddr(&counterpart, true)?;
    rustix::net::bind(&counterpart, &at)?;
    socket.replace(call, &counterpart)
}
