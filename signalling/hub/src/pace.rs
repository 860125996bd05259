//! How much one client may say: a token bucket in bytes.

use std::time::{Duration, Instant};

/// Long-term limit, in bytes per second. A node that talks to a thousand others while joining says
/// about 3 MB in all.
const RATE: f64 = 256.0 * 1024.0;
/// What a byte costs that is sent to others on a client's behalf: one word to a room of a thousand
/// is a thousand words.
const FAN_OUT_SHARE: usize = 16;
/// What may come at once, in bytes.
const BURST: f64 = 4.0 * 1024.0 * 1024.0;

pub(crate) struct Pace {
    credit: f64,
    at: Instant,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { credit: BURST, at: now }
    }

    /// Counts bytes that were taken from the client, and that were sent because of them; for how
    /// long no more should be taken.
    pub(crate) fn spend(&mut self, now: Instant, taken: usize, sent: usize) -> Duration {
        let bytes = taken + sent / FAN_OUT_SHARE;
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.credit = (self.credit + since * RATE).min(BURST) - bytes as f64;
        Duration::from_secs_f64((-self.credit).max(0.0) / RATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert_eq!(pace.spend(start, BURST as usize, 0), Duration::ZERO);
        assert_eq!(pace.spend(start, 0, RATE as usize * FAN_OUT_SHARE), Duration::from_secs(1));
        let later = start + Duration::from_secs(1);
        assert_eq!(pace.spend(later, RATE as usize / 2, 0), Duration::from_millis(500));
        let much_later = later + Duration::from_secs(1000);
        assert_eq!(pace.spend(much_later, BURST as usize, 0), Duration::ZERO);
    }
}
