//! Telling the host that a peer can be reached now. It may have asked before, in vain: then it
//! holds packets back and asks again only after a second.

use std::net::IpAddr;
use std::ops::DerefMut;

use ipop_wire::arp::{ArpRepr, Operation};
use ipop_wire::ethernet::Mac;
use ipop_wire::neighbour::AdvertisementRepr;

use crate::Pipeline;
use crate::sink::Sink;

impl<S: DerefMut<Target = [u8]>> Pipeline<S> {
    /// Answers, unasked, for all single addresses of a peer whose link carries. The host takes it
    /// as the answer to what it asked before, and ignores it if it did not ask.
    pub fn announce<K: Sink<Slot = S>>(&mut self, peer: &Mac, sink: &mut K) {
        if self.links.find_mac(peer).is_none() {
            return;
        }
        let hosts: Vec<IpAddr> = self.routes.hosts(peer).collect();
        for host in hosts {
            // Of two that do not get a slot the second is no better off: what is lost here costs
            // the host a second.
            let _ = match host {
                IpAddr::V4(ip) => {
                    let own = self.addresses.iter().find_map(|own| match own {
                        IpAddr::V4(own) => Some(*own),
                        IpAddr::V6(_) => None,
                    });
                    let reply = ArpRepr {
                        operation: Operation::Reply,
                        sender_mac: *peer,
                        sender_ip: ip,
                        target_mac: self.config.mac,
                        target_ip: own.unwrap_or(ip),
                    };
                    self.answer(&reply.emit_frame(*peer, self.config.mac), sink)
                }
                IpAddr::V6(target) => {
                    let own = self.addresses.iter().find_map(|own| match own {
                        IpAddr::V6(own) => Some((*own, self.config.mac)),
                        IpAddr::V4(_) => None,
                    });
                    let advertisement = AdvertisementRepr { target, mac: *peer, solicitor: own };
                    self.answer(&advertisement.emit_frame(), sink)
                }
            };
        }
    }
}
