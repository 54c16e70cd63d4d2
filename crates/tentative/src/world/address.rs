//! Socket addresses, decoded from a copy of the program's bytes.

use std::{
    ffi::OsString,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::unix::ffi::OsStringExt as _,
    path::PathBuf,
};

use crate::monitor::Call;

/// The longest address that is looked at (`struct sockaddr_storage`).
const LONGEST: u64 = 128;

const UNSPECIFIED: u16 = 0;
const UNIX: u16 = 1;
const INET: u16 = 2;
const INET6: u16 = 10;

/// An address that a program names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// An internet address; IPv4 mapped into IPv6 is kept as it was given.
    Inet(SocketAddr),
    /// A unix socket by path.
    UnixPath(PathBuf),
    /// A unix socket by abstract name.
    UnixAbstract(Vec<u8>),
    /// No address: an association is to be dissolved.
    Unspecified,
    /// Another family, which the network namespace contains.
    Other(u16),
}

impl Address {
    /// Copies an address from the caller's memory.
    pub(crate) fn read(call: &Call<'_>, address: u64, length: u64) -> Option<Address> {
        if !(2..=LONGEST).contains(&length) {
            return None;
        }
        Address::parse(&call.read(address, usize::try_from(length).ok()?)?)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Address> {
        let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
        let port = || Some(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?));
        Some(match family {
            UNSPECIFIED => Address::Unspecified,
            INET => {
                let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
                Address::Inet(SocketAddrV4::new(Ipv4Addr::from(ip), port()?).into())
            }
            INET6 => {
                let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
                let flow = u32::from_be_bytes(bytes.get(4..8)?.try_into().ok()?);
                // The shortest form that the kernel takes has no scope.
                let scope = bytes.get(24..28).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
                Address::Inet(SocketAddrV6::new(Ipv6Addr::from(ip), port()?, flow, scope).into())
            }
            UNIX => match bytes.get(2) {
                None => Address::Unspecified,
                Some(0) => Address::UnixAbstract(bytes[3..].to_vec()),
                Some(_) => {
                    let path = bytes[2..].split(|byte| *byte == 0).next().unwrap_or_default();
                    Address::UnixPath(OsString::from_vec(path.to_vec()).into())
                }
            },
            other => Address::Other(other),
        })
    }
}

/// The address that rules are compared with: IPv4 mapped into IPv6 is IPv4, "any" is this host.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// How a protocol is named in a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Raw,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Raw => "raw",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_decoded() {
        let inet = [2, 0, 0x1f, 0x90, 10, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Address::parse(&inet), Some(Address::Inet("10.1.2.3:8080".parse().unwrap())));
        let mut inet6 = vec![10, 0, 0, 80, 0, 0, 0, 0];
        inet6.extend(Ipv6Addr::LOCALHOST.octets());
        assert_eq!(Address::parse(&inet6), Some(Address::Inet("[::1]:80".parse().unwrap())));
        assert_eq!(Address::parse(b"\x01\0/run/x\0junk"), Some(Address::UnixPath("/run/x".into())));
        assert_eq!(Address::parse(b"\x01\0\0name"), Some(Address::UnixAbstract(b"name".to_vec())));
        assert_eq!(Address::parse(&[0, 0]), Some(Address::Unspecified));
        assert_eq!(Address::parse(&[2, 0, 1]), None);
    }

    #[test]
    fn rules_see_one_form_of_an_address() {
        assert_eq!(canonical("[::ffff:10.0.0.1]:1".parse().unwrap()), "10.0.0.1:1".parse().unwrap());
        assert_eq!(canonical("0.0.0.0:1".parse().unwrap()), "127.0.0.1:1".parse().unwrap());
    }
}
