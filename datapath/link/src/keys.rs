//! One session of a link after its handshake: are its keys confirmed, does the peer still answer?
//!
//! The keys themselves are with the workers. A pong proves both directions: the peer opened our
//! ping, and we opened its answer. So does a ping of the peer, since its worker takes up both
//! directions at once, and the handshake has just shown that the path carries both: the client need
//! not wait for the answer to a first ping, which often finds the server's worker without the keys.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ipop_crypto::Cipher;
use ipop_wire::LinkIndex;

/// From an unanswered ping of an unconfirmed session to the next; doubles once.
const CONFIRM_AFTER_MIN: Duration = Duration::from_millis(100);
const CONFIRM_AFTER_MAX: Duration = Duration::from_millis(200);

/// From ping to ping once the keys are confirmed.
pub const KEEPALIVE: Duration = Duration::from_secs(10);

/// From an unanswered ping to the next: many in a row are lost only where nobody answers.
const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// Pings whose pongs still count.
const PINGS_MAX: usize = 8;

/// An installed session.
#[derive(Debug)]
pub(crate) struct Keys {
    pub index: LinkIndex,
    pub cipher: Cipher,
    /// Lanes that both ends serve.
    pub lanes: u8,
    pub established: Instant,
    is_confirmed: bool,
    /// Since the last pong, the newest last.
    pings: VecDeque<Ping>,
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
    pub fn new(index: LinkIndex, cipher: Cipher, lanes: u8, now: Instant) -> Self {
        Keys {
            index,
            cipher,
            lanes,
            established: now,
            is_confirmed: false,
            pings: VecDeque::with_capacity(PINGS_MAX),
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
        self.pings.clear();
    }

    /// Takes a pong; true if the keys are confirmed by it for the first time.
    pub fn on_pong(&mut self, now: Instant, nonce: u64) -> bool {
        let Some(ping) = self.pings.iter().find(|ping| ping.nonce == nonce) else { return false };
        let sample = now.saturating_duration_since(ping.sent);
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        self.unanswered = 0;
        self.pings.clear();
        self.ping_at = now + KEEPALIVE;
        !std::mem::replace(&mut self.is_confirmed, true)
    }

    /// Takes a ping of the peer; true if the keys are confirmed by it for the first time.
    pub fn on_ping(&mut self) -> bool {
        !std::mem::replace(&mut self.is_confirmed, true)
    }

    /// The nonce of a ping that is due. `nonce` draws an unpredictable one.
    pub fn handle_timeout(&mut self, now: Instant, nonce: impl FnOnce() -> u64) -> Option<u64> {
        if now < self.ping_at {
            return None;
        }
        if !self.pings.is_empty() {
            self.unanswered += 1;
        }
        if self.pings.len() == PINGS_MAX {
            self.pings.pop_front();
        }
        let ping = Ping { nonce: nonce(), sent: now };
        self.pings.push_back(ping);
        let patience = if self.is_confirmed { REPEAT_AFTER } else { self.confirm_after };
        self.confirm_after = CONFIRM_AFTER_MAX;
        self.ping_at = now + patience;
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
        Keys::new(LinkIndex(1), Cipher::Aes128Gcm, 1, now)
    }

    #[test]
    fn pings_go_out_until_one_is_answered() {
        let start = Instant::now();
        let mut keys = keys(start);
        let mut nonce = 0;
        let mut times = Vec::new();
        while keys.poll_timeout() < start + Duration::from_secs(2) {
            let now = keys.poll_timeout();
            times.push((now - start).as_millis());
            nonce += 1;
            assert_eq!(keys.handle_timeout(now, || nonce), Some(nonce));
        }
        assert_eq!(times, [0, 100, 300, 500, 700, 900, 1100, 1300, 1500, 1700, 1900]);
        assert_eq!(keys.unanswered(), 10);
        let now = start + Duration::from_secs(2);
        assert!(!keys.on_pong(now, nonce - PINGS_MAX as u64), "too old to count");
        assert!(keys.on_pong(now, nonce - 1), "not only the newest counts");
        assert!(keys.is_confirmed);
        assert_eq!((keys.unanswered(), keys.rtt()), (0, Some(Duration::from_millis(300))));
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
        assert_eq!(keys.handle_timeout(keys.poll_timeout() - REPEAT_AFTER, || 3), None);
    }
}
