//! Joining the parts of one frame: each payload is decrypted straight behind the one before, in an
//! output slot. Parts that follow each other without a gap make one frame for the tap; at a gap
//! what came so far is made into a smaller super-segment, whose headers are patched.

use std::ops::{DerefMut, Range};

use ipop_wire::Header;
use ipop_wire::geometry::{GEOMETRY_LEN, Geometry};
use ipop_wire::layout::Layout;
use ipop_wire::vnet::{CsumState, GsoType, VirtioNetHeader};

use crate::UDP_SEGMENTS_MAX;
use crate::counters::Drop;
use crate::ingress::frame::{Addresses, HEADROOM, PartShape, place_headers};
use crate::links::LinkId;
use crate::patch;

/// A frame of which some parts have come, one behind the other.
pub(crate) struct Join<S> {
    pub link: LinkId,
    pub slot: S,
    /// Of the frame's first part, whether it came or not.
    pub base_counter: u64,
    pub count: u8,
    /// The part that the slot begins with.
    pub first: u8,
    /// The part that would continue it.
    pub next: u16,
    /// As the first part that came said it.
    pub geometry: Geometry,
    /// Where the headers begin in the slot.
    pub start: usize,
    /// Where the next payload goes.
    pub tail: usize,
}

/// Counter of the first part of the frame that a part belongs to.
#[inline]
pub(crate) fn base_counter(header: &Header) -> u64 {
    header.counter.wrapping_sub(u64::from(header.part.index))
}

impl<S: DerefMut<Target = [u8]>> Join<S> {
    /// Starts with a part whose plaintext stands at [`HEADROOM`] of the slot, `len` bytes. Gives
    /// the slot back when the plaintext is malformed.
    pub fn begin(
        link: LinkId,
        header: &Header,
        mut slot: S,
        len: usize,
        addresses: &Addresses,
    ) -> Result<Join<S>, S> {
        let Ok(shape) = PartShape::parse(&slot[HEADROOM..HEADROOM + len]) else { return Err(slot) };
        let placed = place_headers(&mut slot, &shape, HEADROOM, HEADROOM, addresses);
        let Ok(start) = placed else { return Err(slot) };
        Ok(Join {
            link,
            slot,
            base_counter: base_counter(header),
            count: header.part.count,
            first: header.part.index,
            next: u16::from(header.part.index) + 1,
            geometry: shape.geometry,
            start,
            tail: HEADROOM + shape.payload_len,
        })
    }

    /// Whether a datagram with this header and `len` bytes of plaintext continues the frame here.
    #[inline]
    pub fn is_continued_by(&self, link: LinkId, header: &Header, len: usize) -> bool {
        let part = header.part;
        link == self.link
            && u16::from(part.index) == self.next
            && part.count == self.count
            && base_counter(header) == self.base_counter
            && self.tail + len <= self.slot.len()
            && !self.is_full(len)
    }

    /// Whether a kernel would refuse the super-segment with `len` more bytes of plaintext.
    #[inline]
    fn is_full(&self, len: usize) -> bool {
        if self.geometry.gso_type != GsoType::Udp {
            return false;
        }
        let payload_len = len.saturating_sub(self.geometry.headers_on_wire() + GEOMETRY_LEN);
        let segments_len = UDP_SEGMENTS_MAX * usize::from(self.geometry.gso_size);
        self.payload().len() + payload_len > segments_len
    }

    /// Takes the part whose plaintext was decrypted to `tail`. `false`: it contradicts the parts
    /// before it, and is left out.
    #[inline]
    pub fn append(&mut self, len: usize) -> bool {
        let Ok(shape) = PartShape::parse(&self.slot[self.tail..self.tail + len]) else {
            return false;
        };
        let offset = usize::from(self.geometry.offset) + self.payload().len();
        let is_next = usize::from(shape.geometry.offset) == offset
            && shape.geometry == Geometry { offset: shape.geometry.offset, ..self.geometry };
        if is_next {
            self.tail += shape.payload_len;
            self.next += 1;
        }
        is_next
    }

    /// Whether the last part has come: nothing can continue it.
    #[inline]
    pub fn is_ended(&self) -> bool {
        self.next >= u16::from(self.count)
    }

    /// Whether all parts are here.
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.first == 0 && self.is_ended()
    }

    /// Where the payload stands in the slot.
    #[inline]
    pub fn payload(&self) -> Range<usize> {
        HEADROOM..self.tail
    }

    /// The frame's bytes, as far as they came.
    #[inline]
    pub fn frame(&self) -> &[u8] {
        &self.slot[self.start..self.tail]
    }

    /// Finishes a super-segment of which all or some parts came: its headers become true of what is
    /// here.
    pub fn patch(&mut self) -> Result<VirtioNetHeader, Drop> {
        let gso_size = usize::from(self.geometry.gso_size);
        let payload_len = self.payload().len();
        let mut has_ecn = self.geometry.has_ecn;
        if !self.is_complete() {
            let (layout, whole) = self.checked_layout().ok_or(Drop::MalformedPlaintext)?;
            let offset = usize::from(self.geometry.offset);
            let part = offset..offset + payload_len;
            if part.end > whole {
                return Err(Drop::MalformedPlaintext);
            }
            has_ecn &= offset == 0;
            let headers = &mut self.slot[self.start..HEADROOM];
            patch::narrow(headers, &layout, whole, part, gso_size);
        }
        Ok(self.vnet(payload_len, has_ecn))
    }

    /// The virtio-net header for `payload_len` bytes behind this frame's headers.
    pub fn vnet(&self, payload_len: usize, has_ecn: bool) -> VirtioNetHeader {
        let Geometry { csum, gso_type, header_len, gso_size, .. } = self.geometry;
        if payload_len <= usize::from(gso_size) {
            return VirtioNetHeader { csum, header_len, ..VirtioNetHeader::default() };
        }
        VirtioNetHeader { csum, gso_type, has_ecn, header_len, gso_size }
    }

    /// Layout and payload length of the whole super-segment by its headers, if they and the
    /// geometry say the same.
    pub fn checked_layout(&self) -> Option<(Layout, usize)> {
        let headers = &self.slot[self.start..HEADROOM];
        let layout = Layout::of(headers)?;
        let is_consistent = layout.header_len() == headers.len()
            && layout.gso_type() == self.geometry.gso_type
            && self.geometry.csum == CsumState::Needed(layout.csum());
        let whole = layout.payload_len(headers)?;
        is_consistent.then_some((layout, whole))
    }
}
