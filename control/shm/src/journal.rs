//! The journal: the latest records of one writer, for any number of readers, none of which waits.
//!
//! ```text
//! word  0  head: records written so far
//!      16  slots, each:  word 0  stamp: 2n + 1 while record n is being written, 2n + 2 when it is
//!                             1  length of the record in bytes
//!                             2  the record, a fixed number of words
//! ```
//! Record n is in slot n modulo the number of slots, and is overwritten by one that comes so much
//! later. A reader copies and then looks whether the stamp is still that of the record that it
//! wanted; what it comes too late for it counts. All its loops are bounded by the number of slots.

use crate::memory::{LINE_WORDS, Span, load_bytes, store_bytes, words_for};
use crate::sync::{AtomicU64, Ordering, fence};

const HEAD: usize = 0;
const SLOTS: usize = LINE_WORDS;
const STAMP: usize = 0;
const LEN: usize = 1;
const CONTENT: usize = 2;

/// Words of a journal.
pub(crate) const fn journal_words(slots: usize, record_len: usize) -> usize {
    SLOTS + slots * slot_stride(record_len)
}

const fn slot_stride(record_len: usize) -> usize {
    CONTENT + words_for(record_len)
}

/// The journal that a span holds.
#[derive(Clone)]
pub(crate) struct Slots {
    span: Span,
    count: usize,
    record_len: usize,
}

impl Slots {
    /// The span has [`journal_words`] words; there is at least one slot.
    pub(crate) fn new(span: Span, count: usize, record_len: usize) -> Self {
        assert!(count > 0 && span.words().len() == journal_words(count, record_len));
        Self { span, count, record_len }
    }

    fn slot(&self, record: u64) -> &[AtomicU64] {
        let stride = slot_stride(self.record_len);
        let at = SLOTS + (record % self.count as u64) as usize * stride;
        &self.span.words()[at..at + stride]
    }

    fn head(&self) -> &AtomicU64 {
        self.span.word(HEAD)
    }
}

/// Writes a journal. There is one for each.
pub struct Journal {
    slots: Slots,
    head: u64,
}

impl Journal {
    /// Goes on behind what the journal holds.
    pub(crate) fn resume(slots: Slots) -> Self {
        let head = slots.head().load(Ordering::Relaxed);
        Self { slots, head }
    }

    /// Adds a record over the oldest one. One that is too long for a slot is cut.
    pub fn append(&mut self, record: &[u8]) {
        let record = &record[..record.len().min(self.slots.record_len)];
        let slot = self.slots.slot(self.head);
        let writing = self.head.wrapping_mul(2).wrapping_add(1);
        slot[STAMP].store(writing, Ordering::Relaxed);
        // Nobody sees the words without the odd stamp; pairs with the fence in `copy_out`.
        fence(Ordering::Release);
        slot[LEN].store(record.len() as u64, Ordering::Relaxed);
        store_bytes(slot[CONTENT..].iter(), record);
        slot[STAMP].store(writing.wrapping_add(1), Ordering::Relaxed);
        self.head = self.head.wrapping_add(1);
        // Nobody sees the head without the record and its stamp; pairs with the load in `next`.
        self.slots.head().store(self.head, Ordering::Release);
    }

    /// Reads what was written, from the oldest record that is left.
    pub fn reader(&self) -> JournalReader {
        JournalReader::new(self.slots.clone())
    }
}

/// Reads a journal from the oldest record that is left, and then what is added.
#[derive(Clone)]
pub struct JournalReader {
    slots: Slots,
    next: u64,
    missed: u64,
}

impl JournalReader {
    pub(crate) fn new(slots: Slots) -> Self {
        let oldest = slots.head().load(Ordering::Acquire).saturating_sub(slots.count as u64);
        Self { slots, next: oldest, missed: 0 }
    }

    /// Copies the next record into `buffer`, which has to be as long as a record may be, and
    /// returns the part that it fills; nothing when there is none yet.
    pub fn next<'b>(&mut self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let mut copied = None;
        for _ in 0..self.slots.count {
            // Sees the records before it, or later ones; pairs with the store in `append`.
            let head = self.slots.head().load(Ordering::Acquire);
            if head <= self.next {
                return None;
            }
            let oldest = head.saturating_sub(self.slots.count as u64);
            self.missed += oldest.saturating_sub(self.next);
            self.next = self.next.max(oldest) + 1;
            copied = copy_out(self.slots.slot(self.next - 1), self.next - 1, buffer);
            if copied.is_some() {
                break;
            }
            self.missed += 1;
        }
        copied.and_then(|len| buffer.get(..len))
    }

    /// How many records were overwritten before they were read, since this was asked last.
    pub fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    /// Bytes of the longest record.
    pub fn record_len(&self) -> usize {
        self.slots.record_len
    }
}

/// The length of record `number`, if its slot held it all the while that it was copied.
fn copy_out(slot: &[AtomicU64], number: u64, buffer: &mut [u8]) -> Option<usize> {
    let stamp = number.wrapping_mul(2).wrapping_add(2);
    // It is there since the head is, unless a later one is.
    if slot[STAMP].load(Ordering::Relaxed) != stamp {
        return None;
    }
    // Whoever wrote this may be no writer of ours: a length is not believed.
    let len = usize::try_from(slot[LEN].load(Ordering::Relaxed)).ok()?;
    let content = buffer.get_mut(..len)?;
    load_bytes(slot[CONTENT..].iter(), content);
    // If a word was of a later record, the stamp seen below is; pairs with the fence in `append`.
    fence(Ordering::Acquire);
    (slot[STAMP].load(Ordering::Relaxed) == stamp).then_some(len)
}

#[cfg(all(test, not(loom)))]
mod tests;
