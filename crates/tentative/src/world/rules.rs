//! The policy, ready to be asked: names looked up, the last rule that matches first.
//!
//! It only answers; doing what it allows is others' business.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use super::hosts;
use crate::policy::{Action, Host, Kind, Policy, Rule};

#[derive(Clone, Debug)]
enum Matcher {
    Net { hosts: Vec<(IpAddr, u8)>, any: bool, port: Option<u16> },
    Listen(u16),
    Unix(PathBuf),
    UnixAbstract(String),
    Device,
    Signal(i32),
}

/// The rule that would let a crossing happen, by what the policy says of it; none where that is a rule which denies it,
/// as another one before that changes nothing.
pub(crate) fn hint(said: Option<Action>, rule: impl FnOnce() -> String) -> Option<String> {
    (said != Some(Action::Deny)).then(rule)
}

/// A policy with its names looked up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    rules: Vec<(Action, Matcher)>,
    /// The rules of the transaction around this one, which must agree.
    outer: Option<Box<Rules>>,
    /// Rules that do not do what they say, with the reason.
    unmet: Vec<String>,
}

impl Rules {
    /// Looks up the names of a policy, in the host's network.
    #[must_use]
    pub(crate) fn load(policy: &Policy) -> Rules {
        let mut rules: Vec<(Action, Matcher)> = Vec::new();
        if policy.rules.iter().any(allows_a_name) {
            // Allowing a name includes looking it up. First, so that any rule of the user's can say otherwise.
            let hosts = hosts::name_servers().into_iter().map(host).collect();
            rules.push((Action::Allow, Matcher::Net { hosts, any: false, port: Some(53) }));
        }
        rules.extend(policy.rules.iter().map(|rule| (rule.action, matcher(&rule.kind))));
        let unmet = policy.rules.iter().zip(rules.iter().rev().take(policy.rules.len()).rev());
        let unmet = unmet.filter_map(|(rule, (_, matcher))| why_unmet(rule, matcher)).collect();
        Rules { rules, outer: None, unmet }
    }

    /// What the user asked for and does not get, in words.
    pub(crate) fn unmet(&self) -> &[String] {
        &self.unmet
    }

    /// These rules inside a transaction with others: what goes outside must be allowed by both.
    #[must_use]
    pub(crate) fn within(self, outer: &Rules) -> Rules {
        Rules { outer: Some(Box::new(outer.clone())), ..self }
    }

    /// What the policy says about a connection or an addressed send.
    pub(crate) fn net(&self, to: SocketAddr) -> Option<Action> {
        let to = super::address::canonical(to);
        self.last(|matcher| match matcher {
            Matcher::Net { hosts, any, port } => {
                let host = *any || hosts.iter().any(|(ip, prefix)| contains(*ip, *prefix, to.ip()));
                host && port.is_none_or(|port| port == to.port())
            }
            _ => false,
        })
    }

    /// What the policy says about accepting connections on a port of the host.
    pub(crate) fn listen(&self, port: u16) -> Option<Action> {
        self.last(|matcher| matches!(matcher, Matcher::Listen(listen) if *listen == port))
    }

    /// What the policy says about a unix socket.
    pub(crate) fn unix(&self, path: &Path) -> Option<Action> {
        self.last(|matcher| matches!(matcher, Matcher::Unix(allowed) if allowed == path))
    }

    /// What the policy says about a unix socket with an abstract name.
    pub(crate) fn unix_abstract(&self, name: &[u8]) -> Option<Action> {
        self.last(|matcher| matches!(matcher, Matcher::UnixAbstract(allowed) if allowed.as_bytes() == name))
    }

    /// What the policy says about signals to a process outside.
    pub(crate) fn signal(&self, pid: i32) -> Option<Action> {
        self.last(|matcher| matches!(matcher, Matcher::Signal(allowed) if *allowed == pid))
    }

    fn last(&self, matches: impl Fn(&Matcher) -> bool + Copy) -> Option<Action> {
        let own = self.rules.iter().rev().find(|(_, matcher)| matches(matcher)).map(|(action, _)| *action);
        match &self.outer {
            Some(outer) if own == Some(Action::Allow) => outer.last(matches).or(Some(Action::Deny)),
            _ => own,
        }
    }
}

/// The device nodes that a policy allows, to be shown in the sandbox's `/dev`.
#[must_use]
pub fn allowed_devices(policy: &Policy) -> Vec<PathBuf> {
    let mut devices: Vec<PathBuf> = Vec::new();
    for rule in &policy.rules {
        if let Kind::Device(path) = &rule.kind {
            devices.retain(|device| device != path);
            if rule.action == Action::Allow {
                devices.push(path.clone());
            }
        }
    }
    devices
}

fn allows_a_name(rule: &Rule) -> bool {
    let named = matches!(&rule.kind, Kind::Net(Host::Name(_) | Host::Any, _));
    rule.action == Action::Allow && named
}

/// Why a rule about a name matches less than it says.
fn why_unmet(rule: &Rule, matcher: &Matcher) -> Option<String> {
    let found_none = matches!(matcher, Matcher::Net { hosts, any: false, .. } if hosts.is_empty());
    match &rule.kind {
        Kind::Net(Host::Name(name), _) if found_none => Some(format!("{name}: the name cannot be looked up")),
        _ => None,
    }
}

