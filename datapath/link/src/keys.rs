//! One session of a link after its handshake: are its keys confirmed, does the peer still answer?
//!
//! The keys themselves are with the workers. A pong proves both directions: the peer opened our
//! ping, and we opened its answer.

use std::time::{Duration, Instant};

use ipop_crypto::Cipher;
use ipop_wire::LinkIndex;

/// From an unanswered ping of an unconfirmed session to the next; doubles.
const CONFIRM_AFTER_MIN: Duration = Duration::from_millis(100);
const CONFIRM_AFTER_MAX: Duration = Duration::from_secs(1);

/// From ping to ping once the keys are confirmed.
pub const KEEPALIVE: Duration = Duration::from_secs(10);

/// A pong that takes longer is taken for lost.
const PONG_TIME_MAX: Duration = Duration::from_secs(3);

/// An installed session.
#[derive(Debug)]
pub(crate) struct Keys {
    pub index: LinkIndex,
    pub cipher: Cipher,
    pub established: Instant,
    is_confirmed: bool,
    ping: Option<Ping>,
    ping_at: Instant,
    confirm_after: Duration,
    unanswered: u32,
    rtt: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Ping {
    nonce: u64,
    sent: Instant,
}

impl Keys {
    /// Just installed; a ping is due at once.
    pub fn new(index: LinkIndex, cipher: Cipher, now: Instant) -> Self {
        Keys {
            index,
            cipher,
            established: now,
            is_confirmed: false,
            ping: None,
            ping_at: now,
            confirm_after: CONFIRM_AFTER_MIN,
            unanswered: 0,
            rtt: None,
        }
    }

    /// Pings in a row that were not answered.
    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Smoothed round-trip time of pings (RFC 6298 section 2, alpha 1/8).
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// A ping is to be sent as soon as possible, because something changed.
    pub fn hurry(&mut self, now: Instant) {
        self.ping_at = self.ping_at.min(now);
    }

    /// Pings so far do not count as unanswered.
    pub fn forgive(&mut self) {
        self.unanswered = 0;
        self.ping = None;
    }

    /// Takes a pong; true if the keys are confirmed by it for the first time.
    pub fn on_pong(&mut self, now: Instant, nonce: u64) -> bool {
        let Some(ping) = self.ping.take_if(|ping| ping.nonce == nonce) else { return false };
        let sample = now.saturating_duration_since(ping.sent);
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        self.unanswered = 0;
        self.ping_at = now + KEEPALIVE;
        !std::mem::replace(&mut self.is_confirmed, true)
    }

    /// The nonce of a ping that is due. `nonce` draws an unpredictable one.
    pub fn handle_timeout(&mut self, now: Instant, nonce: impl FnOnce() -> u64) -> Option<u64> {
        if now < self.ping_at {
            return None;
        }
        if self.ping.is_some() {
            self.unanswered += 1;
        }
        let ping = Ping { nonce: nonce(), sent: now };
        self.ping = Some(ping);
        self.ping_at = now
            + if !self.is_confirmed {
                let after = self.confirm_after;
                self.confirm_after = (after * 2).min(CONFIRM_AFTER_MAX);
                after
            } else {
                PONG_TIME_MAX
            };
        Some(ping.nonce)
    }

    pub fn poll_timeout(&self) -> Instant {
        self.ping_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(now: Instant) -> Keys {
        Keys::new(LinkIndex(1), Cipher::Aes128Gcm, now)
    }

    #[test]
    fn pings_go_out_ever_slower_until_one_is_answered() {
        let start = Instant::now();
        let mut keys = keys(start);
        let mut nonce = 0;
        let mut times = Vec::new();
        while keys.poll_timeout() < start + Duration::from_secs(4) {
            let now = keys.poll_timeout();
            times.push((now - start).as_millis());
            nonce += 1;
            assert_eq!(keys.handle_timeout(now, || nonce), Some(nonce));
        }
        assert_eq!(times, [0, 100, 300, 700, 1500, 2500, 3500]);
        assert_eq!(keys.unanswered(), 6);
        let now = start + Duration::from_secs(4);
        assert!(!keys.on_pong(now, nonce - 1), "an old nonce confirms nothing");
        assert!(keys.on_pong(now, nonce));
        assert!(keys.is_confirmed);
        assert_eq!((keys.unanswered(), keys.rtt()), (0, Some(Duration::from_millis(500))));
        assert_eq!(keys.poll_timeout(), now + KEEPALIVE);
        assert!(!keys.on_pong(now, nonce), "the same pong again is no news");
    }

    #[test]
    fn silence_after_confirmation_is_counted() {
        let start = Instant::now();
        let mut keys = keys(start);
        keys.handle_timeout(start, || 1);
        keys.on_pong(start, 1);
        for unanswered in 0..4 {
            let now = keys.poll_timeout();
            assert!(keys.handle_timeout(now, || 2).is_some());
            assert_eq!(keys.unanswered(), unanswered);
        }
        assert_eq!(keys.handle_timeout(keys.poll_timeout() - PONG_TIME_MAX, || 3), None);
    }
}
