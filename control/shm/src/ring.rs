//! A ring of byte records from one producer to one consumer, in different processes.
//!
//! ```text
//! word 0    tail     words ever published      | written by the producer
//!      1    dropped  records that found no room|
//!      16   head     words ever consumed       | written by the consumer
//!      32   bell     see doorbell.rs           | written by both
//!      48   records, a power of two of words
//! ```
//! A record is a word {length in bytes `u32`, low half of its position `u32`} and the bytes, filled
//! up with zeros to whole words. It may wrap around the end. Positions only grow, modulo 2^64; a
//! position modulo the number of words is a place. The record is there when the tail has passed it,
//! and only then: who dies while writing has written nothing.
//!
//! Neither end believes the other. Each keeps its own position to itself and only publishes it; it
//! copies first and then checks what it copied, and what cannot be is a [`RingFault`].

use std::time::Duration;

use crate::doorbell::{Bell, Doorbell, Ringer, Wake};
use crate::memory::{LINE_WORDS, Span, WORD, load_bytes, store_bytes, words_for};
use crate::sync::{AtomicU64, Ordering};

pub(crate) const TAIL: usize = 0;
const DROPPED: usize = 1;
const HEAD: usize = LINE_WORDS.next_multiple_of(2);
const BELL: usize = HEAD + LINE_WORDS;
const RECORDS: usize = BELL + LINE_WORDS;

/// A producer's position as another one read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published(pub(crate) u64);

/// A record was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The consumer is slow or gone: try later, or drop and count.
    #[error("the ring is full")]
    Full,
    /// No such record can ever be published: the caller's fault.
    #[error("a record of {len} bytes; this ring takes at most {max}")]
    TooLong {
        /// Bytes of the record.
        len: usize,
        /// Bytes of the longest record.
        max: usize,
    },
    /// The consumer has damaged the ring.
    #[error(transparent)]
    Fault(#[from] RingFault),
}

/// The ring holds what its other end cannot have written by its own rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RingFault {
    /// More words between head and tail than there are, or fewer than none.
    #[error("the ring is damaged: head {head} and tail {tail} cannot both be")]
    Indices {
        /// Words consumed.
        head: u64,
        /// Words published.
        tail: u64,
    },
    /// Something that is no record.
    #[error("the ring is damaged: no record at position {position}")]
    Record {
        /// Position, words.
        position: u64,
    },
}

/// How a ring is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingState {
    /// Room for records with their headers, bytes.
    pub capacity: u64,
    /// Room taken by records not yet consumed, bytes.
    pub used: u64,
    /// Records that found no room, ever.
    pub dropped: u64,
}

/// Words of a ring with room for `capacity` words of records.
pub(crate) const fn ring_words(capacity: usize) -> usize {
    RECORDS + capacity
}

/// What both ends know of a ring.
#[derive(Clone)]
pub(crate) struct Ring {
    span: Span,
    /// Words of room: a power of two.
    capacity: u64,
    record_len_max: usize,
}

impl Ring {
    /// The ring in this span, whose size is [`ring_words`] of a power of two, with room for at
    /// least one record of `record_len_max` bytes.
    pub(crate) fn new(span: Span, record_len_max: usize) -> Self {
        let capacity = span.words().len() - RECORDS;
        assert!(capacity.is_power_of_two() && record_words(record_len_max) <= capacity);
        Self { span, capacity: capacity as u64, record_len_max }
    }

    /// An observer's view. The two positions are read one after the other, so that with both ends
    /// busy `used` is an estimate.
    pub(crate) fn state(&self) -> RingState {
        let head = self.span.word(HEAD).load(Ordering::Acquire);
        let tail = self.span.word(TAIL).load(Ordering::Acquire);
        RingState {
            capacity: self.capacity * WORD as u64,
            used: tail.wrapping_sub(head).min(self.capacity) * WORD as u64,
            dropped: self.span.word(DROPPED).load(Ordering::Relaxed),
        }
    }

    fn check(&self, head: u64, tail: u64) -> Result<(), RingFault> {
        if tail.wrapping_sub(head) > self.capacity {
            return Err(RingFault::Indices { head, tail });
        }
        Ok(())
    }

    /// The words from a position on, all around once.
    fn words_from(&self, position: u64) -> impl Iterator<Item = &AtomicU64> {
        let records = &self.span.words()[RECORDS..];
        let (wrapped, first) = records.split_at((position & (self.capacity - 1)) as usize);
        first.iter().chain(wrapped)
    }

    fn bell(&self) -> Bell {
        Bell::new(self.span.clone(), BELL)
    }
}

const fn record_words(len: usize) -> usize {
    1 + words_for(len)
}

fn record_header(len: usize, position: u64) -> u64 {
    (position & 0xffff_ffff) << 32 | len as u64
}

/// The end that publishes. There is one per ring.
pub struct Producer {
    ring: Ring,
    bell: Bell,
    /// Own position: the shared one is for the other end to read.
    tail: u64,
    /// The consumer's position when it was last looked at.
    head: u64,
}

impl Producer {
    /// Goes on where the last producer stopped. If it left positions that cannot be, what it
    /// published and nobody consumed is given up.
    pub(crate) fn resume(ring: Ring) -> Self {
        let head = ring.span.word(HEAD).load(Ordering::Acquire);
        let mut tail = ring.span.word(TAIL).load(Ordering::Acquire);
        if ring.check(head, tail).is_err() {
            tail = head;
            ring.span.word(TAIL).store(tail, Ordering::Release);
        }
        Self { bell: ring.bell(), ring, tail, head }
    }