fn matcher(kind: &Kind) -> Matcher {
    match kind {
        Kind::Net(host, port) => {
            let (hosts, any) = match host {
                Host::Any => (Vec::new(), true),
                Host::Network(ip, prefix) => (vec![network(*ip, *prefix)], false),
                Host::Name(name) => (look_up(name), false),
            };
            Matcher::Net { hosts, any, port: *port }
        }
        Kind::Listen(port) => Matcher::Listen(*port),
        Kind::Unix(path) => Matcher::Unix(path.clone()),
        Kind::UnixAbstract(name) => Matcher::UnixAbstract(name.clone()),
        Kind::Device(_) => Matcher::Device,
        Kind::Signal(pid) => Matcher::Signal(*pid),
    }
}

fn look_up(name: &str) -> Vec<(IpAddr, u8)> {
    // A name that cannot be looked up allows nothing.
    let found = (name, 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>).unwrap_or_default();
    found.into_iter().map(|address| host(address.ip())).collect()
}

fn host(ip: IpAddr) -> (IpAddr, u8) {
    network(ip, if ip.is_ipv4() { 32 } else { 128 })
}

/// A network as addresses are compared with it: one of addresses mapped into IPv6 only is the one of IPv4 that they stand
/// for. A larger one has others too, and is one of IPv6.
fn network(ip: IpAddr, prefix: u8) -> (IpAddr, u8) {
    match (ip, ip.to_canonical(), prefix.checked_sub(96)) {
        (IpAddr::V6(_), IpAddr::V4(mapped), Some(prefix)) => (mapped.into(), prefix),
        _ => (ip, prefix),
    }
}

fn contains(network: IpAddr, prefix: u8, ip: IpAddr) -> bool {
    match (network, ip) {
        (IpAddr::V4(network), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            network.to_bits() & mask == ip.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            network.to_bits() & mask == ip.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(words: &[(&str, Action)]) -> Rules {
        let rules = words.iter().map(|(text, action)| Rule { action: *action, kind: text.parse().unwrap() });
        Rules::load(&Policy { rules: rules.collect() })
    }

    #[test]
    fn the_last_rule_that_matches_decides() {
        let rules = rules(&[("net:10.0.0.0/8", Action::Allow), ("net:10.1.0.0/16:80", Action::Deny)]);
        assert_eq!(rules.net("10.2.0.1:80".parse().unwrap()), Some(Action::Allow));
        assert_eq!(rules.net("10.1.0.1:80".parse().unwrap()), Some(Action::Deny));
        assert_eq!(rules.net("10.1.0.1:81".parse().unwrap()), Some(Action::Allow));
        assert_eq!(rules.net("[::ffff:10.1.0.1]:80".parse().unwrap()), Some(Action::Deny));
        assert_eq!(rules.net("11.0.0.1:80".parse().unwrap()), None);
    }

    /// Their prefix counts the bits of IPv6; taken for IPv4's it matched every address.
    #[test]
    fn mapped_networks_match_what_they_name() {
        let one = rules(&[
            ("net:::ffff:10.1.0.1", Action::Allow),
            ("net:[::ffff:192.0.2.0/120]:80", Action::Allow),
        ]);
        assert_eq!(one.net("10.1.0.1:1".parse().unwrap()), Some(Action::Allow));
        assert_eq!(one.net("[::ffff:10.1.0.1]:1".parse().unwrap()), Some(Action::Allow));
        assert_eq!(one.net("10.1.0.2:1".parse().unwrap()), None);
        assert_eq!(one.net("192.0.2.77:80".parse().unwrap()), Some(Action::Allow));
        assert_eq!(one.net("192.0.3.77:80".parse().unwrap()), None);
        let larger = rules(&[("net:::ffff:0.0.0.0/95", Action::Allow)]);
        assert_eq!(larger.net("[::fffe:1:2]:1".parse().unwrap()), Some(Action::Allow));
        assert_eq!(larger.net("10.1.0.1:1".parse().unwrap()), None);
    }

    #[test]
    fn the_local_host_can_be_named() {
        let rules = rules(&[("net:localhost:5432", Action::Allow), ("net:[::1]:80", Action::Allow)]);
        assert_eq!(rules.net("127.0.0.1:5432".parse().unwrap()), Some(Action::Allow));
        assert_eq!(rules.net("127.0.0.1:5433".parse().unwrap()), None);
        assert_eq!(rules.net("[::1]:80".parse().unwrap()), Some(Action::Allow));
    }

    #[test]
    fn what_a_rule_does_not_do_is_said() {
        let rules = rules(&[("net:no-such-host.invalid:80", Action::Allow), ("net:10.0.0.1", Action::Allow)]);
        assert_eq!(rules.unmet(), ["no-such-host.invalid: the name cannot be looked up"]);
    }

    #[test]
    fn devices_can_be_taken_back() {
        let rule = |action, text: &str| Rule { action, kind: text.parse().unwrap() };
        let rules = vec![
            rule(Action::Allow, "device:/dev/null"),
            rule(Action::Allow, "device:/dev/zero"),
            rule(Action::Deny, "device:/dev/null"),
        ];
        assert_eq!(allowed_devices(&Policy { rules }), [PathBuf::from("/dev/zero")]);
    }
}
