//! Whose address a frame may come from. The keys prove which peer sent a frame; this proves that
//! the frame does not speak for another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipop_wire::arp::Arp;
use ipop_wire::ethernet::{self, Ethernet};
use ipop_wire::ipv4::Ipv4Header;
use ipop_wire::ipv6::Ipv6Header;
use ipop_wire::neighbour::{ICMPV6, Meaning, Neighbour};
use zerocopy::FromBytes;

use crate::Config;
use crate::counters::Drop;
use crate::links::Link;
use crate::routes::Routes;

/// What the check knows.
pub(crate) struct Gate<'a> {
    pub config: &'a Config,
    pub own_addresses: &'a [IpAddr],
    pub routes: &'a Routes,
}

impl Gate<'_> {
    /// Whether a frame, of which at least the headers are there, may come from this link.
    #[inline]
    pub fn admit(&self, link: &mut Link, frame: &[u8]) -> Result<(), Drop> {
        let ethernet = Ethernet::parse(frame).map_err(|_| Drop::MalformedPlaintext)?;
        if ethernet.source() != link.entry.peer_mac {
            return Err(Drop::ForeignSource);
        }
        let destination = ethernet.destination();
        if destination != self.config.mac && !ethernet::is_group(&destination) {
            return Err(Drop::UnknownMac);
        }
        if self.config.strict_source { self.admit_source(link, &ethernet) } else { Ok(()) }
    }

    #[inline]
    fn admit_source(&self, link: &mut Link, ethernet: &Ethernet<'_>) -> Result<(), Drop> {
        let packet = ethernet.payload();
        match ethernet.ethertype() {
            ethernet::IPV4 => {
                let Ok((header, _)) = Ipv4Header::ref_from_prefix(packet) else { return Ok(()) };
                self.admit_address(link, Ipv4Addr::from(header.source).into())
            }
            ethernet::IPV6 => {
                let Ok((header, _)) = Ipv6Header::ref_from_prefix(packet) else { return Ok(()) };
                self.admit_address(link, Ipv6Addr::from(header.source).into())?;
                if header.next_header == ICMPV6 {
                    self.admit_neighbour(link, packet)
                } else {
                    Ok(())
                }
            }
            ethernet::ARP => {
                let Ok(arp) = Arp::parse(packet) else { return Ok(()) };
                if arp.sender_mac() != link.entry.peer_mac {
                    return Err(Drop::ForeignSource);
                }
                self.admit_address(link, arp.sender_ip().into())
            }
            _ => Ok(()),
        }
    }

    /// An advertisement may not point another peer's address, or ours, to the sender.
    fn admit_neighbour(&self, link: &mut Link, packet: &[u8]) -> Result<(), Drop> {
        let Ok(message) = Neighbour::parse(packet) else { return Ok(()) };
        if message.mac().is_some_and(|mac| mac != link.entry.peer_mac) {
            return Err(Drop::ForeignSource);
        }
        match message.meaning() {
            Meaning::Advertisement => self.admit_address(link, message.target().into()),
            Meaning::Solicitation => Ok(()),
        }
    }

    /// An address that no route names may come from any link: the host may use it unannounced.
    #[inline]
    fn admit_address(&self, link: &mut Link, address: IpAddr) -> Result<(), Drop> {
        let proof = (address, self.routes.version());
        if link.admitted == Some(proof) {
            return Ok(());
        }
        let is_theirs = self.routes.owner(address).is_none_or(|mac| mac == link.entry.peer_mac);
        if !is_theirs || self.own_addresses.contains(&address) {
            return Err(Drop::ForeignSource);
        }
        link.admitted = Some(proof);
        Ok(())
    }
}
