//! The policy: which crossings are let through. Every crossing is recorded, whatever the policy says.

use std::{fmt, fs, io, net::IpAddr, os::unix::fs::FileTypeExt as _, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a rule does with the crossings it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Let it through.
    Allow,
    /// Refuse it.
    Deny,
}

/// A host in a `net` rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Host {
    /// Any host.
    Any,
    /// A network: address and prefix length in bits.
    Network(IpAddr, u8),
    /// A name that the program looked up.
    Name(String),
}

/// The kind of crossing a rule matches, with its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Outgoing connections and addressed sends; no port means every port.
    Net(Host, Option<u16>),
    /// Accepting connections from the host's network on a port.
    Listen(u16),
    /// A unix socket by path.
    Unix(PathBuf),
    /// A unix socket by abstract name.
    UnixAbstract(String),
    /// A device node.
    Device(PathBuf),
    /// Signals to a process outside, by its pid outside.
    Signal(i32),
}

/// One rule: `--allow net:127.0.0.1:5432`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What to do.
    pub action: Action,
    /// With what.
    pub kind: Kind,
}

/// A policy: the last rule that matches decides; none means refuse.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The rules in the order they were given.
    pub rules: Vec<Rule>,
}

/// Why a rule's text is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseRuleError {
    /// The word before the colon is no kind.
    #[error("unknown kind '{0}' (kinds: net, listen, unix, device, signal)")]
    Kind(String),
    /// The kind wants a target.
    #[error("'{0}' needs a target, for example {1}")]
    Target(&'static str, &'static str),
    /// A port that is no number from 1 to 65535.
    #[error("'{0}' is no port")]
    Port(String),
    /// A prefix length that does not fit the address.
    #[error("'{0}' is no network")]
    Network(String),
    /// Names below a domain, which show only in what is looked up while the code runs.
    #[error(
        "'{0}' would match less than it says, since names are looked up when the run begins: name each host, or its network"
    )]
    Pattern(String),
    /// A pid that is no positive number.
    #[error("'{0}' is no process id")]
    Pid(String),
    /// A path that is not absolute.
    #[error("'{0}' is no absolute path")]
    Path(String),
    /// A path at which no device is.
    #[error(
        "'{0}' is {1}: a rule for a device names its node in the file system, for example device:/dev/kvm"
    )]
    Device(String, &'static str),
}

impl FromStr for Kind {
    type Err = ParseRuleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, target) = match text.split_once(':') {
            Some((kind, target)) => (kind, Some(target)),
            None => (text, None),
        };
        match (kind, target) {
            ("net", None) => Ok(Kind::Net(Host::Any, None)),
            ("net", Some(target)) => parse_net(target),
            ("listen", Some(port)) => Ok(Kind::Listen(parse_port(port)?)),
            ("listen", None) => Err(ParseRuleError::Target("listen", "listen:8080")),
            ("unix", Some(name)) if name.starts_with('@') => Ok(Kind::UnixAbstract(name[1..].to_owned())),
            ("unix", Some(path)) => Ok(Kind::Unix(parse_path(path)?)),
            ("unix", None) => Err(ParseRuleError::Target("unix", "unix:/run/postgresql/.s.PGSQL.5432")),
            ("device", Some(path)) => Ok(Kind::Device(parse_device(path)?)),
            ("device", None) => Err(ParseRuleError::Target("device", "device:/dev/kvm")),
            ("signal", Some(pid)) => match pid.parse::<i32>() {
                Ok(number) if number > 0 => Ok(Kind::Signal(number)),
                _ => Err(ParseRuleError::Pid(pid.to_owned())),
            },
            ("signal", None) => Err(ParseRuleError::Target("signal", "signal:4711")),
            (other, _) => Err(ParseRuleError::Kind(other.to_owned())),
        }
    }
}

fn parse_path(text: &str) -> Result<PathBuf, ParseRuleError> {
    if text.starts_with('/') { Ok(PathBuf::from(text)) } else { Err(ParseRuleError::Path(text.to_owned())) }
}

/// What is at the path is looked at here, since the sandbox lays it open to the outside.
fn parse_device(text: &str) -> Result<PathBuf, ParseRuleError> {
    let path = parse_path(text)?;
    let what = match fs::symlink_metadata(&path).map(|metadata| metadata.file_type()) {
        Ok(kind) if kind.is_char_device() || kind.is_block_device() => return Ok(path),
        Ok(kind) if kind.is_symlink() => "a symbolic link",
        Ok(kind) if kind.is_dir() => "a directory",
        Ok(_) => "no device",
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            "not there"
        }
        Err(_) => "not to be looked at",
    };
    Err(ParseRuleError::Device(text.to_owned(), what))
}

fn parse_port(text: &str) -> Result<u16, ParseRuleError> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(ParseRuleError::Port(text.to_owned())),
    }
}

