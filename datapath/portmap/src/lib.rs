//! Asks the machine's router to let datagrams in: a UDP port of its outside, mapped to ours, that
//! anybody may send to. Three protocols are tried in this order, and the first that works is kept:
//! PCP (RFC 6887), NAT-PMP (RFC 6886), and UPnP's Internet Gateway Device.
//!
//! [`Mapper`] is a thread that holds one mapping: it asks, renews at half of the lifetime, asks
//! again when the network changes, and gives the mapping back when it is dropped. What it has, it
//! tells by a callback. [`ask`] asks once, for diagnosis.
//!
//! Nothing is asked where the machine has a public address, and a mapping whose outside is private
//! is of no use to others and is not told (two NATs in a row). IPv4 only: IPv6 has no mappings, and
//! holes in an IPv6 firewall are punched like all others.
//!
//! Answers are taken only from the router itself, on a connected socket, and with PCP only with the
//! question's nonce. The router is trusted no further than anybody on the path is: a wrong address
//! makes a candidate whose checks fail.
//!
//! Left out: mappings for TCP, and of several ports.

#![forbid(unsafe_code)]

mod dialogue;
mod gateway;
mod igd;
mod mapper;
mod wire;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

pub use mapper::Mapper;

/// How long a mapping is asked for, seconds. A router that forgets nothing keeps it no longer than
/// this after we are gone.
pub const LIFETIME_SECONDS: u32 = 3600;

/// What the router speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Port Control Protocol, RFC 6887.
    Pcp,
    /// RFC 6886.
    NatPmp,
    /// UPnP Internet Gateway Device.
    Upnp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pcp => "PCP",
            Self::NatPmp => "NAT-PMP",
            Self::Upnp => "UPnP",
        })
    }
}

/// What the router has granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// What gave it.
    pub protocol: Protocol,
    /// Our socket.
    pub internal: SocketAddrV4,
    /// Where others send to.
    pub external: SocketAddrV4,
    /// For how long, counted from the answer.
    pub lifetime: Duration,
}

/// Why there is no mapping.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Nothing to ask for.
    #[error("the machine's address {0} is public")]
    Public(Ipv4Addr),
    /// Nobody to ask.
    #[error("there is no IPv4 default route")]
    NoGateway,
    /// What each protocol said.
    #[error("the router {gateway} maps no port: {reasons}")]
    Refused {
        /// The router.
        gateway: Ipv4Addr,
        /// Protocol by protocol.
        reasons: String,
    },
    /// Two NATs in a row.
    #[error("the router's own outside {0} is private: another NAT is behind it")]
    Behind(Ipv4Addr),
    /// The system refused something.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// Asks for a mapping of UDP `port` once, by all protocols until one grants it. Takes up to six
/// seconds where nobody answers.
///
/// # Errors
/// [`MapError`] says what each protocol answered.
pub fn ask(port: u16) -> Result<Mapping, MapError> {
    dialogue::Dialogue::open(port)?.ask()
}

/// Private use, shared address space, or link-local (RFC 1918, 6598, 3927).
fn is_private(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    ip.is_private() || ip.is_link_local() || ip.is_unspecified() || (a == 100 && b & 0xc0 == 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_known() {
        for ip in
            ["10.1.2.3", "172.31.0.1", "192.168.1.1", "100.64.0.1", "100.127.9.9", "169.254.1.1"]
        {
            assert!(is_private(ip.parse().expect("an address")), "{ip}");
        }
        for ip in ["100.63.0.1", "100.128.0.1", "172.32.0.1", "198.18.0.2", "8.8.8.8"] {
            assert!(!is_private(ip.parse().expect("an address")), "{ip}");
        }
    }
}
