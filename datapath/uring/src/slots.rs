//! Output slots and the messages they are sent in.

use std::ops::Range;
use std::sync::Arc;

use crate::memory::{Buffer, Region};
use crate::message::Envelope;
use crate::port::{Destination, OutputSlot, SLOT_LEN};
use crate::ring::RingError;

/// What a slot is on its way for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Job {
    Send { len: usize, segment_size: u16, destination: Destination },
    Write,
}

pub(crate) struct Slots {
    region: Arc<Region>,
    /// Last in, first out: the slot used last is the one still in the core's cache.
    free: Vec<OutputSlot>,
    /// Slots that the kernel reads, by index.
    busy: Vec<Option<(OutputSlot, Job)>>,
    /// One per slot, never moved.
    envelopes: Box<[Envelope]>,
}

impl Slots {
    pub(crate) fn allocate(count: u16) -> Result<Slots, RingError> {
        let count = count.max(1);
        let buffers = Buffer::allocate(count, SLOT_LEN).map_err(|_| RingError::Memory)?;
        let region = Arc::clone(buffers[0].region());
        // Slot 0 is on top.
        let free = buffers.into_iter().rev().map(|buffer| OutputSlot { buffer }).collect();
        Ok(Slots {
            region,
            free,
            busy: (0..count).map(|_| None).collect(),
            envelopes: (0..count).map(|_| Envelope::new()).collect(),
        })
    }

    pub(crate) fn take(&mut self) -> Option<OutputSlot> {
        self.free.pop()
    }

    pub(crate) fn put_back(&mut self, slot: OutputSlot) {
        if self.owns(&slot) {
            self.free.push(slot);
        }
    }

    pub(crate) fn owns(&self, slot: &OutputSlot) -> bool {
        let ours = Arc::ptr_eq(slot.buffer.region(), &self.region);
        debug_assert!(ours, "a slot was given to a port that it is not from");
        ours
    }

    /// Keeps an own slot for a send; the message lives until [`finish`](Slots::finish).
    pub(crate) fn start_send(
        &mut self,
        slot: OutputSlot,
        len: usize,
        segment_size: u16,
        destination: &Destination,
    ) -> *const libc::msghdr {
        let index = usize::from(slot.index());
        let payload = slot.buffer.address();
        let message = self.envelopes[index].seal(payload, len, segment_size, destination);
        let job = Job::Send { len, segment_size, destination: *destination };
        self.busy[index] = Some((slot, job));
        message
    }

    /// Keeps an own slot for a write of `range`, which lies within it; the address is good until
    /// [`finish`](Slots::finish).
    pub(crate) fn start_write(&mut self, slot: OutputSlot, range: &Range<usize>) -> *const u8 {
        let start = slot[range.clone()].as_ptr();
        let index = usize::from(slot.index());
        self.busy[index] = Some((slot, Job::Write));
        start
    }

    /// Takes a slot back from the kernel.
    pub(crate) fn finish(&mut self, index: u16) -> Option<(OutputSlot, Job)> {
        self.busy.get_mut(usize::from(index))?.take()
    }
}
