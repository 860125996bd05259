//! Machines with IPv6, and machines without IPv4.
//!
//! ```text
//!  hub 2001:db8::10/64 ------ 2001:db8::1 internet
//!  node j 2001:db8:j::2/64 -- 2001:db8:j::1 internet       (no NAT, j in hexadecimal)
//! ```

use std::net::Ipv6Addr;

use super::{Internet, Site};
use crate::{LabError, Namespace, Nat};

/// Network 0 is the hub's, the others are of the sites of that number.
fn in_network(number: u16, last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, number, 0, 0, 0, 0, last)
}

impl Internet {
    /// Gives the servers' machine an address of IPv6 beside the one that it has.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn give_hub_ipv6(&self) -> Result<Ipv6Addr, LabError> {
        self.give_ipv6(0, "hub", &self.hub, 10)
    }

    /// Gives a public machine an address of IPv6 beside the one that it has.
    ///
    /// # Errors
    /// When the system refuses it, or the machine is behind a router.
    pub fn give_site_ipv6(&self, site: &Site) -> Result<Ipv6Addr, LabError> {
        if site.nat != Nat::None {
            return Err(LabError::HasRouter);
        }
        let [_, _, octet, _] = site.address.octets();
        self.give_ipv6(octet.into(), &format!("site{octet}"), &site.node, 2)
    }

    /// Takes all IPv4 from a machine: the addresses that the site names are gone then.
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn take_site_ipv4(&self, site: &Site) -> Result<(), LabError> {
        site.node.ip("-4 address flush dev eth0").map(drop)
    }

    fn give_ipv6(
        &self,
        number: u16,
        port: &str,
        machine: &Namespace,
        last: u16,
    ) -> Result<Ipv6Addr, LabError> {
        self.middle.run("sysctl -qw net.ipv6.conf.all.forwarding=1")?;
        let [gateway, address] = [1, last].map(|last| in_network(number, last));
        self.middle.ip(&format!("address add {gateway}/64 dev {port} nodad"))?;
        machine.ip(&format!("address add {address}/64 dev eth0 nodad"))?;
        machine.ip(&format!("-6 route add default via {gateway}"))?;
        Ok(address)
    }
}
