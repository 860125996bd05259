//! Buffers that wait for use, the one used last on top: it is the one still in the core's cache.

use std::io;
use std::sync::Arc;

use crate::memory::{Buffer, Region};

pub(crate) struct Pool {
    /// The buffers' own region, to know them by.
    region: Arc<Region>,
    free: Vec<Buffer>,
    count: usize,
}

impl Pool {
    /// Maps `count` (at least one) buffers of `len` bytes each; number 0 is on top.
    pub(crate) fn allocate(count: u16, len: usize) -> io::Result<Pool> {
        let mut free = Buffer::allocate(count.max(1), len)?;
        free.reverse();
        Ok(Pool { region: Arc::clone(free[0].region()), count: free.len(), free })
    }

    /// How many are free.
    pub(crate) fn available(&self) -> usize {
        self.free.len()
    }

    /// How many are out.
    pub(crate) fn taken(&self) -> usize {
        self.count - self.free.len()
    }

    pub(crate) fn take(&mut self) -> Option<Buffer> {
        self.free.pop()
    }

    /// The free ones, in the order in which [`take`](Pool::take) gives them.
    pub(crate) fn free_mut(&mut self) -> impl Iterator<Item = &mut Buffer> {
        self.free.iter_mut().rev()
    }

    /// Takes a buffer back. One of another pool is dropped.
    pub(crate) fn put_back(&mut self, buffer: Buffer) {
        if self.owns(&buffer) {
            self.free.push(buffer);
        }
    }

    pub(crate) fn owns(&self, buffer: &Buffer) -> bool {
        let ours = Arc::ptr_eq(buffer.region(), &self.region);
        debug_assert!(ours, "a buffer was given to a port that it is not from");
        ours
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_in_the_order_shown_and_the_last_used_comes_first() {
        let mut pool = Pool::allocate(3, 4096).unwrap();
        let shown: Vec<u16> = pool.free_mut().map(|buffer| buffer.index()).collect();
        let taken: Vec<Buffer> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(shown, [0, 1, 2]);
        assert!(taken.iter().map(Buffer::index).eq(shown));
        assert_eq!((pool.available(), pool.taken()), (0, 3));
        taken.into_iter().for_each(|buffer| pool.put_back(buffer));
        assert_eq!((pool.available(), pool.taken()), (3, 0));
        assert_eq!(pool.take().map(|buffer| buffer.index()), Some(2));
    }
}
