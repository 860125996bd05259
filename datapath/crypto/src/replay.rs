//! Which packet counters have been seen: a sliding bitmap.

/// How far in packets a counter may lie behind the highest seen and still be accepted.
///
/// 8192 packets are 4.6 ms of full-size packets at 20 Gbit/s: more than the reordering between
/// two queues of a network card, for 1 KiB of memory per lane.
pub const REPLAY_WINDOW_PACKETS: u64 = 8192;

const WORD_BITS: u64 = 64;
const WORD_COUNT: usize = (REPLAY_WINDOW_PACKETS / WORD_BITS) as usize + 1;

/// Remembers the last [`REPLAY_WINDOW_PACKETS`] counters.
///
/// The bitmap is a ring of words, one more than the window needs, so that moving forward clears
/// whole words and shifts nothing.
#[derive(Clone)]
pub struct ReplayWindow {
    /// One more than the highest counter seen, 0 before the first.
    end: u64,
    words: [u64; WORD_COUNT],
}

impl ReplayWindow {
    /// A window that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        ReplayWindow { end: 0, words: [0; WORD_COUNT] }
    }

    /// One more than the highest counter seen; 0 before the first.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Whether a packet with this counter may still be new. Changes nothing: ask before the
    /// packet is authenticated.
    #[inline]
    #[must_use]
    pub fn is_fresh(&self, counter: u64) -> bool {
        if counter >= self.end {
            return counter != u64::MAX;
        }
        if self.end - counter > REPLAY_WINDOW_PACKETS {
            return false;
        }
        let (word, mask) = place(counter);
        self.words[word] & mask == 0
    }

    /// Notes a counter that [`is_fresh`](Self::is_fresh) allowed and whose packet was authentic.
    #[inline]
    pub fn mark(&mut self, counter: u64) {
        debug_assert!(self.is_fresh(counter), "marked a counter that is not fresh");
        if counter >= self.end {
            self.advance(counter);
        }
        let (word, mask) = place(counter);
        self.words[word] |= mask;
    }

    fn advance(&mut self, counter: u64) {
        let newest = counter / WORD_BITS;
        // Before the first packet no word is in use, so the ring may start anywhere.
        let previous = self.end.checked_sub(1).map_or(newest, |highest| highest / WORD_BITS);
        let stale = (newest - previous).min(WORD_COUNT as u64);
        for step in 0..stale {
            self.words[ring(newest - step)] = 0;
        }
        self.end = counter + 1;
    }
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for ReplayWindow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplayWindow").field("end", &self.end).finish_non_exhaustive()
    }
}

#[inline]
fn ring(word: u64) -> usize {
    (word % WORD_COUNT as u64) as usize
}

#[inline]
fn place(counter: u64) -> (usize, u64) {
    (ring(counter / WORD_BITS), 1 << (counter % WORD_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The window as its definition says it, without any bit.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn is_fresh(&self, counter: u64) -> bool {
            let Some(&highest) = self.seen.last() else { return counter != u64::MAX };
            counter != u64::MAX
                && !self.seen.contains(&counter)
                && counter.saturating_add(REPLAY_WINDOW_PACKETS) > highest
        }
    }

    fn steps() -> impl Strategy<Value = Vec<i64>> {
        let step = prop_oneof![
            6 => -200i64..=200,
            2 => -9000i64..=9000,
            1 => -70_000i64..=70_000,
            1 => Just(8192i64),
            1 => Just(-8192i64),
            1 => Just(8191i64),
        ];
        proptest::collection::vec(step, 1..400)
    }

    proptest! {
        #[test]
        fn behaves_as_the_model(
            start in prop_oneof![0u64..20_000, any::<u64>()],
            steps in steps(),
        ) {
            let mut window = ReplayWindow::new();
            let mut model = Model::default();
            let mut counter = start;
            for step in steps {
                let fresh = window.is_fresh(counter);
                prop_assert_eq!(fresh, model.is_fresh(counter), "counter {}", counter);
                if fresh {
                    window.mark(counter);
                    model.seen.insert(counter);
                    prop_assert!(!window.is_fresh(counter));
                }
                counter = counter.saturating_add_signed(step);
            }
        }
    }

    #[test]
    fn the_edges_of_the_window() {
        let mut window = ReplayWindow::new();
        assert!(window.is_fresh(0));
        window.mark(REPLAY_WINDOW_PACKETS);
        assert!(window.is_fresh(1));
        assert!(!window.is_fresh(0));
        assert!(!window.is_fresh(u64::MAX), "the last counter is never used, so end cannot wrap");
        assert!(window.is_fresh(u64::MAX - 1));
        window.mark(u64::MAX - 1);
        assert!(!window.is_fresh(u64::MAX - 1));
        assert!(!window.is_fresh(1));
    }
}
