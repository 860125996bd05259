//! The handshake datagram: layout and protection.
//!
//! ```text
//!  0               1               2               3
//! +---------------------------------------------------------------+
//! | tunnel header, 16 bytes: kind handshake, epoch 0, lane 0,     |
//! | part 0 of 1, receiver's link index or 0 while unknown,        |
//! | counter of this end's datagrams in this handshake             |
//! +---------------+---------------+---------------+---------------+
//! |  format = 1   |     level     |     kind      | reserved = 0  |
//! +---------------+---------------+---------------+---------------+
//! | handshake id, drawn by the client                             |
//! | (64 bits)                                                     |
//! +---------------------------------------------------------------+
//! | acknowledged: bytes received without a gap at level initial   |
//! +---------------------------------------------------------------+
//! | acknowledged: the same at level handshake                     |
//! +---------------------------------------------------------------+
//! | offset of the bytes below in the stream of their level        |
//! +---------------------------------------------------------------+
//! | bytes of the stream, or one alert code; may be empty          |
//! +---------------------------------------------------------------+
//! | tag, 16 bytes                                                 |
//! +---------------------------------------------------------------+
//! ```
//! Levels: 0 initial, 1 handshake. Kinds: 0 bytes of the stream, 1 alert.
//!
//! Big endian. At level initial the bytes are in the clear and the tag is HMAC-SHA-256 cut to 128
//! bits, under a key from the secret that both ends have from signalling: so nobody else can
//! start, answer or disturb a handshake. At level handshake the bytes are sealed with the TLS
//! handshake keys, everything in front of them being the AAD and the counter the packet number.

use aws_lc_rs::{constant_time, digest, hmac};
use ipop_wire::{HEADER_LEN, Header, Kind, LinkIndex, Part, TAG_LEN};
use rustls::quic::Keys;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::tls::{Level, Role};

/// No handshake datagram is longer, so none is fragmented by IP (bytes of UDP payload).
pub const HANDSHAKE_DATAGRAM_LEN_MAX: usize = 1200;

const FRONT_LEN: usize = HEADER_LEN + 24;
const FORMAT: u8 = 1;

/// Most stream bytes that one datagram holds.
pub(crate) const BYTES_LEN_MAX: usize = HANDSHAKE_DATAGRAM_LEN_MAX - FRONT_LEN - TAG_LEN;

/// The same of a datagram that passes every IPv4 path: 576 bytes with IP and UDP header and a
/// relay's Send indication around it (RFC 8656 section 11.1).
pub(crate) const BYTES_LEN_SAFE: usize = 512 - FRONT_LEN - TAG_LEN;

/// A client's name for one handshake, so that datagrams of an earlier one are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandshakeId(pub u64);

/// Why a datagram was not taken. Count and drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RefusedInput {
    /// Too short, too long, or not in the format of the picture.
    #[error("not a handshake datagram")]
    Malformed,
    /// It belongs to another handshake.
    #[error("of another handshake")]
    OtherHandshake,
    /// The tag is wrong.
    #[error("not authentic")]
    Forged,
    /// It reaches beyond what is buffered of a handshake.
    #[error("beyond the buffer for handshake messages")]
    TooMuch,
}

/// What a datagram's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BytesKind {
    Stream = 0,
    Alert = 1,
}

/// The fields of a handshake datagram that change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Front {
    pub level: Level,
    pub kind: BytesKind,
    pub id: HandshakeId,
    /// By level.
    pub acknowledged: [u32; 2],
    pub offset: u32,
}