    /// Publishes a record and wakes the consumer if it sleeps; otherwise there is no system call.
    /// A record that finds no room is dropped, and counted in [`RingState::dropped`].
    pub fn push(&mut self, record: &[u8]) -> Result<(), PushError> {
        let max = self.ring.record_len_max;
        if record.len() > max {
            return Err(PushError::TooLong { len: record.len(), max });
        }
        if !self.has_room(record.len())? {
            // The only writer of this word.
            let dropped = self.ring.span.word(DROPPED);
            dropped.store(dropped.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            return Err(PushError::Full);
        }
        self.write(record);
        self.tail = self.tail.wrapping_add(record_words(record.len()) as u64);
        // Publishes the words; pairs with the load in `Consumer::pop`.
        self.ring.span.word(TAIL).store(self.tail, Ordering::Release);
        self.bell.announce();
        Ok(())
    }

    /// Whether a record of `len` bytes finds room now.
    pub fn has_room(&mut self, len: usize) -> Result<bool, RingFault> {
        let needed = record_words(len) as u64;
        if self.free() < needed {
            // Frees the words that the consumer has copied; pairs with the store in `pop`.
            let head = self.ring.span.word(HEAD).load(Ordering::Acquire);
            self.ring.check(head, self.tail)?;
            self.head = head;
        }
        Ok(self.free() >= needed)
    }

    /// Words free for certain: the consumer may have freed more.
    fn free(&self) -> u64 {
        self.ring.capacity - self.tail.wrapping_sub(self.head)
    }

    /// How the ring is doing.
    pub fn state(&self) -> RingState {
        self.ring.state()
    }

    /// Writes the record behind the tail, where it is nothing yet.
    fn write(&self, record: &[u8]) {
        let mut words = self.ring.words_from(self.tail);
        if let Some(header) = words.next() {
            header.store(record_header(record.len(), self.tail), Ordering::Relaxed);
        }
        store_bytes(words, record);
    }
}

/// The end that takes. There is one per ring.
pub struct Consumer {
    ring: Ring,
    bell: Bell,
    /// Own position: the shared one is for the other end to read.
    head: u64,
    /// The producer's position when it was last looked at.
    tail: u64,
    /// The record last taken, out of the other end's reach.
    record: Vec<u8>,
}

impl Consumer {
    /// Goes on where the last consumer stopped. If it left positions that cannot be, what was
    /// published so far is given up.
    pub(crate) fn resume(ring: Ring) -> Self {
        let tail = ring.span.word(TAIL).load(Ordering::Acquire);
        let mut head = ring.span.word(HEAD).load(Ordering::Acquire);
        if ring.check(head, tail).is_err() {
            head = tail;
            ring.span.word(HEAD).store(head, Ordering::Release);
        }
        let bell = ring.bell();
        bell.reset();
        Self { bell, record: vec![0; ring.record_len_max], ring, head, tail: head }
    }

    /// Takes the next record, if there is one. After a fault nothing can be taken until
    /// [`Consumer::skip_all`].
    pub fn pop(&mut self) -> Result<Option<&[u8]>, RingFault> {
        if self.head == self.tail {
            // Sees the words; pairs with the store in `Producer::push`.
            let tail = self.bell.published().0;
            self.ring.check(self.head, tail)?;
            self.tail = tail;
        }
        if self.head == self.tail {
            return Ok(None);
        }
        let len = self.copy_out()?;
        self.head = self.head.wrapping_add(record_words(len) as u64);
        // Frees the words, which are copied; pairs with the load in `Producer::has_room`.
        self.ring.span.word(HEAD).store(self.head, Ordering::Release);
        Ok(Some(&self.record[..len]))
    }

    /// Gives up all that was published so far.
    pub fn skip_all(&mut self) {
        self.tail = self.bell.published().0;
        self.head = self.tail;
        self.ring.span.word(HEAD).store(self.head, Ordering::Release);
    }

    /// Sleeps until there is a record, until the bell is rung, or for about `timeout`: see
    /// [`Doorbell::wait`] for how long that should be. Returns at once if there is one already.
    pub fn wait(&self, timeout: Duration) -> Wake {
        let head = self.head;
        self.bell.wait(timeout, |Published(tail)| tail != head)
    }

    /// Ends this end's sleep from another thread.
    pub fn ringer(&self) -> Ringer {
        Ringer::new(self.bell.clone())
    }

    /// A bell for another thread to wait at in this one's place.
    pub fn doorbell(&self) -> Doorbell {
        Doorbell::new(self.bell.clone(), Published(self.head))
    }

    /// How the ring is doing.
    pub fn state(&self) -> RingState {
        self.ring.state()
    }

    /// Copies the record at the head out, then checks the copy; returns its length.
    fn copy_out(&mut self) -> Result<usize, RingFault> {
        let fault = RingFault::Record { position: self.head };
        let mut words = self.ring.words_from(self.head);
        let header = words.next().map_or(0, |word| word.load(Ordering::Relaxed));
        let len = (header & 0xffff_ffff) as usize;
        let whole = len <= self.ring.record_len_max
            && header == record_header(len, self.head)
            && record_words(len) as u64 <= self.tail.wrapping_sub(self.head);
        let record = self.record.get_mut(..len).filter(|_| whole).ok_or(fault)?;
        load_bytes(words, record);
        Ok(len)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
