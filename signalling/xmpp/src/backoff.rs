//! Growing pauses between attempts, with jitter so that a crowd does not come back in step.

use std::time::Duration;

/// Pauses that double from the first to the longest.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: u32,
    random: u64,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration, seed: u64) -> Self {
        Self { first, longest, attempts: 0, random: seed | 1 }
    }

    /// The next pause: between 3/4 and 5/4 of the doubled one before, at most the longest.
    pub(crate) fn pause(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.attempts.min(16)).min(self.longest);
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
            let mut backoff =
                Backoff::new(Duration::from_millis(500), Duration::from_secs(60), seed);
            (0..40).map(|_| backoff.pause()).collect::<Vec<_>>()
        };
        let some = pauses(7);
        assert!((375..=625).contains(&some[0].as_millis()), "{:?}", some[0]);
        assert!((1500..=2500).contains(&some[2].as_millis()), "{:?}", some[2]);
        assert!(some[10..].iter().all(|pause| (45..=60).contains(&pause.as_secs())));
        assert_ne!(some, pauses(8));
    }

    #[test]
    fn success_starts_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60), 1);
        for _ in 0..5 {
            backoff.pause();
        }
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(1250));
    }
}