impl Front {
    /// Reads everything in front of the bytes; authenticates nothing.
    pub(crate) fn parse(datagram: &[u8]) -> Result<(Header, Front), RefusedInput> {
        let length = datagram.len();
        if !(FRONT_LEN + TAG_LEN..=HANDSHAKE_DATAGRAM_LEN_MAX).contains(&length) {
            return Err(RefusedInput::Malformed);
        }
        let header = Header::parse(datagram).map_err(|_| RefusedInput::Malformed)?;
        let (&[format, level, kind, reserved], rest) =
            datagram[HEADER_LEN..].split_first_chunk::<4>().ok_or(RefusedInput::Malformed)?;
        let (id, rest) = rest.split_first_chunk::<8>().ok_or(RefusedInput::Malformed)?;
        let ([initial, handshake, offset, ..], _) = rest.as_chunks::<4>() else {
            return Err(RefusedInput::Malformed);
        };
        let level = match level {
            0 => Level::Initial,
            1 => Level::Handshake,
            _ => return Err(RefusedInput::Malformed),
        };
        let kind = match kind {
            0 => BytesKind::Stream,
            1 => BytesKind::Alert,
            _ => return Err(RefusedInput::Malformed),
        };
        if header.kind != Kind::Handshake || format != FORMAT || reserved != 0 {
            return Err(RefusedInput::Malformed);
        }
        let front = Front {
            level,
            kind,
            id: HandshakeId(u64::from_be_bytes(*id)),
            acknowledged: [u32::from_be_bytes(*initial), u32::from_be_bytes(*handshake)],
            offset: u32::from_be_bytes(*offset),
        };
        Ok((header, front))
    }

