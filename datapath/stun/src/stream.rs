//! TURN over TCP and TLS: where one message ends and the next begins (RFC 8656 section 12.5,
//! RFC 8489 section 6.2.2).
//!
//! ```text
//!  | STUN header, 20 bytes | attributes: `length` bytes |                        always 4n bytes
//!  | channel | length |  data: `length` bytes  | 0 to 3 bytes of padding |       4n on the stream
//! ```
//!
//! Both say in their third and fourth byte how long they are, so a stream needs no framing of its
//! own; only ChannelData is padded, and its length leaves the padding out. A stream that is once
//! out of step stays so: each error here ends the connection.
//!
//! [`StreamReader`] holds what was read and gives out whole messages as datagrams;
//! [`write_message`] puts a datagram on a stream.

use thiserror::Error;

use crate::channel::CHANNEL_HEADER_LEN;

/// Longest message, bytes without padding: what fits into a UDP datagram.
pub const STREAM_MESSAGE_LEN_MAX: usize = 65_507;

const STUN_HEADER_LEN: usize = 20;
/// RFC 8489 section 5.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Room of a reader: a whole message and as much again, so that it seldom moves what it holds.
const ROOM: usize = 2 * (STREAM_MESSAGE_LEN_MAX + 3);

/// Why a stream, or a datagram for one, is none of STUN and ChannelData.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StreamError {
    /// The first byte belongs to neither.
    #[error("neither STUN nor ChannelData: the message begins with {0:#04x}")]
    Unknown(u8),
    /// A STUN header without the magic cookie, or with a length that is no multiple of four.
    #[error("a STUN header that is none")]
    NotStun,
    /// Longer than any datagram.
    #[error("a message of {0} bytes")]
    TooLong(usize),
    /// A datagram shorter than it says.
    #[error("a message that ends too soon")]
    Truncated,
}

/// How long the message is that `bytes` begin with, without padding, header included; `None` if
/// there are too few bytes to tell.
///
/// # Errors
/// [`StreamError`]: no message begins like this.
pub fn message_len(bytes: &[u8]) -> Result<Option<usize>, StreamError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    if !matches!(first, 0x00..=0x03 | 0x40..=0x4f) {
        return Err(StreamError::Unknown(first));
    }
    let Some(&[_, _, high, low]) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let is_stun = first <= 0x03;
    if is_stun && !length.is_multiple_of(4) {
        return Err(StreamError::NotStun);
    }
    let whole = length + if is_stun { STUN_HEADER_LEN } else { CHANNEL_HEADER_LEN };
    if whole > STREAM_MESSAGE_LEN_MAX {
        return Err(StreamError::TooLong(whole));
    }
    if !is_stun {
        return Ok(Some(whole));
    }
    match bytes.get(4..8) {
        Some(cookie) if cookie == MAGIC_COOKIE => Ok(Some(whole)),
        Some(_) => Err(StreamError::NotStun),
        None => Ok(None),
    }
}

/// Appends a datagram to what goes out on a stream: one message, padded; what follows the message
/// in the datagram is left out.
///
/// # Errors
/// [`StreamError`]: it is no whole message. Nothing is appended then.
pub fn write_message(datagram: &[u8], out: &mut Vec<u8>) -> Result<(), StreamError> {
    let len = message_len(datagram)?.ok_or(StreamError::Truncated)?;
    let message = datagram.get(..len).ok_or(StreamError::Truncated)?;
    out.extend_from_slice(message);
    out.resize(out.len() + padding(len), 0);
    Ok(())
}

/// Bytes after a message of this length.
fn padding(len: usize) -> usize {
    len.next_multiple_of(4) - len
}

/// Bytes of a stream in, messages out. Holds 128 KiB at most.
#[derive(Debug)]
pub struct StreamReader {
    room: Box<[u8]>,
    /// Where what has not been given out begins and ends.
    begin: usize,
    end: usize,
}

impl Default for StreamReader {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamReader {
    /// Holds nothing.
    pub fn new() -> Self {
        Self { room: vec![0; ROOM].into_boxed_slice(), begin: 0, end: 0 }
    }

    /// Where further bytes of the stream go. Empty only as long as whole messages are there to be
    /// taken.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        } else if self.room.len() - self.end < STREAM_MESSAGE_LEN_MAX + 3 {
            self.room.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        &mut self.room[self.end..]
    }

