//! Opening: one lane's receiving direction.
//!
//! The order is what makes it safe: epoch and replay window are asked first, because that is
//! cheap; then the tag is checked; only an authentic packet moves the window or the epoch.

use std::time::{Duration, Instant};

use ipop_wire::{HEADER_LEN, Header, Kind, TAG_LEN};
use thiserror::Error;

use crate::OVERHEAD_LEN;
use crate::chain::ChainSecret;
use crate::cipher::Cipher;
use crate::lane_key::LaneKey;
use crate::replay::ReplayWindow;

/// How long packets of the epoch before the current one are still opened.
pub const EPOCH_GRACE: Duration = Duration::from_secs(10);

/// How many epochs a packet may lie ahead. A sender that was unheard for a while may have taken
/// more than one step; each step takes it minutes, so it cannot have taken more than these.
pub const EPOCHS_AHEAD_MAX: u64 = 4;

/// Why a datagram was not opened. All are the peer's or a stranger's doing: count and drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpenError {
    /// The counter was seen before, or lies too far behind to tell.
    #[error("replayed, or older than the replay window")]
    Replayed,
    /// The tag is wrong, or the counter cannot belong to the epoch.
    #[error("not authentic")]
    Forged,
    /// The epoch is neither the current one, the one before, nor one of the next few.
    #[error("sealed in an unknown epoch")]
    UnknownEpoch,
    /// Shorter than header and tag, or `out` is too small for what is in it.
    #[error("too short for a sealed datagram, or too long for the buffer")]
    Truncated,
    /// Sealed in the epoch before the current one, whose time is over.
    #[error("sealed in an epoch that is over")]
    Expired,
}

/// Opens datagrams of one lane in one direction. Owned by one worker.
pub struct Opener {
    cipher: Cipher,
    current: Epoch,
    /// The epoch before, until its grace time is over.
    previous: Option<Previous>,
    /// Keys of the epochs after the current one, derived when a packet asks for them, so that
    /// a forger costs one failed tag per packet and not one derivation.
    ahead: Vec<LaneKey>,
    /// Secret of the epoch after the last in `ahead`.
    chain: ChainSecret,
    window: ReplayWindow,
}

struct Epoch {
    number: u64,
    key: LaneKey,
    /// Lowest counter opened in this epoch; counters of earlier epochs lie below it.
    first_counter: u64,
}

struct Previous {
    number: u64,
    key: LaneKey,
    expires: Instant,
}

enum Which {
    Current,
    Previous,
    Ahead(usize),
}

impl Opener {
    /// Starts at epoch 0 with an empty replay window.
    #[must_use]
    pub fn new(cipher: Cipher, secret: &ChainSecret) -> Self {
        Opener {
            cipher,
            current: Epoch { number: 0, key: secret.key(cipher), first_counter: u64::MAX },
            previous: None,
            ahead: Vec::with_capacity(EPOCHS_AHEAD_MAX as usize),
            chain: secret.next(),
            window: ReplayWindow::new(),
        }
    }

    /// Opens `datagram`, whose parsed front is `header`, to the front of `out` and returns the
    /// plaintext's length (the datagram's length less [`OVERHEAD_LEN`]).
    ///
    /// # Errors
    /// [`OpenError`]. The window and the epochs are then as before; the front of `out` holds
    /// garbage that must not be used.
    #[inline]
    pub fn open(
        &mut self,
        now: Instant,
        header: &Header,
        datagram: &[u8],
        out: &mut [u8],
    ) -> Result<usize, OpenError> {
        let length = datagram.len().checked_sub(OVERHEAD_LEN).ok_or(OpenError::Truncated)?;
        let out = out.get_mut(..length).ok_or(OpenError::Truncated)?;
        let (sealed, tag) = datagram[HEADER_LEN..].split_at(length);
        debug_assert_eq!(tag.len(), TAG_LEN);

        if self.cipher == Cipher::Plain && header.kind == Kind::Data {
            // Nothing in it is proven, so it moves neither window nor epoch.
            out.copy_from_slice(sealed);
            return Ok(length);
        }
        let counter = header.counter;
        if !self.window.is_fresh(counter) {
            return Err(OpenError::Replayed);
        }
        let which = self.find(now, header)?;
        let key = match which {
            Which::Current => &self.current.key,
            Which::Previous => &self.previous.as_ref().ok_or(OpenError::Expired)?.key,
            Which::Ahead(step) => &self.ahead[step],
        };
        // Emitted again, not sliced from the datagram: what is authenticated is then what the
        // caller parsed and what the window is moved by.
        let aad = header.emit();
        key.open(counter, &aad, sealed, tag, out).map_err(|()| OpenError::Forged)?;

        match which {
            Which::Current => self.current.first_counter = self.current.first_counter.min(counter),
            Which::Previous => {}
            Which::Ahead(step) => self.adopt(step, counter, now),
        }
        self.window.mark(counter);
        Ok(length)
    }

