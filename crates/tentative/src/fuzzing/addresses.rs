//! Addresses and the rules about them: decoded as written, and allowed exactly where the bits agree.
//!
//! Never looks up a name: every rule here names a network by its number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tentative_testkit::input::Input;

use crate::{
    policy::{Action, Policy, Rule},
    world::{Rules, address::Address},
};

/// Takes the bytes for an address as a program gives it, and for rules and an address that they are about.
///
/// # Panics
/// When an address is decoded as another, or a rule matches what it does not name.
pub fn addresses(bytes: &[u8]) {
    let _any = Address::parse(bytes);
    let mut input = Input::new(bytes);
    let to = SocketAddr::new(ip(&mut input), u16::from(input.byte()) % 4);
    let decoded = Address::parse(&encoded(to));
    assert_eq!(decoded, Some(Address::Inet(to)));

    let own = input.list(3, |input| network(input, to.ip()));
    let outer = input.list(3, |input| network(input, to.ip()));
    let inner = rules(&own);
    let expected = last(&own, to);
    assert_eq!(inner.net(to), expected, "{to} by {own:?}");
    let both =
        if expected == Some(Action::Allow) { last(&outer, to).or(Some(Action::Deny)) } else { expected };
    assert_eq!(inner.within(&rules(&outer)).net(to), both, "{to} by {own:?} inside {outer:?}");
    if let Some(mapped) = mapped(to) {
        assert_eq!(rules(&own).net(mapped), expected, "{mapped} by {own:?}");
    }
}

/// As connect(2) takes it.
fn encoded(to: SocketAddr) -> Vec<u8> {
    let port = to.port().to_be_bytes();
    match to.ip() {
        IpAddr::V4(ip) => [&2_u16.to_ne_bytes()[..], &port, &ip.octets(), &[0; 8]].concat(),
        IpAddr::V6(ip) => [&10_u16.to_ne_bytes()[..], &port, &[0; 4], &ip.octets(), &[0; 4]].concat(),
    }
}

fn mapped(to: SocketAddr) -> Option<SocketAddr> {
    match to.ip() {
        IpAddr::V4(ip) => Some(SocketAddr::new(ip.to_ipv6_mapped().into(), to.port())),
        IpAddr::V6(_) => None,
    }
}

/// A rule about a network, as its parts.
#[derive(Clone, Copy, Debug)]
struct Network {
    action: Action,
    ip: IpAddr,
    prefix: u8,
    port: Option<u16>,
}

/// Near `to`, since a network far from it is always another.
fn network(input: &mut Input<'_>, to: IpAddr) -> Network {
    let ip = match (input.below(4), to) {
        (0, _) => ip(input),
        (1, IpAddr::V4(to)) => to.to_ipv6_mapped().into(),
        (_, IpAddr::V4(to)) => Ipv4Addr::from_bits(to.to_bits() ^ flipped(input, 32) as u32).into(),
        (_, IpAddr::V6(to)) => Ipv6Addr::from_bits(to.to_bits() ^ flipped(input, 128)).into(),
    };
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    Network {
        action: if input.chance() { Action::Allow } else { Action::Deny },
        ip,
        prefix: u8::try_from(input.below(bits + 1)).expect("at most 128"),
        port: input.option(|input| 1 + u16::from(input.byte()) % 3),
    }
}

/// No bit, or one.
fn flipped(input: &mut Input<'_>, bits: usize) -> u128 {
    let bit = 1 << input.below(bits);
    if input.chance() { bit } else { 0 }
}

fn ip(input: &mut Input<'_>) -> IpAddr {
    match input.below(4) {
        0 => IpAddr::from(input.array::<4>()),
        1 => Ipv4Addr::from(input.array::<4>()).to_ipv6_mapped().into(),
        2 => input.one_of(&[
            Ipv4Addr::UNSPECIFIED.into(),
            Ipv6Addr::UNSPECIFIED.into(),
            IpAddr::from([127, 0, 0, 1]),
        ]),
        _ => IpAddr::from(input.array::<16>()),
    }
}

/// The rules by way of their text, as a user gives them.
fn rules(networks: &[Network]) -> Rules {
    let rule = |network: &Network| {
        let text = match (network.ip, network.port) {
            (ip, None) => format!("net:{ip}/{}", network.prefix),
            (IpAddr::V4(ip), Some(port)) => format!("net:{ip}/{}:{port}", network.prefix),
            (IpAddr::V6(ip), Some(port)) => format!("net:[{ip}/{}]:{port}", network.prefix),
        };
        let kind = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        Rule { action: network.action, kind }
    };
    Rules::load(&Policy { rules: networks.iter().map(rule).collect() })
}

/// What the last rule that matches says.
fn last(networks: &[Network], to: SocketAddr) -> Option<Action> {
    let (to_bits, port) = (bits(to.ip(), true), to.port());
    let matches = |network: &&Network| {
        let (bits, prefix) = network_bits(network);
        let same = bits.len() == to_bits.len() && bits[..prefix] == to_bits[..prefix];
        same && network.port.is_none_or(|only| only == port)
    };
    networks.iter().rev().find(matches).map(|network| network.action)
}

/// A network of mapped addresses only is one of IPv4; a larger one is one of IPv6, which no IPv4 address is in.
fn network_bits(network: &Network) -> (Vec<bool>, usize) {
    let prefix = usize::from(network.prefix);
    let whole = bits(network.ip, false);
    let is_mapped = whole.len() == 128 && prefix >= 96 && whole[..96] == bits(MAPPED, false)[..96];
    if is_mapped { (whole[96..].to_vec(), prefix - 96) } else { (whole, prefix) }
}

const MAPPED: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0));

/// The bits of an address, the highest first; of a target in the form that rules are about: IPv4 where it is mapped,
/// this host where it is "any".
fn bits(ip: IpAddr, is_target: bool) -> Vec<bool> {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut bits: Vec<bool> =
        octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect();
    if is_target {
        if bits.len() == 128 && bits[..96] == self::bits(MAPPED, false)[..96] {
            bits.drain(..96);
        }
        if !bits.contains(&true) {
            let local =
                if bits.len() == 32 { IpAddr::from([127, 0, 0, 1]) } else { Ipv6Addr::LOCALHOST.into() };
            return self::bits(local, false);
        }
    }
    bits
}

#[cfg(test)]
mod tests {
    #[test]
    fn rules_match_what_they_name() {
        tentative_testkit::input::each("addresses", super::addresses);
    }
}
