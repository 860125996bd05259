//! Which peer has which address: asked by neighbour discovery on the way out and by the check of
//! sources on the way in.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipop_wire::ethernet::Mac;

/// Overlay addresses and networks, each with the hardware address of the peer that has them.
#[derive(Default)]
pub(crate) struct Routes {
    hosts: BTreeMap<IpAddr, Mac>,
    /// Longest prefix first.
    networks: Vec<Network>,
    /// Changes with every change, so that answers may be remembered.
    version: u64,
}

struct Network {
    base: IpAddr,
    prefix: u8,
    mac: Mac,
}

impl Routes {
    /// Routes `address/prefix` to a peer, instead of whoever had it. Bits behind the prefix are
    /// ignored; a prefix too long for the address counts as a host.
    pub fn set(&mut self, address: IpAddr, prefix: u8, mac: Mac) {
        self.version += 1;
        if prefix >= width(address) {
            self.hosts.insert(address, mac);
            return;
        }
        self.forget(address, prefix);
        let at = self.networks.partition_point(|network| network.prefix >= prefix);
        self.networks.insert(at, Network { base: mask(address, prefix), prefix, mac });
    }

    /// Removes a route; tells whether there was one.
    pub fn remove(&mut self, address: IpAddr, prefix: u8) -> bool {
        self.version += 1;
        if prefix >= width(address) {
            return self.hosts.remove(&address).is_some();
        }
        self.forget(address, prefix)
    }

    /// Removes all routes.
    pub fn clear(&mut self) {
        self.version += 1;
        self.hosts.clear();
        self.networks.clear();
    }

    fn forget(&mut self, address: IpAddr, prefix: u8) -> bool {
        let (base, before) = (mask(address, prefix), self.networks.len());
        self.networks.retain(|network| (network.base, network.prefix) != (base, prefix));
        self.networks.len() != before
    }

    /// The peer that an address leads to, by the longest prefix.
    pub fn owner(&self, address: IpAddr) -> Option<Mac> {
        if let Some(mac) = self.hosts.get(&address) {
            return Some(*mac);
        }
        let network = self.networks.iter().find(|network| {
            network.base.is_ipv4() == address.is_ipv4()
                && mask(address, network.prefix) == network.base
        })?;
        Some(network.mac)
    }

    /// The single addresses that lead to a peer.
    pub fn hosts(&self, mac: &Mac) -> impl Iterator<Item = IpAddr> {
        self.hosts.iter().filter(move |(_, owner)| *owner == mac).map(|(address, _)| *address)
    }

    /// Whether a peer has any address.
    pub fn knows(&self, mac: &Mac) -> bool {
        self.hosts.values().any(|owner| owner == mac)
            || self.networks.iter().any(|network| network.mac == *mac)
    }

    /// Makes remembered answers void, because something else that they depend on has changed.
    pub fn forget_answers(&mut self) {
        self.version += 1;
    }

    /// A number that changes whenever an answer may.
    pub fn version(&self) -> u64 {
        self.version
    }
}

/// The hardware address in a link-local address made by the rules of EUI-64 (RFC 4291 appendix A).
pub(crate) fn mac_in(address: &Ipv6Addr) -> Option<Mac> {
    let o = address.octets();
    let is_derived = o[..8] == [0xfe, 0x80, 0, 0, 0, 0, 0, 0] && o[11..13] == [0xff, 0xfe];
    is_derived.then_some([o[8] ^ 2, o[9], o[10], o[13], o[14], o[15]])
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn the_longest_prefix_wins() {
        let mut routes = Routes::default();
        routes.set(ip("10.0.0.0"), 8, [1; 6]);
        routes.set(ip("10.1.0.9"), 16, [2; 6]);
        routes.set(ip("10.1.0.7"), 32, [3; 6]);
        routes.set(ip("::"), 0, [4; 6]);
        assert_eq!(routes.owner(ip("10.2.0.1")), Some([1; 6]));
        assert_eq!(routes.owner(ip("10.1.3.1")), Some([2; 6]));
        assert_eq!(routes.owner(ip("10.1.0.7")), Some([3; 6]));
        assert_eq!(routes.owner(ip("fd00::1")), Some([4; 6]));
        assert_eq!(routes.owner(ip("11.0.0.1")), None);
        assert!(routes.knows(&[4; 6]) && !routes.knows(&[5; 6]));
        let version = routes.version();
        assert!(routes.remove(ip("10.1.255.255"), 16) && !routes.remove(ip("10.1.0.0"), 16));
        assert_ne!(routes.version(), version);
        assert_eq!(routes.owner(ip("10.1.3.1")), Some([1; 6]));
        routes.set(ip("10.0.0.0"), 8, [9; 6]);
        assert_eq!(routes.owner(ip("10.1.3.1")), Some([9; 6]));
    }

    #[test]
    fn a_derived_address_tells_its_maker() {
        let address: Ipv6Addr = "fe80::aabb:ccff:fedd:eeff".parse().expect("address");
        assert_eq!(mac_in(&address), Some([0xa8, 0xbb, 0xcc, 0xdd, 0xee, 0xff]));
        assert_eq!(mac_in(&"fd80::aabb:ccff:fedd:eeff".parse().expect("address")), None);
    }
}
