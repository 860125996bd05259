//! IPv4 (RFC 791).

use std::net::Ipv4Addr;

use zerocopy::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Malformed, checksum};

/// Bytes of a header without options.
pub const IPV4_LEN: usize = 20;

const VERSION_AND_LEN: u8 = 0x45;
const DONT_FRAGMENT: u16 = 0x4000;
/// More fragments, or a fragment offset.
const FRAGMENT_MASK: u16 = 0x3fff;

/// Layout of the fixed part of the header.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version 4 in the high half, header length in words of 4 bytes in the low half.
    pub version_and_len: u8,
    /// Differentiated services and ECN.
    pub tos: u8,
    /// Header and payload, in bytes.
    pub total_len: U16,
    /// Identification.
    pub id: U16,
    /// Flags (3 bits) and fragment offset (13 bits).
    pub fragment: U16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Header checksum.
    pub checksum: U16,
    /// Sender.
    pub source: [u8; 4],
    /// Receiver.
    pub destination: [u8; 4],
}

const _: () = assert!(size_of::<Ipv4Header>() == IPV4_LEN);

impl Ipv4Header {
    /// Bytes of the header with its options, as the header claims.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_and_len & 0x0f) * 4
    }

    /// Whether this is a piece of a fragmented packet.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.fragment.get() & FRAGMENT_MASK != 0
    }

    /// Whether routers may not fragment it; its identification then means nothing (RFC 6864).
    #[inline]
    pub fn is_atomic(&self) -> bool {
        self.fragment.get() & (DONT_FRAGMENT | FRAGMENT_MASK) == DONT_FRAGMENT
    }

    /// Sets total length and identification and corrects the checksum for both.
    #[inline]
    pub fn set_len_and_id(&mut self, total_len: u16, id: u16) {
        let sum = checksum::update(self.checksum.get(), self.total_len.get(), total_len);
        let sum = checksum::update(sum, self.id.get(), id);
        self.checksum.set(sum);
        self.total_len.set(total_len);
        self.id.set(id);
    }
}

/// A packet whose header was checked (its checksum was not: see [`Ipv4::has_good_checksum`]).
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    header: &'a Ipv4Header,
    header_bytes: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// Checks version and lengths; Ethernet padding behind the packet is cut off.
    pub fn parse(packet: &'a [u8]) -> Result<Ipv4<'a>, Malformed> {
        let (header, _) = Ipv4Header::ref_from_prefix(packet).map_err(|_| Malformed::Truncated)?;
        if header.version_and_len >> 4 != 4 {
            return Err(Malformed::Unsupported);
        }
        let total_len = usize::from(header.total_len.get());
        let packet = packet.get(..total_len).ok_or(Malformed::Truncated)?;
        if header.header_len() < IPV4_LEN {
            return Err(Malformed::BadLength);
        }
        let (header_bytes, payload) =
            packet.split_at_checked(header.header_len()).ok_or(Malformed::BadLength)?;
        Ok(Ipv4 { header, header_bytes, payload })
    }

    /// The fixed part of the header.
    #[inline]
    pub fn header(&self) -> &'a Ipv4Header {
        self.header
    }

    /// Sender.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        self.header.source.into()
    }

    /// Receiver.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        self.header.destination.into()
    }

    /// Header options; their meaning is not checked.
    pub fn options(&self) -> &'a [u8] {
        &self.header_bytes[IPV4_LEN..]
    }

    /// What follows the header.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Whether the header sums up.
    pub fn has_good_checksum(&self) -> bool {
        checksum::sum(self.header_bytes) == 0xffff
    }
}

/// An unfragmented header without options as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Repr {
    /// Sender.
    pub source: Ipv4Addr,
    /// Receiver.
    pub destination: Ipv4Addr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Differentiated services and ECN.
    pub tos: u8,
    /// Time to live.
    pub ttl: u8,
    /// Identification.
    pub id: u16,
    /// Whether routers may not fragment it.
    pub dont_fragment: bool,
    /// Bytes that follow the header, at most 65515.
    pub payload_len: u16,
}

impl Ipv4Repr {
    /// The header of a packet without options that is not a fragment, else `None`.
    pub fn of(view: &Ipv4<'_>) -> Option<Ipv4Repr> {
        let header = view.header;
        if !view.options().is_empty() || header.fragment.get() & !DONT_FRAGMENT != 0 {
            return None;
        }
        Some(Ipv4Repr {
            source: view.source(),
            destination: view.destination(),
            protocol: header.protocol,
            tos: header.tos,
            ttl: header.ttl,
            id: header.id.get(),
            dont_fragment: header.fragment.get() & DONT_FRAGMENT != 0,
            payload_len: view.payload.len() as u16,
        })
    }

    /// The header's bytes, with its checksum.
    pub fn emit(&self) -> [u8; IPV4_LEN] {
        let mut header = Ipv4Header {
            version_and_len: VERSION_AND_LEN,
            tos: self.tos,
            total_len: (IPV4_LEN as u16).saturating_add(self.payload_len).into(),
            id: self.id.into(),
            fragment: if self.dont_fragment { DONT_FRAGMENT } else { 0 }.into(),
            ttl: self.ttl,
            protocol: self.protocol,
            checksum: 0.into(),
            source: self.source.octets(),
            destination: self.destination.octets(),
        };
        header.checksum.set(checksum::checksum(header.as_bytes()));
        zerocopy::transmute!(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_repr() -> impl Strategy<Value = Ipv4Repr> {
        let numbers = (any::<u8>(), any::<u8>(), any::<u8>(), any::<u16>(), any::<bool>());
        (any::<[u8; 4]>(), any::<[u8; 4]>(), numbers, 0..64u16).prop_map(
            |(source, destination, (protocol, tos, ttl, id, dont_fragment), payload_len)| {
                let (source, destination) = (source.into(), destination.into());
                Ipv4Repr { source, destination, protocol, tos, ttl, id, dont_fragment, payload_len }
            },
        )
    }

    proptest! {
        #[test]
        fn emitted_headers_parse_to_themselves(repr in any_repr(), padding in 0..9usize) {
            let mut packet = repr.emit().to_vec();
            packet.resize(IPV4_LEN + usize::from(repr.payload_len) + padding, 7);
            let view = Ipv4::parse(&packet).expect("emitted");
            prop_assert_eq!(Ipv4Repr::of(&view), Some(repr));
            prop_assert!(view.has_good_checksum());
        }

        #[test]
        fn a_new_length_and_id_keep_the_checksum_good(repr in any_repr(), len: u16, id: u16) {
            let mut packet = repr.emit().to_vec();
            let (header, _) = Ipv4Header::mut_from_prefix(&mut packet).expect("long enough");
            header.set_len_and_id(len, id);
            prop_assert_eq!(checksum::sum(&packet), 0xffff);
        }

        #[test]
        fn nothing_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..70), four: bool) {
            if let (true, Some(first)) = (four, bytes.first_mut()) {
                *first = 0x40 | (*first & 0xf);
            }
            if let Ok(view) = Ipv4::parse(&bytes) {
                let _ = (view.options(), view.payload(), Ipv4Repr::of(&view));
                prop_assert!(view.header().header_len() <= bytes.len());
            }
        }
    }
}
