//! Cutting a frame into sealed datagrams: a super-segment into parts that are whole segments each,
//! an oversized frame into plain fragments, a small frame not at all.

use ipop_wire::Part;
use ipop_wire::bundle::{RECORD_LEN, Record};
use ipop_wire::ethernet::ETHERNET_LEN;
use ipop_wire::geometry::{GEOMETRY_LEN, Geometry};
use ipop_wire::layout::{Layout, Transport};
use ipop_wire::vnet::{CsumState, GsoType, VirtioNetHeader};

use crate::counters::{Drop, Total};
use crate::egress::outbox::{Out, Row};
use crate::links::LinkId;
use crate::patch;
use crate::sink::Sink;
use crate::{HEADERS_MAX, UDP_SEGMENTS_MAX};

/// Most parts that the tunnel header can number.
const PARTS_MAX: usize = u8::MAX as usize;

/// A frame on its way to one link.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub frame: &'a [u8],
    pub vnet: VirtioNetHeader,
    /// The receiver can tell the Ethernet header, so it does not travel.
    pub is_ethernet_elided: bool,
}

impl Outgoing<'_> {
    /// Bytes at the frame's front that do not travel.
    #[inline]
    fn elided_len(&self) -> usize {
        if self.is_ethernet_elided { ETHERNET_LEN } else { 0 }
    }

    /// Geometry of a frame that is not a super-segment, with these headers.
    #[inline]
    fn plain_geometry(&self, header_len: usize) -> Geometry {
        Geometry {
            gso_type: GsoType::None,
            has_ecn: false,
            csum: self.vnet.csum,
            is_ethernet_elided: self.is_ethernet_elided,
            header_len: header_len as u16,
            gso_size: 0,
            offset: 0,
        }
    }
}

/// Whether packets of a frame fit the path's datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// Each one is whole in one datagram, or was nothing but a byte stream's next bytes.
    Whole,
    /// One takes several datagrams: smaller ones would serve better.
    Fragments,
}

/// A frame, or a piece of one, that becomes a row of parts.
struct Parts<'a> {
    payload: &'a [u8],
    /// All headers, an elided Ethernet header included.
    headers: &'a [u8],
    geometry: Geometry,
    /// Payload bytes per part.
    part_len: usize,
}