    /// The newest epoch in which an authentic packet has come, counted from 0 without end.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.current.number
    }

    /// One more than the highest counter opened; 0 before the first.
    #[must_use]
    pub fn counter_end(&self) -> u64 {
        self.window.end()
    }

    /// The cipher of this lane.
    #[must_use]
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Wipes the key of the epoch before once its grace time is over. Call it now and then, so
    /// that an idle lane forgets as well.
    pub fn forget_expired(&mut self, now: Instant) {
        if self.previous.as_ref().is_some_and(|previous| now >= previous.expires) {
            self.previous = None;
        }
    }

    #[inline]
    fn find(&mut self, now: Instant, header: &Header) -> Result<Which, OpenError> {
        if u64::from(header.epoch) == self.current.number & 0xf {
            return Ok(Which::Current);
        }
        self.find_other(now, header)
    }

    #[cold]
    fn find_other(&mut self, now: Instant, header: &Header) -> Result<Which, OpenError> {
        let low_bits = u64::from(header.epoch);
        if let Some(previous) = &self.previous
            && low_bits == previous.number & 0xf
        {
            if now >= previous.expires {
                return Err(OpenError::Expired);
            }
            // A key that leaked after its epoch must not inject packets "from the future".
            if header.counter >= self.current.first_counter {
                return Err(OpenError::Forged);
            }
            return Ok(Which::Previous);
        }
        let steps = low_bits.wrapping_sub(self.current.number) & 0xf;
        if steps > EPOCHS_AHEAD_MAX {
            return Err(OpenError::UnknownEpoch);
        }
        // A later epoch only has later counters.
        if header.counter < self.window.end() {
            return Err(OpenError::Forged);
        }
        while (self.ahead.len() as u64) < steps {
            self.ahead.push(self.chain.key(self.cipher));
            self.chain = self.chain.next();
        }
        Ok(Which::Ahead(steps as usize - 1))
    }

    #[cold]
    fn adopt(&mut self, step: usize, counter: u64, now: Instant) {
        for key in self.ahead.drain(..=step) {
            let next = Epoch { number: self.current.number + 1, key, first_counter: counter };
            let before = std::mem::replace(&mut self.current, next);
            let expires = now + EPOCH_GRACE;
            self.previous = Some(Previous { number: before.number, key: before.key, expires });
        }
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opener")
            .field("cipher", &self.cipher)
            .field("epoch", &self.current.number)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sealer;
    use ipop_wire::{LinkIndex, Part};
    use proptest::prelude::*;

    struct Lane {
        sealer: Sealer,
        opener: Opener,
        now: Instant,
    }

    impl Lane {
        fn new(cipher: Cipher) -> Self {
            let now = Instant::now();
            let secret = ChainSecret::new([0x42; 32]);
            let sealer = Sealer::new(cipher, &secret, now);
            Lane { sealer, opener: Opener::new(cipher, &secret), now }
        }

        fn seal(&mut self, payload: &[u8], extra: &[u8]) -> Vec<u8> {
            let header = Header {
                kind: Kind::Data,
                epoch: 0,
                lane: 3,
                part: Part { index: 1, count: 9 },
                receiver: LinkIndex(77),
                counter: 0,
            };
            let mut out = vec![0; OVERHEAD_LEN + payload.len() + extra.len()];
            let length = self.sealer.seal(header, payload, extra, &mut out).expect("fits");
            assert_eq!(length, out.len());
            out
        }

        fn open(&mut self, datagram: &[u8]) -> Result<Vec<u8>, OpenError> {
            let header = Header::parse(datagram).map_err(|_| OpenError::Truncated)?;
            let mut out = vec![0; datagram.len()];
            let length = self.opener.open(self.now, &header, datagram, &mut out)?;
            out.truncate(length);
            Ok(out)
        }

        fn state(&self) -> (u64, u64) {
            (self.opener.epoch(), self.opener.counter_end())
        }
    }

    #[test]
    fn payload_and_extra_come_out_in_one_piece_with_every_cipher() {
        for cipher in Cipher::ALL.into_iter().filter(|cipher| *cipher != Cipher::Plain) {
            let mut lane = Lane::new(cipher);
            for length in [0, 1, 15, 16, 17, 1400, 65_000] {
                let payload = vec![0xa5; length];
                let sealed = lane.seal(&payload, b"inner headers and geometry");
                let opened = lane.open(&sealed).expect("authentic");
                assert_eq!(opened, [&payload[..], b"inner headers and geometry"].concat());
                assert_eq!(lane.open(&sealed), Err(OpenError::Replayed));
            }
        }
    }

    #[test]
    fn without_a_cipher_frames_pass_as_they_are_and_nothing_else_does() {
        let mut lane = Lane::new(Cipher::Plain);
        let frame = lane.seal(b"payload", b"extra");
        assert_eq!(frame[HEADER_LEN..HEADER_LEN + 12], *b"payloadextra");
        for _ in 0..2 {
            assert_eq!(lane.open(&frame), Ok(b"payloadextra".to_vec()));
        }
        // A stranger's frame passes as well, but moves nothing that later packets depend on.
        let mut forged = frame.clone();
        forged[8..16].fill(0xff);
        assert!(lane.open(&forged).is_ok());
        assert_eq!(lane.state(), (0, 0));
        // Agents' messages are sealed, and a forged one is refused.
        let header =
            Header { kind: Kind::Control, ..Header::parse(&frame).expect("emitted by us") };
        let mut message = vec![0; OVERHEAD_LEN + 4];
        lane.sealer.seal(header, b"ping", b"", &mut message).expect("fits");
        assert_ne!(message[HEADER_LEN..HEADER_LEN + 4], *b"ping");
        let mut altered = message.clone();
        altered[HEADER_LEN] ^= 1;
        assert_eq!(lane.open(&altered), Err(OpenError::Forged));
        assert_eq!(lane.open(&message), Ok(b"ping".to_vec()));
        assert_eq!(lane.open(&message), Err(OpenError::Replayed));
    }

    #[test]
    fn packets_of_the_epoch_before_are_opened_for_the_grace_time() {
        let mut lane = Lane::new(Cipher::Aes256Gcm);
        let late: Vec<_> = (0..3).map(|_| lane.seal(b"late", b"")).collect();
        lane.sealer.ratchet(lane.now);
        let first_of_new = lane.seal(b"new", b"");
        assert_eq!(lane.open(&late[0]), Ok(b"late".to_vec()));
        assert_eq!(lane.open(&first_of_new), Ok(b"new".to_vec()));
        assert_eq!(lane.opener.epoch(), 1);
        assert_eq!(lane.open(&late[1]), Ok(b"late".to_vec()));
        lane.now += EPOCH_GRACE;
        assert_eq!(lane.open(&late[2]), Err(OpenError::Expired));
        lane.opener.forget_expired(lane.now);
        assert_eq!(lane.open(&late[2]), Err(OpenError::UnknownEpoch));
    }

    #[test]
    fn forty_epochs_with_packets_in_flight_over_every_change() {
        let mut lane = Lane::new(Cipher::ChaCha20Poly1305);
        let mut in_flight: Vec<Vec<u8>> = Vec::new();
        for epoch in 0..40u64 {
            for _ in 0..3 {
                let sealed = lane.seal(&epoch.to_be_bytes(), b"");
                lane.open(&sealed).expect("in order");
            }
            for sealed in in_flight.drain(..) {
                lane.open(&sealed).expect("of the epoch before");
            }
            assert_eq!(lane.opener.epoch(), epoch);
            in_flight.extend((0..3).map(|_| lane.seal(b"in flight", b"")));
            lane.now += EPOCH_GRACE / 2;
            lane.sealer.ratchet(lane.now);
        }
    }

    #[test]
    fn a_receiver_that_missed_epochs_catches_up_but_not_without_end() {
        let mut lane = Lane::new(Cipher::Aes128Gcm);
        lane.seal(b"lost", b"");
        (0..EPOCHS_AHEAD_MAX).for_each(|_| lane.sealer.ratchet(lane.now));
        let ahead = lane.seal(b"ahead", b"");
        assert_eq!(lane.open(&ahead), Ok(b"ahead".to_vec()));
        assert_eq!(lane.opener.epoch(), EPOCHS_AHEAD_MAX);
        (0..=EPOCHS_AHEAD_MAX).for_each(|_| lane.sealer.ratchet(lane.now));
        let too_far = lane.seal(b"too far", b"");
        assert_eq!(lane.open(&too_far), Err(OpenError::UnknownEpoch));
        // A lost epoch in between: keys derived ahead for a later one are kept for its turn.
        let mut lane = Lane::new(Cipher::Aes128Gcm);
        (0..3).for_each(|_| lane.sealer.ratchet(lane.now));
        let mut forged = lane.seal(b"third", b"");
        *forged.last_mut().expect("not empty") ^= 1;
        assert_eq!(lane.open(&forged), Err(OpenError::Forged));
        assert_eq!(lane.opener.ahead.len(), 3);
        let third = lane.seal(b"third", b"");
        assert_eq!(lane.open(&third), Ok(b"third".to_vec()));
        assert_eq!(lane.opener.ahead.len(), 0);
    }

    #[test]
    fn the_key_of_a_past_epoch_cannot_inject_later_counters() {
        let mut lane = Lane::new(Cipher::Aes128Gcm);
        let secret = ChainSecret::new([0x42; 32]);
        let mut thief = Lane::new(Cipher::Aes128Gcm);
        thief.sealer = Sealer::new(Cipher::Aes128Gcm, &secret, lane.now);
        lane.sealer.ratchet(lane.now);
        let new = lane.seal(b"new", b"");
        lane.open(&new).expect("authentic");
        for _ in 0..5 {
            let injected = thief.seal(b"sealed with the old key", b"");
            let result = lane.open(&injected);
            assert!(matches!(result, Err(OpenError::Forged | OpenError::Replayed)), "{result:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_move_anything(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            out_length in 0usize..200,
        ) {
            let mut lane = Lane::new(Cipher::Aes128Gcm);
            let good = lane.seal(b"good", b"");
            lane.open(&good).expect("authentic");
            let before = lane.state();
            if let Ok(header) = Header::parse(&bytes) {
                let mut out = vec![0; out_length];
                let result = lane.opener.open(lane.now, &header, &bytes, &mut out);
                prop_assert!(result.is_err());
            }
            prop_assert_eq!(lane.state(), before);
        }

        #[test]
        fn one_flipped_bit_anywhere_is_refused_and_moves_nothing(
            flip in 0usize..(OVERHEAD_LEN + 40) * 8,
            ratchets in 0u64..3,
        ) {
            let mut lane = Lane::new(Cipher::Aes256Gcm);
            let good = lane.seal(b"good", b"");
            lane.open(&good).expect("authentic");
            (0..ratchets).for_each(|_| lane.sealer.ratchet(lane.now));
            let sealed = lane.seal(&[1; 30], &[2; 10]);
            let before = lane.state();
            let mut forged = sealed.clone();
            forged[flip / 8] ^= 1 << (flip % 8);
            prop_assert!(lane.open(&forged).is_err());
            prop_assert_eq!(lane.state(), before);
            prop_assert_eq!(lane.open(&sealed), Ok([[1u8; 30].as_slice(), &[2; 10]].concat()));
        }

        #[test]
        fn any_order_with_duplicates_opens_each_packet_once(
            order in proptest::collection::vec(0usize..300, 0..600),
        ) {
            let mut lane = Lane::new(Cipher::Aes128Gcm);
            let packets: Vec<_> = (0..300u32)
                .map(|number| {
                    if number == 100 || number == 200 {
                        lane.sealer.ratchet(lane.now);
                    }
                    lane.seal(&number.to_be_bytes(), b"")
                })
                .collect();
            let mut opened = std::collections::BTreeSet::new();
            for index in order {
                let epoch = index as u64 / 100;
                let known = epoch + 1 >= lane.opener.epoch();
                let result = lane.open(&packets[index]);
                prop_assert_eq!(result.is_ok(), known && opened.insert(index), "{:?}", result);
            }
        }
    }
}
