//! What waits to be sent to one client, bounded: who reads too slowly is let go, and costs the
//! others nothing.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bytes that may wait for one client.
const WAITING_MAX: usize = 4 << 20;
/// Bytes that may wait for all clients together; beyond it those with much in waiting go.
const TOTAL_MAX: usize = 256 << 20;
/// What is little.
const MODEST: usize = 64 << 10;

/// Bytes waiting in all outboxes of a hub.
#[derive(Clone, Default)]
pub(crate) struct Budget(Arc<AtomicUsize>);

pub(crate) struct Outbox {
    state: Mutex<State>,
    news: Notify,
    budget: Budget,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Nothing follows what waits.
    ended: bool,
}

/// The client reads too slowly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overrun;

impl Outbox {
    pub(crate) fn new(budget: &Budget) -> Self {
        let (state, news) = (Mutex::default(), Notify::new());
        Self { state, news, budget: budget.clone() }
    }

    /// Queues bytes; what follows the end is left out.
    pub(crate) fn push(&self, bytes: &[u8]) -> Result<(), Overrun> {
        let mut state = self.lock();
        if state.ended {
            return Ok(());
        }
        let waiting = state.waiting.len() + bytes.len();
        // Relaxed: the sum is a limit, not a signal.
        let total = self.budget.0.load(Ordering::Relaxed) + bytes.len();
        if waiting > WAITING_MAX || (total > TOTAL_MAX && waiting > MODEST) {
            return Err(Overrun);
        }
        state.waiting.extend_from_slice(bytes);
        self.budget.0.fetch_add(bytes.len(), Ordering::Relaxed);
        self.news.notify_one();
        Ok(())
    }

    /// Queues the last bytes.
    pub(crate) fn end(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if !mem::replace(&mut state.ended, true) {
            state.waiting.extend_from_slice(bytes);
            self.budget.0.fetch_add(bytes.len(), Ordering::Relaxed);
        }
        self.news.notify_one();
    }

    /// Waits for bytes; `None` after the last.
    pub(crate) async fn next(&self) -> Option<Vec<u8>> {
        loop {
            {
                let mut state = self.lock();
                if !state.waiting.is_empty() {
                    let bytes = mem::take(&mut state.waiting);
                    self.budget.0.fetch_sub(bytes.len(), Ordering::Relaxed);
                    return Some(bytes);
                }
                if state.ended {
                    return None;
                }
            }
            self.news.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let waiting = self.lock().waiting.len();
        self.budget.0.fetch_sub(waiting, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn bytes_come_out_in_order_and_end() {
        let outbox = Outbox::new(&Budget::default());
        outbox.push(b"a").unwrap();
        outbox.push(b"b").unwrap();
        assert_eq!(outbox.next().await.as_deref(), Some(&b"ab"[..]));
        outbox.end(b"c");
        outbox.push(b"d").unwrap();
        outbox.end(b"e");
        assert_eq!(outbox.next().await.as_deref(), Some(&b"c"[..]));
        assert_eq!(outbox.next().await, None);
    }

    #[test]
    fn a_slow_reader_overruns() {
        let outbox = Outbox::new(&Budget::default());
        let chunk = vec![0; 1 << 20];
        (0..4).for_each(|_| outbox.push(&chunk).unwrap());
        assert_eq!(outbox.push(&chunk), Err(Overrun));
    }

    #[test]
    fn the_budget_is_shared_and_given_back() {
        let budget = Budget::default();
        let chunk = vec![0; WAITING_MAX];
        let fill = || {
            let outbox = Outbox::new(&budget);
            outbox.push(&chunk).map(|()| outbox)
        };
        let full: Vec<_> = (0..TOTAL_MAX / WAITING_MAX).map(|_| fill().unwrap()).collect();
        assert!(fill().is_err());
        assert_eq!(Outbox::new(&budget).push(&chunk[..MODEST]), Ok(()));
        drop(full);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
        assert!(fill().is_ok());
    }
}
