//! The way of a received buffer to the tap, in the order in which the functions stand:
//!
//! 1. The buffer falls into its datagrams. What is not a tunnel datagram goes to the agent; a
//!    relay's prefix is taken off.
//! 2. The tunnel header names the link by our own index. Handshakes go to the agent as they are,
//!    control messages opened.
//! 3. A part of a frame that continues the one before is decrypted straight behind it ([`join`]);
//!    any other authentic datagram ends what was being joined.
//! 4. A frame that came alone joins the run of its flow ([`runs`]), if there is one.
//! 5. A bundle is opened aside, and its frames are settled one by one.
//! 6. Before anything of a frame reaches the tap its source is checked ([`admit`]).
//! 7. At the end of the batch everything that waits is written.
//!
//! Within a flow nothing overtakes: whatever cannot join a run is written after it.

pub(crate) mod admit;
pub(crate) mod frame;
pub(crate) mod join;
mod lone;
pub(crate) mod reassembly;
pub(crate) mod runs;
mod settle;

use std::net::IpAddr;
use std::ops::DerefMut;
use std::time::Instant;

use ipop_wire::channel::ChannelData;
use ipop_wire::vnet::GsoType;
use ipop_wire::{HEADER_LEN, Header, Kind, Part, Protocol, SEAL_OVERHEAD};

use crate::codel::Codel;
use crate::counters::{Counters, Drop, Total};
use crate::ingress::frame::{Addresses, HEADROOM};
use crate::ingress::join::Join;
use crate::ingress::reassembly::Reassembly;
use crate::ingress::runs::Runs;
use crate::links::{LinkId, LinkTable};
use crate::routes::Routes;
use crate::sink::{Sink, Source, ToAgent};
use crate::{Config, Pipeline};

/// Bytes of the memory that bundles and control messages are opened in: the largest datagram, with
/// room in front for an Ethernet header.
const SCRATCH_LEN: usize = 1 << 16;

/// A fragmented frame may have so many bytes of IP at least: a peer's MTU may be larger than ours,
/// and ours may be raised.
const FRAGMENTED_LEN_MIN: u16 = 9216;

/// What ingress keeps between datagrams.
pub(crate) struct Inbox<S> {
    join: Option<Join<S>>,
    runs: Runs<S>,
    reassembly: Reassembly,
    scratch: Box<[u8]>,
}

impl<S: DerefMut<Target = [u8]>> Inbox<S> {
    pub fn new(config: &Config) -> Inbox<S> {
        Inbox {
            join: None,
            runs: Runs::new(),
            reassembly: Reassembly::new(usize::from(config.mtu.max(FRAGMENTED_LEN_MIN))),
            scratch: vec![0; SCRATCH_LEN].into_boxed_slice(),
        }
    }
}

impl<S: DerefMut<Target = [u8]>> Pipeline<S> {
    /// Takes what one receive brought: datagrams of `segment_size` bytes each, the last one
    /// possibly shorter (0: one datagram). What is made of them goes to the sink, now or when the
    /// batch is flushed.
    pub fn ingress<K: Sink<Slot = S>>(
        &mut self,
        now: Instant,
        buffer: &[u8],
        segment_size: usize,
        source: Source,
        sink: &mut K,
    ) {
        self.counters.add(Total::ReceiveBatches, 1);
        let segment_size = if segment_size == 0 { buffer.len() } else { segment_size };
        let mut way = self.way_in(now, source, sink);
        for datagram in buffer.chunks(segment_size.max(1)) {
            if let Err(reason) = way.datagram(datagram) {
                way.counters.drop(reason);
            }
        }
    }

    /// Ends a batch of [`ingress`](Self::ingress): nothing waits any longer, but for fragments of
    /// frames of which others never came.
    pub fn flush_ingress<K: Sink<Slot = S>>(&mut self, now: Instant, sink: &mut K) {
        let nowhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        let nobody = Source { remote: nowhere, local: nowhere };
        let mut way = self.way_in(now, nobody, sink);
        way.finish_join();
        way.inbox.runs.flush(way.counters, way.sink);
    }

