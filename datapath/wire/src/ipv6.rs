//! IPv6 (RFC 8200) and the walk over its extension headers.

use std::net::Ipv6Addr;

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Malformed;

/// Bytes of the fixed header.
pub const IPV6_LEN: usize = 40;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// A longer chain of extension headers is not walked.
const EXTENSIONS_MAX: usize = 8;

/// Layout of the fixed header.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version 6 (4 bits), traffic class (8), flow label (20).
    pub version_class_flow: U32,
    /// Bytes behind the fixed header.
    pub payload_len: U16,
    /// What follows the fixed header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Sender.
    pub source: [u8; 16],
    /// Receiver.
    pub destination: [u8; 16],
}

const _: () = assert!(size_of::<Ipv6Header>() == IPV6_LEN);

/// A packet whose fixed header was checked.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a> {
    header: &'a Ipv6Header,
    payload: &'a [u8],
}

impl<'a> Ipv6<'a> {
    /// Checks version and length; Ethernet padding behind the packet is cut off.
    pub fn parse(packet: &'a [u8]) -> Result<Ipv6<'a>, Malformed> {
        let (header, rest) =
            Ipv6Header::ref_from_prefix(packet).map_err(|_| Malformed::Truncated)?;
        if header.version_class_flow.get() >> 28 != 6 {
            return Err(Malformed::Unsupported);
        }
        let payload_len = usize::from(header.payload_len.get());
        let payload = rest.get(..payload_len).ok_or(Malformed::Truncated)?;
        Ok(Ipv6 { header, payload })
    }

    /// The fixed header.
    #[inline]
    pub fn header(&self) -> &'a Ipv6Header {
        self.header
    }

    /// Sender.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        self.header.source.into()
    }

    /// Receiver.
    #[inline]
    pub fn destination(&self) -> Ipv6Addr {
        self.header.destination.into()
    }

    /// What follows the fixed header, extension headers included.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// Where a packet's upper layer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpperLayer {
    /// Its protocol number.
    pub protocol: u8,
    /// Bytes of extension headers in front of it.
    pub offset: usize,
}

/// Walks the extension headers in `behind`, which follows a fixed header that says `next_header`.
/// `None` for a fragment, a broken or a very long chain; an unknown header counts as upper layer.
pub fn upper_layer(next_header: u8, behind: &[u8]) -> Option<UpperLayer> {
    let mut protocol = next_header;
    let mut offset = 0;
    for _ in 0..=EXTENSIONS_MAX {
        match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let extension = behind.get(offset..)?;
                let [next, words, ..] = *extension else { return None };
                protocol = next;
                offset += (usize::from(words) + 1) * 8;
            }
            FRAGMENT => return None,
            _ => return (offset <= behind.len()).then_some(UpperLayer { protocol, offset }),
        }
    }
    None
}

/// A fixed header as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Repr {
    /// Sender.
    pub source: Ipv6Addr,
    /// Receiver.
    pub destination: Ipv6Addr,
    /// What follows the fixed header.
    pub next_header: u8,
    /// Traffic class: differentiated services and ECN.
    pub traffic_class: u8,
    /// Flow label, 20 bits.
    pub flow_label: u32,
    /// Hop limit.
    pub hop_limit: u8,
    /// Bytes behind the fixed header.
    pub payload_len: u16,
}

impl Ipv6Repr {
    /// The fixed header of a packet.
    pub fn of(view: &Ipv6<'_>) -> Ipv6Repr {
        let word = view.header.version_class_flow.get();
        Ipv6Repr {
            source: view.source(),
            destination: view.destination(),
            next_header: view.header.next_header,
            traffic_class: (word >> 20) as u8,
            flow_label: word & 0xf_ffff,
            hop_limit: view.header.hop_limit,
            payload_len: view.payload.len() as u16,
        }
    }

    /// The header's bytes.
    pub fn emit(&self) -> [u8; IPV6_LEN] {
        let class_and_flow = u32::from(self.traffic_class) << 20 | (self.flow_label & 0xf_ffff);
        let header = Ipv6Header {
            version_class_flow: (6 << 28 | class_and_flow).into(),
            payload_len: self.payload_len.into(),
            next_header: self.next_header,
            hop_limit: self.hop_limit,
            source: self.source.octets(),
            destination: self.destination.octets(),
        };
        zerocopy::transmute!(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn emitted_headers_parse_to_themselves(
            source: [u8; 16], destination: [u8; 16], next_header: u8, traffic_class: u8,
            flow_label in 0..1u32 << 20, hop_limit: u8, payload_len in 0..64u16, padding in 0..9u16,
        ) {
            let (source, destination) = (source.into(), destination.into());
            let repr = Ipv6Repr {
                source, destination, next_header, traffic_class, flow_label, hop_limit, payload_len,
            };
            let mut packet = repr.emit().to_vec();
            packet.resize(IPV6_LEN + usize::from(payload_len + padding), 7);
            let view = Ipv6::parse(&packet).expect("emitted");
            prop_assert_eq!(Ipv6Repr::of(&view), repr);
        }

        #[test]
        fn nothing_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..90), six: bool) {
            if let (true, Some(first)) = (six, bytes.first_mut()) {
                *first = 0x60;
            }
            let _ = Ipv6::parse(&bytes);
            if let Some(upper) = upper_layer(bytes.first().copied().unwrap_or(0) & 63, &bytes) {
                prop_assert!(upper.offset <= bytes.len());
            }
        }
    }

    #[test]
    fn extension_headers_are_walked() {
        let mut chain = vec![0; 24];
        chain[0] = DESTINATION_OPTIONS;
        chain[8] = 6;
        chain[9] = 1;
        assert_eq!(upper_layer(HOP_BY_HOP, &chain), Some(UpperLayer { protocol: 6, offset: 24 }));
        assert_eq!(upper_layer(HOP_BY_HOP, &chain[..23]), None);
        assert_eq!(upper_layer(17, &[]), Some(UpperLayer { protocol: 17, offset: 0 }));
        assert_eq!(upper_layer(FRAGMENT, &chain), None);
    }
}
