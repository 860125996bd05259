//! Sealing: one lane's sending direction.

use std::time::{Duration, Instant};

use ipop_wire::{HEADER_LEN, Header, Kind, TAG_LEN};
use thiserror::Error;

use crate::OVERHEAD_LEN;
use crate::chain::ChainSecret;
use crate::cipher::Cipher;
use crate::lane_key::LaneKey;

/// An epoch's key seals at most this many 16-byte blocks (RFC 9001 B.1.1 allows 2^35).
pub const EPOCH_BLOCKS_MAX: u64 = 1 << 34;

/// An epoch's key seals at most this many packets.
pub const EPOCH_PACKETS_MAX: u64 = 1 << 28;

/// A ratchet is due after this time: what is stolen from a running node opens two minutes.
pub const EPOCH_TIME_MAX: Duration = Duration::from_secs(120);

/// How long one key is used: whichever limit comes first ends its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLife {
    /// At most [`EPOCH_TIME_MAX`].
    pub time: Duration,
    /// Datagrams, at most [`EPOCH_PACKETS_MAX`]. A receiver follows four epochs ahead
    /// ([`EPOCHS_AHEAD_MAX`](crate::EPOCHS_AHEAD_MAX)), so an outage of four times this many
    /// datagrams ends the lane.
    pub packets: u64,
}

/// The longest that is allowed.
impl Default for KeyLife {
    fn default() -> Self {
        KeyLife { time: EPOCH_TIME_MAX, packets: EPOCH_PACKETS_MAX }
    }
}

/// Why nothing was sealed. Always the caller's doing, or the end of the lane's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealError {
    /// `out` is shorter than header, payload, extra and tag together.
    #[error("the output buffer holds {available} bytes, the datagram needs {needed}")]
    OutputTooSmall {
        /// Bytes that the datagram takes.
        needed: usize,
        /// Bytes that `out` has.
        available: usize,
    },
    /// All 2^64 - 1 counters are used: only a new handshake helps.
    #[error("the lane's packet counter is used up")]
    CounterExhausted,
    /// The AEAD refused the message (longer than 64 GiB).
    #[error("the message is too long for the AEAD")]
    MessageTooLong,
}

/// Seals datagrams of one lane in one direction. Owned by one worker; not `Clone`, because two
/// copies would use the same nonces.
pub struct Sealer {
    cipher: Cipher,
    key: LaneKey,
    chain: ChainSecret,
    epoch: u64,
    epoch_start: Instant,
    epoch_first_counter: u64,
    epoch_blocks: u64,
    counter: u64,
    life: KeyLife,
}

impl Sealer {
    /// Starts at epoch 0 and counter 0.
    #[must_use]
    pub fn new(cipher: Cipher, secret: &ChainSecret, now: Instant) -> Self {
        Sealer {
            cipher,
            key: secret.key(cipher),
            chain: secret.next(),
            epoch: 0,
            epoch_start: now,
            epoch_first_counter: 0,
            epoch_blocks: 0,
            counter: 0,
            life: KeyLife::default(),
        }
    }

    /// Lets keys live shorter than the limits; a longer life is cut to them.
    pub fn set_life(&mut self, life: KeyLife) {
        let packets = life.packets.clamp(1, EPOCH_PACKETS_MAX);
        self.life = KeyLife { time: life.time.min(EPOCH_TIME_MAX), packets };
    }

