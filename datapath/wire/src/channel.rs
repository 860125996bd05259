//! TURN ChannelData (RFC 8656 section 12.4): the 4 bytes in front of a datagram that travels
//! through a relay's channel. Over UDP nothing is padded.

use crate::Malformed;

/// Bytes in front of the payload.
pub const CHANNEL_PREFIX_LEN: usize = 4;

/// A ChannelData message that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelData<'a> {
    /// Channel number, 0x4000..=0x4fff.
    pub number: u16,
    /// What is relayed.
    pub payload: &'a [u8],
}

impl<'a> ChannelData<'a> {
    /// Checks number and length; bytes behind the payload are padding.
    #[inline]
    pub fn parse(datagram: &'a [u8]) -> Result<ChannelData<'a>, Malformed> {
        let (&[n0, n1, l0, l1], rest) = datagram.split_first_chunk().ok_or(Malformed::Truncated)?;
        let number = u16::from_be_bytes([n0, n1]);
        if !(0x4000..=0x4fff).contains(&number) {
            return Err(Malformed::BadValue);
        }
        let len = usize::from(u16::from_be_bytes([l0, l1]));
        let payload = rest.get(..len).ok_or(Malformed::Truncated)?;
        Ok(ChannelData { number, payload })
    }
}

/// The bytes in front of a payload of `len` bytes on channel `number`.
#[inline]
pub const fn channel_prefix(number: u16, len: u16) -> [u8; CHANNEL_PREFIX_LEN] {
    let ([n0, n1], [l0, l1]) = (number.to_be_bytes(), len.to_be_bytes());
    [n0, n1, l0, l1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn emitted_prefixes_parse_to_themselves(
            number in 0x4000..=0x4fffu16, payload in proptest::collection::vec(any::<u8>(), 0..40),
            padding in 0..4usize,
        ) {
            let mut datagram = channel_prefix(number, payload.len() as u16).to_vec();
            prop_assert_eq!(Protocol::of(datagram[0]), Protocol::TurnChannel);
            datagram.extend(&payload);
            datagram.resize(datagram.len() + padding, 0);
            prop_assert_eq!(
                ChannelData::parse(&datagram),
                Ok(ChannelData { number, payload: &payload })
            );
            let cut = CHANNEL_PREFIX_LEN + payload.len();
            prop_assert!(ChannelData::parse(&datagram[..cut - 1]).is_err());
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = ChannelData::parse(&bytes);
        }
    }
}
