//! Loom tries the interleavings and memory orders that matter, with rings and rows of a few words.
//!
//! ```text
//! CARGO_TARGET_DIR=target/loom RUSTFLAGS='--cfg loom' cargo test -p ipop-shm --release --lib loom
//! ```
//!
//! Taking away any fence or release in the bell, the rows, the journal or the ring's tail makes one
//! of these fail. The orderings of the ring's head are the exception: they forbid that a load moves
//! behind a later store, and loom does not model such moves.

use std::sync::Arc;
use std::time::Duration;

use loom::thread;

use crate::doorbell::Wake;
use crate::journal::{Journal, Slots, journal_words};
use crate::memory::{Memory, Span};
use crate::ring::{Consumer, Producer, PushError, Ring, ring_words};
use crate::rows::{RowError, RowReader, RowWriter, Table, table_words};

/// Switches of thread per execution beyond the necessary ones. With three, every known bug of such
/// a ring shows; the time grows steeply with each.
const PREEMPTIONS_MAX: usize = 3;

fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(test);
}

/// A ring of two words: room for one record of eight bytes.
fn small_ring() -> Ring {
    let len = ring_words(2);
    Ring::new(Span::new(&Arc::new(Memory::new(len)), 0, len), 8)
}

fn record(number: u8) -> [u8; 8] {
    [number; 8]
}

/// The producer finds the ring full, the words are used again, and nothing is torn or lost.
#[test]
fn loom_ring_hands_over_each_record_whole() {
    model(|| {
        let ring = small_ring();
        let (mut producer, mut consumer) = (Producer::resume(ring.clone()), Consumer::resume(ring));
        let thread = thread::spawn(move || {
            let mut pushed = Vec::new();
            for number in 1..=3 {
                match producer.push(&record(number)) {
                    Ok(()) => pushed.push(number),
                    Err(error) => assert_eq!(error, PushError::Full),
                }
            }
            pushed
        });
        let mut popped = Vec::new();
        let take = |consumer: &mut Consumer, popped: &mut Vec<u8>| {
            if let Some(taken) = consumer.pop().expect("a sound ring") {
                assert_eq!(taken, record(taken[0]));
                popped.push(taken[0]);
            }
        };
        for _ in 0..2 {
            take(&mut consumer, &mut popped);
        }
        let pushed = thread.join().expect("the producer");
        for _ in 0..3 {
            take(&mut consumer, &mut popped);
        }
        assert_eq!(popped, pushed);
    });
}

/// Without timeouts in the model, a wake-up that gets lost is a deadlock, which loom reports.
#[test]
fn loom_no_wake_up_is_lost() {
    model(|| {
        let ring = small_ring();
        let (mut producer, mut consumer) = (Producer::resume(ring.clone()), Consumer::resume(ring));
        let thread = thread::spawn(move || producer.push(&record(1)).expect("room"));
        while consumer.pop().expect("a sound ring").is_none() {
            consumer.wait(Duration::ZERO);
        }
        thread.join().expect("the producer");
    });
}

/// The bell of a waiter in another thread wakes once per publication, for each of them.
#[test]
fn loom_doorbell_wakes_for_what_was_published_since() {
    model(|| {
        let ring = small_ring();
        let (mut producer, mut consumer) = (Producer::resume(ring.clone()), Consumer::resume(ring));
        let mut doorbell = consumer.doorbell();
        let thread = thread::spawn(move || producer.push(&record(1)).expect("room"));
        assert_eq!(doorbell.wait(Duration::ZERO), Wake::Published);
        assert!(consumer.pop().expect("a sound ring").is_some());
        thread.join().expect("the producer");
    });
}

/// Ringing and publishing at the same time: neither wakes in the other's place.
#[test]
fn loom_ringing_is_not_swallowed() {
    model(|| {
        let ring = small_ring();
        let (mut producer, mut consumer) = (Producer::resume(ring.clone()), Consumer::resume(ring));
        let ringer = consumer.ringer();
        let publishing = thread::spawn(move || producer.push(&record(1)).expect("room"));
        let ringing = thread::spawn(move || ringer.ring());
        while consumer.wait(Duration::ZERO) != Wake::Rung {
            consumer.pop().expect("a sound ring");
        }
        publishing.join().expect("the producer");
        ringing.join().expect("the ringer");
    });
}

/// A reader gets a row as it was at one moment, or says that it could not.
#[test]
fn loom_rows_are_never_torn() {
    model(|| {
        let len = table_words(1, 16);
        let table = Table::new(Span::new(&Arc::new(Memory::new(len)), 0, len), 1, 16);
        let (mut writer, reader) = (RowWriter::new(table.clone()), RowReader::new(table));
        let thread = thread::spawn(move || {
            for number in 1..=2 {
                writer.write(0, &[number; 16]).expect("a row");
            }
        });
        match reader.read(0, &mut [0; 16]) {
            Ok(None) | Err(RowError::Unsettled) => {}
            Ok(Some(content)) => assert_eq!(content, [content[0]; 16]),
            Err(error) => panic!("{error}"),
        }
        thread.join().expect("the writer");
        assert_eq!(reader.read(0, &mut [0; 16]), Ok(Some(&[2; 16][..])));
    });
}

/// A journal of one slot: a reader gets records whole and in order, and knows how many it missed.
#[test]
fn loom_journal_records_are_never_torn_and_missed_ones_are_counted() {
    model(|| {
        let len = journal_words(1, 16);
        let slots = Slots::new(Span::new(&Arc::new(Memory::new(len)), 0, len), 1, 16);
        let mut journal = Journal::resume(slots);
        let mut reader = journal.reader();
        let thread = thread::spawn(move || {
            for number in 1..=2 {
                journal.append(&[number; 16]);
            }
        });
        let mut next = 1;
        let mut take = |reader: &mut crate::journal::JournalReader| {
            let mut buffer = [0; 16];
            let record = reader.next(&mut buffer).map(<[u8]>::to_vec);
            next += reader.take_missed();
            if let Some(record) = record {
                assert_eq!(record, [next as u8; 16]);
                next += 1;
            }
            next
        };
        take(&mut reader);
        thread.join().expect("the writer");
        assert_eq!(take(&mut reader), 3, "each of the two was read or missed");
    });
}

/// With room for all that is written, nothing is missed.
#[test]
fn loom_journal_misses_nothing_that_is_still_there() {
    model(|| {
        let len = journal_words(2, 8);
        let slots = Slots::new(Span::new(&Arc::new(Memory::new(len)), 0, len), 2, 8);
        let mut journal = Journal::resume(slots);
        let mut reader = journal.reader();
        let thread = thread::spawn(move || {
            for number in 1..=2 {
                journal.append(&[number; 8]);
            }
        });
        let mut buffer = [0; 8];
        let mut next = 1;
        for _ in 0..2 {
            if let Some(record) = reader.next(&mut buffer) {
                assert_eq!(record, [next; 8]);
                next += 1;
            }
        }
        assert_eq!(reader.take_missed(), 0);
        thread.join().expect("the writer");
    });
}
