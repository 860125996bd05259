//! The tunnel header: 16 bytes, big endian, in front of every datagram of ours; all of it is the
//! AEAD's associated data.
//!
//! ```text
//!  0               1               2               3
//!  0 1 2 3 4 5 6 7 0 1 2 3 4 5 6 7 0 1 2 3 4 5 6 7 0 1 2 3 4 5 6 7
//! +---+---+-------+---------------+---------------+---------------+
//! |1 0|knd| epoch |     lane      |  part index   |  part count   |
//! +---+---+-------+---------------+---------------+---------------+
//! |                     receiver's link index                     |
//! +---------------------------------------------------------------+
//! |                       packet counter                          |
//! |                         (64 bits)                             |
//! +---------------------------------------------------------------+
//! ```
//! `knd`: 0 data, 1 handshake, 2 control. `epoch`: the low four bits of the key epoch. The link
//! index is chosen by the receiver during the handshake. A sealed body follows the header and ends
//! with a [`TAG_LEN`]-byte tag; a handshake body is not sealed.
//!
//! Part count 0 means a bundle of whole frames; a count from 1 means part `index` of that many
//! parts of one frame, which have consecutive counters.

/// Bytes of a tunnel [`Header`].
pub const HEADER_LEN: usize = 16;

/// Bytes of the AEAD tag behind a sealed body.
pub const TAG_LEN: usize = 16;

/// Bytes that sealing adds to a datagram's plaintext.
pub const SEAL_OVERHEAD: usize = HEADER_LEN + TAG_LEN;

const FIXED_BITS: u8 = 0b1000_0000;
const FIXED_MASK: u8 = 0b1100_0000;
const EPOCH_MASK: u8 = 0b0000_1111;

/// What a datagram is, told by its first byte alone (RFC 7983 section 7, RFC 9443 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// 0..=3: a STUN message, from a peer's connectivity check or from a server.
    Stun,
    /// 64..=79: TURN ChannelData, from a relay only.
    TurnChannel,
    /// 128..=191: a tunnel [`Header`].
    Ipop,
    /// Anything else: not for us.
    Unknown,
}

impl Protocol {
    /// Classifies a datagram by its first byte.
    #[inline]
    pub const fn of(first_byte: u8) -> Protocol {
        match first_byte {
            0..=3 => Protocol::Stun,
            64..=79 => Protocol::TurnChannel,
            128..=191 => Protocol::Ipop,
            _ => Protocol::Unknown,
        }
    }
}

/// What a tunnel datagram's body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Sealed Ethernet frames or parts of one.
    Data = 0,
    /// A fragment of a handshake flight, not sealed.
    Handshake = 1,
    /// A sealed message from link agent to link agent.
    Control = 2,
}

/// A node's own number for one of its links: what peers write into the header, so that the receiver
/// finds the link without looking at addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkIndex(pub u32);

/// Which part of a frame a datagram carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// Zero-based; below `count`, or 0 in a bundle.
    pub index: u8,
    /// Parts of this frame; 0 marks a bundle of whole frames.
    pub count: u8,
}

impl Part {
    /// Not a part: a bundle of whole frames.
    pub const BUNDLE: Part = Part { index: 0, count: 0 };
    /// A frame that travels in one datagram, and what handshake and control datagrams carry.
    pub const WHOLE: Part = Part { index: 0, count: 1 };

    /// Whether this is the first part of a frame.
    #[inline]
    pub const fn is_first(self) -> bool {
        self.index == 0
    }

    /// Whether this is the last part of a frame.
    #[inline]
    pub const fn is_last(self) -> bool {
        self.index as u16 + 1 >= self.count as u16
    }

    /// Whether the numbers make sense together.
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.index < self.count || (self.index == 0 && self.count == 0)
    }
}

/// The decoded tunnel header; the module describes its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// What the body holds.
    pub kind: Kind,
    /// Low four bits of the key epoch (0..=15).
    pub epoch: u8,
    /// Lane: which keys, counter and replay window of the link.
    pub lane: u8,
    /// Which part of a frame.
    pub part: Part,
    /// The receiver's own number for the link.
    pub receiver: LinkIndex,
    /// Packet counter of this lane and direction; the nonce is derived from it.
    pub counter: u64,
}

/// Why a datagram has no valid tunnel header. Always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer than [`HEADER_LEN`] bytes.
    #[error("shorter than a tunnel header")]
    Truncated,
    /// The two leading bits are not `10`.
    #[error("not a tunnel datagram")]
    NotOurs,
    /// The reserved kind 3: perhaps a newer version.
    #[error("unknown kind of tunnel datagram")]
    UnknownKind,
    /// A part index not below the part count.
    #[error("impossible part numbers")]
    BadPart,
}

