//! What a worker besides the first sends itself, and what it hands over.

mod kit;

use ipop_pipeline::{Config, Path, Total};
use kit::traffic::any_super_segment;
use kit::*;
use proptest::prelude::*;

/// The second worker of A, with its lane of the link to B on that path.
fn second_worker(path: Option<Path>) -> Node {
    let config = Config { hands_over: true, ..Config::new(MAC_A, 1500) };
    let mut worker = Node::new(config, &[IP_A.into(), IP6_A.into()]);
    let mut entry = link(INDEX_AT_A, INDEX_AT_B, MAC_B, direct(1472));
    entry.lane = 1;
    entry.path = path;
    worker.install_link(entry);
    worker
}

fn carry(worker: &mut Node, pair: &mut Pair, frame: &[u8]) -> usize {
    worker.egress(pair.now, frame, &mut pair.a_out);
    worker.flush_egress(&mut pair.a_out);
    assert!(pair.a_out.is_whole(), "a slot was lost");
    pair.a_out.take_datagrams().len()
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn a_frame_takes_the_workers_lane_or_goes_to_the_first_as_it_came(
        (shape, gso_size, has_ecn) in any_super_segment(),
    ) {
        let mut pair = Pair::new(direct(1472));
        let frame = shape.super_segment(gso_size, has_ecn).to_bytes();

        let mut worker = second_worker(Some(direct(1472)));
        prop_assert!(carry(&mut worker, &mut pair, &frame) > 0);
        prop_assert!(pair.a_out.handed.is_empty());

        let mut worker = second_worker(None);
        prop_assert_eq!(carry(&mut worker, &mut pair, &frame), 0);
        prop_assert_eq!(std::mem::take(&mut pair.a_out.handed), vec![frame]);
        prop_assert_eq!(worker.counters().total(Total::FramesHandedOver), 1);
        prop_assert_eq!(worker.counters().total(Total::TapFramesIn), 0, "counted by the first");
    }
}

#[test]
fn strangers_and_groups_are_the_first_workers_matter() {
    let mut pair = Pair::new(direct(1472));
    let mut worker = second_worker(Some(direct(1472)));
    for destination in [MAC_C, [0xff; 6], [0x33, 0x33, 0, 0, 0, 1]] {
        let mut frame = vec![0; 12];
        frame.extend(destination);
        frame.extend(MAC_A);
        frame.extend([0x08, 0x00]);
        frame.extend([0x45; 60]);
        assert_eq!(carry(&mut worker, &mut pair, &frame), 0);
        assert_eq!(std::mem::take(&mut pair.a_out.handed), [frame]);
    }
    assert!(pair.a_out.told.is_empty() && pair.a_out.writes.is_empty());
    assert_eq!(worker.counters().drops.iter().sum::<u64>(), 0);
}
