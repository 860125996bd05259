//! What a worker drops so that queues stay short.

mod kit;

use std::time::Duration;

use ipop_pipeline::Drop;
use kit::segmenter::{assert_correct, headers_len, segment};
use kit::traffic::any_super_segment;
use kit::*;
use proptest::prelude::*;

const LONG: Duration = Duration::from_millis(2);

/// Waits that are long for long enough that a drop is due.
fn congest(node: &mut Node, pair_now: &mut std::time::Instant) {
    for _ in 0..12 {
        node.note_wait(*pair_now, LONG);
        *pair_now += Duration::from_millis(1);
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn one_part_of_a_tcp_super_segment_is_left_out_and_the_rest_arrives(
        (shape, gso_size, has_ecn) in any_super_segment(),
    ) {
        let frame = shape.super_segment(gso_size, has_ecn);
        let whole = Pair::new(direct(1472)).seal(&[frame.to_bytes()]).len();
        let mut pair = Pair::new(direct(1472));
        let mut now = pair.now;
        congest(&mut pair.a, &mut now);
        let datagrams = pair.seal(&[frame.to_bytes()]);
        let sheds = shape.is_tcp && whole > 1;
        prop_assert_eq!(datagrams.len(), whole - usize::from(sheds));
        prop_assert_eq!(pair.a.counters().drops_by(Drop::Overload), u64::from(sheds));

        let came: Vec<_> = pair.open(&datagrams).iter().flat_map(segment).collect();
        came.iter().for_each(|packet| assert_correct(packet));
        let bytes: usize = came.iter().map(|packet| packet.len() - headers_len(packet)).sum();
        prop_assert_eq!(bytes < shape.payload_len, sheds);
        prop_assert_eq!(pair.seal(&[frame.to_bytes()]).len(), whole, "one drop was due, not two");
    }
}

#[test]
fn a_receiver_that_lags_leaves_out_one_part() {
    let mut pair = Pair::new(direct(1472));
    let shape = frames::Shape { payload_len: 10 * 1400, ..frames::Shape::default() };
    let datagrams = pair.seal(&[shape.super_segment(1400, false).to_bytes()]);
    let mut now = pair.now;
    congest(&mut pair.b, &mut now);
    let came: Vec<_> = pair.open(&datagrams).iter().flat_map(segment).collect();
    assert!(came.len() < datagrams.len());
    came.iter().for_each(|packet| assert_correct(packet));
    assert_eq!(pair.drops_at_b(Drop::Overload), 1);
}
