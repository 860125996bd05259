//! What becomes of a frame that is as whole as it will get: refused, merged into its flow's run,
//! made a run of its own, or written.

use std::ops::Range;

use ipop_wire::Header;
use ipop_wire::bundle::record_at;
use ipop_wire::ethernet::ETHERNET_LEN;
use ipop_wire::layout::Layout;
use ipop_wire::vnet::{CsumState, GsoType, VirtioNetHeader};

use crate::HEADERS_MAX;
use crate::counters::{Drop, Total};
use crate::ingress::WayIn;
use crate::ingress::admit::Gate;
use crate::ingress::frame::{self, Addresses, HEADROOM};
use crate::ingress::join::Join;
use crate::ingress::runs::{Candidate, Run, flow_of};
use crate::links::LinkId;
use crate::patch;
use crate::sink::Sink;

/// Where a bundle is opened to: its first frame's Ethernet header fits in front.
const BUNDLE_START: usize = 16;

impl<K: Sink> WayIn<'_, K> {
    /// Several small frames in one datagram.
    pub(super) fn bundle(
        &mut self,
        id: LinkId,
        header: &Header,
        datagram: &[u8],
    ) -> Result<(), Drop> {
        let addresses = self.addresses(id)?;
        let link = self.links.get_mut(id).ok_or(Drop::UnknownLink)?;
        let room = &mut self.inbox.scratch[BUNDLE_START..];
        let len = link.open(self.now, header, datagram, room)?;
        self.finish_join();
        // Taken out, so that frames can be settled while they are read from it.
        let mut scratch = std::mem::take(&mut self.inbox.scratch);
        let result = self.unbundle(id, &mut scratch[..BUNDLE_START + len], &addresses);
        self.inbox.scratch = scratch;
        result
    }

    fn unbundle(
        &mut self,
        id: LinkId,
        scratch: &mut [u8],
        addresses: &Addresses,
    ) -> Result<(), Drop> {
        let mut at = BUNDLE_START;
        while let Some((record, range)) =
            record_at(scratch, at).map_err(|_| Drop::MalformedPlaintext)?
        {
            at = range.end;
            let mut start = range.start;
            if record.is_ethernet_elided {
                // Over the record and the frame before, both of which are done with.
                start -= ETHERNET_LEN;
                let packet_start = scratch[range.clone()].first().copied();
                let restored = addresses.restore(&mut scratch[start..], packet_start);
                restored.map_err(|_| Drop::MalformedPlaintext)?;
            }
            if let Err(reason) = self.settle_bytes(id, &scratch[start..range.end], record.csum) {
                self.drop_of(id, reason);
            }
        }
        Ok(())
    }

    /// A frame in memory that is not a slot: its payload is copied, to its run or to a slot.
    fn settle_bytes(&mut self, id: LinkId, frame: &[u8], csum: CsumState) -> Result<(), Drop> {
        let candidate = self.examine(id, frame, csum)?;
        if let Some(candidate) = &candidate
            && let Some(run) = self.inbox.runs.accepting(frame, candidate)
        {
            run.extend_from(&frame[candidate.layout.header_len()..], candidate);
            return Ok(());
        }
        let mut slot = self.sink.reserve().ok_or(Drop::OutputFull)?;
        let start = HEADROOM - candidate.as_ref().map_or(0, |found| found.layout.header_len());
        let range = start..start + frame.len();
        let Some(room) = slot.get_mut(range.clone()) else {
            self.sink.discard(slot);
            return Err(Drop::OutputFull);
        };
        room.copy_from_slice(frame);
        self.settle(id, slot, range, csum, candidate);
        Ok(())
    }

    /// A whole frame that stands in its slot.
    pub(super) fn settle_slot(&mut self, join: Join<K::Slot>) -> Result<(), Drop> {
        let (id, csum) = (join.link, join.geometry.csum);
        let candidate = match self.examine(id, join.frame(), csum) {
            Ok(candidate) => candidate,
            Err(reason) => {
                self.sink.discard(join.slot);
                return Err(reason);
            }
        };
        if let Some(candidate) = &candidate
            && let Some(run) = self.inbox.runs.accepting(join.frame(), candidate)
        {
            run.extend_from(&join.frame()[candidate.layout.header_len()..], candidate);
            self.sink.discard(join.slot);
            return Ok(());
        }
        let range = join.start..join.tail;
        self.settle(id, join.slot, range, csum, candidate);
        Ok(())
    }

    /// Whether a whole frame may pass, and what it is.
    fn examine(
        &mut self,
        id: LinkId,
        frame: &[u8],
        csum: CsumState,
    ) -> Result<Option<Candidate>, Drop> {
        let link = self.links.get_mut(id).ok_or(Drop::UnknownLink)?;
        let gate =
            Gate { config: self.config, own_addresses: self.own_addresses, routes: self.routes };
        gate.admit(link, frame)?;
        if !frame::is_csum_inside(csum, frame.len()) {
            return Err(Drop::MalformedPlaintext);
        }
        let candidate = Candidate::of(id, frame, csum, frame.len(), self.config.takes_uso);
        Ok(candidate.filter(|candidate| candidate.layout.header_len() <= HEADERS_MAX))
    }

    /// A frame that no run takes: it begins one, or is written behind all that it must not
    /// overtake.
    fn settle(
        &mut self,
        id: LinkId,
        slot: K::Slot,
        range: Range<usize>,
        csum: CsumState,
        candidate: Option<Candidate>,
    ) {
        let mut header_len = 0;
        match &candidate {
            None => self.inbox.runs.flush_link(id, self.counters, self.sink),
            Some(candidate) => {
                self.inbox.runs.flush_flow(candidate.flow, self.counters, self.sink);
                header_len = candidate.layout.payload_start;
                if candidate.can_merge {
                    let run = Run::new(id, slot, range.start, candidate);
                    self.inbox.runs.start(run, self.counters, self.sink);
                    return;
                }
            }
        }
        let vnet = VirtioNetHeader { csum, header_len, ..VirtioNetHeader::default() };
        frame::write(slot, range, &vnet, self.counters, self.sink);
    }

    /// Fragments with a gap wait for the others.
    pub(super) fn keep_fragments(&mut self, mut join: Join<K::Slot>) -> Result<(), Drop> {
        let frame = self.inbox.reassembly.take(&join, self.counters);
        let room = frame.and_then(|frame| join.slot[join.start..].get_mut(..frame.len()));
        let (Some(frame), Some(room)) = (frame, room) else {
            self.sink.discard(join.slot);
            return Ok(());
        };
        room.copy_from_slice(frame);
        join.tail = join.start + frame.len();
        self.counters.add(Total::SegmentsJoined, 1);
        self.settle_slot(join)
    }

    /// A super-segment, or what came of it, is written as it stands.
    pub(super) fn settle_super_segment(&mut self, mut join: Join<K::Slot>) -> Result<(), Drop> {
        let id = join.link;
        let result = self.examine_super_segment(&mut join);
        let vnet = match result {
            Ok(vnet) => vnet,
            Err(reason) => {
                self.sink.discard(join.slot);
                return Err(reason);
            }
        };
        if let Some(layout) = Layout::of(join.frame()) {
            let flow = flow_of(id, join.frame(), &layout);
            self.inbox.runs.flush_flow(flow, self.counters, self.sink);
        }
        if vnet.gso_type == GsoType::Udp && !self.config.takes_uso {
            return self.write_datagrams(join);
        }
        frame::write(join.slot, join.start..join.tail, &vnet, self.counters, self.sink);
        Ok(())
    }

    fn examine_super_segment(&mut self, join: &mut Join<K::Slot>) -> Result<VirtioNetHeader, Drop> {
        let link = self.links.get_mut(join.link).ok_or(Drop::UnknownLink)?;
        let gate =
            Gate { config: self.config, own_addresses: self.own_addresses, routes: self.routes };
        gate.admit(link, join.frame())?;
        let is_complete = join.is_complete();
        let vnet = join.patch()?;
        if !frame::is_csum_inside(vnet.csum, join.frame().len()) {
            return Err(Drop::MalformedPlaintext);
        }
        let total = if is_complete { Total::SegmentsJoined } else { Total::SegmentsPatched };
        self.counters.add(total, 1);
        Ok(vnet)
    }

    /// For a tap that takes no UDP super-segments: one datagram after the other.
    fn write_datagrams(&mut self, join: Join<K::Slot>) -> Result<(), Drop> {
        let result = self.try_write_datagrams(&join);
        self.sink.discard(join.slot);
        result
    }

    fn try_write_datagrams(&mut self, join: &Join<K::Slot>) -> Result<(), Drop> {
        let (layout, whole) = join.checked_layout().ok_or(Drop::MalformedPlaintext)?;
        let headers = &join.slot[join.start..HEADROOM];
        let gso_size = usize::from(join.geometry.gso_size);
        let vnet = join.vnet(0, false);
        for (number, payload) in join.slot[join.payload()].chunks(gso_size).enumerate() {
            let mut slot = self.sink.reserve().ok_or(Drop::OutputFull)?;
            let range = join.start..HEADROOM + payload.len();
            let Some(room) = slot.get_mut(range.clone()) else {
                self.sink.discard(slot);
                return Err(Drop::OutputFull);
            };
            let (front, behind) = room.split_at_mut(headers.len());
            front.copy_from_slice(headers);
            behind.copy_from_slice(payload);
            let start = number * gso_size;
            patch::narrow(front, &layout, whole, start..start + payload.len(), gso_size);
            frame::write(slot, range, &vnet, self.counters, self.sink);
        }
        Ok(())
    }
}
