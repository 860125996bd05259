//! A frame that travelled in one datagram of its own. Where it belongs is known only once it is
//! open; so it is decrypted behind the run that the frame before belonged to, and moves if that was
//! wrong.

use std::ops::Range;

use ipop_wire::geometry::Geometry;
use ipop_wire::vnet::GsoType;
use ipop_wire::{Header, Malformed, SEAL_OVERHEAD};

use crate::HEADERS_MAX;
use crate::counters::Drop;
use crate::ingress::WayIn;
use crate::ingress::frame::{Addresses, HEADROOM, PartShape};
use crate::ingress::join::Join;
use crate::ingress::runs::Candidate;
use crate::links::LinkId;
use crate::sink::Sink;

/// All headers of a part, put together on the stack.
struct Headers {
    bytes: [u8; HEADERS_MAX],
    len: usize,
}

impl Headers {
    fn of(
        plaintext: &[u8],
        shape: &PartShape,
        addresses: &Addresses,
    ) -> Result<Headers, Malformed> {
        let mut headers = Headers { bytes: [0; HEADERS_MAX], len: shape.header_len() };
        let on_wire = shape.geometry.headers_on_wire();
        let travelled = &plaintext[shape.payload_len..][..on_wire];
        headers.bytes[headers.len - on_wire..headers.len].copy_from_slice(travelled);
        if shape.geometry.is_ethernet_elided {
            let packet_start = if on_wire > 0 { travelled.first() } else { plaintext.first() };
            addresses.restore(&mut headers.bytes, packet_start.copied())?;
        }
        Ok(headers)
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<K: Sink> WayIn<'_, K> {
    /// A frame in one datagram. It is decrypted to where it belongs if it continues a run.
    pub(super) fn lone(
        &mut self,
        id: LinkId,
        header: &Header,
        datagram: &[u8],
    ) -> Result<(), Drop> {
        let len = datagram.len().saturating_sub(SEAL_OVERHEAD);
        // Beside an open join nothing may grow a run: it would overtake the join.
        if self.inbox.join.is_none() && self.inbox.runs.predict(id, len).is_some() {
            return self.lone_behind_run(id, header, datagram);
        }
        let (slot, len) = self.open_in_slot(id, header, datagram)?;
        self.finish_join();
        let join = self.begin_join(id, header, slot, len)?;
        match join.geometry.gso_type {
            GsoType::None => self.settle_slot(join),
            _ => self.settle_super_segment(join),
        }
    }

    fn lone_behind_run(
        &mut self,
        id: LinkId,
        header: &Header,
        datagram: &[u8],
    ) -> Result<(), Drop> {
        let addresses = self.addresses(id)?;
        let len = datagram.len().saturating_sub(SEAL_OVERHEAD);
        let link = self.links.get_mut(id).ok_or(Drop::UnknownLink)?;
        let Some(run) = self.inbox.runs.predict(id, len) else { return Err(Drop::OutputFull) };
        let len = link.open(self.now, header, datagram, &mut run.slot[run.tail..])?;
        let plaintext = &run.slot[run.tail..run.tail + len];
        let shape = PartShape::parse(plaintext).map_err(|_| Drop::MalformedPlaintext)?;
        let headers = Headers::of(plaintext, &shape, &addresses);
        let headers = headers.map_err(|_| Drop::MalformedPlaintext)?;
        let payload_start = run.tail;

        let frame_len = headers.len + shape.payload_len;
        let Geometry { csum, gso_type, .. } = shape.geometry;
        let candidate = Candidate::of(id, headers.bytes(), csum, frame_len, self.config.takes_uso);
        if let Some(candidate) = &candidate
            && gso_type == GsoType::None
            && run.accepts(headers.bytes(), candidate)
        {
            // Its addresses are those of the run's first frame, which were admitted.
            run.extend(candidate);
            return Ok(());
        }
        let payload = payload_start..payload_start + shape.payload_len;
        self.lone_mispredicted(id, header, payload, &headers, &shape)
    }

    /// The frame was decrypted behind a run that it does not continue: it moves to a slot of its
    /// own.
    #[cold]
    fn lone_mispredicted(
        &mut self,
        id: LinkId,
        header: &Header,
        payload: Range<usize>,
        headers: &Headers,
        shape: &PartShape,
    ) -> Result<(), Drop> {
        let mut slot = self.sink.reserve().ok_or(Drop::OutputFull)?;
        let (start, end) = (HEADROOM - headers.len, HEADROOM + payload.len());
        let source = self.inbox.runs.last().and_then(|run| run.slot.get(payload));
        let (Some(payload), Some(room)) = (source, slot.get_mut(start..end)) else {
            self.sink.discard(slot);
            return Err(Drop::OutputFull);
        };
        room[..headers.len].copy_from_slice(headers.bytes());
        room[headers.len..].copy_from_slice(payload);
        let join = Join {
            link: id,
            slot,
            base_counter: header.counter,
            count: 1,
            first: 0,
            next: 1,
            geometry: shape.geometry,
            start,
            tail: end,
        };
        match join.geometry.gso_type {
            GsoType::None => self.settle_slot(join),
            _ => self.settle_super_segment(join),
        }
    }
}
