//! Layer 7, world: the network, devices, clocks and settings of the host, other hosts.
//!
//! The network namespace contains it: inside there is one loopback and nothing else. What the policy allows is done by
//! the monitor in the host's network, with its own copy of the arguments, and handed over as a socket; the program
//! never gets to name anything in the host's network itself.

pub(crate) mod address;
mod bind;
mod connect;
pub(crate) mod hosts;
mod listeners;
mod pending;
mod rules;
mod send;
mod socket;
mod unix;

pub use rules::allowed_devices;
pub(crate) use rules::{Rules, hint};

pub(crate) use bind::{bind, listen};
pub(crate) use connect::connect;
pub(crate) use pending::{Pending, Wait};
pub(crate) use send::{sendmmsg, sendmsg, sendto};

use rustix::io::Errno;

use crate::monitor::{Call, Outcome};

/// socket(2) of a family that no network namespace contains.
pub(crate) fn socket(call: &mut Call<'_>) -> Outcome {
    let family = match call.int(0) {
        17 => "AF_PACKET".to_owned(),
        40 => "AF_VSOCK".to_owned(),
        31 => "AF_BLUETOOTH".to_owned(),
        44 => "AF_XDP".to_owned(),
        other => format!("address family {other}"),
    };
    call.blocked(family, Errno::AFNOSUPPORT, None);
    Outcome::error(Errno::AFNOSUPPORT)
}

/// adjtimex(2) and clock_adjtime(2): reading is harmless, setting is refused. Whatever the memory says later, the
/// kernel refuses to set a clock outside the sandbox's user namespace.
pub(crate) fn adjust_clock(call: &mut Call<'_>) -> Outcome {
    let address = call.word(if call.pathway.name == "adjtimex" { 0 } else { 1 });
    let modes = call.read(address, 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    if matches!(modes, None | Some(0)) {
        return Outcome::CONTINUE;
    }
    call.blocked("the host's clock", Errno::PERM, None);
    Outcome::error(Errno::PERM)
}
