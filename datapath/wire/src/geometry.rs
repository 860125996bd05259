//! Geometry: what stands at the very end of a part's plaintext, so that the receiver can put each
//! payload straight behind the one before and give the whole super-segment to its tap.
//!
//! ```text
//! plaintext of a part:  payload | inner headers | geometry (12 bytes)
//!
//!  0               1               2               3
//! +---------------+---------------+---------------+---------------+
//! |   gso type    |     flags     |        header length          |
//! +---------------+---------------+---------------+---------------+
//! |           gso size            |        checksum start         |
//! +---------------+---------------+---------------+---------------+
//! |        checksum offset        |        payload offset         |
//! +---------------+---------------+---------------+---------------+
//! flags: 1 checksum needed, 2 checksum known valid, 4 Ethernet header elided, 8 ECN
//! ```
//! The inner headers are those of the whole super-segment, the same in each part; `header length`
//! is theirs with an elided Ethernet header counted in, and `checksum start` counts from the front
//! of the whole frame likewise. `payload offset` is where this part's payload belongs behind the
//! headers. An elided Ethernet header goes from the link's one hardware address to the other's, and
//! its ethertype is told by the IP version.
//!
//! Gso type 0 with several parts is plain fragmentation of a frame: all parts are needed. Otherwise
//! each part is a whole number of segments and is of use without the others.

use crate::Malformed;
use crate::ethernet::ETHERNET_LEN;
use crate::flags::Flags;
use crate::vnet::{Csum, CsumState, GsoType};

/// Bytes of a [`Geometry`].
pub const GEOMETRY_LEN: usize = 12;

/// The decoded geometry; the module describes its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// How the frame is to be cut into segments.
    pub gso_type: GsoType,
    /// The first segment alone carries the congestion-window-reduced flag.
    pub has_ecn: bool,
    /// What is known of the inner checksum.
    pub csum: CsumState,
    /// The Ethernet header does not travel.
    pub is_ethernet_elided: bool,
    /// Bytes of the inner headers, an elided Ethernet header included.
    pub header_len: u16,
    /// Payload bytes per segment.
    pub gso_size: u16,
    /// Where this part's payload belongs, in bytes behind the headers.
    pub offset: u16,
}

/// A part's plaintext, taken apart.
#[derive(Clone, Copy, Debug)]
pub struct PartView<'a> {
    /// What the end of it says.
    pub geometry: Geometry,
    /// Payload bytes.
    pub payload: &'a [u8],
    /// Inner headers, without an elided Ethernet header.
    pub headers: &'a [u8],
}

impl Geometry {
    /// Bytes of inner headers that travel.
    #[inline]
    pub const fn headers_on_wire(&self) -> usize {
        let elided = if self.is_ethernet_elided { ETHERNET_LEN } else { 0 };
        (self.header_len as usize).saturating_sub(elided)
    }

    /// Reads the 12 bytes.
    #[inline]
    pub fn parse(bytes: &[u8; GEOMETRY_LEN]) -> Result<Geometry, Malformed> {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let flags = Flags::parse(bytes[1], Csum { start: word(6), offset: word(8) })?;
        let geometry = Geometry {
            gso_type: GsoType::from_number(bytes[0]).ok_or(Malformed::Unsupported)?,
            has_ecn: flags.has_ecn,
            csum: flags.csum,
            is_ethernet_elided: flags.is_ethernet_elided,
            header_len: word(2),
            gso_size: word(4),
            offset: word(10),
        };
        let is_super = geometry.gso_type != GsoType::None;
        if usize::from(geometry.header_len) < ETHERNET_LEN || (is_super && geometry.gso_size == 0) {
            return Err(Malformed::BadLength);
        }
        Ok(geometry)
    }

    /// The 12 bytes.
    #[inline]
    pub fn emit(&self) -> [u8; GEOMETRY_LEN] {
        let Geometry { csum, is_ethernet_elided, has_ecn, .. } = *self;
        let (bits, place) = Flags { csum, is_ethernet_elided, has_ecn }.emit();
        let mut bytes = [0; GEOMETRY_LEN];
        bytes[0] = self.gso_type as u8;
        bytes[1] = bits;
        bytes[2..4].copy_from_slice(&self.header_len.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.gso_size.to_be_bytes());
        bytes[6..8].copy_from_slice(&place.start.to_be_bytes());
        bytes[8..10].copy_from_slice(&place.offset.to_be_bytes());
        bytes[10..12].copy_from_slice(&self.offset.to_be_bytes());
        bytes
    }
}

impl<'a> PartView<'a> {
    /// Takes a part's plaintext apart from its end.
    #[inline]
    pub fn parse(plaintext: &'a [u8]) -> Result<PartView<'a>, Malformed> {
        let (front, end) = plaintext.split_last_chunk().ok_or(Malformed::Truncated)?;
        let geometry = Geometry::parse(end)?;
        let payload_len =
            front.len().checked_sub(geometry.headers_on_wire()).ok_or(Malformed::Truncated)?;
        let (payload, headers) = front.split_at(payload_len);
        Ok(PartView { geometry, payload, headers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vnet::tests::{any_csum, any_gso_type};
    use proptest::prelude::*;

    fn any_geometry() -> impl Strategy<Value = Geometry> {
        let numbers = (14..300u16, 1..=u16::MAX, any::<u16>());
        (any_gso_type(), any::<bool>(), any_csum(), any::<bool>(), numbers).prop_map(
            |(gso_type, has_ecn, csum, is_ethernet_elided, (header_len, gso_size, offset))| {
                Geometry {
                    gso_type,
                    has_ecn,
                    csum,
                    is_ethernet_elided,
                    header_len,
                    gso_size,
                    offset,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn emitted_geometry_parses_to_itself(geometry in any_geometry()) {
            prop_assert_eq!(Geometry::parse(&geometry.emit()), Ok(geometry));
        }

        #[test]
        fn a_part_is_taken_apart(geometry in any_geometry(), payload_len in 0..50usize) {
            let mut plaintext = vec![1; payload_len];
            plaintext.extend(vec![2; geometry.headers_on_wire()]);
            plaintext.extend(geometry.emit());
            let part = PartView::parse(&plaintext).expect("well-formed");
            prop_assert_eq!(part.geometry, geometry);
            prop_assert!(part.payload.len() == payload_len && part.payload.iter().all(|b| *b == 1));
            prop_assert!(part.headers.iter().all(|b| *b == 2));
        }

        #[test]
        fn nothing_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..40), mild: bool) {
            let end = bytes.len().saturating_sub(GEOMETRY_LEN);
            if let (true, [gso, flags, high, ..]) = (mild, &mut bytes[end..]) {
                (*gso, *flags, *high) = (*gso & 5, *flags & 15, 0);
            }
            if let Ok(part) = PartView::parse(&bytes) {
                prop_assert_eq!(
                    part.payload.len() + part.headers.len() + GEOMETRY_LEN,
                    bytes.len()
                );
            }
        }
    }
}
