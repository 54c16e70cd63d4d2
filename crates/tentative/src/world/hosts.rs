//! Which servers the host asks for names (resolv.conf(5)).

use std::{
    fs,
    net::{IpAddr, SocketAddr},
};

/// The name servers of this host; its own loopback when it names none, as the C library does.
pub(super) fn name_servers() -> Vec<IpAddr> {
    let configured = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers = parse(&configured);
    if servers.is_empty() { vec![IpAddr::from([127, 0, 0, 1])] } else { servers }
}

/// Whether an address is that of a server which the host asks for names.
pub(super) fn is_name_server(address: SocketAddr) -> bool {
    address.port() == 53 && name_servers().contains(&address.ip())
}

pub(crate) fn parse(configured: &str) -> Vec<IpAddr> {
    configured
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|address| address.trim().split('%').next()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_found() {
        let text = "# comment\nsearch example.org\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\n";
        assert_eq!(parse(text), ["10.0.0.1".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]);
    }
}
