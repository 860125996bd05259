//! When a worker sheds load: CoDel (RFC 8289) on how long packets wait for it.
//!
//! The kernel's queues in front of a worker hold megabytes, and a TCP sender fills them unless
//! something is lost: at full load everybody's round trip becomes the length of the queue. So once
//! packets have waited too long for a while, one segment of one TCP super-segment is dropped. Its
//! sender slows down, and the queue goes. Nothing else is ever shed: a datagram that is lost may
//! be lost for good, and who sends it need not slow down.

use std::time::{Duration, Instant};

/// A wait that is still well (`TARGET`). RFC 8289's 5 ms are for links to homes; this much takes
/// four full super-segments at 8 Gbit/s, more than which gains no throughput.
const TARGET: Duration = Duration::from_micros(300);

/// How long waits may be longer than that (`INTERVAL`): a few round trips of a datacentre, which a
/// sender needs to hear of a loss.
const INTERVAL: Duration = Duration::from_millis(10);

/// The controller of RFC 8289, section 5, told of each turn's wait instead of each packet's.
#[derive(Debug, Default)]
pub(crate) struct Codel {
    /// Since when waits have been too long.
    above_since: Option<Instant>,
    /// When to drop next, while waits are too long.
    drop_next: Option<Instant>,
    /// Drops since waits became too long: the more, the sooner the next.
    count: u32,
    /// A drop is due, and nothing to drop has come yet.
    is_due: bool,
}

impl Codel {
    /// Packets that are about to be looked at may have waited for `wait`.
    #[inline]
    pub fn note_wait(&mut self, now: Instant, wait: Duration) {
        if wait >= TARGET {
            return self.on_long_wait(now);
        }
        if self.above_since.take().is_some() {
            // What it came to is where it starts if waits are soon too long again.
            self.count /= 2;
            (self.drop_next, self.is_due) = (None, false);
        }
    }

    /// Whether a segment is to be dropped; asked when there is one.
    #[inline]
    pub fn take_drop(&mut self) -> bool {
        std::mem::take(&mut self.is_due)
    }

    #[cold]
    fn on_long_wait(&mut self, now: Instant) {
        let since = *self.above_since.get_or_insert(now);
        let drop_next = self.drop_next.unwrap_or(since + INTERVAL);
        if now < drop_next {
            return;
        }
        self.count = self.count.saturating_add(1);
        self.is_due = true;
        // The control law: drops come closer by the square root of their number.
        self.drop_next = Some(now + INTERVAL.div_f64(f64::from(self.count).sqrt()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(2);
    const STEP: Duration = Duration::from_millis(1);

    /// Drops in so many milliseconds of long waits.
    fn drops(codel: &mut Codel, now: &mut Instant, milliseconds: u32) -> u32 {
        let mut count = 0;
        for _ in 0..milliseconds {
            codel.note_wait(*now, LONG);
            count += u32::from(codel.take_drop());
            *now += STEP;
        }
        count
    }

    #[test]
    fn a_burst_is_let_through() {
        let (mut codel, mut now) = (Codel::default(), Instant::now());
        for _ in 0..20 {
            assert_eq!(drops(&mut codel, &mut now, 10), 0);
            codel.note_wait(now, Duration::ZERO);
        }
    }

    #[test]
    fn a_standing_queue_costs_more_and_more() {
        let (mut codel, mut now) = (Codel::default(), Instant::now());
        assert_eq!(drops(&mut codel, &mut now, 11), 1);
        let first = drops(&mut codel, &mut now, 50);
        let second = drops(&mut codel, &mut now, 50);
        assert!(first >= 5 && second > first, "{first}, then {second}");
    }

    #[test]
    fn a_drop_that_finds_nothing_to_drop_waits_until_the_queue_is_gone() {
        let (mut codel, mut now) = (Codel::default(), Instant::now());
        for _ in 0..12 {
            codel.note_wait(now, LONG);
            now += STEP;
        }
        codel.note_wait(now, Duration::ZERO);
        assert!(!codel.take_drop());
    }
}
