//! What the link agent asks of a worker's pipeline: links and routes come and go, control messages
//! are sealed, idle keys are looked after. All of it belongs between batches: what is open while a
//! path changes was sealed for the old one.

use std::net::IpAddr;
use std::ops::DerefMut;
use std::time::Instant;

use ipop_wire::ethernet::Mac;
use ipop_wire::{Kind, LinkIndex, Part};

use crate::Pipeline;
use crate::counters::{Drop, LinkCounters, Total};
use crate::links::{LinkEntry, Path};

/// What is known of one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Our own index of it.
    pub index: LinkIndex,
    /// Hardware address of the peer's tap.
    pub peer_mac: Mac,
    /// What it has carried.
    pub counters: LinkCounters,
    /// When an authentic datagram came last.
    pub heard: Option<Instant>,
    /// Epoch of the sending key.
    pub sealing_epoch: u64,
    /// Epoch of the newest receiving key.
    pub opening_epoch: u64,
}

impl<S: DerefMut<Target = [u8]>> Pipeline<S> {
    /// Adds a link; one with the same index is replaced and returned.
    pub fn install_link(&mut self, mut entry: LinkEntry) -> Option<LinkEntry> {
        entry.sealer.set_life(self.config.key_life);
        self.links.install(entry)
    }

    /// Lets frames for the link's peer take this link, instead of the one that they took. `false`:
    /// there is no such link.
    pub fn use_link(&mut self, index: LinkIndex) -> bool {
        self.links.use_for_sending(index)
    }

    /// Removes a link. What waits for it is dropped.
    pub fn remove_link(&mut self, index: LinkIndex) -> Option<LinkEntry> {
        self.links.remove(index)
    }

    /// Changes where a link's datagrams go; `None` while no path works. `false`: there is no such
    /// link.
    pub fn set_path(&mut self, index: LinkIndex, path: Option<Path>) -> bool {
        let id = self.links.find_index(index);
        let Some(link) = id.and_then(|id| self.links.get_mut(id)) else { return false };
        link.entry.path = path;
        true
    }

    /// Sets the addresses that the node itself has: nobody answers for them, and no peer may send
    /// from them.
    pub fn set_addresses(&mut self, addresses: &[IpAddr]) {
        self.addresses.clear();
        self.addresses.extend_from_slice(addresses);
        self.routes.forget_answers();
    }

    /// Routes `address/prefix` to the peer with this hardware address, instead of whoever had it.
    pub fn add_route(&mut self, address: IpAddr, prefix: u8, peer_mac: Mac) {
        self.routes.set(address, prefix, peer_mac);
    }

    /// Removes a route. `false`: there was none.
    pub fn remove_route(&mut self, address: IpAddr, prefix: u8) -> bool {
        self.routes.remove(address, prefix)
    }

    /// Replaces all routes.
    pub fn set_routes(&mut self, routes: impl IntoIterator<Item = (IpAddr, u8, Mac)>) {
        self.routes.clear();
        for (address, prefix, peer_mac) in routes {
            self.routes.set(address, prefix, peer_mac);
        }
    }

    /// Seals a message for the peer's link agent to the front of `out` and returns the datagram's
    /// length. `channel` is that of the path it is meant for, which need not be the link's own.
    ///
    /// # Errors
    /// `UnknownLink`, `KeyExhausted`, or `TooBig` when `out` is too small.
    pub fn seal_control(
        &mut self,
        now: Instant,
        index: LinkIndex,
        channel: Option<u16>,
        body: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Drop> {
        let id = self.links.find_index(index).ok_or(Drop::UnknownLink)?;
        let link = self.links.get_mut(id).ok_or(Drop::UnknownLink)?;
        self.counters.add(Total::Ratchets, link.ratchet_if_due(now));
        let len = link.seal_on(channel, Kind::Control, Part::WHOLE, body, &[], out)?;
        link.counters.control_out += 1;
        self.counters.add(Total::DatagramsOut, 1);
        self.counters.add(Total::DatagramBytesOut, len);
        Ok(len)
    }

    /// Looks after keys that no packet touches; to be called every few seconds.
    pub fn maintain(&mut self, now: Instant) {
        for link in self.links.iter_mut() {
            link.entry.opener.forget_expired(now);
            self.counters.add(Total::Ratchets, link.ratchet_if_due(now));
        }
    }

    /// What is known of each link.
    pub fn link_statuses(&self) -> impl Iterator<Item = LinkStatus> + '_ {
        self.links.iter().map(|link| LinkStatus {
            index: link.entry.index,
            peer_mac: link.entry.peer_mac,
            counters: link.counters,
            heard: link.heard,
            sealing_epoch: link.entry.sealer.epoch(),
            opening_epoch: link.entry.opener.epoch(),
        })
    }
}
