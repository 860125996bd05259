use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::memory::test_memory;

const COUNT: usize = 5;
const RECORD_LEN: usize = 20;

fn slots() -> Slots {
    let len = journal_words(COUNT, RECORD_LEN);
    Slots::new(Span::new(&test_memory(len), 0, len), COUNT, RECORD_LEN)
}

fn rest(reader: &mut JournalReader) -> Vec<Vec<u8>> {
    let mut buffer = [0; RECORD_LEN];
    std::iter::from_fn(|| reader.next(&mut buffer).map(<[u8]>::to_vec)).collect()
}

proptest! {
    /// A reader gets all records in order, but those that were overwritten before it came, which
    /// it counts.
    #[test]
    fn the_latest_records_are_kept_and_others_counted(
        batches in vec(vec(vec(any::<u8>(), 0..=RECORD_LEN), 0..12), 0..8),
    ) {
        let slots = slots();
        let mut journal = Journal::resume(slots.clone());
        let mut reader = journal.reader();
        for batch in batches {
            batch.iter().for_each(|record| journal.append(record));
            let kept = batch.len().min(COUNT);
            prop_assert_eq!(rest(&mut reader), batch[batch.len() - kept..].to_vec());
            prop_assert_eq!(reader.take_missed() as usize, batch.len() - kept);
            // A successor goes on where this one stopped.
            journal = Journal::resume(slots.clone());
        }
    }

    #[test]
    fn noise_in_a_journal_harms_nobody(
        words in vec(any::<u64>(), journal_words(COUNT, RECORD_LEN)), head in 0..20u64,
    ) {
        let slots = slots();
        for (word, value) in slots.span.words().iter().zip(&words) {
            word.store(*value, Ordering::Relaxed);
        }
        for head in [head, u64::MAX, words[0]] {
            slots.head().store(head, Ordering::Relaxed);
            let mut reader = JournalReader::new(slots.clone());
            prop_assert!(rest(&mut reader).len() <= COUNT);
            let mut journal = Journal::resume(slots.clone());
            journal.append(b"x");
        }
    }
}

#[test]
fn who_comes_late_begins_with_the_oldest_that_is_left() {
    let mut journal = Journal::resume(slots());
    (0..9u8).for_each(|number| journal.append(&[number]));
    let mut reader = journal.reader();
    assert_eq!(rest(&mut reader), (4..9).map(|number| vec![number]).collect::<Vec<_>>());
    assert_eq!(reader.take_missed(), 0, "what was before it came it does not miss");
    assert_eq!(reader.next(&mut [0; RECORD_LEN]), None);
}

#[test]
fn a_record_that_is_too_long_is_cut() {
    let mut journal = Journal::resume(slots());
    journal.append(&[7; RECORD_LEN + 1]);
    assert_eq!(rest(&mut journal.reader()), [[7; RECORD_LEN].to_vec()]);
}

/// A writer that died in the middle of a record hides that record only.
#[test]
fn a_writer_may_die_while_it_writes() {
    let slots = slots();
    let mut journal = Journal::resume(slots.clone());
    let mut reader = journal.reader();
    journal.append(b"one");
    // As far as it came: the stamp, and not the head.
    slots.slot(1)[STAMP].store(3, Ordering::Relaxed);
    assert_eq!(rest(&mut reader), [b"one"]);
    let mut successor = Journal::resume(slots);
    successor.append(b"two");
    assert_eq!(rest(&mut reader), [b"two"]);
}

#[test]
fn readers_see_whole_records_in_order_while_the_writer_is_busy() {
    let mut journal = Journal::resume(slots());
    let mut reader = journal.reader();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0u64.. {
                journal.append(&[number.to_le_bytes(), number.to_le_bytes()].concat());
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
            }
        });
        let (mut expected, mut whole) = (0, 0);
        while whole < 20_000 {
            let mut buffer = [0; RECORD_LEN];
            let Some(record) = reader.next(&mut buffer) else { continue };
            let (a, b) = record.split_at(8);
            let number = u64::from_le_bytes(a.try_into().expect("8 bytes"));
            expected += reader.take_missed();
            assert_eq!((number, a), (expected, b));
            expected += 1;
            whole += 1;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
