//! The virtio-net header in front of every frame that a tap with `IFF_VNET_HDR` gives or takes
//! (VIRTIO 1.2 section 5.1.6), at its size with `num_buffers`. A tap that was not told otherwise
//! speaks it in the machine's own byte order.
//!
//! ```text
//! 0 flags | 1 gso type | 2..4 header length | 4..6 gso size | 6..8 checksum start
//! 8..10 checksum offset (from start) | 10..12 buffers (unused by a tap)
//! ```

/// Bytes of the header: what `TUNSETVNETHDRSZ` is set to.
pub const VNET_HEADER_LEN: usize = 12;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_ECN: u8 = 0x80;

/// How a super-segment is to be cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GsoType {
    /// Not a super-segment.
    #[default]
    None = 0,
    /// TCP over IPv4.
    Tcp4 = 1,
    /// TCP over IPv6.
    Tcp6 = 4,
    /// UDP datagrams of one size, over either IP (USO).
    Udp = 5,
}

impl GsoType {
    /// The type with this number; `None` for types that no tap of ours is told to use.
    #[inline]
    pub const fn from_number(number: u8) -> Option<GsoType> {
        match number {
            0 => Some(GsoType::None),
            1 => Some(GsoType::Tcp4),
            4 => Some(GsoType::Tcp6),
            5 => Some(GsoType::Udp),
            _ => None,
        }
    }

    /// Whether it is a TCP super-segment.
    #[inline]
    pub const fn is_tcp(self) -> bool {
        matches!(self, GsoType::Tcp4 | GsoType::Tcp6)
    }
}

/// Where a checksum is still to be completed: over everything from `start`, into the 16 bits at
/// `start + offset`, which hold the sum of the pseudo header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Csum {
    /// Bytes from the front of the frame to where the sum begins.
    pub start: u16,
    /// Bytes from there to the checksum field.
    pub offset: u16,
}

/// What is known of a frame's inner checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CsumState {
    /// Nothing: it stands in the frame and may be wrong.
    #[default]
    Unknown,
    /// It was verified on the way here.
    Valid,
    /// It is still to be completed, which nobody does as long as the frame stays in memory.
    Needed(Csum),
}

/// The header as a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct VirtioNetHeader {
    /// What is known of the checksum.
    pub csum: CsumState,
    /// How to cut the frame.
    pub gso_type: GsoType,
    /// The first segment alone carries the congestion-window-reduced flag.
    pub has_ecn: bool,
    /// Bytes of all headers; only a hint when read from a tap.
    pub header_len: u16,
    /// Payload bytes per segment.
    pub gso_size: u16,
}

impl VirtioNetHeader {
    /// Reads the header; `None` when it is cut off or names an unknown gso type.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<VirtioNetHeader> {
        let bytes: &[u8; VNET_HEADER_LEN] = bytes.first_chunk()?;
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let csum = if bytes[0] & NEEDS_CSUM != 0 {
            CsumState::Needed(Csum { start: word(6), offset: word(8) })
        } else if bytes[0] & DATA_VALID != 0 {
            CsumState::Valid
        } else {
            CsumState::Unknown
        };
        Some(VirtioNetHeader {
            csum,
            gso_type: GsoType::from_number(bytes[1] & !GSO_ECN)?,
            has_ecn: bytes[1] & GSO_ECN != 0,
            header_len: word(2),
            gso_size: word(4),
        })
    }

    /// The header's bytes.
    #[inline]
    pub fn emit(&self) -> [u8; VNET_HEADER_LEN] {
        let mut bytes = [0; VNET_HEADER_LEN];
        let mut csum = Csum::default();
        match self.csum {
            CsumState::Unknown => {}
            CsumState::Valid => bytes[0] = DATA_VALID,
            CsumState::Needed(needed) => {
                bytes[0] = NEEDS_CSUM;
                csum = needed;
            }
        }
        bytes[1] = self.gso_type as u8 | if self.has_ecn { GSO_ECN } else { 0 };
        bytes[2..4].copy_from_slice(&self.header_len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
        bytes[6..8].copy_from_slice(&csum.start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&csum.offset.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_csum() -> impl Strategy<Value = CsumState> {
        prop_oneof![
            Just(CsumState::Unknown),
            Just(CsumState::Valid),
            any::<(u16, u16)>()
                .prop_map(|(start, offset)| CsumState::Needed(Csum { start, offset })),
        ]
    }

    pub(crate) fn any_gso_type() -> impl Strategy<Value = GsoType> {
        prop_oneof![
            Just(GsoType::None),
            Just(GsoType::Tcp4),
            Just(GsoType::Tcp6),
            Just(GsoType::Udp)
        ]
    }

    proptest! {
        #[test]
        fn emitted_headers_parse_to_themselves(
            csum in any_csum(), gso_type in any_gso_type(), has_ecn: bool, header_len: u16,
            gso_size: u16,
        ) {
            let header = VirtioNetHeader { csum, gso_type, has_ecn, header_len, gso_size };
            prop_assert_eq!(VirtioNetHeader::parse(&header.emit()), Some(header));
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = VirtioNetHeader::parse(&bytes);
        }
    }
}
