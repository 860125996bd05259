//! The way of a frame from the tap to the network, in the order in which the functions stand:
//!
//! 1. The virtio-net and Ethernet headers are read; a frame that is not from the tap's own address
//!    goes no further.
//! 2. A worker besides the first hands over what it has no lane for.
//! 3. A question for a hardware address is answered from the routes and never leaves.
//! 4. A frame to a group goes to every link, one to a peer's address to that peer's link.
//! 5. For an address that no link has, the agent hears that there is no route.
//! 6. Per link: the key is renewed if it is time; a small frame is staged for a bundle; a larger
//!    one is cut ([`cut`]) and sealed straight into an output slot ([`outbox`]).
//! 7. The sender of a packet that took several datagrams hears how large they should be
//!    ([`telling`]). The packet travels all the same.
//! 8. At the end of the batch, bundles are sealed and what is open is sent.

mod announce;
pub(crate) mod cut;
pub(crate) mod outbox;
pub(crate) mod telling;

use std::net::IpAddr;
use std::ops::DerefMut;
use std::time::Instant;

use ipop_wire::arp::Arp;
use ipop_wire::ethernet::{self, Ethernet, Mac};
use ipop_wire::ipv4::Ipv4;
use ipop_wire::ipv6::Ipv6;
use ipop_wire::{VNET_HEADER_LEN, VirtioNetHeader};

use crate::Pipeline;
use crate::counters::{Drop, Total};
use crate::egress::cut::{Fit, Outgoing};
use crate::egress::outbox::Out;
use crate::links::LinkId;
use crate::neighbour::{Directory, Verdict};
use crate::sink::{Sink, ToAgent};

/// Where an answer to the host stands in its slot.
const ANSWER_START: usize = 0;

impl<S: DerefMut<Target = [u8]>> Pipeline<S> {
    /// Takes one frame as it was read from the tap, virtio-net header first. What is made of it
    /// goes to the sink, now or when the batch is flushed.
    pub fn egress<K: Sink<Slot = S>>(&mut self, now: Instant, tap_frame: &[u8], sink: &mut K) {
        if let Err(reason) = self.try_egress(now, tap_frame, sink) {
            self.counters.drop(reason);
        }
    }

    /// Ends a batch of [`egress`](Self::egress): nothing waits any longer.
    pub fn flush_egress<K: Sink<Slot = S>>(&mut self, sink: &mut K) {
        self.out(sink).flush();
    }

    /// When [`repeat`](Self::repeat) has something to do.
    pub fn repeat_due(&self) -> Option<Instant> {
        self.repeater.due()
    }

    /// Sends what is due to be sent again.
    pub fn repeat<K: Sink<Slot = S>>(&mut self, now: Instant, sink: &mut K) {
        while let Some((waiting, is_first)) = self.repeater.take_due(now) {
            let path = self.links.get(waiting.link).and_then(|link| link.entry.path);
            if path.is_none_or(|path| !path.is_lossy || path.channel != waiting.channel) {
                continue;
            }
            let Some(mut slot) = sink.reserve() else { continue };
            slot[..waiting.bytes.len()].copy_from_slice(&waiting.bytes);
            self.counters.add(Total::DatagramsRepeated, waiting.run.datagrams());
            sink.send(slot, waiting.run);
            if is_first {
                self.repeater.put_back(waiting);
            }
        }
    }

    fn try_egress<K: Sink<Slot = S>>(
        &mut self,
        now: Instant,
        tap_frame: &[u8],
        sink: &mut K,
    ) -> Result<(), Drop> {
        let vnet = VirtioNetHeader::parse(tap_frame).ok_or(Drop::MalformedFrame)?;
        let frame = &tap_frame[VNET_HEADER_LEN..];
        let ethernet = Ethernet::parse(frame).map_err(|_| Drop::MalformedFrame)?;
        if self.config.hands_over && !self.has_lane(&ethernet.destination()) {
            self.counters.add(Total::FramesHandedOver, 1);
            sink.hand_over(tap_frame);
            return Ok(());
        }
        self.counters.add(Total::TapFramesIn, 1);
        self.counters.add(Total::TapBytesIn, frame.len());
        if ethernet.source() != self.config.mac {
            return Err(Drop::ForeignSource);
        }
        if ethernet::is_group(&ethernet.destination()) {
            return self.emit_to_group(now, vnet, frame, &ethernet, sink);
        }
        match self.links.find_mac(&ethernet.destination()) {
            Some(link) => {
                let is_ethernet_elided = can_elide(&ethernet);
                self.emit_to_link(now, link, &Outgoing { frame, vnet, is_ethernet_elided }, sink);
                Ok(())
            }
            None => self.emit_to_nobody(now, &ethernet, sink),
        }
    }

    /// Whether this worker's lane reaches the peer with this hardware address.
    #[inline]
    fn has_lane(&mut self, mac: &Mac) -> bool {
        let link = self.links.find_mac(mac).and_then(|id| self.links.get(id));
        link.is_some_and(|link| link.entry.path.is_some())
    }