impl Header {
    /// Reads the header in front of `datagram`; what follows it is not looked at.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Result<Header, HeaderError> {
        let bytes: &[u8; HEADER_LEN] = datagram.first_chunk().ok_or(HeaderError::Truncated)?;
        let [first, lane, index, count, r0, r1, r2, r3, counter @ ..] = *bytes;
        if first & FIXED_MASK != FIXED_BITS {
            return Err(HeaderError::NotOurs);
        }
        let kind = match (first >> 4) & 0b11 {
            0 => Kind::Data,
            1 => Kind::Handshake,
            2 => Kind::Control,
            _ => return Err(HeaderError::UnknownKind),
        };
        let part = Part { index, count };
        if !part.is_valid() {
            return Err(HeaderError::BadPart);
        }
        Ok(Header {
            kind,
            epoch: first & EPOCH_MASK,
            lane,
            part,
            receiver: LinkIndex(u32::from_be_bytes([r0, r1, r2, r3])),
            counter: u64::from_be_bytes(counter),
        })
    }

    /// The header's bytes. Only the low four bits of `epoch` travel.
    #[inline]
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = FIXED_BITS | ((self.kind as u8) << 4) | (self.epoch & EPOCH_MASK);
        bytes[1] = self.lane;
        bytes[2] = self.part.index;
        bytes[3] = self.part.count;
        bytes[4..8].copy_from_slice(&self.receiver.0.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_header() -> impl Strategy<Value = Header> {
        let kind = prop_oneof![Just(Kind::Data), Just(Kind::Handshake), Just(Kind::Control)];
        let part = (any::<u8>(), any::<u8>())
            .prop_map(|(index, count)| Part { index, count })
            .prop_filter("valid", |part| part.is_valid());
        (kind, 0..16u8, any::<u8>(), part, any::<u32>(), any::<u64>()).prop_map(
            |(kind, epoch, lane, part, receiver, counter)| Header {
                kind,
                epoch,
                lane,
                part,
                receiver: LinkIndex(receiver),
                counter,
            },
        )
    }

    proptest! {
        #[test]
        fn emitted_headers_parse_to_themselves(header in any_header()) {
            let bytes = header.emit();
            prop_assert_eq!(Header::parse(&bytes), Ok(header));
            prop_assert_eq!(Protocol::of(bytes[0]), Protocol::Ipop);
        }

        #[test]
        fn parsed_headers_emit_the_same_bytes(bytes in any::<[u8; 20]>()) {
            if let Ok(header) = Header::parse(&bytes) {
                prop_assert_eq!(&header.emit()[..], &bytes[..HEADER_LEN]);
            }
        }
    }

    #[test]
    fn the_picture_is_true() {
        let header = Header {
            kind: Kind::Control,
            epoch: 0x5,
            lane: 7,
            part: Part { index: 2, count: 44 },
            receiver: LinkIndex(0x0102_0304),
            counter: 0x1112_1314_1516_1718,
        };
        let bytes =
            [0b1010_0101, 7, 2, 44, 1, 2, 3, 4, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18];
        assert_eq!(header.emit(), bytes);
    }

    #[test]
    fn refusals_have_names() {
        let good = Header {
            kind: Kind::Data,
            epoch: 0,
            lane: 0,
            part: Part::WHOLE,
            receiver: LinkIndex(1),
            counter: 0,
        }
        .emit();
        assert_eq!(Header::parse(&good[..15]), Err(HeaderError::Truncated));
        let mut bad = good;
        bad[0] = 0x16;
        assert_eq!(Header::parse(&bad), Err(HeaderError::NotOurs));
        bad[0] = 0b1011_0000;
        assert_eq!(Header::parse(&bad), Err(HeaderError::UnknownKind));
        bad = good;
        bad[2] = 1;
        assert_eq!(Header::parse(&bad), Err(HeaderError::BadPart));
        bad[3] = 0;
        assert_eq!(Header::parse(&bad), Err(HeaderError::BadPart));
    }

    #[test]
    fn first_bytes_are_told_apart() {
        let of = Protocol::of;
        assert_eq!([of(0), of(3), of(4)], [Protocol::Stun, Protocol::Stun, Protocol::Unknown]);
        assert_eq!(
            [of(63), of(64), of(79), of(80)].map(|p| p == Protocol::TurnChannel),
            [false, true, true, false]
        );
        assert_eq!(
            [of(127), of(128), of(191), of(192)].map(|p| p == Protocol::Ipop),
            [false, true, true, false]
        );
    }
}
