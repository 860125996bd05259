//! Where a message of a TURN client over TCP ends (RFC 8656 section 12.5): STUN says its length,
//! ChannelData too, and is padded to four bytes on a stream.

use super::guard::DATAGRAM_LEN_MAX;

const STUN_HEADER_LEN: usize = 20;
const CHANNEL_HEADER_LEN: usize = 4;

/// A message at the beginning of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framed {
    /// Bytes of the message.
    pub(super) len: usize,
    /// Bytes until the next one.
    pub(super) padded_len: usize,
}

/// Neither STUN nor ChannelData, or longer than any datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutOfStep;

/// The message that the bytes begin with; `None` if its header is not whole.
pub(super) fn first(bytes: &[u8]) -> Result<Option<Framed>, OutOfStep> {
    let Some(&[kind, _, high, low]) = bytes.first_chunk::<4>() else {
        let is_sound = bytes.first().is_none_or(|kind| matches!(kind, 0..=3 | 0x40..=0x7f));
        return if is_sound { Ok(None) } else { Err(OutOfStep) };
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let len = match kind {
        0..=3 if length.is_multiple_of(4) => STUN_HEADER_LEN + length,
        // As far as RFC 5766 had them.
        0x40..=0x7f => CHANNEL_HEADER_LEN + length,
        _ => return Err(OutOfStep),
    };
    if len > DATAGRAM_LEN_MAX {
        return Err(OutOfStep);
    }
    Ok(Some(Framed { len, padded_len: len.next_multiple_of(4) }))
}

/// The whole messages at the beginning of the bytes, and how many bytes they take.
pub(super) fn messages(bytes: &[u8]) -> Result<(Vec<&[u8]>, usize), OutOfStep> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(Framed { len, padded_len }) = first(&bytes[at..])? {
        let Some(message) = bytes.get(at..at + padded_len) else { break };
        found.push(&message[..len]);
        at += padded_len;
    }
    Ok((found, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn garbage_is_out_of_step() {
        for bytes in [&b"<stream"[..], &[0x16], &[0x80, 0, 0, 0], &[0, 1, 0, 3], &[0xff]] {
            assert_eq!(first(bytes), Err(OutOfStep), "{bytes:?}");
        }
        assert_eq!(first(&[0x40, 0, 0xff, 0xff]), Err(OutOfStep));
        assert_eq!(first(&[]), Ok(None));
        assert_eq!(first(&[0x40, 0, 0, 5]), Ok(Some(Framed { len: 9, padded_len: 12 })));
    }

    proptest! {
        #[test]
        fn messages_are_found_and_the_rest_waits(
            lengths in proptest::collection::vec(0_u16..300, 0..20),
            missing in 1_usize..4,
        ) {
            let mut stream = Vec::new();
            for length in &lengths {
                stream.extend_from_slice(&[0x40, 0]);
                stream.extend_from_slice(&length.to_be_bytes());
                stream.resize(stream.len() + usize::from(length.next_multiple_of(4)), 1);
            }
            let (found, taken) = messages(&stream).unwrap();
            let expected: Vec<_> = lengths.iter().map(|length| usize::from(*length) + 4).collect();
            prop_assert_eq!(found.iter().map(|m| m.len()).collect::<Vec<_>>(), expected);
            prop_assert_eq!(taken, stream.len());
            if !lengths.is_empty() {
                let (found, taken) = messages(&stream[..stream.len() - missing]).unwrap();
                prop_assert_eq!(found.len(), lengths.len() - 1);
                prop_assert!(taken < stream.len());
            }
        }

        #[test]
        fn anything_may_come(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
            if let Ok((found, taken)) = messages(&bytes) {
                prop_assert!(taken <= bytes.len() && found.iter().all(|m| m.len() <= taken));
            }
        }
    }
}
