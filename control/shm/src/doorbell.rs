//! Waking a consumer that sleeps, and leaving alone one that does not.
//!
//! One word per ring says what the consumer does:
//!
//! | word | meaning |
//! | --- | --- |
//! | 0 `AWAKE` | it looks by itself: the producer makes no system call |
//! | 1 `ASLEEP` | it sleeps on the word or is about to: who publishes has to wake it |
//! | 2 `RUNG` | somebody rang without publishing; the next wait returns at once |
//!
//! The producer publishes and then looks at the word; the consumer writes `ASLEEP` and then looks
//! for records. A sequentially consistent fence between the two steps on both sides makes it
//! impossible that each misses the other's write. Either side may die between its steps: a dead
//! producer's wake-up is missed until the timeout, a dead consumer's `ASLEEP` costs one system
//! call.

use std::time::Duration;

use crate::memory::Span;
use crate::ring::{Published, TAIL};
use crate::sync::{FutexWord, Ordering, fence};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const RUNG: u32 = 2;

/// Why a wait is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// There are records.
    Published,
    /// Somebody rang: [`Ringer::ring`].
    Rung,
    /// The time is over, or a signal came.
    TimedOut,
}

/// Lets a thread sleep until something is published on a ring, without taking it from there.
///
/// Made for a thread that sleeps on behalf of another one, which owns the
/// [`Consumer`](crate::Consumer) and has a kernel object of its own to wait on. Each publication
/// wakes it once, whether or not the records have been consumed by then.
///
/// One thread at a time may wait on a ring, by this or by
/// [`Consumer::wait`](crate::Consumer::wait); any number may ring: [`Doorbell::ringer`].
pub struct Doorbell {
    bell: Bell,
    /// Position of the producer when the last wait returned.
    seen: Published,
}

impl Doorbell {
    pub(crate) fn new(bell: Bell, seen: Published) -> Self {
        Self { bell, seen }
    }

    /// Sleeps until something is published that was not when the last wait returned, until
    /// [`Ringer::ring`], or for about `timeout`. Wait no longer than a few heartbeats: a producer
    /// that died between publishing and waking leaves nothing behind but the record.
    pub fn wait(&mut self, timeout: Duration) -> Wake {
        let seen = self.seen;
        let wake = self.bell.wait(timeout, |published| published != seen);
        self.seen = self.bell.published();
        wake
    }

    /// Ends this one's sleep from another thread.
    pub fn ringer(&self) -> Ringer {
        Ringer::new(self.bell.clone())
    }
}

/// Ends the sleep at a bell from another thread, say to stop it.
#[derive(Clone)]
pub struct Ringer {
    bell: Bell,
}

impl Ringer {
    pub(crate) fn new(bell: Bell) -> Self {
        Self { bell }
    }

    /// Wakes the waiting thread although nothing was published; if none waits, the next wait
    /// returns at once.
    pub fn ring(&self) {
        self.bell.ring();
    }
}

/// The word, and the producer's position that it guards.
#[derive(Clone)]
pub(crate) struct Bell {
    ring: Span,
    word: usize,
}

impl Bell {
    pub(crate) fn new(ring: Span, word: usize) -> Self {
        Self { ring, word }
    }

    fn word(&self) -> &FutexWord {
        self.ring.futex(self.word)
    }

    /// How far the producer has published.
    pub(crate) fn published(&self) -> Published {
        // Pairs with the release of the tail in `Producer::push`.
        Published(self.ring.word(TAIL).load(Ordering::Acquire))
    }

    /// A consumer that takes over knows of no ringing, and sleeps not.
    pub(crate) fn reset(&self) {
        self.word().swap(AWAKE, Ordering::AcqRel);
    }

    pub(crate) fn ring(&self) {
        if self.word().swap(RUNG, Ordering::AcqRel) == ASLEEP {
            self.word().wake();
        }
    }

    /// Wakes the consumer if it sleeps. The caller has published before.
    pub(crate) fn announce(&self) {
        // Between the store of the tail and the load of the word; pairs with the one in `wait`.
        fence(Ordering::SeqCst);
        if self.word().load(Ordering::Relaxed) == ASLEEP && self.word().replace(ASLEEP, AWAKE) {
            self.word().wake();
        }
    }

    pub(crate) fn wait(&self, timeout: Duration, ready: impl Fn(Published) -> bool) -> Wake {
        let rung = self.word().swap(ASLEEP, Ordering::AcqRel) == RUNG;
        // Between the store of the word and the load of the tail; pairs with the one in `announce`.
        fence(Ordering::SeqCst);
        if !rung && !ready(self.published()) {
            self.word().wait(ASLEEP, timeout);
        }
        let rung = (self.word().swap(AWAKE, Ordering::AcqRel) == RUNG) | rung;
        match ready(self.published()) {
            _ if rung => Wake::Rung,
            true => Wake::Published,
            false => Wake::TimedOut,
        }
    }
}
