//! Where the relay may send to.
//!
//! A relay is a way into the network that the hub stands in. Never relayed to: the hub's machine by
//! its loopback addresses, link-local, multicast, broadcast, unspecified and reserved addresses,
//! in IPv4 or wrapped in IPv6, and the hub's own ports at any of its addresses. Private addresses
//! are allowed unless told otherwise, because labs and data centres consist of them: a hub on the
//! edge of a network that its users must not reach should run with `allow_private_peers = false`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    pub(crate) allow_private: bool,
    /// Addresses of this machine, the one that others see included.
    pub(crate) own: Vec<IpAddr>,
    /// Ports of the hub itself.
    pub(crate) service_ports: Vec<u16>,
    /// Broadcast addresses of this machine's networks.
    pub(crate) broadcast: Vec<Ipv4Addr>,
}

impl Policy {
    /// Whether a datagram may be sent to a peer.
    pub(crate) fn permits(&self, peer: SocketAddr) -> bool {
        let is_service = self.service_ports.contains(&peer.port()) && self.is_own(peer.ip());
        peer.port() != 0 && !is_service && self.permits_ip(peer.ip())
    }

    /// Whether it is one of this machine's, as it is or inside an IPv6 address.
    fn is_own(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        let inner = match ip {
            IpAddr::V4(_) => None,
            IpAddr::V6(ip) => embedded_v4(ip).map(IpAddr::V4),
        };
        self.own.contains(&ip) || inner.is_some_and(|inner| self.own.contains(&inner))
    }

    /// Whether there may be a permission for an address, whatever the port.
    pub(crate) fn permits_ip(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.permits_v4(ip),
            IpAddr::V6(ip) => self.permits_v6(ip),
        }
    }

    fn permits_v4(&self, ip: Ipv4Addr) -> bool {
        let [first, second, ..] = ip.octets();
        let is_shared = first == 100 && (64..128).contains(&second);
        let is_private = ip.is_private() || is_shared;
        // 0/8 means this network, 240/4 is reserved and holds the broadcast address.
        let never = first == 0
            || first >= 224
            || ip.is_loopback()
            || ip.is_link_local()
            || self.broadcast.contains(&ip);
        !never && (self.allow_private || !is_private)
    }

    fn permits_v6(&self, ip: Ipv6Addr) -> bool {
        let never = ip.is_loopback()
            || ip.is_unspecified()
            || ip.is_multicast()
            || ip.is_unicast_link_local()
            || is_site_local(ip);
        if never || (ip.is_unique_local() && !self.allow_private) {
            return false;
        }
        embedded_v4(ip).is_none_or(|inner| self.permits_v4(inner))
    }
}

/// fec0::/10, of old.
fn is_site_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfec0
}

/// The IPv4 address that a translator or tunnel would make of an IPv6 address: compatible
/// (::/96), NAT64 (64:ff9b::/96, 64:ff9b:1::/48 at its end) and 6to4 (2002::/16).
fn embedded_v4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, high, low] => Some(of(high, low)),
        [0x64, 0xff9b, 0 | 1, .., high, low] => Some(of(high, low)),
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow_private: bool) -> Policy {
        Policy {
            allow_private,
            own: vec!["10.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            service_ports: vec![5222, 3478],
            broadcast: vec!["10.0.0.255".parse().unwrap()],
        }
    }

    fn permits(policy: &Policy, peer: &str) -> bool {
        policy.permits(peer.parse().unwrap())
    }

    #[test]
    fn what_nobody_may_reach() {
        for peer in [
            "127.0.0.1:9",
            "127.9.9.9:9",
            "0.0.0.0:9",
            "0.1.2.3:9",
            "169.254.169.254:80",
            "224.0.0.1:9",
            "239.255.255.250:1900",
            "255.255.255.255:9",
            "250.0.0.1:9",
            "10.0.0.255:9",
            "192.0.2.1:0",
            "[::]:9",
            "[::1]:9",
            "[fe80::1]:9",
            "[fec0::1]:9",
            "[ff02::1]:9",
            "[::ffff:127.0.0.1]:9",
            "[::127.0.0.1]:9",
            "[64:ff9b::127.0.0.1]:9",
            "[64:ff9b:1::169.254.169.254]:9",
            "[2002:7f00:1::]:9",
        ] {
            assert!(!permits(&policy(true), peer), "{peer}");
        }
    }

    #[test]
    fn the_hub_itself_is_out_of_reach_and_its_relay_addresses_are_not() {
        for peer in ["10.0.0.1:5222", "10.0.0.1:3478", "[2001:db8::1]:3478"] {
            assert!(!permits(&policy(true), peer), "{peer}");
        }
        for peer in ["10.0.0.1:40000", "10.0.0.2:3478", "[2001:db8::1]:40000"] {
            assert!(permits(&policy(true), peer), "{peer}");
        }
        for prefix in ["::ffff:", "::", "64:ff9b::"] {
            assert!(!permits(&policy(true), &format!("[{prefix}10.0.0.1]:3478")), "{prefix}");
        }
    }

    #[test]
    fn private_addresses_are_a_choice() {
        for peer in [
            "10.1.2.3:9",
            "172.16.0.1:9",
            "192.168.1.1:9",
            "100.64.0.1:9",
            "[fd00::1]:9",
            "[64:ff9b::10.1.2.3]:9",
        ] {
            assert!(permits(&policy(true), peer), "{peer}");
            assert!(!permits(&policy(false), peer), "{peer}");
        }
        for peer in ["192.0.2.1:9", "8.8.8.8:53", "[2001:db8::2]:9"] {
            assert!(permits(&policy(false), peer), "{peer}");
        }
    }
}