    /// Writes one datagram to the front of `out` and returns its length: the header (whose
    /// `epoch` and `counter` are filled in here), the ciphertext of `payload`, that of `extra`,
    /// the tag. `payload` is read where it lies; nothing is copied or allocated.
    ///
    /// When a block or packet limit is reached the key is ratcheted on the way, so no key ever
    /// exceeds its limits whatever the caller does about [`needs_ratchet`](Self::needs_ratchet).
    ///
    /// # Errors
    /// [`SealError`]; no counter is used up then, except with `MessageTooLong`.
    #[inline]
    pub fn seal(
        &mut self,
        header: Header,
        payload: &[u8],
        extra: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealError> {
        let needed = OVERHEAD_LEN + payload.len() + extra.len();
        let available = out.len();
        let Some(out) = out.get_mut(..needed) else {
            return Err(SealError::OutputTooSmall { needed, available });
        };
        if self.cipher == Cipher::Plain && header.kind == Kind::Data {
            // Numbered all the same: parts of one frame are told by it.
            let counter = self.counter;
            self.counter = self.counter.checked_add(1).ok_or(SealError::CounterExhausted)?;
            lay_out(Header { epoch: 0, counter, ..header }, payload, extra, out);
            return Ok(needed);
        }
        if self.counter == u64::MAX {
            return Err(SealError::CounterExhausted);
        }
        if self.is_used_up() {
            self.advance();
        }
        let counter = self.counter;
        self.counter += 1;
        self.epoch_blocks += blocks(payload.len() + extra.len());

        let aad = Header { epoch: (self.epoch & 0xf) as u8, counter, ..header }.emit();
        let (front, body) = out.split_at_mut(HEADER_LEN);
        front.copy_from_slice(&aad);
        self.key
            .seal(counter, &aad, payload, extra, body)
            .map_err(|()| SealError::MessageTooLong)?;
        Ok(needed)
    }

    /// Whether a new epoch is due by blocks, packets or time.
    #[inline]
    #[must_use]
    pub fn needs_ratchet(&self, now: Instant) -> bool {
        // An idle epoch stays: a receiver follows only a few steps, and it steps by packets.
        let is_used = self.counter > self.epoch_first_counter;
        self.is_used_up() || (is_used && now >= self.epoch_start + self.life.time)
    }

    /// Starts the next epoch; the key of this one is wiped. Costs about 5 microseconds.
    pub fn ratchet(&mut self, now: Instant) {
        self.advance();
        self.epoch_start = now;
    }

    /// The epoch, counted from 0 without end (the header carries its low four bits).
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The counter of the next datagram, which is the number of datagrams sealed so far.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// The cipher of this lane.
    #[must_use]
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    #[inline]
    fn is_used_up(&self) -> bool {
        self.epoch_blocks >= EPOCH_BLOCKS_MAX
            || self.counter - self.epoch_first_counter >= self.life.packets
    }

    #[cold]
    fn advance(&mut self) {
        self.key = self.chain.key(self.cipher);
        self.chain = self.chain.next();
        self.epoch += 1;
        self.epoch_first_counter = self.counter;
        self.epoch_blocks = 0;
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer")
            .field("cipher", &self.cipher)
            .field("epoch", &self.epoch)
            .field("counter", &self.counter)
            .finish_non_exhaustive()
    }
}

/// A frame without a cipher: the same layout, with zeros for epoch and tag.
fn lay_out(header: Header, payload: &[u8], extra: &[u8], out: &mut [u8]) {
    let (front, body) = out.split_at_mut(HEADER_LEN);
    front.copy_from_slice(&header.emit());
    let (first, rest) = body.split_at_mut(payload.len());
    first.copy_from_slice(payload);
    let (second, tag) = rest.split_at_mut(extra.len());
    second.copy_from_slice(extra);
    tag.fill(0);
}

/// AEAD blocks that a message of this length costs: data blocks, one for the AAD, one for the tag.
#[inline]
fn blocks(length: usize) -> u64 {
    const { assert!(HEADER_LEN == 16 && TAG_LEN == 16) };
    (length as u64).div_ceil(16) + 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipop_wire::{LinkIndex, Part};

    fn sealer(now: Instant) -> Sealer {
        Sealer::new(Cipher::Aes128Gcm, &ChainSecret::new([7; 32]), now)
    }

    fn header() -> Header {
        Header {
            kind: Kind::Data,
            epoch: 9,
            lane: 0,
            part: Part::WHOLE,
            receiver: LinkIndex(5),
            counter: 99,
        }
    }

    #[test]
    fn the_sealer_numbers_the_datagrams_and_says_the_length() {
        let mut sealer = sealer(Instant::now());
        let mut out = [0u8; 64];
        for counter in 0..3 {
            assert_eq!(sealer.seal(header(), b"payload", b"extra", &mut out), Ok(32 + 12));
            let front = Header::parse(&out).expect("emitted by us");
            assert_eq!(front, Header { epoch: 0, counter, ..header() });
        }
    }

    #[test]
    fn frames_without_a_cipher_are_numbered_too() {
        let mut sealer = Sealer::new(Cipher::Plain, &ChainSecret::new([7; 32]), Instant::now());
        let mut out = [0u8; 64];
        for counter in 0..3 {
            assert_eq!(sealer.seal(header(), b"payload", b"extra", &mut out), Ok(32 + 12));
            let front = Header::parse(&out).expect("emitted by us");
            assert_eq!(front, Header { epoch: 0, counter, ..header() });
        }
    }

    #[test]
    fn a_short_buffer_costs_no_counter() {
        let mut sealer = sealer(Instant::now());
        let error = SealError::OutputTooSmall { needed: 39, available: 38 };
        assert_eq!(sealer.seal(header(), b"payload", b"", &mut [0; 38]), Err(error));
        assert_eq!(sealer.counter(), 0);
    }

    #[test]
    fn a_shorter_life_counts_and_a_longer_one_does_not() {
        let start = Instant::now();
        let mut sealer = sealer(start);
        let minute = Duration::from_secs(60);
        sealer.set_life(KeyLife { time: minute, packets: 2 });
        let mut out = [0; 64];
        for epoch in [0, 0, 1, 1, 2] {
            sealer.seal(header(), b"payload", b"", &mut out).expect("room");
            assert_eq!(sealer.epoch(), epoch);
        }
        sealer.ratchet(start);
        sealer.seal(header(), b"payload", b"", &mut out).expect("room");
        assert!(!sealer.needs_ratchet(start + minute - Duration::from_millis(1)));
        assert!(sealer.needs_ratchet(start + minute));
        sealer.set_life(KeyLife { time: Duration::MAX, packets: u64::MAX });
        assert_eq!(sealer.life, KeyLife::default());
    }

    #[test]
    fn a_ratchet_is_due_by_time_only_when_the_key_was_used() {
        let start = Instant::now();
        let mut sealer = sealer(start);
        assert!(!sealer.needs_ratchet(start + EPOCH_TIME_MAX));
        sealer.seal(header(), b"", b"", &mut [0; 32]).expect("fits");
        assert!(!sealer.needs_ratchet(start + EPOCH_TIME_MAX - Duration::from_millis(1)));
        assert!(sealer.needs_ratchet(start + EPOCH_TIME_MAX));
        sealer.ratchet(start + EPOCH_TIME_MAX);
        assert_eq!((sealer.epoch(), sealer.counter()), (1, 1));
        assert!(!sealer.needs_ratchet(start + EPOCH_TIME_MAX));
    }

    #[test]
    fn a_used_up_key_is_replaced_even_if_nobody_asks() {
        let now = Instant::now();
        let mut sealer = sealer(now);
        sealer.counter = EPOCH_PACKETS_MAX - 1;
        sealer.seal(header(), b"", b"", &mut [0; 32]).expect("fits");
        assert_eq!(sealer.epoch(), 0);
        assert!(sealer.needs_ratchet(now));
        sealer.seal(header(), b"", b"", &mut [0; 32]).expect("fits");
        assert_eq!((sealer.epoch(), sealer.epoch_blocks), (1, 2));

        sealer.epoch_blocks = EPOCH_BLOCKS_MAX;
        sealer.seal(header(), b"", b"", &mut [0; 32]).expect("fits");
        assert_eq!(sealer.epoch(), 2);
    }

    #[test]
    fn the_last_counter_is_never_used() {
        let mut sealer = sealer(Instant::now());
        sealer.counter = u64::MAX;
        sealer.epoch_first_counter = u64::MAX;
        let result = sealer.seal(header(), b"", b"", &mut [0; 32]);
        assert_eq!(result, Err(SealError::CounterExhausted));
    }
}
