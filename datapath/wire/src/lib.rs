//! Frames: the tunnel's own formats and checked views of everybody else's.
//!
//! What it is: every byte layout the datapath reads or writes, one file per format, with no state
//! and no I/O. Ours are the tunnel [`Header`] in front of every datagram, the [`geometry`] behind a
//! part of a super-segment, and the [`bundle`] of several small frames. Theirs are virtio-net,
//! Ethernet, ARP, IPv4, IPv6, TCP, UDP, neighbour discovery, the ICMP of packets that are too big,
//! and TURN ChannelData.
//!
//! Each format has two types: a *view*, checked once against the bytes, whose accessors cannot fail
//! afterwards, and a *repr* (or plain struct) that is taken from a view and emitted again; parsing
//! what was emitted gives the same value, which a property test holds for each of them.
//!
//! What it leaves out: routing, keys, reassembly. Those decide; this crate only spells.
//!
//! Read first: [`Header`] and [`geometry::Geometry`].
#![forbid(unsafe_code)]

pub mod arp;
pub mod bundle;
pub mod channel;
pub mod checksum;
pub mod ethernet;
mod flags;
pub mod geometry;
pub mod ipv4;
pub mod ipv6;
pub mod layout;
pub mod neighbour;
pub mod tcp;
pub mod too_big;
pub mod tunnel;
pub mod udp;
pub mod vnet;

pub use tunnel::{
    HEADER_LEN, Header, HeaderError, Kind, LinkIndex, Part, Protocol, SEAL_OVERHEAD, TAG_LEN,
};
pub use vnet::{VNET_HEADER_LEN, VirtioNetHeader};

/// Why bytes are not of the format that they were read as. Always the fault of whoever sent them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than the format's header, or than the header says.
    #[error("cut off")]
    Truncated,
    /// A length field contradicts the format.
    #[error("impossible length")]
    BadLength,
    /// A field holds what it must not.
    #[error("forbidden value")]
    BadValue,
    /// Another version or variant of the format.
    #[error("unsupported variant")]
    Unsupported,
}

/// Hardware address of a node's tap: derived from its key's fingerprint, so that every node can
/// compute every other node's. Locally administered, unicast.
pub const fn mac_of(fingerprint: &[u8; 32]) -> [u8; 6] {
    let f = fingerprint;
    [0x02 | (f[0] & 0xfc), f[1], f[2], f[3], f[4], f[5]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_address_is_local_and_unicast() {
        for first in 0..=255 {
            let mut fingerprint = [0x5a; 32];
            fingerprint[0] = first;
            let mac = mac_of(&fingerprint);
            assert_eq!(mac[0] & 0b11, 0b10);
            assert_eq!(mac[1..], [0x5a; 5]);
        }
    }
}