impl<K: Sink> Out<'_, K> {
    /// Seals a frame for a link, in as many datagrams as it takes; drops are counted.
    pub fn emit(&mut self, link: LinkId, outgoing: &Outgoing<'_>) -> Fit {
        let Some(budget) = self.links.get(link).and_then(|link| link.budget()) else {
            self.counters.drop(Drop::LinkNotUp);
            return Fit::Whole;
        };
        let result = match outgoing.vnet.gso_type {
            GsoType::None => self.emit_frame(link, budget, outgoing),
            _ => self.emit_super_segment(link, budget, outgoing),
        };
        result.unwrap_or_else(|reason| {
            self.counters.drop(reason);
            Fit::Whole
        })
    }

    fn emit_frame(
        &mut self,
        link: LinkId,
        budget: usize,
        outgoing: &Outgoing<'_>,
    ) -> Result<Fit, Drop> {
        let Outgoing { frame, vnet, is_ethernet_elided } = *outgoing;
        let bytes = &frame[outgoing.elided_len()..];
        // A frame of which no two fit one datagram gains nothing from being staged.
        let is_small = (RECORD_LEN + bytes.len()) * 2 <= budget;
        if is_small && Record::can_tell(vnet.csum) {
            let record = Record { len: bytes.len() as u16, csum: vnet.csum, is_ethernet_elided };
            self.stage(link, record, bytes);
            return Ok(Fit::Whole);
        }
        if bytes.len() + GEOMETRY_LEN > budget {
            return self.emit_fragments(link, budget, outgoing).map(|()| Fit::Fragments);
        }
        // With its payload in front the receiver can join it to its neighbours where it decrypts.
        let header_len = match vnet.csum {
            CsumState::Unknown => ETHERNET_LEN,
            _ => Layout::of(frame).map_or(ETHERNET_LEN, |layout| layout.header_len()),
        };
        let header_len = if header_len > HEADERS_MAX { ETHERNET_LEN } else { header_len };
        let (headers, payload) = frame.split_at(header_len);
        let geometry = outgoing.plain_geometry(header_len);
        self.emit_parts(link, &Parts { payload, headers, geometry, part_len: payload.len() })?;
        Ok(Fit::Whole)
    }

    /// A frame too large for one datagram, in parts of which all are needed.
    fn emit_fragments(
        &mut self,
        link: LinkId,
        budget: usize,
        outgoing: &Outgoing<'_>,
    ) -> Result<(), Drop> {
        self.counters.add(Total::SegmentsCut, 1);
        let (headers, payload) = outgoing.frame.split_at(ETHERNET_LEN);
        // Only the first fragment could tell the ethertype, and it may come last.
        let geometry =
            Geometry { is_ethernet_elided: false, ..outgoing.plain_geometry(ETHERNET_LEN) };
        let room = budget - geometry.headers_on_wire() - GEOMETRY_LEN;
        let part_len = even_part(payload.len(), room);
        self.emit_parts(link, &Parts { payload, headers, geometry, part_len })
    }

    fn emit_super_segment(
        &mut self,
        link: LinkId,
        budget: usize,
        outgoing: &Outgoing<'_>,
    ) -> Result<Fit, Drop> {
        let Outgoing { frame, vnet, .. } = *outgoing;
        let layout = checked_layout(frame, &vnet).ok_or(Drop::MalformedFrame)?;
        let (headers, payload) = frame.split_at(layout.header_len());
        let mut geometry = Geometry {
            gso_type: vnet.gso_type,
            has_ecn: vnet.has_ecn,
            gso_size: vnet.gso_size,
            ..outgoing.plain_geometry(headers.len())
        };
        let room = budget
            .checked_sub(geometry.headers_on_wire() + GEOMETRY_LEN)
            .filter(|room| *room > 0)
            .ok_or(Drop::TooBig)?;
        let gso_size = usize::from(vnet.gso_size);
        self.counters.add(Total::SegmentsCut, 1);
        let part_len = match layout.transport {
            Transport::Tcp if gso_size <= room => room / gso_size * gso_size,
            Transport::Udp if gso_size <= room => {
                (room / gso_size).min(UDP_SEGMENTS_MAX) * gso_size
            }
            // A byte stream may be cut anywhere, so segments shrink to what the path carries.
            Transport::Tcp => {
                geometry.gso_size = room as u16;
                room
            }
            Transport::Udp => {
                self.emit_datagrams(link, room, outgoing, &layout)?;
                return Ok(Fit::Fragments);
            }
        };
        let parts = Parts { payload, headers, geometry, part_len };
        if payload.len() > PARTS_MAX * part_len {
            self.emit_rows(link, &parts, &layout)?;
        } else {
            self.emit_parts(link, &parts)?;
        }
        Ok(Fit::Whole)
    }

    /// A super-segment in more parts than can be numbered: as several shorter ones.
    #[cold]
    fn emit_rows(&mut self, link: LinkId, whole: &Parts<'_>, layout: &Layout) -> Result<(), Drop> {
        let row_len = PARTS_MAX * whole.part_len;
        let gso_size = usize::from(whole.geometry.gso_size);
        let mut headers = [0; HEADERS_MAX];
        let headers = &mut headers[..whole.headers.len()];
        for (number, payload) in whole.payload.chunks(row_len).enumerate() {
            let start = number * row_len;
            headers.copy_from_slice(whole.headers);
            let row = start..start + payload.len();
            patch::narrow(headers, layout, whole.payload.len(), row, gso_size);
            let has_ecn = whole.geometry.has_ecn && start == 0;
            let geometry = Geometry { has_ecn, ..whole.geometry };
            self.emit_parts(link, &Parts { payload, headers, geometry, part_len: whole.part_len })?;
        }
        Ok(())
    }

    /// UDP datagrams of which each is too large for the path: fragments of one after the other.
    fn emit_datagrams(
        &mut self,
        link: LinkId,
        room: usize,
        outgoing: &Outgoing<'_>,
        layout: &Layout,
    ) -> Result<(), Drop> {
        let (original, payload) = outgoing.frame.split_at(layout.header_len());
        let gso_size = usize::from(outgoing.vnet.gso_size);
        let mut headers = [0; HEADERS_MAX];
        let headers = &mut headers[..original.len()];
        let geometry = outgoing.plain_geometry(headers.len());
        for (number, datagram) in payload.chunks(gso_size).enumerate() {
            let start = number * gso_size;
            headers.copy_from_slice(original);
            patch::narrow(headers, layout, payload.len(), start..start + datagram.len(), gso_size);
            let part_len = even_part(datagram.len(), room);
            self.emit_parts(link, &Parts { payload: datagram, headers, geometry, part_len })?;
        }
        Ok(())
    }

    fn emit_parts(&mut self, link: LinkId, parts: &Parts<'_>) -> Result<(), Drop> {
        let Parts { payload, headers, mut geometry, part_len } = *parts;
        let count = payload.len().div_ceil(part_len.max(1)).max(1);
        if count > PARTS_MAX || payload.len() > usize::from(u16::MAX) {
            return Err(Drop::TooBig);
        }
        let on_wire = geometry.headers_on_wire();
        let mut extra = [0; HEADERS_MAX + GEOMETRY_LEN];
        let extra = &mut extra[..on_wire + GEOMETRY_LEN];
        extra[..on_wire].copy_from_slice(&headers[headers.len() - on_wire..]);

        let overhead = self.links.get(link).map_or(0, |link| link.overhead()) + extra.len();
        let row = Row {
            datagrams: count,
            segment_size: overhead + part_len.min(payload.len()),
            len: overhead * count + payload.len(),
        };
        self.begin_row(link, row);
        // Left out like one lost on the way; those behind it tell the sender at once.
        let sheds = count > 1 && geometry.gso_type.is_tcp() && self.codel.take_drop();
        if sheds {
            self.counters.drop(Drop::Overload);
        }
        for index in usize::from(sheds)..count {
            let start = index * part_len;
            let end = (start + part_len).min(payload.len());
            geometry.offset = start as u16;
            extra[on_wire..].copy_from_slice(&geometry.emit());
            let part = Part { index: index as u8, count: count as u8 };
            if !self.seal(link, part, &payload[start..end], extra) {
                break;
            }
        }
        Ok(())
    }
}

/// The layout of a super-segment, if its headers say the same as its virtio-net header.
fn checked_layout(frame: &[u8], vnet: &VirtioNetHeader) -> Option<Layout> {
    let layout = Layout::of(frame)?;
    let payload_len = frame.len() - layout.header_len();
    let is_consistent = vnet.csum == CsumState::Needed(layout.csum())
        && vnet.gso_type == layout.gso_type()
        && vnet.gso_size > 0
        && layout.header_len() <= HEADERS_MAX
        && payload_len > 0
        && layout.payload_len(frame) == Some(payload_len);
    is_consistent.then_some(layout)
}

/// Parts of nearly one size, so that none is tiny.
fn even_part(len: usize, room: usize) -> usize {
    let count = len.div_ceil(room).max(1);
    len.div_ceil(count)
}
