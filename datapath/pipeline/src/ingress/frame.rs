//! A frame on its way to the tap, in an output slot.
//!
//! ```text
//! slot: |  free  | virtio-net | headers | payload ...         | free |
//!                             start     HEADROOM              end
//! ```

use std::ops::{DerefMut, Range};

use ipop_wire::ethernet::{self, ETHERNET_LEN, EthernetRepr, Mac};
use ipop_wire::geometry::{Geometry, PartView};
use ipop_wire::vnet::{Csum, CsumState, VirtioNetHeader};
use ipop_wire::{Malformed, VNET_HEADER_LEN};

use crate::HEADERS_MAX;
use crate::counters::{Counters, Total};
use crate::sink::Sink;

/// Where the first payload is decrypted to: all headers fit in front.
pub(crate) const HEADROOM: usize = 320;

const _: () = assert!(HEADROOM >= VNET_HEADER_LEN + HEADERS_MAX);

/// The two hardware addresses of an elided Ethernet header.
#[derive(Clone, Copy)]
pub(crate) struct Addresses {
    pub own: Mac,
    pub peer: Mac,
}

impl Addresses {
    /// Puts an elided header to the front of `frame`; `packet_start` is the packet's first byte.
    #[inline]
    pub fn restore(&self, frame: &mut [u8], packet_start: Option<u8>) -> Result<(), Malformed> {
        let ethertype = packet_start.and_then(ethernet::ethertype_of_ip);
        let ethertype = ethertype.ok_or(Malformed::BadValue)?;
        let (destination, source) = (self.own, self.peer);
        let header = frame.get_mut(..ETHERNET_LEN).ok_or(Malformed::Truncated)?;
        EthernetRepr { destination, source, vlan: None, ethertype }.emit(header);
        Ok(())
    }
}

/// What a part's plaintext says, without borrowing it.
#[derive(Clone, Copy)]
pub(crate) struct PartShape {
    pub geometry: Geometry,
    pub payload_len: usize,
}

impl PartShape {
    /// Takes a part's plaintext apart.
    #[inline]
    pub fn parse(plaintext: &[u8]) -> Result<PartShape, Malformed> {
        let part = PartView::parse(plaintext)?;
        if usize::from(part.geometry.header_len) > HEADERS_MAX {
            return Err(Malformed::BadLength);
        }
        Ok(PartShape { geometry: part.geometry, payload_len: part.payload.len() })
    }

    /// Bytes of all headers, an elided one included.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.geometry.header_len)
    }
}

/// Copies the headers behind a part's payload, which was decrypted to `payload_start`, to where
/// they end at `target_end`, and restores an elided Ethernet header. Returns where they start.
#[inline]
pub(crate) fn place_headers(
    slot: &mut [u8],
    shape: &PartShape,
    payload_start: usize,
    target_end: usize,
    addresses: &Addresses,
) -> Result<usize, Malformed> {
    let on_wire = shape.geometry.headers_on_wire();
    let headers = payload_start + shape.payload_len;
    let start = target_end - shape.header_len();
    if shape.geometry.is_ethernet_elided {
        let packet_start = (on_wire + shape.payload_len > 0)
            .then(|| slot[if on_wire > 0 { headers } else { payload_start }]);
        slot.copy_within(headers..headers + on_wire, target_end - on_wire);
        addresses.restore(&mut slot[start..], packet_start)?;
    } else {
        slot.copy_within(headers..headers + on_wire, target_end - on_wire);
    }
    Ok(start)
}

/// Whether a checksum that is still to be completed lies within the frame.
#[inline]
pub(crate) fn is_csum_inside(csum: CsumState, frame_len: usize) -> bool {
    match csum {
        CsumState::Needed(Csum { start, offset }) => {
            usize::from(start) + usize::from(offset) + 2 <= frame_len
        }
        CsumState::Unknown | CsumState::Valid => true,
    }
}

/// Writes the frame at `range` of the slot to the tap; the virtio-net header goes in front of it.
#[inline]
pub(crate) fn write<K: Sink>(
    mut slot: K::Slot,
    range: Range<usize>,
    vnet: &VirtioNetHeader,
    counters: &mut Counters,
    sink: &mut K,
) {
    let start = range.start - VNET_HEADER_LEN;
    let slot_bytes: &mut [u8] = slot.deref_mut();
    slot_bytes[start..range.start].copy_from_slice(&vnet.emit());
    counters.add(Total::TapFramesOut, 1);
    counters.add(Total::TapBytesOut, range.len());
    sink.write_tap(slot, start..range.end);
}