    /// So many bytes were put into [`spare`](Self::spare).
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.room.len());
    }

    /// The next message, without padding, if all of it is there.
    ///
    /// # Errors
    /// [`StreamError`]: the stream is of no use any more.
    pub fn message(&mut self) -> Result<Option<&[u8]>, StreamError> {
        let waiting = &self.room[self.begin..self.end];
        let Some(len) = message_len(waiting)? else { return Ok(None) };
        let padded = len + padding(len);
        if waiting.len() < padded {
            return Ok(None);
        }
        let at = self.begin;
        self.begin += padded;
        Ok(Some(&self.room[at..at + len]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::ChannelNumber;
    use crate::message::{Builder, Method, TransactionId};
    use proptest::prelude::*;

    fn in_channel(data: &[u8]) -> Vec<u8> {
        let mut datagram = ChannelNumber::FIRST.header(data.len() as u16).to_vec();
        datagram.extend_from_slice(data);
        datagram
    }

    fn request() -> Vec<u8> {
        Builder::request(Method::Binding, TransactionId([7; 12])).fingerprint().build().unwrap()
    }

    /// Feeds a stream in pieces of these lengths; the messages that came out.
    fn read(stream: &[u8], pieces: &[usize]) -> Result<Vec<Vec<u8>>, StreamError> {
        let (mut reader, mut found, mut rest) = (StreamReader::new(), Vec::new(), stream);
        for piece in pieces.iter().copied().cycle() {
            let spare = reader.spare();
            assert!(!spare.is_empty(), "a reader that was emptied has room");
            let count = piece.clamp(1, spare.len()).min(rest.len());
            spare[..count].copy_from_slice(&rest[..count]);
            reader.filled(count);
            rest = &rest[count..];
            while let Some(message) = reader.message()? {
                found.push(message.to_vec());
            }
            if rest.is_empty() {
                return Ok(found);
            }
        }
        Ok(found)
    }

    #[test]
    fn garbage_ends_a_stream() {
        assert_eq!(message_len(b"SSH-2.0"), Err(StreamError::Unknown(b'S')));
        assert_eq!(message_len(&[0x80]), Err(StreamError::Unknown(0x80)));
        assert_eq!(message_len(&[0x50, 0, 0, 0]), Err(StreamError::Unknown(0x50)));
        assert_eq!(message_len(&[0, 1, 0, 3]), Err(StreamError::NotStun));
        assert_eq!(message_len(&[0, 1, 0, 0, 1, 2, 3, 4]), Err(StreamError::NotStun));
        assert_eq!(message_len(&[0x40, 0, 0xff, 0xff]), Err(StreamError::TooLong(65_539)));
        let mut out = vec![1];
        assert_eq!(write_message(&[0x40, 0, 0, 9, 1], &mut out), Err(StreamError::Truncated));
        assert_eq!(write_message(&[], &mut out), Err(StreamError::Truncated));
        assert_eq!(out, [1]);
    }

    #[test]
    fn messages_stay_what_they_are() {
        let messages = [in_channel(b"hello"), request(), in_channel(b""), in_channel(&[9; 60_000])];
        let mut stream = Vec::new();
        for message in &messages {
            write_message(message, &mut stream).unwrap();
            assert!(stream.len().is_multiple_of(4));
        }
        for pieces in [&[1][..], &[3], &[60_000], &[1 << 20], &[1, 5, 7000]] {
            assert_eq!(read(&stream, pieces).unwrap(), messages);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            lengths in proptest::collection::vec(0_usize..3000, 1..40),
            pieces in proptest::collection::vec(1_usize..5000, 1..8),
        ) {
            let messages = lengths.iter().map(|len| match len % 5 {
                0 => request(),
                _ => in_channel(&vec![*len as u8; *len]),
            });
            let messages: Vec<_> = messages.collect();
            let mut stream = Vec::new();
            messages.iter().for_each(|message| write_message(message, &mut stream).unwrap());
            prop_assert_eq!(read(&stream, &pieces).unwrap(), messages);
        }

        /// Whatever comes, it ends in messages within the bounds, or in an error.
        #[test]
        fn anything_may_come(
            head in prop_oneof![Just(vec![]), Just(request()), Just(in_channel(&[1; 9]))],
            tail in proptest::collection::vec(any::<u8>(), 0..4000),
            pieces in proptest::collection::vec(1_usize..500, 1..4),
        ) {
            let stream = [head, tail].concat();
            if let Ok(messages) = read(&stream, &pieces) {
                let total: usize = messages.iter().map(Vec::len).sum();
                prop_assert!(total <= stream.len());
            }
        }
    }
}
