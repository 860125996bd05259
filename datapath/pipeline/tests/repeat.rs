//! What is sent again on a path that loses much.

mod kit;

use std::time::Duration;

use ipop_pipeline::{Drop, Path, Total};
use kit::frames::Shape;
use kit::{INDEX_AT_A, Pair, direct};

const LOSSY: Path = Path { channel: None, datagram_len: 1400, is_settled: true, is_lossy: true };

fn frame(payload_len: usize) -> Vec<u8> {
    Shape { payload_len, ..Shape::default() }.frame().to_bytes()
}

/// A turn of A at a later time; what it sends again.
fn repeat(pair: &mut Pair, after_ms: u64) -> Vec<Vec<u8>> {
    pair.now += Duration::from_millis(after_ms);
    pair.a.note_wait(pair.now, Duration::ZERO);
    pair.a.repeat(pair.now, &mut pair.a_out);
    assert!(pair.a_out.is_whole(), "a slot was lost");
    pair.a_out.take_datagrams()
}

#[test]
fn what_is_sparse_is_sent_twice_more_and_taken_once() {
    let mut pair = Pair::new(LOSSY);
    assert_eq!(repeat(&mut pair, 0), [[0u8; 0]; 0]);
    let sent = pair.seal(&[frame(100)]);
    assert_eq!(pair.a.repeat_due(), Some(pair.now + Duration::from_millis(110)));
    assert!(repeat(&mut pair, 109).is_empty());
    assert_eq!(repeat(&mut pair, 1), sent);
    assert!(repeat(&mut pair, 149).is_empty());
    assert_eq!(repeat(&mut pair, 1), sent);
    assert_eq!((repeat(&mut pair, 10_000).len(), pair.a.repeat_due()), (0, None));
    assert_eq!(pair.a.counters().total(Total::DatagramsRepeated), 2);

    // Whichever comes first is the one that counts.
    assert_eq!(pair.open(&sent).len(), 1);
    assert_eq!(pair.open(&sent).len(), 0);
    assert_eq!(pair.drops_at_b(Drop::Replayed), 1);
}

#[test]
fn whoever_sends_much_is_not_repeated() {
    let mut pair = Pair::new(LOSSY);
    repeat(&mut pair, 0);
    let frames: Vec<_> = (0..200).map(|_| frame(1000)).collect();
    for frame in &frames {
        pair.seal(std::slice::from_ref(frame));
    }
    assert_eq!(repeat(&mut pair, 110).len(), 32);
    // In the long run a hundred in a second.
    let mut repeated = 0;
    for _ in 0..1000 {
        pair.seal(&[frame(1000), frame(1000)]);
        repeated += repeat(&mut pair, 10).len();
    }
    let firsts = repeated / 2;
    assert!((950..1050).contains(&firsts), "{firsts} of 2000 in ten seconds");
}

#[test]
fn other_paths_are_left_alone() {
    let mut pair = Pair::new(direct(1400));
    repeat(&mut pair, 0);
    pair.seal(&[frame(100)]);
    assert_eq!(pair.a.repeat_due(), None);

    // On a path that has become well, or is a relay's now, what waits is of no use.
    let relayed = Path { channel: Some(0x4001), ..LOSSY };
    for path in [Some(direct(1400)), Some(relayed), None] {
        pair.a.set_path(INDEX_AT_A, Some(LOSSY));
        pair.seal(&[frame(100)]);
        pair.a.set_path(INDEX_AT_A, path);
        assert!(repeat(&mut pair, 200).is_empty());
        assert_eq!(pair.a.repeat_due(), None);
    }
    assert_eq!(pair.a.counters().total(Total::DatagramsRepeated), 0);
}

#[test]
fn what_waits_for_a_link_that_is_gone_is_forgotten() {
    let mut pair = Pair::new(LOSSY);
    repeat(&mut pair, 0);
    pair.seal(&[frame(100)]);
    pair.a.remove_link(INDEX_AT_A);
    assert!(repeat(&mut pair, 200).is_empty());
}
