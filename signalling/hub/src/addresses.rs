//! Under which addresses others may reach this machine.

use getifaddrs::{Address, InterfaceFlags};
use ipop_signal::{Host, HostPort};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

/// Where a hub that listens at `bound` is reachable, the most likely first.
pub(crate) fn reachable(bound: SocketAddr, advertised: &[HostPort]) -> Vec<HostPort> {
    if !advertised.is_empty() {
        return advertised.to_vec();
    }
    let ips =
        if bound.ip().is_unspecified() { routable(bound.is_ipv4()) } else { vec![bound.ip()] };
    let at = |ip| HostPort { host: Host::Address(ip), port: bound.port() };
    ips.into_iter().map(at).collect()
}

/// Addresses of interfaces that others can send to: IPv4 before IPv6, global ones before private.
pub(crate) fn routable(ipv4_only: bool) -> Vec<IpAddr> {
    let mut ips: Vec<_> = own().into_iter().filter(is_routable).collect();
    ips.retain(|ip| ip.is_ipv4() || !ipv4_only);
    ips.sort_by_key(|ip| (ip.is_ipv6(), is_private(ip), *ip));
    ips.dedup();
    ips
}

/// All addresses of interfaces that are up.
pub(crate) fn own() -> Vec<IpAddr> {
    of_interfaces(|_| true)
}

/// What of [`routable`] relayed addresses may be of: not a tunnel's, which is an overlay's as a
/// rule. A relay there would carry an overlay's links inside another's, or its own.
pub(crate) fn lendable() -> Vec<IpAddr> {
    let is_tunnel = |name: &str| Path::new("/sys/class/net").join(name).join("tun_flags").exists();
    let apart = of_interfaces(|name| !is_tunnel(name));
    let mut ips = routable(false);
    ips.retain(|ip| apart.contains(ip));
    ips
}

fn of_interfaces(is_meant: impl Fn(&str) -> bool) -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs::getifaddrs() else { return Vec::new() };
    let up = interfaces.filter(|interface| {
        interface.flags.contains(InterfaceFlags::UP) && is_meant(&interface.name)
    });
    up.filter_map(|interface| interface.address.ip_addr()).collect()
}

/// Broadcast addresses of this machine's IPv4 networks.
pub(crate) fn broadcast() -> Vec<Ipv4Addr> {
    let Ok(interfaces) = getifaddrs::getifaddrs() else { return Vec::new() };
    let addresses = interfaces.filter_map(|interface| match interface.address {
        Address::V4(v4) => v4.netmask.map(|netmask| (v4.address.to_bits(), netmask.to_bits())),
        _ => None,
    });
    // Networks of one or two addresses have none (RFC 3021).
    let wide = addresses.filter(|(_, netmask)| netmask.count_zeros() > 1);
    wide.map(|(address, netmask)| Ipv4Addr::from_bits(address | !netmask)).collect()
}

pub(crate) fn is_routable(ip: &IpAddr) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || is_link_local)
}

fn is_private(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}

/// `host`, `host:port`, `[v6]:port` or a bare IPv6 address.
pub(crate) fn parse(text: &str, default_port: u16) -> Option<HostPort> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(HostPort { host: Host::Address(ip), port: default_port });
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(HostPort { host: Host::Address(address.ip()), port: address.port() });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
        None => (text, default_port),
    };
    let is_name = |c: char| c.is_alphanumeric() || c == '-' || c == '.';
    let sound = (1..=253).contains(&host.len()) && host.chars().all(is_name);
    sound.then(|| HostPort { host: Host::Name(host.to_owned()), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advertised_addresses_are_read() {
        let read = |text: &str| parse(text, 5222).map(|at| at.to_string());
        assert_eq!(read("hub.example").as_deref(), Some("hub.example:5222"));
        assert_eq!(read("hub.example:443").as_deref(), Some("hub.example:443"));
        assert_eq!(read("192.0.2.1").as_deref(), Some("192.0.2.1:5222"));
        assert_eq!(read("2001:db8::1").as_deref(), Some("[2001:db8::1]:5222"));
        assert_eq!(read("[2001:db8::1]:443").as_deref(), Some("[2001:db8::1]:443"));
        for text in ["", ":1", "a:0", "a:b", "a b", "[::1]", "a/b:1"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_specific_address_is_the_only_one() {
        let bound: SocketAddr = "192.0.2.1:5222".parse().unwrap();
        let reachable = reachable(bound, &[]);
        assert_eq!(reachable.len(), 1);
        assert_eq!(reachable[0].to_string(), "192.0.2.1:5222");
        let other = vec![HostPort { host: Host::of("hub.example"), port: 1 }];
        assert_eq!(super::reachable(bound, &other), other);
    }
}