fn parse_net(target: &str) -> Result<Kind, ParseRuleError> {
    if let Some(rest) = target.strip_prefix('[') {
        let bad = || ParseRuleError::Network(target.to_owned());
        let (address, behind) = rest.split_once(']').ok_or_else(bad)?;
        // What stands there without a colon is no port; leaving it out would match every port.
        let port = match behind.strip_prefix(':') {
            Some(port) => Some(parse_port(port)?),
            None if behind.is_empty() => None,
            None => return Err(bad()),
        };
        return Ok(Kind::Net(parse_host(address)?, port));
    }
    // An IPv6 address or network without brackets has no port.
    if target.matches(':').count() > 1 {
        return Ok(Kind::Net(parse_host(target)?, None));
    }
    match target.split_once(':') {
        Some((host, port)) => Ok(Kind::Net(parse_host(host)?, Some(parse_port(port)?))),
        None => Ok(Kind::Net(parse_host(target)?, None)),
    }
}

fn parse_host(text: &str) -> Result<Host, ParseRuleError> {
    let bad = || ParseRuleError::Network(text.to_owned());
    if text == "*" {
        return Ok(Host::Any);
    }
    if text.contains('*') {
        return Err(ParseRuleError::Pattern(text.to_owned()));
    }
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| bad())?)),
        None => (text, None),
    };
    match address.parse::<IpAddr>() {
        Ok(address) => {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            let prefix = prefix.unwrap_or(bits);
            if prefix > bits { Err(bad()) } else { Ok(Host::Network(address, prefix)) }
        }
        Err(_) if prefix.is_some() || text.is_empty() || text.contains(['[', ']']) => Err(bad()),
        Err(_) => Ok(Host::Name(text.to_owned())),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Any => f.write_str("*"),
            Host::Network(address, prefix) => {
                let whole = if address.is_ipv4() { 32 } else { 128 };
                if *prefix == whole { write!(f, "{address}") } else { write!(f, "{address}/{prefix}") }
            }
            Host::Name(name) => f.write_str(name),
        }
    }
}

/// As [`Kind::from_str`] takes it, and the same rule again. A path or name of bytes that are not UTF-8, which no text
/// gives, is shown inexactly.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Net(Host::Any, None) => f.write_str("net"),
            Kind::Net(host, port) => {
                let host = host.to_string();
                // Outside of brackets a colon may be the one before a port.
                let host = if host.contains(':') { format!("[{host}]") } else { host };
                match port {
                    Some(port) => write!(f, "net:{host}:{port}"),
                    None => write!(f, "net:{host}"),
                }
            }
            Kind::Listen(port) => write!(f, "listen:{port}"),
            Kind::Unix(path) => write!(f, "unix:{}", path.display()),
            Kind::UnixAbstract(name) => write!(f, "unix:@{name}"),
            Kind::Device(path) => write!(f, "device:{}", path.display()),
            Kind::Signal(pid) => write!(f, "signal:{pid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_the_interface_parses() {
        for good in [
            "net",
            "net:example.org",
            "net:example.org:443",
            "net:10.0.0.0/8",
            "net:[::1]:80",
            "listen:8080",
            "unix:/run/x.sock",
            "unix:@name",
            "device:/dev/null",
            "signal:12",
        ] {
            assert!(good.parse::<Kind>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "nett",
            "net:*.example.org",
            "net:*.example.org:443",
            "net:www.*.org",
            "net:a:0",
            "net:10.0.0.0/33",
            "net:[::1]8080",
            "net:[::1]:",
            "net:a]:b:c",
            "listen",
            "unix:x",
            "signal:-1",
            "device:kvm",
            "device:/",
            "device:/etc/passwd",
            "device:/dev/null/x",
            "device:/dev/no-such-device",
            "device:/proc/self/exe",
        ] {
            assert!(bad.parse::<Kind>().is_err(), "{bad}");
        }
        assert_eq!(
            "net:[::1]:80".parse(),
            Ok(Kind::Net(Host::Network("::1".parse().unwrap(), 128), Some(80)))
        );
    }

    #[test]
    fn a_rule_has_one_text() {
        for (given, text) in [
            ("net", "net"),
            ("net:*", "net"),
            ("net:*:80", "net:*:80"),
            ("net:10.0.0.0/8:80", "net:10.0.0.0/8:80"),
            ("net:fe80::/10", "net:[fe80::/10]"),
            ("net:[::1]:80", "net:[::1]:80"),
            ("net:fe80::1%eth0", "net:[fe80::1%eth0]"),
            ("net:example.org:443", "net:example.org:443"),
            ("listen:8080", "listen:8080"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("unix:@name", "unix:@name"),
            ("device:/dev/null", "device:/dev/null"),
            ("signal:12", "signal:12"),
        ] {
            let kind: Kind = given.parse().unwrap();
            assert_eq!((kind.to_string().as_str(), text.parse()), (text, Ok(kind)));
        }
    }
}
