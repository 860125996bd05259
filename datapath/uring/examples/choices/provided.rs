//! Receive buffers that the kernel picks from, as the port has them, but with the memory of this
//! example.

use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// The buffer group.
pub const GROUP: u16 = 0;
/// Most buffers.
const COUNT_MAX: usize = 64;

/// The ring of entries has to begin a page.
#[repr(C, align(4096))]
struct Entries([u8; COUNT_MAX * size_of::<BufRingEntry>()]);

/// All buffers with the ring that names them. Outlives the io_uring that it is registered with.
pub struct Provided {
    entries: Box<Entries>,
    buffers: Vec<Vec<u8>>,
    tail: u16,
}

impl Provided {
    /// `count` is a power of two.
    pub fn register(ring: &IoUring, count: usize, buffer_len: usize) -> Provided {
        let entries = Box::new(Entries([0; COUNT_MAX * size_of::<BufRingEntry>()]));
        let buffers = vec![vec![0; buffer_len]; count];
        let mut provided = Provided { entries, buffers, tail: 0 };
        let base = provided.base() as u64;
        // SAFETY: page-aligned memory of at least `count` entries, which outlives the ring: `Round`
        // drops the ring first.
        let result =
            unsafe { ring.submitter().register_buf_ring_with_flags(base, count as u16, GROUP, 0) };
        result.unwrap();
        (0..count).for_each(|index| provided.provide(index as u16));
        provided
    }

    fn base(&mut self) -> *mut BufRingEntry {
        self.entries.0.as_mut_ptr().cast()
    }

    /// Gives a buffer (back) to the kernel.
    pub fn provide(&mut self, index: u16) {
        let buffer = &mut self.buffers[usize::from(index)];
        let (address, len) = (buffer.as_mut_ptr() as u64, buffer.len() as u32);
        let at = usize::from(self.tail) % self.buffers.len();
        let base = self.base();
        // SAFETY: `at` is within the ring, and the kernel is done with the entry: there are no
        // more buffers than entries.
        let entry = unsafe { &mut *base.add(at) };
        entry.set_addr(address);
        entry.set_len(len);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: two aligned bytes of the first entry, which the kernel only reads.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        // Pairs with the kernel's acquire load: it sees the entry before the tail.
        tail.store(self.tail, Ordering::Release);
    }
}
