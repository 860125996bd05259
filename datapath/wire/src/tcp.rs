//! TCP headers (RFC 9293 section 3.1).

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Malformed;

/// IP protocol number.
pub const TCP: u8 = 6;

/// Bytes of a header without options.
pub const TCP_LEN: usize = 20;

/// Bytes of the longest header.
pub const TCP_LEN_MAX: usize = 60;

/// Where the checksum stands in the header.
pub const TCP_CHECKSUM_OFFSET: u16 = 16;

/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Opens a connection.
pub const SYN: u8 = 0x02;
/// Aborts a connection.
pub const RST: u8 = 0x04;
/// Hand the data to the application now.
pub const PSH: u8 = 0x08;
/// The acknowledgement number is valid.
pub const ACK: u8 = 0x10;
/// The urgent pointer is valid.
pub const URG: u8 = 0x20;
/// ECN echo (RFC 3168).
pub const ECE: u8 = 0x40;
/// Congestion window reduced (RFC 3168).
pub const CWR: u8 = 0x80;

/// Layout of the fixed part of the header.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
pub struct TcpHeader {
    /// Sender's port.
    pub source: U16,
    /// Receiver's port.
    pub destination: U16,
    /// Sequence number of the first payload byte.
    pub sequence: U32,
    /// Next sequence number expected.
    pub acknowledgement: U32,
    /// Header length in words of 4 bytes in the high half.
    pub data_offset: u8,
    /// Flags.
    pub flags: u8,
    /// Receive window.
    pub window: U16,
    /// Checksum, or the sum of the pseudo header when it is still to be completed.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

const _: () = assert!(size_of::<TcpHeader>() == TCP_LEN);

impl TcpHeader {
    /// Bytes of the header with its options, as the header claims.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }
}

/// A segment whose header was checked.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a> {
    header: &'a TcpHeader,
    options: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// Checks the header length; the meaning of options is not checked.
    pub fn parse(segment: &'a [u8]) -> Result<Tcp<'a>, Malformed> {
        let (header, behind) =
            TcpHeader::ref_from_prefix(segment).map_err(|_| Malformed::Truncated)?;
        let options_len = header.header_len().checked_sub(TCP_LEN).ok_or(Malformed::BadLength)?;
        let (options, payload) =
            behind.split_at_checked(options_len).ok_or(Malformed::Truncated)?;
        Ok(Tcp { header, options, payload })
    }

    /// The fixed part of the header.
    pub fn header(&self) -> &'a TcpHeader {
        self.header
    }

    /// Header options.
    pub fn options(&self) -> &'a [u8] {
        self.options
    }

    /// What follows the header.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// A header as a value; options are kept as bytes beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpRepr<'a> {
    /// Sender's port.
    pub source: u16,
    /// Receiver's port.
    pub destination: u16,
    /// Sequence number of the first payload byte.
    pub sequence: u32,
    /// Next sequence number expected.
    pub acknowledgement: u32,
    /// Flags.
    pub flags: u8,
    /// Receive window.
    pub window: u16,
    /// Checksum, or the sum of the pseudo header.
    pub checksum: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Options, a multiple of 4 bytes, at most 40.
    pub options: &'a [u8],
}

impl<'a> TcpRepr<'a> {
    /// The header of a segment; the four reserved bits beside the data offset are not kept.
    pub fn of(view: &Tcp<'a>) -> TcpRepr<'a> {
        let header = view.header;
        TcpRepr {
            source: header.source.get(),
            destination: header.destination.get(),
            sequence: header.sequence.get(),
            acknowledgement: header.acknowledgement.get(),
            flags: header.flags,
            window: header.window.get(),
            checksum: header.checksum.get(),
            urgent: header.urgent.get(),
            options: view.options,
        }
    }

    /// Bytes that [`emit`](Self::emit) writes.
    pub fn header_len(&self) -> usize {
        TCP_LEN + self.options.len()
    }

    /// Writes the header to the front of `out`.
    ///
    /// # Panics
    /// When `out` is shorter than [`header_len`](Self::header_len).
    pub fn emit(&self, out: &mut [u8]) {
        let header = TcpHeader {
            source: self.source.into(),
            destination: self.destination.into(),
            sequence: self.sequence.into(),
            acknowledgement: self.acknowledgement.into(),
            data_offset: ((self.header_len() / 4) as u8) << 4,
            flags: self.flags,
            window: self.window.into(),
            checksum: self.checksum.into(),
            urgent: self.urgent.into(),
        };
        out[..TCP_LEN].copy_from_slice(header.as_bytes());
        out[TCP_LEN..self.header_len()].copy_from_slice(self.options);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn emitted_headers_parse_to_themselves(
            ports: (u16, u16), numbers: (u32, u32), flags: u8, rest: (u16, u16, u16),
            option_words in 0..=10usize, payload: [u8; 5],
        ) {
            let options = vec![1; option_words * 4];
            let repr = TcpRepr {
                source: ports.0, destination: ports.1, sequence: numbers.0,
                acknowledgement: numbers.1, flags, window: rest.0, checksum: rest.1,
                urgent: rest.2, options: &options,
            };
            let mut bytes = vec![0; repr.header_len()];
            repr.emit(&mut bytes);
            bytes.extend(payload);
            let view = Tcp::parse(&bytes).expect("emitted");
            prop_assert_eq!(TcpRepr::of(&view), repr);
            prop_assert_eq!(view.payload(), &payload);
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
            let _ = Tcp::parse(&bytes);
        }
    }
}
