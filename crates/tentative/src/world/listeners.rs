//! Who listens on the sandbox's own loopback, and which unix sockets it and the host have.
//!
//! Read from `/proc/PID/net` of init: a look at one moment, which decides only what is recorded.

use std::{fs, net::SocketAddr};

use super::address::Protocol;
use crate::monitor::Call;

/// State of a listening TCP socket, and of any unconnected UDP one, in `/proc/net`.
const LISTENING: &str = "0A";
const UNCONNECTED: &str = "07";

/// Whether a socket inside takes what is sent to this address of the loopback.
pub(super) fn listens_inside(call: &Call<'_>, protocol: Protocol, to: SocketAddr) -> bool {
    let (files, state) = match protocol {
        Protocol::Tcp => (["tcp", "tcp6"], LISTENING),
        Protocol::Udp => (["udp", "udp6"], UNCONNECTED),
        Protocol::Raw => return true,
    };
    let port = format!(":{:04X}", to.port());
    files.iter().any(|file| {
        read(call, file).lines().any(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (local, _remote, is) = (words.next(), words.next(), words.next());
            local.is_some_and(|local| local.ends_with(&port)) && is == Some(state)
        })
    })
}

/// Whether the sandbox has a unix socket with this abstract name.
pub(super) fn has_abstract_inside(call: &Call<'_>, name: &[u8]) -> bool {
    has_abstract(&read(call, "unix"), name)
}

/// Whether the host has a unix socket with this abstract name.
pub(super) fn has_abstract_outside(name: &[u8]) -> bool {
    has_abstract(&fs::read_to_string("/proc/self/net/unix").unwrap_or_default(), name)
}

fn has_abstract(list: &str, name: &[u8]) -> bool {
    // The list shows NUL bytes as @, the leading one too.
    let shown: String = name.iter().map(|byte| if *byte == 0 { '@' } else { char::from(*byte) }).collect();
    let shown = format!("@{}", shown.trim_end_matches('@'));
    list.lines()
        .any(|line| line.split_whitespace().nth(7).is_some_and(|path| path.trim_end_matches('@') == shown))
}

fn read(call: &Call<'_>, file: &str) -> String {
    let init = call.scope.init.as_raw_nonzero();
    fs::read(format!("/proc/{init}/net/{file}"))
        .map(|b| String::from_utf8_lossy(&b).into_owned())
        .unwrap_or_default()
}
