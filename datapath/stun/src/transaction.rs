//! Retransmission of a request over UDP (RFC 8489 section 6.2.1).

use std::time::{Duration, Instant};

use crate::message::TransactionId;

/// How often a request is sent and how long its answer is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retransmission {
    /// RTO: from the first sending to the second; doubles after each.
    pub first: Duration,
    /// Rc: how often the request is sent in all; at least once.
    pub count: u32,
    /// Rm: how many times `first` the answer to the last sending is awaited.
    pub last: u32,
}

impl Retransmission {
    /// The values of RFC 8489: 500 ms, 7 sendings, given up 39.5 s after the first.
    pub const STANDARD: Self = Self { first: Duration::from_millis(500), count: 7, last: 16 };

    /// For questions whose answer may be silence: 4 sendings, given up after 2.75 s.
    pub const BRIEF: Self = Self { first: Duration::from_millis(250), count: 4, last: 4 };

    /// From the first sending until the request is given up.
    pub fn patience(&self) -> Duration {
        let doublings = (1_u32 << self.count.clamp(1, 16).saturating_sub(1)) - 1;
        self.first.saturating_mul(doublings.saturating_add(self.last))
    }
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing yet.
    Nothing,
    /// The request has to go out again.
    Sending,
    /// Nobody answered.
    GivenUp,
}

/// A request under way: sends itself as long as no answer ends it.
#[derive(Debug)]
pub(crate) struct Transaction {
    id: TransactionId,
    request: Vec<u8>,
    started: Instant,
    sent: u32,
    wait: Duration,
    next: Instant,
    rules: Retransmission,
}

impl Transaction {
    /// A request that is due at once.
    pub fn new(now: Instant, rules: Retransmission, id: TransactionId, request: Vec<u8>) -> Self {
        Self { id, request, started: now, sent: 0, wait: rules.first, next: now, rules }
    }

    pub fn id(&self) -> TransactionId {
        self.id
    }

    pub fn request(&self) -> &[u8] {
        &self.request
    }

    /// When something is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// When it was made.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Round-trip time of an answer at `now`: only when the request went out once, since else
    /// nobody knows which sending was answered (RFC 6298 section 3).
    pub fn rtt(&self, now: Instant) -> Option<Duration> {
        (self.sent == 1).then(|| now.saturating_duration_since(self.started))
    }

    /// Says what is due at `now`, and counts it as done.
    pub fn advance(&mut self, now: Instant) -> Due {
        if now < self.next {
            return Due::Nothing;
        }
        if self.sent >= self.rules.count.max(1) {
            return Due::GivenUp;
        }
        self.sent += 1;
        let wait = if self.sent >= self.rules.count {
            self.rules.first.saturating_mul(self.rules.last)
        } else {
            self.wait
        };
        self.wait = self.wait.saturating_mul(2);
        // From `now`, not from the due time: a machine that slept must not send a burst.
        self.next = now + wait;
        Due::Sending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sendings(rules: Retransmission) -> (Vec<u64>, u64) {
        let start = Instant::now();
        let mut transaction = Transaction::new(start, rules, TransactionId([0; 12]), vec![1]);
        let mut times = Vec::new();
        loop {
            let now = transaction.next();
            let at = u64::try_from((now - start).as_millis()).unwrap();
            match transaction.advance(now) {
                Due::Sending => times.push(at),
                Due::GivenUp => return (times, at),
                Due::Nothing => panic!("not due when it said"),
            }
        }
    }

    #[test]
    fn the_schedule_is_that_of_rfc_8489() {
        let (times, end) = sendings(Retransmission::STANDARD);
        assert_eq!(times, [0, 500, 1500, 3500, 7500, 15500, 31500]);
        assert_eq!(end, 39500);
        assert_eq!(Retransmission::STANDARD.patience(), Duration::from_millis(39500));
        let (times, end) = sendings(Retransmission::BRIEF);
        assert_eq!((times, end), (vec![0, 250, 750, 1750], 2750));
        assert_eq!(Retransmission::BRIEF.patience(), Duration::from_millis(2750));
    }

    #[test]
    fn a_sleep_makes_no_burst() {
        let start = Instant::now();
        let rules = Retransmission::STANDARD;
        let mut transaction = Transaction::new(start, rules, TransactionId([0; 12]), vec![]);
        assert_eq!(transaction.advance(start), Due::Sending);
        let late = start + Duration::from_secs(20);
        assert_eq!(transaction.advance(late), Due::Sending);
        assert_eq!(transaction.advance(late), Due::Nothing);
    }
}