    fn way_in<'a, K: Sink<Slot = S>>(
        &'a mut self,
        now: Instant,
        source: Source,
        sink: &'a mut K,
    ) -> WayIn<'a, K> {
        WayIn {
            now,
            source,
            config: &self.config,
            own_addresses: &self.addresses,
            routes: &self.routes,
            links: &mut self.links,
            inbox: &mut self.inbox,
            codel: &mut self.codel,
            counters: &mut self.counters,
            sink,
        }
    }
}

/// The pipeline, borrowed for one received buffer.
struct WayIn<'a, K: Sink> {
    now: Instant,
    source: Source,
    config: &'a Config,
    own_addresses: &'a [IpAddr],
    routes: &'a Routes,
    links: &'a mut LinkTable,
    inbox: &'a mut Inbox<K::Slot>,
    codel: &'a mut Codel,
    counters: &'a mut Counters,
    sink: &'a mut K,
}

impl<K: Sink> WayIn<'_, K> {
    fn datagram(&mut self, datagram: &[u8]) -> Result<(), Drop> {
        self.counters.add(Total::DatagramsIn, 1);
        self.counters.add(Total::DatagramBytesIn, datagram.len());
        let source = self.source;
        match datagram.first().map_or(Protocol::Unknown, |first| Protocol::of(*first)) {
            Protocol::Ipop => self.tunnel(datagram, None),
            Protocol::TurnChannel => self.relayed(datagram),
            Protocol::Stun => {
                self.tell(ToAgent::Stun { source, datagram });
                Ok(())
            }
            Protocol::Unknown => Err(Drop::UnknownProtocol),
        }
    }

    fn relayed(&mut self, datagram: &[u8]) -> Result<(), Drop> {
        let data = ChannelData::parse(datagram).map_err(|_| Drop::Truncated)?;
        self.counters.add(Total::RelayedDatagramsIn, 1);
        match data.payload.first() {
            Some(first) if Protocol::of(*first) == Protocol::Ipop => {
                self.tunnel(data.payload, Some(data.number))
            }
            _ => {
                self.tell(ToAgent::TurnChannel { source: self.source, datagram });
                Ok(())
            }
        }
    }

    fn tell(&mut self, item: ToAgent<'_>) {
        self.counters.add(Total::AgentDatagrams, 1);
        self.sink.to_agent(item);
    }

    #[inline]
    fn tunnel(&mut self, datagram: &[u8], channel: Option<u16>) -> Result<(), Drop> {
        let header = Header::parse(datagram).map_err(|_| Drop::Truncated)?;
        if header.kind == Kind::Handshake {
            let (source, body) = (self.source, &datagram[HEADER_LEN..]);
            self.tell(ToAgent::Handshake { source, channel, header, body });
            return Ok(());
        }
        let id = self.links.find_index(header.receiver).ok_or(match header.kind {
            Kind::Control => Drop::EarlyControl,
            _ => Drop::UnknownLink,
        })?;
        let lane = self.links.get(id).ok_or(Drop::UnknownLink)?.entry.lane;
        if header.lane != lane {
            return Err(Drop::WrongLane);
        }
        match (header.kind, header.part) {
            (Kind::Control, _) => self.control(id, &header, datagram, channel),
            (_, Part::BUNDLE) => self.bundle(id, &header, datagram),
            (_, Part { count: 1, .. }) => self.lone(id, &header, datagram),
            _ => self.part(id, &header, datagram),
        }
    }

    fn control(
        &mut self,
        id: LinkId,
        header: &Header,
        datagram: &[u8],
        channel: Option<u16>,
    ) -> Result<(), Drop> {
        let link = self.links.get_mut(id).ok_or(Drop::UnknownLink)?;
        let len = link.open(self.now, header, datagram, &mut self.inbox.scratch)?;
        link.counters.control_in += 1;
        self.counters.add(Total::AgentDatagrams, 1);
        let (link, body) = (link.entry.index, &self.inbox.scratch[..len]);
        self.sink.to_agent(ToAgent::Control { link, source: self.source, channel, body });
        Ok(())
    }

    #[inline]
    fn part(&mut self, id: LinkId, header: &Header, datagram: &[u8]) -> Result<(), Drop> {
        let len = datagram.len().saturating_sub(SEAL_OVERHEAD);
        let Some(join) = &mut self.inbox.join else { return self.first_part(id, header, datagram) };
        if !join.is_continued_by(id, header, len) {
            return self.first_part(id, header, datagram);
        }
        if join.geometry.gso_type.is_tcp() && self.codel.take_drop() {
            return Err(Drop::Overload);
        }
        let link = self.links.get_mut(id).ok_or(Drop::UnknownLink)?;
        let len = link.open(self.now, header, datagram, &mut join.slot[join.tail..])?;
        if !join.append(len) {
            return Err(Drop::MalformedPlaintext);
        }
        if join.is_ended() {
            self.finish_join();
        }
        Ok(())
    }

    /// A part that continues nothing: it begins another frame, or the rest of one with a gap.
    fn first_part(&mut self, id: LinkId, header: &Header, datagram: &[u8]) -> Result<(), Drop> {
        let (slot, len) = self.open_in_slot(id, header, datagram)?;
        // Only now, because only now it is known to be authentic.
        self.finish_join();
        let join = self.begin_join(id, header, slot, len)?;
        let is_ended = join.is_ended();
        self.inbox.join = Some(join);
        if is_ended {
            self.finish_join();
        }
        Ok(())
    }

    /// Opens a datagram at the headroom of a fresh slot.
    fn open_in_slot(
        &mut self,
        id: LinkId,
        header: &Header,
        datagram: &[u8],
    ) -> Result<(K::Slot, usize), Drop> {
        let link = self.links.get_mut(id).ok_or(Drop::UnknownLink)?;
        let mut slot = self.sink.reserve().ok_or(Drop::OutputFull)?;
        let room = slot.get_mut(HEADROOM..).unwrap_or_default();
        match link.open(self.now, header, datagram, room) {
            Ok(len) => Ok((slot, len)),
            Err(reason) => {
                self.sink.discard(slot);
                Err(reason)
            }
        }
    }

    fn begin_join(
        &mut self,
        id: LinkId,
        header: &Header,
        slot: K::Slot,
        len: usize,
    ) -> Result<Join<K::Slot>, Drop> {
        let addresses = self.addresses(id)?;
        Join::begin(id, header, slot, len, &addresses).map_err(|slot| {
            self.sink.discard(slot);
            Drop::MalformedPlaintext
        })
    }

    fn addresses(&self, id: LinkId) -> Result<Addresses, Drop> {
        let link = self.links.get(id).ok_or(Drop::UnknownLink)?;
        Ok(Addresses { own: self.config.mac, peer: link.entry.peer_mac })
    }

    /// Ends what is being joined: all of it, or what came of it, goes on.
    fn finish_join(&mut self) {
        let Some(join) = self.inbox.join.take() else { return };
        let id = join.link;
        let result = match (join.geometry.gso_type, join.is_complete()) {
            (GsoType::None, true) => {
                self.counters.add(Total::SegmentsJoined, 1);
                self.settle_slot(join)
            }
            (GsoType::None, false) => self.keep_fragments(join),
            _ => self.settle_super_segment(join),
        };
        if let Err(reason) = result {
            self.drop_of(id, reason);
        }
    }

    fn drop_of(&mut self, id: LinkId, reason: Drop) {
        self.counters.drop(reason);
        if let Some(link) = self.links.get_mut(id) {
            link.counters.drops += 1;
        }
    }
}