    fn emit_to_group<K: Sink<Slot = S>>(
        &mut self,
        now: Instant,
        vnet: VirtioNetHeader,
        frame: &[u8],
        ethernet: &Ethernet<'_>,
        sink: &mut K,
    ) -> Result<(), Drop> {
        let own_addresses = &self.addresses;
        let mut directory =
            Directory { routes: &self.routes, links: &mut self.links, own_addresses };
        match directory.consider(ethernet) {
            Verdict::Forward => {
                let outgoing = Outgoing { frame, vnet, is_ethernet_elided: false };
                self.emit_to_everybody(now, &outgoing, sink);
                Ok(())
            }
            Verdict::Arp(reply) => {
                self.answer(&reply.emit_frame(reply.sender_mac, ethernet.source()), sink)
            }
            Verdict::Advertise(advertisement) => self.answer(&advertisement.emit_frame(), sink),
            Verdict::OwnProbe => {
                self.counters.add(Total::OwnProbes, 1);
                Ok(())
            }
            Verdict::NotUp => Err(Drop::LinkNotUp),
            Verdict::NoRoute(address) => {
                self.tell_no_route(now, address, sink);
                Err(Drop::NoRoute)
            }
        }
    }

    /// Answers a question of the host.
    fn answer<K: Sink<Slot = S>>(&mut self, frame: &[u8], sink: &mut K) -> Result<(), Drop> {
        self.write_own(frame.len(), |room| room.copy_from_slice(frame), sink)?;
        self.counters.add(Total::NeighboursAnswered, 1);
        Ok(())
    }

    /// Lets `fill` write a frame of `len` bytes for the tap.
    fn write_own<K: Sink<Slot = S>>(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
        sink: &mut K,
    ) -> Result<(), Drop> {
        let mut slot = sink.reserve().ok_or(Drop::OutputFull)?;
        let end = ANSWER_START + VNET_HEADER_LEN + len;
        let Some(room) = slot.get_mut(ANSWER_START..end) else {
            sink.discard(slot);
            return Err(Drop::OutputFull);
        };
        let (vnet, frame) = room.split_at_mut(VNET_HEADER_LEN);
        vnet.copy_from_slice(&VirtioNetHeader::default().emit());
        fill(frame);
        self.counters.add(Total::TapFramesOut, 1);
        self.counters.add(Total::TapBytesOut, len);
        sink.write_tap(slot, ANSWER_START..end);
        Ok(())
    }

    fn emit_to_everybody<K: Sink<Slot = S>>(
        &mut self,
        now: Instant,
        outgoing: &Outgoing<'_>,
        sink: &mut K,
    ) {
        for place in 0..self.links.place_count() {
            if let Some(link) = self.links.sender_at(place) {
                self.emit_to_link(now, link, outgoing, sink);
            }
        }
    }

    fn emit_to_nobody<K: Sink<Slot = S>>(
        &mut self,
        now: Instant,
        ethernet: &Ethernet<'_>,
        sink: &mut K,
    ) -> Result<(), Drop> {
        let address = destination_ip(ethernet).ok_or(Drop::UnknownMac)?;
        self.tell_no_route(now, address, sink);
        Err(if self.routes.owner(address).is_some() { Drop::LinkNotUp } else { Drop::NoRoute })
    }

    fn tell_no_route<K: Sink<Slot = S>>(&mut self, now: Instant, address: IpAddr, sink: &mut K) {
        if self.recent.admit(now, address) {
            sink.to_agent(ToAgent::NoRoute(address));
        }
    }

    fn emit_to_link<K: Sink<Slot = S>>(
        &mut self,
        now: Instant,
        id: LinkId,
        outgoing: &Outgoing<'_>,
        sink: &mut K,
    ) {
        let ratchets = self.links.get_mut(id).map_or(0, |link| link.ratchet_if_due(now));
        if ratchets > 0 {
            self.counters.add(Total::Ratchets, ratchets);
        }
        if self.out(sink).emit(id, outgoing) == Fit::Fragments {
            self.tell_sender(now, id, outgoing, sink);
        }
    }

    fn out<'a, K: Sink<Slot = S>>(&'a mut self, sink: &'a mut K) -> Out<'a, K> {
        Out {
            links: &mut self.links,
            outbox: &mut self.outbox,
            codel: &mut self.codel,
            repeater: &mut self.repeater,
            counters: &mut self.counters,
            sink,
        }
    }
}

/// Whether the receiver can tell the Ethernet header of a frame from us to it: the ethertype must
/// be what the packet's first byte says.
#[inline]
fn can_elide(frame: &Ethernet<'_>) -> bool {
    let told = frame.payload().first().and_then(|first| ethernet::ethertype_of_ip(*first));
    !frame.is_tagged() && told == Some(frame.ethertype())
}

/// The address that a frame wants to reach.
fn destination_ip(frame: &Ethernet<'_>) -> Option<IpAddr> {
    let packet = frame.payload();
    match frame.ethertype() {
        ethernet::IPV4 => Some(Ipv4::parse(packet).ok()?.destination().into()),
        ethernet::IPV6 => Some(Ipv6::parse(packet).ok()?.destination().into()),
        ethernet::ARP => Some(Arp::parse(packet).ok()?.target_ip().into()),
        _ => None,
    }
}
