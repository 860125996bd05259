//! ChannelData: four bytes in front of relayed data (RFC 8656 section 12.4).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | 0 1 0 0|     Channel Number   |            Length             |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! | Application data ...
//! ```
//!
//! Nothing is copied: the sender writes [`ChannelNumber::header`] in front of its payload, the
//! receiver gets a range. Over UDP no padding is sent, and what follows the data is ignored.

use std::ops::Range;

use thiserror::Error;

/// Bytes in front of the data.
pub const CHANNEL_HEADER_LEN: usize = 4;

/// A channel number: 0x4000 to 0x4fff.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// The lowest.
    pub const FIRST: Self = Self(0x4000);
    /// The highest.
    pub const LAST: Self = Self(0x4fff);

    /// `number` as a channel number, if it is one.
    pub const fn new(number: u16) -> Option<Self> {
        if number >= Self::FIRST.0 && number <= Self::LAST.0 { Some(Self(number)) } else { None }
    }

    /// The number itself.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The header of a datagram that carries `length` bytes in this channel.
    pub const fn header(self, length: u16) -> [u8; CHANNEL_HEADER_LEN] {
        let ([a, b], [c, d]) = (self.0.to_be_bytes(), length.to_be_bytes());
        [a, b, c, d]
    }

    /// The number behind this one; the first comes after the last.
    pub(crate) const fn next(self) -> Self {
        if self.0 == Self::LAST.0 { Self::FIRST } else { Self(self.0 + 1) }
    }
}

/// Why a datagram is no ChannelData.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ChannelError {
    /// Its first bits are not those of a channel number, or it ends before they do.
    #[error("not ChannelData")]
    NotChannelData,
    /// It has fewer bytes than it says.
    #[error("ChannelData is cut short")]
    Truncated,
}

/// A ChannelData datagram, as places in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelData {
    /// The channel.
    pub number: ChannelNumber,
    /// Where the data stands.
    pub range: Range<usize>,
}

impl ChannelData {
    /// Reads the header of `datagram`.
    pub fn parse(datagram: &[u8]) -> Result<Self, ChannelError> {
        let header: &[u8; CHANNEL_HEADER_LEN] =
            datagram.first_chunk().ok_or(ChannelError::NotChannelData)?;
        let number = ChannelNumber::new(u16::from_be_bytes([header[0], header[1]]))
            .ok_or(ChannelError::NotChannelData)?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let range = CHANNEL_HEADER_LEN..CHANNEL_HEADER_LEN + length;
        if range.end > datagram.len() {
            return Err(ChannelError::Truncated);
        }
        Ok(Self { number, range })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_framed_is_found() {
        let number = ChannelNumber::new(0x4abc).unwrap();
        let mut datagram = number.header(5).to_vec();
        assert_eq!(datagram, [0x4a, 0xbc, 0, 5]);
        datagram.extend_from_slice(b"hello");
        let expected = ChannelData { number, range: 4..9 };
        assert_eq!(ChannelData::parse(&datagram), Ok(expected.clone()));
        datagram.extend_from_slice(&[0; 3]);
        assert_eq!(ChannelData::parse(&datagram), Ok(expected), "padding is ignored");
        assert_eq!(ChannelData::parse(&datagram[..8]), Err(ChannelError::Truncated));
    }

    #[test]
    fn only_channel_numbers_are_channels() {
        assert_eq!(ChannelData::parse(&[]), Err(ChannelError::NotChannelData));
        assert_eq!(ChannelData::parse(&[0x40, 0, 0]), Err(ChannelError::NotChannelData));
        for first in (0..=255).filter(|first| !(0x40..0x50).contains(first)) {
            let parsed = ChannelData::parse(&[first, 0, 0, 0]);
            assert_eq!(parsed, Err(ChannelError::NotChannelData));
        }
        assert!(ChannelData::parse(&[0x4f, 0xff, 0, 0]).is_ok());
        assert_eq!(ChannelNumber::LAST.next(), ChannelNumber::FIRST);
    }
}
