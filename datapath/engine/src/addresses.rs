//! The machine's own addresses that links may use.

use std::io;
use std::net::IpAddr;

use getifaddrs::{InterfaceFlags, getifaddrs};
use ipop_uring::is_overlay;

/// Addresses of a family at most: a machine full of container bridges has hundreds, and each
/// becomes a candidate that every peer checks.
const PER_FAMILY_MAX: usize = 8;

/// The addresses of all interfaces that are up and have their cable, except loopback, link-local
/// ones and those of overlays: a link through its own overlay, which is `interface`, leads nowhere,
/// and two overlays through each other to the same nowhere.
pub(crate) fn host_addresses(interface: &str) -> io::Result<Vec<IpAddr>> {
    let mut found = Vec::new();
    for entry in getifaddrs()? {
        let is_up = entry.flags.contains(InterfaceFlags::UP | InterfaceFlags::RUNNING);
        let Some(ip) = entry.address.ip_addr() else { continue };
        let is_ours = entry.name == interface || is_overlay(&entry.name);
        if is_up && !is_ours && is_usable(&ip) && !found.contains(&ip) {
            found.push(ip);
        }
    }
    let of_family =
        |v4: bool| found.iter().copied().filter(move |ip| ip.is_ipv4() == v4).take(PER_FAMILY_MAX);
    Ok(of_family(true).chain(of_family(false)).collect())
}

fn is_usable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            !v4.is_loopback() && !v4.is_unspecified() && !v4.is_multicast() && !v4.is_link_local()
        }
        IpAddr::V6(v6) => {
            !v6.is_loopback()
                && !v6.is_unspecified()
                && !v6.is_multicast()
                && !v6.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_loopback_nor_link_local_is_offered() {
        for address in host_addresses("lo").unwrap() {
            assert!(is_usable(&address));
        }
        assert!(!is_usable(&"127.0.0.1".parse().unwrap()));
        assert!(!is_usable(&"fe80::1".parse().unwrap()));
        assert!(is_usable(&"10.0.0.1".parse().unwrap()));
    }
}
