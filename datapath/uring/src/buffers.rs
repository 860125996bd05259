//! A ring of buffers that the kernel picks from when something arrives.
//!
//! ```text
//! entry 0: | address u64 | len u32 | index u16 | tail u16 |      the tail lives in the first
//! entry 1: | address u64 | len u32 | index u16 | unused   |      entry's last two bytes
//! ```
//!
//! A buffer is either here (the kernel may write to it at any time, nobody else touches it) or
//! out with whoever took it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use crate::memory::{Buffer, Region};
use crate::port::BUFFER_LEN;
use crate::ring::{Ring, RingError};

pub(crate) struct BufferRing {
    entries: Region,
    /// The buffers' own region, to know them by.
    region: Arc<Region>,
    /// Buffers in the kernel's hands, by index.
    homes: Vec<Option<Buffer>>,
    available: usize,
    tail: u16,
}

impl BufferRing {
    /// Allocates `count` (rounded up to a power of two) buffers and gives them all to the kernel
    /// as buffer group `group`.
    pub(crate) fn register(ring: &Ring, group: u16, count: u16) -> Result<BufferRing, RingError> {
        let count = count.clamp(1, 1 << 14).next_power_of_two();
        let entries = Region::map(usize::from(count) * size_of::<BufRingEntry>());
        let buffers = Buffer::allocate(count, BUFFER_LEN);
        let (Ok(entries), Ok(buffers)) = (entries, buffers) else {
            return Err(RingError::Memory);
        };
        // SAFETY: the mapping is page-aligned, holds `count` entries and lives as long as `self`,
        // which the port keeps until its ring is idle or closed.
        unsafe { ring.register_buffers(entries.base().as_ptr(), count, group)? };
        let homes = (0..count).map(|_| None).collect();
        let region = Arc::clone(buffers[0].region());
        let mut ring = BufferRing { entries, region, homes, available: 0, tail: 0 };
        buffers.into_iter().for_each(|buffer| ring.provide(buffer));
        Ok(ring)
    }

    /// How many buffers the kernel has.
    pub(crate) fn available(&self) -> usize {
        self.available
    }

    /// Takes the buffer that a completion named.
    pub(crate) fn take(&mut self, index: u16) -> Option<Buffer> {
        let buffer = self.homes.get_mut(usize::from(index))?.take();
        self.available -= usize::from(buffer.is_some());
        buffer
    }

    /// Gives a buffer (back) to the kernel. One of another ring is dropped.
    pub(crate) fn provide(&mut self, buffer: Buffer) {
        let ours = Arc::ptr_eq(buffer.region(), &self.region);
        debug_assert!(ours, "a buffer was released to a port that it is not from");
        if !ours {
            return;
        }
        let mask = self.homes.len() - 1;
        let base = self.entries.base().as_ptr().cast::<BufRingEntry>();
        // SAFETY: the mask keeps the entry within the mapping. Its former buffer was consumed,
        // since no more buffers exist than entries, so the kernel does not read it before the
        // tail is published. The setters leave the tail's bytes alone.
        let entry = unsafe { &mut *base.add(usize::from(self.tail) & mask) };
        entry.set_addr(buffer.address() as u64);
        entry.set_len(buffer.len() as u32);
        entry.set_bid(buffer.index());
        self.tail = self.tail.wrapping_add(1);
        let home = usize::from(buffer.index());
        self.homes[home] = Some(buffer);
        self.available += 1;
        // SAFETY: `base` is the ring's first entry, within the mapping; the tail is two aligned
        // bytes of it, which the kernel only reads.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        // Release pairs with the kernel's acquire load: it sees the entry before the tail.
        tail.store(self.tail, Ordering::Release);
    }
}
