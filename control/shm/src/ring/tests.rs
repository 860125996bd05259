//! The ring against a queue, by one thread, with ends that die and with damage.

use std::collections::VecDeque;
use std::time::Instant;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::memory::test_memory;

const CAPACITY: usize = 32;
const RECORD_LEN_MAX: usize = 60;

fn ring() -> Ring {
    let len = ring_words(CAPACITY);
    Ring::new(Span::new(&test_memory(len), 0, len), RECORD_LEN_MAX)
}

#[derive(Debug, Clone)]
enum Step {
    Push(Vec<u8>),
    Pop,
    /// The producer dies after it has written a record and before it has published it.
    ProducerDies(Vec<u8>),
    ConsumerDies,
    SkipAll,
}

fn step() -> impl Strategy<Value = Step> {
    let record = || vec(any::<u8>(), 0..=RECORD_LEN_MAX);
    prop_oneof![
        6 => record().prop_map(Step::Push),
        6 => Just(Step::Pop),
        1 => record().prop_map(Step::ProducerDies),
        1 => Just(Step::ConsumerDies),
        1 => Just(Step::SkipAll),
    ]
}

fn used_words(model: &VecDeque<Vec<u8>>) -> usize {
    model.iter().map(|record| record_words(record.len())).sum()
}

proptest! {
    #[test]
    fn a_ring_is_a_queue(steps in vec(step(), 0..200), start: u64) {
        let ring = ring();
        // Positions wrap around 2^64 as anywhere else.
        for word in [HEAD, TAIL] {
            ring.span.word(word).store(start, Ordering::Relaxed);
        }
        let mut producer = Producer::resume(ring.clone());
        let mut consumer = Consumer::resume(ring.clone());
        let mut model = VecDeque::new();
        let mut dropped = 0;
        for step in steps {
            match step {
                Step::Push(record) => {
                    let fits = used_words(&model) + record_words(record.len()) <= CAPACITY;
                    let pushed = producer.push(&record);
                    prop_assert_eq!(pushed, if fits { Ok(()) } else { Err(PushError::Full) });
                    if fits { model.push_back(record) } else { dropped += 1 }
                }
                Step::Pop => {
                    let popped = consumer.pop().expect("a sound ring").map(<[u8]>::to_vec);
                    prop_assert_eq!(popped, model.pop_front());
                }
                Step::ProducerDies(record) => {
                    if producer.has_room(record.len()) == Ok(true) {
                        producer.write(&record);
                    }
                    producer = Producer::resume(ring.clone());
                }
                Step::ConsumerDies => consumer = Consumer::resume(ring.clone()),
                Step::SkipAll => {
                    consumer.skip_all();
                    model.clear();
                }
            }
            let state = RingState {
                capacity: (CAPACITY * WORD) as u64,
                used: (used_words(&model) * WORD) as u64,
                dropped,
            };
            prop_assert_eq!(ring.state(), state);
        }
    }

    #[test]
    fn damage_is_a_fault_and_passes(
        records in vec(vec(any::<u8>(), 0..=RECORD_LEN_MAX), 0..8),
        damage in vec((0..ring_words(CAPACITY), any::<u64>()), 1..6),
    ) {
        let ring = ring();
        let mut producer = Producer::resume(ring.clone());
        let mut consumer = Consumer::resume(ring.clone());
        for record in &records {
            let _ = producer.push(record);
        }
        for (word, value) in damage {
            if word != BELL {
                ring.span.word(word).store(value, Ordering::Relaxed);
            }
        }
        // It ends, whatever it finds.
        for _ in 0..=CAPACITY {
            if !matches!(consumer.pop(), Ok(Some(_))) {
                break;
            }
        }
        let _ = producer.push(b"more");

        // Both ends skip what was damaged, and the ring is a ring again.
        let mut producer = Producer::resume(ring.clone());
        consumer.skip_all();
        let mut fresh = Producer::resume(ring);
        prop_assert_eq!(fresh.push(b"sound"), Ok(()));
        prop_assert_eq!(consumer.pop(), Ok(Some(&b"sound"[..])));
        let _ = producer.has_room(1);
    }
}

#[test]
fn what_is_too_long_is_refused() {
    let mut producer = Producer::resume(ring());
    let (len, max) = (RECORD_LEN_MAX + 1, RECORD_LEN_MAX);
    assert_eq!(producer.push(&[0; RECORD_LEN_MAX + 1]), Err(PushError::TooLong { len, max }));
    assert_eq!(producer.state().dropped, 0);
}

#[test]
fn a_consumer_that_claims_the_impossible_is_a_fault() {
    let ring = ring();
    let mut producer = Producer::resume(ring.clone());
    while producer.push(&[1; 8]).is_ok() {}
    let tail = producer.tail;
    ring.span.word(HEAD).store(tail + 1, Ordering::Relaxed);
    let fault = RingFault::Indices { head: tail + 1, tail };
    assert_eq!(producer.push(&[1; 8]), Err(PushError::Fault(fault)));
}

#[test]
fn a_waiting_end_is_woken_by_a_record_and_by_the_bell() {
    let ring = ring();
    let mut producer = Producer::resume(ring.clone());
    let mut consumer = Consumer::resume(ring);
    let ringer = consumer.ringer();
    let long = Duration::from_secs(20);

    assert_eq!(consumer.wait(Duration::from_millis(1)), Wake::TimedOut);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            producer.push(b"one").expect("room");
        });
        let asleep = Instant::now();
        assert_eq!(consumer.wait(long), Wake::Published);
        assert!(asleep.elapsed() < long / 2, "woken by the timeout");
    });
    assert_eq!(consumer.wait(long), Wake::Published, "not yet taken");
    assert_eq!(consumer.pop(), Ok(Some(&b"one"[..])));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            ringer.ring();
        });
        assert_eq!(consumer.wait(long), Wake::Rung);
    });
    ringer.ring();
    assert_eq!(consumer.wait(long), Wake::Rung, "rung before the wait");
    assert_eq!(consumer.wait(Duration::from_millis(1)), Wake::TimedOut, "once only");
}

#[test]
fn a_doorbell_wakes_once_for_what_nobody_takes() {
    let ring = ring();
    let mut producer = Producer::resume(ring.clone());
    let mut doorbell = Consumer::resume(ring).doorbell();
    let short = Duration::from_millis(1);
    producer.push(b"one").expect("room");
    assert_eq!(doorbell.wait(Duration::from_secs(20)), Wake::Published);
    assert_eq!(doorbell.wait(short), Wake::TimedOut);
    producer.push(b"two").expect("room");
    assert_eq!(doorbell.wait(Duration::from_secs(20)), Wake::Published);
}
