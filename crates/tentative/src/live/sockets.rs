//! Sockets of the sandbox's own network that the branch still holds when it wants to commit: outside it nobody could reach
//! them, nor they anybody, so they refuse the commit by name.
//!
//! Read from `/proc/PID/net` of init, which lists neither sockets that were not bound or connected yet nor those that the
//! monitor made outside. A pair of unix sockets belongs to nobody's network. Only looks, and changes nothing.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

const INTERNET: [&str; 8] = ["tcp", "tcp6", "udp", "udp6", "raw", "raw6", "icmp", "icmp6"];
/// States in the lists of internet sockets.
const LISTENING: &str = "0A";
const ESTABLISHED: &str = "01";
/// A unix socket's flag when it listens, and its state when it has no peer.
const ACCEPTS: u32 = 1 << 16;
const WITHOUT_PEER: &str = "01";

/// What a process has of its sandbox's network, in words.
pub(super) fn left_inside(process: i32, init: i32) -> Vec<String> {
    let held = held(process);
    if held.is_empty() {
        return Vec::new();
    }
    let read = |name: &str| {
        let bytes = fs::read(format!("/proc/{init}/net/{name}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let mut known = BTreeMap::new();
    for name in INTERNET {
        known.extend(read(name).lines().filter_map(|line| internet(name, line)));
    }
    known.extend(read("unix").lines().filter_map(unix));
    for name in ["netlink", "packet"] {
        known.extend(read(name).lines().filter_map(|line| other(name, line)));
    }
    let words = held.iter().filter_map(|(number, inode)| known.get(inode).map(|what| (number, what)));
    words.map(|(number, what)| in_words(*number, what)).collect()
}

fn in_words(number: i32, what: &str) -> String {
    format!("socket {number} ({what}) belongs to the sandbox's network; close it before the commit")
}

/// The sockets of a process: number and inode.
fn held(process: i32) -> Vec<(i32, u64)> {
    let entries = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let mut held: Vec<(i32, u64)> = entries
        .filter_map(|entry| {
            let link = fs::read_link(entry.path()).ok()?;
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, inode))
        })
        .collect();
    held.sort_unstable();
    held
}

/// Inode and words of a line about an internet socket; none for a heading.
fn internet(name: &str, line: &str) -> Option<(u64, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let local = address(words.get(1)?)?;
    let inode = words.get(9)?.parse().ok()?;
    let protocol = name.trim_end_matches('6');
    let state = match *words.get(3)? {
        LISTENING => ", listening".to_owned(),
        ESTABLISHED => format!(", connected to {}", address(words.get(2)?)?),
        _ => String::new(),
    };
    Some((inode, format!("{protocol} {local}{state}")))
}

/// The same of a unix socket that others would have to find; none of one that only has a peer.
fn unix(line: &str) -> Option<(u64, String)> {
    let mut words = line.split_whitespace().skip(3);
    let flags = u32::from_str_radix(words.next()?, 16).ok()?;
    let (state, inode) = (words.nth(1)?, words.next()?.parse().ok()?);
    let name = words.next();
    if flags & ACCEPTS != 0 {
        return Some((inode, format!("unix {}, listening", name.unwrap_or("without a name"))));
    }
    name.filter(|_| state == WITHOUT_PEER).map(|name| (inode, format!("unix {name}")))
}

/// The same of a kind that has its inode at the end of its line.
fn other(name: &str, line: &str) -> Option<(u64, String)> {
    Some((line.split_whitespace().next_back()?.parse().ok()?, name.to_owned()))
}

/// An address as the kernel lists it: words of the machine's byte order, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if !host.is_ascii() {
        return None;
    }
    let word = |at: usize| {
        let digits = host.get(at..at + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let host = match host.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let bytes = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn internet_sockets_have_addresses_and_states() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0";
        assert_eq!(internet("tcp", line), Some((4711, "tcp 127.0.0.1:8080, listening".to_owned())));
        let line = "   1: 00000000000000000000000001000000:1F90 00000000000000000000000001000000:0016 01 0:0 0:0 0 0 0 12";
        assert_eq!(internet("tcp6", line), Some((12, "tcp [::1]:8080, connected to [::1]:22".to_owned())));
        assert_eq!(
            internet("tcp", "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when"),
            None
        );
    }

    #[test]
    fn unix_sockets_count_that_others_have_to_find() {
        let line = |flags: &str, state: &str, name: &str| {
            unix(&format!("0000000000000000: 00000002 00000000 {flags} 0001 {state} 99 {name}"))
        };
        assert_eq!(line("00010000", "01", "@name"), Some((99, "unix @name, listening".to_owned())));
        assert_eq!(line("00000000", "01", "/run/log"), Some((99, "unix /run/log".to_owned())));
        assert_eq!(line("00000000", "03", "/run/accepted"), None);
        assert_eq!(line("00000000", "01", ""), None);
        assert_eq!(unix("Num       RefCount Protocol Flags    Type St Inode Path"), None);
    }
}
