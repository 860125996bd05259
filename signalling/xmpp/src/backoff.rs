//! Growing pauses between attempts, with jitter so that a crowd does not come back in step.
//!
//! What has just been lost may be back any moment, a server that is restarted say: for a while
//! [hopeful](Backoff::hopeful) pauses stay short.

use std::time::{Duration, Instant};

/// For so long after the first pause of a row, hopeful ones do not grow beyond [`SHORT`].
const HOPE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(2);

/// Pauses that double from the first to the longest.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
    is_hopeful: bool,
    /// Of the first pause in a row.
    since: Option<Instant>,
    random: u64,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        let (is_hopeful, since) = (false, None);
        Self { first, longest, attempts: 0, is_hopeful, since, random: seed | 1 }
    }

    /// Pauses that stay short for a minute.
    pub(crate) fn hopeful(first: Duration, longest: Duration, seed: u64) -> Self {
        Self { is_hopeful: true, ..Self::new(first, longest, seed) }
    }

    /// The next pause: between 3/4 and 5/4 of the doubled one before, at most the longest.
    pub(crate) fn pause(&mut self, now: Instant) -> Duration {
        let is_fresh = now < *self.since.get_or_insert(now) + HOPE;
        let longest =
            if self.is_hopeful && is_fresh { self.longest.min(SHORT) } else { self.longest };
        let doubled = self.first.saturating_mul(1 << self.attempts.min(16)).min(longest);
        self.attempts = self.attempts.saturating_add(1);
        let share = 0.75 + 0.5 * self.share();
        doubled.mul_f64(share).min(self.longest)
    }

    /// How many pauses there were since something worked.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Starts over, because something worked.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
        self.since = None;
    }

    /// Xorshift, which is good enough to spread attempts; 0 to 1.
    fn share(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_differ_by_seed() {
        let pauses = |seed| {
            let mut now = Instant::now();
            let mut backoff =
                Backoff::hopeful(Duration::from_millis(500), Duration::from_secs(60), seed);
            let next = |_| {
                let pause = backoff.pause(now);
                now += pause;
                pause
            };
            (0..60).map(next).collect::<Vec<_>>()
        };
        let some = pauses(7);
        assert!((375..=625).contains(&some[0].as_millis()), "{:?}", some[0]);
        // For a minute two seconds, more or less.
        assert!(some[2..25].iter().all(|pause| (1500..=2500).contains(&pause.as_millis())));
        assert!(some[45..].iter().all(|pause| (45..=60).contains(&pause.as_secs())));
        assert_ne!(some, pauses(8));
    }

    #[test]
    fn success_starts_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), 1);
        let now = Instant::now();
        for _ in 0..5 {
            backoff.pause(now);
        }
        backoff.reset();
        assert!(backoff.pause(now + 2 * HOPE) <= Duration::from_millis(1250));
    }
}
