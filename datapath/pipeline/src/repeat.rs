//! What is sent again, unasked, on a path that loses much.
//!
//! TCP waits twice as long each time for what it has to send again, so where a quarter of all
//! datagrams is lost each way, connections stand still for minutes: of a segment alone, or of the
//! acknowledgement of it, one is lost 44 times of 100. What is sparse costs little: on a path that
//! is known to be such ([`Path::is_lossy`](crate::Path::is_lossy)), each datagram is sent again as
//! it is, twice, when what fades will have come back. The receiver drops what it has already (its
//! replay window). Of a path that loses a quarter, one datagram and a half in a hundred is left.
//!
//! Whoever sends much has no use for it, and the path might be lossy because it is full: each link
//! has an allowance ([`Allowance`]), and what goes beyond that is sent once, as everywhere. What
//! waits is kept in memory that is allocated for it, here alone in the pipeline.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::links::LinkId;
use crate::sink::SendRun;

/// From a datagram to its repetitions. Losses come in bursts, and a burst of less than a tenth of a
/// second is over then.
const AFTER: [Duration; 2] = [Duration::from_millis(110), Duration::from_millis(260)];
/// Datagrams of one link that are repeated in a second, and at once.
const RATE: f64 = 100.0;
const BURST: f64 = 32.0;
/// Bytes that wait at most, of all links.
const WAITING_MAX: usize = 4 << 20;

/// How much of a link may be repeated: a bucket of datagrams that fills with time.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    /// What was left, and when; full before that.
    left: Option<(f64, Instant)>,
}

/// Sealed datagrams that are to be sent again.
#[derive(Debug)]
pub(crate) struct Waiting {
    due: Instant,
    pub link: LinkId,
    pub run: SendRun,
    /// The relay's channel that the datagrams name.
    pub channel: Option<u16>,
    pub bytes: Vec<u8>,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Repeater {
    /// This turn's time; nothing is repeated for who does not tell it.
    now: Option<Instant>,
    /// For the first time, and for the last one; each in the order of its times.
    first: VecDeque<Waiting>,
    last: VecDeque<Waiting>,
    /// Bytes of both.
    len: usize,
}

impl Repeater {
    pub fn note_time(&mut self, now: Instant) {
        self.now = Some(now);
    }

    /// Keeps what has just been sent, if it may be repeated.
    #[cold]
    pub fn keep(
        &mut self,
        allowance: &mut Allowance,
        (link, run, channel): (LinkId, SendRun, Option<u16>),
        bytes: &[u8],
    ) {
        let Some(now) = self.now else { return };
        let has_room = self.len + bytes.len() <= WAITING_MAX;
        if has_room && allowance.take(now, run.datagrams()) {
            self.len += bytes.len();
            let (due, bytes) = (now + AFTER[0], bytes.to_vec());
            self.first.push_back(Waiting { due, link, run, channel, bytes });
        }
    }

    /// When something is to be sent.
    #[inline]
    pub fn due(&self) -> Option<Instant> {
        [self.first.front(), self.last.front()].into_iter().flatten().map(|w| w.due).min()
    }

    /// What is to be sent now, and whether once more after that: [`put_back`](Self::put_back).
    pub fn take_due(&mut self, now: Instant) -> Option<(Waiting, bool)> {
        for (queue, is_first) in [(&mut self.last, false), (&mut self.first, true)] {
            if queue.front().is_some_and(|waiting| waiting.due <= now)
                && let Some(waiting) = queue.pop_front()
            {
                self.len -= waiting.bytes.len();
                return Some((waiting, is_first));
            }
        }
        None
    }

    /// Keeps what was sent for the first time until the last one.
    pub fn put_back(&mut self, mut waiting: Waiting) {
        waiting.due += AFTER[1] - AFTER[0];
        self.len += waiting.bytes.len();
        self.last.push_back(waiting);
    }
}

impl Allowance {
    fn take(&mut self, now: Instant, count: usize) -> bool {
        let count = count as f64;
        let left = self.left.map_or(BURST, |(left, since)| {
            let passed = now.saturating_duration_since(since).as_secs_f64();
            (left + passed * RATE).min(BURST)
        });
        let is_enough = left >= count;
        self.left = Some((if is_enough { left - count } else { left }, now));
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_used_up_and_comes_back() {
        let (mut allowance, start) = (Allowance::default(), Instant::now());
        let mut taken =
            |after_ms: u64, count| allowance.take(start + Duration::from_millis(after_ms), count);
        assert!(taken(0, 32));
        assert!(!taken(0, 1));
        assert!(taken(10, 1));
        assert!(!taken(10, 1));
        assert!(!taken(60_000, 33), "more than it ever holds");
        assert!(taken(60_000, 32));
    }
}
