//! Counters: a block of 64-bit words for each worker, one word per counter.
//!
//! A block is written by one thread and starts on a cache line pair of its own, so that counting is
//! an ordinary addition and disturbs no other worker. What a counter means is the callers' affair.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::memory::{LINE_WORDS, Span};
use crate::sync::Ordering;

/// Words of the counters of all workers.
pub(crate) const fn counter_words(workers: usize, counters: usize) -> usize {
    workers * block_stride(counters)
}

const fn block_stride(counters: usize) -> usize {
    counters.next_multiple_of(LINE_WORDS)
}

/// One worker's counters, for the one thread that counts in them.
pub struct WorkerCounters {
    block: Span,
    /// An addition is a load and a store: two threads at it would lose counts, so not `Sync`.
    _one_thread: PhantomData<Cell<()>>,
}

impl WorkerCounters {
    /// The blocks of all workers.
    pub(crate) fn all(span: &Span, workers: usize, counters: usize) -> Vec<Self> {
        (0..workers)
            .map(|worker| Self {
                block: span.part(worker * block_stride(counters), counters),
                _one_thread: PhantomData,
            })
            .collect()
    }

    /// Adds to a counter, modulo 2^64.
    ///
    /// # Panics
    /// If there is no counter of that index: the number of counters was the caller's choice.
    pub fn add(&self, index: usize, count: u64) {
        let word = self.block.word(index);
        word.store(word.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }
}

/// Reads the counters of all workers.
#[derive(Clone)]
pub struct CounterReader {
    span: Span,
    workers: usize,
    counters: usize,
}

impl CounterReader {
    pub(crate) fn new(span: Span, workers: usize, counters: usize) -> Self {
        Self { span, workers, counters }
    }

    /// How many workers have a block.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The counters of one worker; none if there is no such worker. Each is as of its own moment.
    pub fn worker(&self, worker: usize) -> Vec<u64> {
        if worker >= self.workers {
            return Vec::new();
        }
        let start = worker * block_stride(self.counters);
        let block = &self.span.words()[start..start + self.counters];
        block.iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }

    /// The counters summed over all workers.
    pub fn totals(&self) -> Vec<u64> {
        let mut totals = vec![0u64; self.counters];
        for worker in 0..self.workers {
            for (total, value) in totals.iter_mut().zip(self.worker(worker)) {
                *total = total.wrapping_add(value);
            }
        }
        totals
    }
}
