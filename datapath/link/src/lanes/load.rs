//! Whether a link carries so much that further lanes through its relay are worth their allocations.
//!
//! Whoever lends relays counts allocations, and most relayed links carry little.

use std::time::{Duration, Instant};

/// Bytes a second, both ways together, that one lane has to carry for [`BUSY_AFTER`]: 100 Mbit/s.
pub const BUSY_RATE: u64 = 12_500_000;

/// For so long at least.
pub const BUSY_AFTER: Duration = Duration::from_secs(2);

/// A link that carried less for so long is not busy any more.
pub const IDLE_AFTER: Duration = Duration::from_secs(120);

/// Notes that are further apart than this say nothing of a rate.
const NOTE_PAUSE_MAX: Duration = Duration::from_secs(2);

/// What a link carried lately.
#[derive(Debug, Default)]
pub(super) struct Load {
    noted: Option<Instant>,
    /// Since when it has been carrying much, without a pause.
    busy_since: Option<Instant>,
    /// Until when it counts as busy.
    busy_until: Option<Instant>,
}

impl Load {
    /// So many bytes were carried since the last note.
    pub fn note(&mut self, now: Instant, bytes: u64) {
        let Some(before) = self.noted.replace(now) else { return };
        let time = now.saturating_duration_since(before);
        let is_much = bytes as f64 >= BUSY_RATE as f64 * time.as_secs_f64();
        if !is_much || time.is_zero() || time > NOTE_PAUSE_MAX {
            self.busy_since = None;
        } else if now >= *self.busy_since.get_or_insert(before) + BUSY_AFTER {
            self.busy_until = Some(now + IDLE_AFTER);
        }
    }

    /// Whether it is busy.
    pub fn is_busy(&self, now: Instant) -> bool {
        self.busy_until.is_some_and(|until| now < until)
    }

    /// When it is not any more, unless more is carried.
    pub fn busy_until(&self) -> Option<Instant> {
        self.busy_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(500);

    /// Notes of so many bytes, every half second; when it was busy first.
    fn busy_after(bytes: &[u64]) -> Option<Duration> {
        let (start, mut load) = (Instant::now(), Load::default());
        let mut noted = bytes.iter().zip(1..).map(|(bytes, number)| {
            let now = start + PAUSE * number;
            load.note(now, *bytes);
            load.is_busy(now).then(|| now - start)
        });
        noted.find_map(|busy| busy)
    }

    #[test]
    fn a_link_is_busy_after_a_while_of_much() {
        let much = BUSY_RATE / 2;
        assert_eq!(busy_after(&[much; 20]), Some(PAUSE * 5), "the first note has no time");
        assert_eq!(busy_after(&[much - 1; 20]), None);
        let bursts: Vec<_> = (0..40).map(|number| if number % 4 == 3 { 0 } else { much }).collect();
        assert_eq!(busy_after(&bursts), None);
        assert_eq!(busy_after(&[u64::MAX]), None);
    }

    #[test]
    fn it_stays_busy_for_a_while() {
        let (start, mut load) = (Instant::now(), Load::default());
        for number in 0..=4 {
            load.note(start + PAUSE * number, BUSY_RATE);
        }
        let end = start + PAUSE * 4 + IDLE_AFTER;
        assert_eq!(load.busy_until(), Some(end));
        assert!(load.is_busy(end - PAUSE) && !load.is_busy(end));
        // A pause in the notes is one in the traffic.
        load.note(end + IDLE_AFTER, u64::MAX);
        assert!(!load.is_busy(end + IDLE_AFTER));
    }
}
