//! From a worker's plain counters to the counters that observers see.

use ipop_pipeline::{Counters, Drop, Total};
use ipop_shm::WorkerCounters;
use ipop_steer::{Counter, DropReason};

/// Publishes what has been added since the last time.
pub(crate) struct Publisher {
    shared: WorkerCounters,
    published: Counters,
    drops: [Option<usize>; Drop::COUNT],
    totals: [Option<usize>; Total::COUNT],
}

impl Publisher {
    pub(crate) fn new(shared: WorkerCounters) -> Self {
        let drop_slot = |drop: Drop| {
            let found = DropReason::ALL.iter().find(|reason| reason.name() == drop.name());
            found.map(|reason| reason.slot())
        };
        let total_slot = |total: Total| {
            let found = Counter::ALL.iter().find(|counter| counter.name() == total.name());
            found.map(|counter| counter.slot())
        };
        Self {
            shared,
            published: Counters::default(),
            drops: Drop::ALL.map(drop_slot),
            totals: Total::ALL.map(total_slot),
        }
    }

    /// Publishes the pipeline's counters.
    pub(crate) fn publish(&mut self, counters: &Counters) {
        let before = &self.published;
        let drops = self.drops.iter().zip(counters.drops.iter().zip(&before.drops));
        let totals = self.totals.iter().zip(counters.totals.iter().zip(&before.totals));
        for (slot, (now, before)) in drops.chain(totals) {
            if let Some(slot) = slot.filter(|_| now != before) {
                self.shared.add(slot, now.wrapping_sub(*before));
            }
        }
        self.published = *counters;
    }

    /// Counts a drop that the pipeline does not know of.
    pub(crate) fn drop(&self, reason: DropReason) {
        self.shared.add(reason.slot(), 1);
    }

    /// Adds to a total that the pipeline does not know of.
    pub(crate) fn add(&self, counter: Counter, amount: u64) {
        self.shared.add(counter.slot(), amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_of_the_pipeline_has_a_name_that_observers_know() {
        for drop in Drop::ALL {
            assert!(DropReason::ALL.iter().any(|reason| reason.name() == drop.name()), "{drop:?}");
        }
    }
}