    fn emit(&self, receiver: LinkIndex, counter: u64, out: &mut Vec<u8>) {
        let kind = Kind::Handshake;
        let header = Header { kind, epoch: 0, lane: 0, part: Part::WHOLE, receiver, counter };
        out.extend_from_slice(&header.emit());
        out.extend_from_slice(&[FORMAT, self.level as u8, self.kind as u8, 0]);
        out.extend_from_slice(&self.id.0.to_be_bytes());
        out.extend_from_slice(&self.acknowledged[0].to_be_bytes());
        out.extend_from_slice(&self.acknowledged[1].to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
    }
}

/// The secret that authenticates a handshake's first level, from what signalling gave to both
/// ends (such as their ICE passwords), in an order that both know.
#[must_use]
pub fn path_secret(parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(b"ipop path secret");
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut secret = Zeroizing::new([0; 32]);
    secret.copy_from_slice(hash.finish().as_ref());
    secret
}

/// The keys that protect handshake datagrams, and the counter of those sent.
pub(crate) struct Guard {
    send_tag: hmac::Key,
    receive_tag: hmac::Key,
    keys: Option<Box<Keys>>,
    counter: u64,
}

impl Guard {
    pub(crate) fn new(role: Role, path_secret: &[u8; 32]) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, path_secret);
        let key =
            |label: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, label).as_ref());
        let client = key(b"ipop handshake, client to server");
        let server = key(b"ipop handshake, server to client");
        let (send_tag, receive_tag) = match role {
            Role::Client => (client, server),
            Role::Server => (server, client),
        };
        Guard { send_tag, receive_tag, keys: None, counter: 0 }
    }

    pub(crate) fn set_keys(&mut self, keys: Box<Keys>) {
        self.keys = Some(keys);
    }

    pub(crate) fn has_keys(&self) -> bool {
        self.keys.is_some()
    }

    /// Makes a datagram. `None` if the level's keys are not there yet.
    pub(crate) fn protect(
        &mut self,
        front: &Front,
        receiver: LinkIndex,
        bytes: &[u8],
    ) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(FRONT_LEN + bytes.len() + TAG_LEN);
        front.emit(receiver, self.counter, &mut out);
        out.extend_from_slice(bytes);
        match front.level {
            Level::Initial => {
                let tag = hmac::sign(&self.send_tag, &out);
                out.extend_from_slice(&tag.as_ref()[..TAG_LEN]);
            }
            Level::Handshake => {
                let key = &self.keys.as_ref()?.local.packet;
                let (aad, sealed) = out.split_at_mut(FRONT_LEN);
                let tag = key.encrypt_in_place(self.counter, aad, sealed).ok()?;
                out.extend_from_slice(tag.as_ref());
            }
        }
        self.counter += 1;
        Some(out)
    }

    /// The bytes of an authentic datagram whose front was parsed before.
    pub(crate) fn unprotect(
        &self,
        header: &Header,
        front: &Front,
        datagram: &[u8],
    ) -> Result<Vec<u8>, RefusedInput> {
        match front.level {
            Level::Initial => {
                let (signed, tag) = datagram.split_at(datagram.len() - TAG_LEN);
                let expected = hmac::sign(&self.receive_tag, signed);
                constant_time::verify_slices_are_equal(&expected.as_ref()[..TAG_LEN], tag)
                    .map_err(|_| RefusedInput::Forged)?;
                Ok(signed[FRONT_LEN..].to_vec())
            }
            Level::Handshake => {
                let key = &self.keys.as_ref().ok_or(RefusedInput::Forged)?.remote.packet;
                let (aad, sealed) = datagram.split_at(FRONT_LEN);
                let mut bytes = sealed.to_vec();
                let length = key
                    .decrypt_in_place(header.counter, aad, &mut bytes)
                    .map_err(|_| RefusedInput::Forged)?
                    .len();
                bytes.truncate(length);
                Ok(bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fronts() -> impl Strategy<Value = Front> {
        let level = prop_oneof![Just(Level::Initial), Just(Level::Handshake)];
        let kind = prop_oneof![Just(BytesKind::Stream), Just(BytesKind::Alert)];
        (level, kind, any::<u64>(), any::<[u32; 2]>(), any::<u32>()).prop_map(
            |(level, kind, id, acknowledged, offset)| Front {
                level,
                kind,
                id: HandshakeId(id),
                acknowledged,
                offset,
            },
        )
    }

    #[test]
    fn parts_of_the_path_secret_do_not_run_into_each_other() {
        assert_eq!(path_secret(&[b"ab", b"c"]), path_secret(&[b"ab", b"c"]));
        assert_ne!(path_secret(&[b"ab", b"c"]), path_secret(&[b"a", b"bc"]));
        assert_ne!(path_secret(&[b"ab", b"c"]), path_secret(&[b"c", b"ab"]));
    }

    proptest! {
        #[test]
        fn an_emitted_front_parses_to_itself(front in fronts(), receiver: u32, counter: u64) {
            let mut out = Vec::new();
            front.emit(LinkIndex(receiver), counter, &mut out);
            prop_assert_eq!(out.len(), FRONT_LEN);
            out.extend_from_slice(&[0; TAG_LEN]);
            let (header, parsed) = Front::parse(&out).expect("emitted by us");
            prop_assert_eq!(parsed, front);
            prop_assert_eq!((header.receiver, header.counter), (LinkIndex(receiver), counter));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1300)) {
            let guard = Guard::new(Role::Server, &[1; 32]);
            if let Ok((header, front)) = Front::parse(&bytes) {
                prop_assert!(guard.unprotect(&header, &front, &bytes).is_err());
            }
        }

        #[test]
        fn an_initial_datagram_opens_only_untouched_and_at_the_other_end(
            bytes in proptest::collection::vec(any::<u8>(), 0..=BYTES_LEN_MAX),
            flip in any::<proptest::sample::Index>(),
        ) {
            let front = Front {
                level: Level::Initial,
                kind: BytesKind::Stream,
                id: HandshakeId(1),
                acknowledged: [2, 3],
                offset: 4,
            };
            let mut client = Guard::new(Role::Client, &[1; 32]);
            let mut datagram =
                client.protect(&front, LinkIndex(0), &bytes).expect("no keys needed");
            prop_assert!(datagram.len() <= HANDSHAKE_DATAGRAM_LEN_MAX);
            let open = |guard: &Guard, datagram: &[u8]| {
                let (header, front) = Front::parse(datagram)?;
                guard.unprotect(&header, &front, datagram)
            };
            let server = Guard::new(Role::Server, &[1; 32]);
            prop_assert_eq!(open(&server, &datagram), Ok(bytes));
            prop_assert_eq!(open(&client, &datagram), Err(RefusedInput::Forged));
            let stranger = Guard::new(Role::Server, &[2; 32]);
            prop_assert_eq!(open(&stranger, &datagram), Err(RefusedInput::Forged));
            let flip = flip.index(datagram.len() * 8);
            datagram[flip / 8] ^= 1 << (flip % 8);
            prop_assert!(open(&server, &datagram).is_err());
        }
    }
}
