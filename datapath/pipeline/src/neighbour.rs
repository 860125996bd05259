//! Answering the host's questions for hardware addresses: every node can compute every other's, so
//! no question needs to leave. Nobody may answer for an address of the node itself: that is how the
//! host finds out whether the address is free.

use std::net::IpAddr;

use ipop_wire::arp::{Arp, ArpRepr, Operation};
use ipop_wire::ethernet::{self, Ethernet, Mac};
use ipop_wire::neighbour::{AdvertisementRepr, Meaning, Neighbour};

use crate::links::LinkTable;
use crate::routes::{Routes, mac_in};

/// What is to happen with a frame that the host sent to a group.
pub(crate) enum Verdict {
    /// It is not a question, or nobody here knows the answer but some peer may.
    Forward,
    /// The host gets this ARP reply.
    Arp(ArpRepr),
    /// The host gets this neighbour advertisement.
    Advertise(AdvertisementRepr),
    /// The host checks an address of its own: silence.
    OwnProbe,
    /// It asks for a peer whose link does not carry yet: silence, so that the host keeps what it
    /// has for the peer until the link is announced.
    NotUp,
    /// It asks for an address that no peer has.
    NoRoute(IpAddr),
}

/// What a question is answered from.
pub(crate) struct Directory<'a> {
    pub routes: &'a Routes,
    pub links: &'a mut LinkTable,
    pub own_addresses: &'a [IpAddr],
}

impl Directory<'_> {
    /// Looks at one frame to a group. Questions in a VLAN are left to the peers.
    pub fn consider(&mut self, frame: &Ethernet<'_>) -> Verdict {
        match frame.ethertype() {
            _ if frame.is_tagged() => Verdict::Forward,
            ethernet::ARP => match Arp::parse(frame.payload()) {
                Ok(arp) if arp.operation() == Operation::Request => self.arp(&arp),
                _ => Verdict::Forward,
            },
            ethernet::IPV6 => match Neighbour::parse(frame.payload()) {
                Ok(question) if question.meaning() == Meaning::Solicitation => {
                    self.solicitation(frame.source(), &question)
                }
                _ => Verdict::Forward,
            },
            _ => Verdict::Forward,
        }
    }

    fn arp(&mut self, request: &Arp<'_>) -> Verdict {
        let target = request.target_ip().into();
        if self.own_addresses.contains(&target) {
            return Verdict::OwnProbe;
        }
        match self.routes.owner(target) {
            Some(mac) if self.links.find_mac(&mac).is_none() => Verdict::NotUp,
            Some(mac) => Verdict::Arp(ArpRepr::of(request).reply(mac)),
            None => Verdict::NoRoute(target),
        }
    }

    fn solicitation(&mut self, asker: Mac, question: &Neighbour<'_>) -> Verdict {
        let target = question.target();
        if self.own_addresses.contains(&target.into()) {
            return Verdict::OwnProbe;
        }
        let owner = self.routes.owner(target.into()).or_else(|| self.maker(mac_in(&target)?));
        let Some(mac) = owner else {
            // Link-local addresses are routed to nobody; their owner hears the question itself.
            let is_link_local = target.is_unicast_link_local();
            return if is_link_local { Verdict::Forward } else { Verdict::NoRoute(target.into()) };
        };
        if self.links.find_mac(&mac).is_none() {
            return Verdict::NotUp;
        }
        let source = question.source();
        let solicitor = (!source.is_unspecified()).then_some((source, asker));
        Verdict::Advertise(AdvertisementRepr { target, mac, solicitor })
    }

    /// The peer with this hardware address.
    fn maker(&mut self, mac: Mac) -> Option<Mac> {
        let is_known = self.links.find_mac(&mac).is_some() || self.routes.knows(&mac);
        is_known.then_some(mac)
    }
}
