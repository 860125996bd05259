//! UDP headers (RFC 768).

use zerocopy::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Malformed;

/// IP protocol number.
pub const UDP: u8 = 17;

/// Bytes of the header.
pub const UDP_LEN: usize = 8;

/// Where the checksum stands in the header.
pub const UDP_CHECKSUM_OFFSET: u16 = 6;

/// Layout of the header.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct UdpHeader {
    /// Sender's port.
    pub source: U16,
    /// Receiver's port.
    pub destination: U16,
    /// Header and payload, in bytes.
    pub length: U16,
    /// Checksum, 0 for none, or the sum of the pseudo header when it is still to be completed.
    pub checksum: U16,
}

const _: () = assert!(size_of::<UdpHeader>() == UDP_LEN);

/// A datagram whose header was checked.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'a> {
    header: &'a UdpHeader,
    payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// Checks the length.
    pub fn parse(datagram: &'a [u8]) -> Result<Udp<'a>, Malformed> {
        let (header, _) = UdpHeader::ref_from_prefix(datagram).map_err(|_| Malformed::Truncated)?;
        let datagram =
            datagram.get(..usize::from(header.length.get())).ok_or(Malformed::Truncated)?;
        let payload = datagram.get(UDP_LEN..).ok_or(Malformed::BadLength)?;
        Ok(Udp { header, payload })
    }

    /// The header.
    pub fn header(&self) -> &'a UdpHeader {
        self.header
    }

    /// What follows the header.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// A header as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpRepr {
    /// Sender's port.
    pub source: u16,
    /// Receiver's port.
    pub destination: u16,
    /// Bytes that follow the header, at most 65527.
    pub payload_len: u16,
    /// Checksum, 0 for none, or the sum of the pseudo header.
    pub checksum: u16,
}

impl UdpRepr {
    /// The header of a datagram.
    pub fn of(view: &Udp<'_>) -> UdpRepr {
        UdpRepr {
            source: view.header.source.get(),
            destination: view.header.destination.get(),
            payload_len: view.payload.len() as u16,
            checksum: view.header.checksum.get(),
        }
    }

    /// The header's bytes.
    pub fn emit(&self) -> [u8; UDP_LEN] {
        let header = UdpHeader {
            source: self.source.into(),
            destination: self.destination.into(),
            length: (UDP_LEN as u16).saturating_add(self.payload_len).into(),
            checksum: self.checksum.into(),
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
            source: u16, destination: u16, payload_len in 0..50u16, checksum: u16, more in 0..9u16,
        ) {
            let repr = UdpRepr { source, destination, payload_len, checksum };
            let mut bytes = repr.emit().to_vec();
            bytes.resize(UDP_LEN + usize::from(payload_len + more), 3);
            prop_assert_eq!(UdpRepr::of(&Udp::parse(&bytes).expect("emitted")), repr);
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = Udp::parse(&bytes);
        }
    }
}
