//! Ethernet II, with up to two VLAN tags (IEEE 802.1Q, 802.1ad).

use zerocopy::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Malformed;

/// A hardware address.
pub type Mac = [u8; 6];

/// Everybody on the segment.
pub const BROADCAST: Mac = [0xff; 6];

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_LEN: usize = 14;

/// Bytes of one VLAN tag.
pub const VLAN_TAG_LEN: usize = 4;

/// IPv4.
pub const IPV4: u16 = 0x0800;
/// ARP.
pub const ARP: u16 = 0x0806;
/// IPv6.
pub const IPV6: u16 = 0x86dd;
/// A VLAN tag follows.
pub const VLAN: u16 = 0x8100;
/// A service VLAN tag follows.
pub const SERVICE_VLAN: u16 = 0x88a8;

/// Layout of an untagged header.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct EthernetHeader {
    /// Receiver.
    pub destination: Mac,
    /// Sender.
    pub source: Mac,
    /// What follows.
    pub ethertype: U16,
}

const _: () = assert!(size_of::<EthernetHeader>() == ETHERNET_LEN);

/// A frame whose headers were checked.
#[derive(Clone, Copy, Debug)]
pub struct Ethernet<'a> {
    header: &'a EthernetHeader,
    tags: &'a [u8],
    ethertype: u16,
    payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    /// Checks a frame; a third VLAN tag is left to be an unknown payload.
    #[inline]
    pub fn parse(frame: &'a [u8]) -> Result<Ethernet<'a>, Malformed> {
        let (header, mut payload) =
            EthernetHeader::ref_from_prefix(frame).map_err(|_| Malformed::Truncated)?;
        let behind = payload;
        let mut ethertype = header.ethertype.get();
        for _ in 0..2 {
            if ethertype != VLAN && ethertype != SERVICE_VLAN {
                break;
            }
            let (tag, rest) =
                payload.split_first_chunk::<VLAN_TAG_LEN>().ok_or(Malformed::Truncated)?;
            ethertype = u16::from_be_bytes([tag[2], tag[3]]);
            payload = rest;
        }
        let tags = &behind[..behind.len() - payload.len()];
        Ok(Ethernet { header, tags, ethertype, payload })
    }

    /// Receiver.
    #[inline]
    pub fn destination(&self) -> Mac {
        self.header.destination
    }

    /// Sender.
    #[inline]
    pub fn source(&self) -> Mac {
        self.header.source
    }

    /// What the payload is, behind any tags.
    #[inline]
    pub fn ethertype(&self) -> u16 {
        self.ethertype
    }

    /// Whether VLAN tags stand between the addresses and the payload.
    #[inline]
    pub fn is_tagged(&self) -> bool {
        !self.tags.is_empty()
    }

    /// Bytes in front of the payload.
    #[inline]
    pub fn header_len(&self) -> usize {
        ETHERNET_LEN + self.tags.len()
    }

    /// What follows the header, padding included.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// An Ethernet header as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EthernetRepr {
    /// Receiver.
    pub destination: Mac,
    /// Sender.
    pub source: Mac,
    /// Tag control information of a VLAN tag (priority and VLAN number).
    pub vlan: Option<u16>,
    /// What the payload is.
    pub ethertype: u16,
}

impl EthernetRepr {
    /// The header of a frame that has at most one plain VLAN tag, else `None`.
    pub fn of(frame: &Ethernet<'_>) -> Option<EthernetRepr> {
        let vlan = match (frame.tags, frame.header.ethertype.get()) {
            ([], _) => None,
            (&[high, low, _, _], VLAN) => Some(u16::from_be_bytes([high, low])),
            _ => return None,
        };
        Some(EthernetRepr {
            destination: frame.destination(),
            source: frame.source(),
            vlan,
            ethertype: frame.ethertype,
        })
    }

    /// Bytes that [`emit`](Self::emit) writes.
    pub fn header_len(&self) -> usize {
        ETHERNET_LEN + if self.vlan.is_some() { VLAN_TAG_LEN } else { 0 }
    }

    /// Writes the header to the front of `out`.
    ///
    /// # Panics
    /// When `out` is shorter than [`header_len`](Self::header_len).
    pub fn emit(&self, out: &mut [u8]) {
        out[..6].copy_from_slice(&self.destination);
        out[6..12].copy_from_slice(&self.source);
        let ethertype = self.ethertype.to_be_bytes();
        match self.vlan {
            None => out[12..14].copy_from_slice(&ethertype),
            Some(tag) => {
                out[12..14].copy_from_slice(&VLAN.to_be_bytes());
                out[14..16].copy_from_slice(&tag.to_be_bytes());
                out[16..18].copy_from_slice(&ethertype);
            }
        }
    }
}

/// Whether a frame to this address is for more than one receiver: multicast or broadcast.
#[inline]
pub const fn is_group(mac: &Mac) -> bool {
    mac[0] & 1 != 0
}

/// The ethertype of an IP packet, told by the version in its first byte.
#[inline]
pub const fn ethertype_of_ip(first_byte: u8) -> Option<u16> {
    match first_byte >> 4 {
        4 => Some(IPV4),
        6 => Some(IPV6),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn emitted_headers_parse_to_themselves(
            destination: Mac, source: Mac, vlan: Option<u16>, ethertype: u16, payload: [u8; 9],
        ) {
            prop_assume!(ethertype != VLAN && ethertype != SERVICE_VLAN);
            let repr = EthernetRepr { destination, source, vlan, ethertype };
            let mut bytes = vec![0; repr.header_len()];
            repr.emit(&mut bytes);
            bytes.extend(payload);
            let view = Ethernet::parse(&bytes).expect("emitted");
            prop_assert_eq!(EthernetRepr::of(&view), Some(repr));
            prop_assert_eq!(view.payload(), &payload);
            prop_assert_eq!(view.header_len(), repr.header_len());
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(view) = Ethernet::parse(&bytes) {
                prop_assert_eq!(view.header_len() + view.payload().len(), bytes.len());
                let _ = EthernetRepr::of(&view);
            }
        }
    }

    #[test]
    fn two_tags_are_skipped() {
        let mut frame = vec![1; 12];
        frame.extend([0x88, 0xa8, 0, 5, 0x81, 0x00, 0, 6, 0x08, 0x00, 0x45]);
        let view = Ethernet::parse(&frame).expect("two tags");
        assert_eq!((view.ethertype(), view.header_len(), view.payload()), (IPV4, 22, &[0x45][..]));
        assert_eq!(EthernetRepr::of(&view), None);
        assert!(Ethernet::parse(&frame[..20]).is_err());
    }
}
