//! Waking a port from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Rings at one port, from any thread. Ring *after* putting something into a queue that the
/// worker empties when [`crate::Completion::Doorbell`] comes; rings that meet become one.
#[derive(Clone, Debug)]
pub struct Doorbell(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    event: OwnedFd,
    /// A ring is on its way to the port, so another needs no system call.
    rung: AtomicBool,
}

impl Doorbell {
    pub(crate) fn new() -> io::Result<Doorbell> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Doorbell(Arc::new(Bell { event, rung: AtomicBool::new(false) })))
    }

    /// Makes the port's `wait` return with [`crate::Completion::Doorbell`].
    pub fn ring(&self) {
        // AcqRel pairs with `answer`: who reads the `true` of an earlier ringer is covered by
        // that ringer's wake-up, and what was queued before is visible to the one answering.
        if !self.0.rung.swap(true, Ordering::AcqRel) {
            // The counter rises once per answer and cannot overflow, so the write cannot fail.
            let _ = rustix::io::write(&self.0.event, &1u64.to_ne_bytes());
        }
    }

    /// Called by the port before the worker looks into its queues; whether anybody rang.
    pub(crate) fn answer(&self) -> bool {
        self.0.rung.swap(false, Ordering::AcqRel)
    }

    /// As [`answer`](Doorbell::answer), for a port that asks whether the counter is above zero
    /// rather than whether it rose.
    pub(crate) fn silence_and_answer(&self) -> bool {
        // In this order: a ring in between is covered by the answer, while one between an answer
        // and a later read would be read away.
        let _ = rustix::io::read(&self.0.event, &mut [0; 8]);
        self.answer()
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}
