//! Super-segments and lone frames of several flows together, over a network that loses, doubles
//! and reorders: not one byte reaches the tap that was not sent, in a segment that the sending
//! host's kernel would have made.

mod kit;

use std::collections::HashMap;

use ipop_pipeline::{Config, Drop, Path};
use kit::frames::Shape;
use kit::network::{Fate, any_path, deliver_group, suffer};
use kit::segmenter::{segment, without_meaningless_id};
use kit::traffic::{any_headers, any_super_segment};
use kit::{MAC_B, Pair, Written, room};
use proptest::collection::vec;
use proptest::prelude::*;

/// The overlay's MTU, so that no frame is longer than what may wait for its fragments.
const MTU: u16 = 9000;

/// A frame of a flow: super-segments of any kind, and rows of lone frames that could be merged.
#[derive(Clone, Debug)]
enum Item {
    Super(Shape, u16, bool),
    Lone(Shape, Vec<usize>),
}

fn any_item() -> impl Strategy<Value = Item> {
    let fitting = any_super_segment().prop_map(|(shape, gso_size, has_ecn)| {
        Item::Super(shape, gso_size.min(MTU - 300), has_ecn)
    });
    let plain = (any::<bool>(), any::<bool>()).prop_map(|(is_v6, is_tcp)| Shape {
        is_v6,
        is_tcp,
        ..Shape::default()
    });
    let lens = prop_oneof![vec(Just(1300usize), 2..12), vec(1..MTU as usize - 300, 1..6)];
    let headers = prop_oneof![plain.boxed(), any_headers().boxed()];
    let lone = (headers, lens).prop_map(|(shape, lens)| Item::Lone(shape, lens));
    prop_oneof![fitting.boxed(), lone.boxed()]
}

/// The frames of all items. Within a flow sequence numbers and identifications go on.
fn frames_of(items: &[Item]) -> Vec<Written> {
    let mut flows = [(0xffff_0000_u32, 65_000_u16); 4];
    let mut frames = Vec::new();
    for (number, item) in items.iter().enumerate() {
        let (shape, lens) = match item {
            Item::Super(shape, ..) => (shape, std::slice::from_ref(&shape.payload_len)),
            Item::Lone(shape, lens) => (shape, &lens[..]),
        };
        let flow = &mut flows[usize::from(shape.is_v6) + 2 * usize::from(shape.is_tcp)];
        for payload_len in lens {
            let fill = shape.fill.wrapping_add(number as u8);
            let (sequence, id) = *flow;
            let shape = Shape { sequence, id, payload_len: *payload_len, fill, ..shape.clone() };
            let (frame, packets) = match item {
                Item::Super(_, gso_size, has_ecn) => (
                    shape.super_segment(*gso_size, *has_ecn),
                    payload_len.div_ceil(usize::from(*gso_size)),
                ),
                Item::Lone(..) => (shape.frame(), 1),
            };
            *flow = (sequence.wrapping_add(*payload_len as u32), id.wrapping_add(packets as u16));
            frames.push(frame);
        }
    }
    frames
}

/// What the sending host's kernel would have sent over a path like this without us.
fn expected(frame: &Written, path: Path) -> Vec<Vec<u8>> {
    let mut frame = frame.clone();
    if matches!(
        frame.vnet.gso_type,
        ipop_wire::vnet::GsoType::Tcp4 | ipop_wire::vnet::GsoType::Tcp6
    ) {
        frame.vnet.gso_size = frame.vnet.gso_size.min(room(path, &frame) as u16);
    }
    segment(&frame).into_iter().map(without_meaningless_id).collect()
}

fn counted(packets: impl Iterator<Item = Vec<u8>>) -> HashMap<Vec<u8>, usize> {
    let mut counted = HashMap::new();
    packets.for_each(|packet| *counted.entry(packet).or_default() += 1);
    counted
}

proptest! {
    #![proptest_config(kit::cases(150))]

    #[test]
    fn only_what_was_sent_arrives_and_only_once(
        items in vec(any_item(), 1..7), path in any_path(),
        fates in vec(any::<Fate>(), 0..600), is_lossless: bool,
        grouping in vec(0..9usize, 1..50), batch_len in 1..5usize,
    ) {
        let is_kept = |fate: &Fate| !(is_lossless && matches!(fate, Fate::IsLost));
        let fates: Vec<_> = fates.into_iter().filter(is_kept).collect();
        let frames = frames_of(&items);
        let mut pair = Pair::with_config(path, Config::new(MAC_B, MTU));
        let mut datagrams = Vec::new();
        for batch in frames.chunks(batch_len) {
            let batch: Vec<_> = batch.iter().map(Written::to_bytes).collect();
            datagrams.extend(pair.seal(&batch));
        }
        prop_assert_eq!(pair.drops(), 0);

        let arriving = suffer(&datagrams, &fates);
        let mut written = Vec::new();
        let (mut rest, mut groups) = (&arriving[..], grouping.iter().cycle());
        while !rest.is_empty() {
            let group = *groups.next().expect("a cycle");
            rest = &rest[deliver_group(&mut pair, rest, group)..];
            if group % 3 == 0 {
                written.extend(pair.flush());
            }
        }
        written.extend(pair.flush());

        let mut missing = counted(frames.iter().flat_map(|frame| expected(frame, path)));
        for packet in written.iter().flat_map(segment).map(without_meaningless_id) {
            let left = missing.get_mut(&packet).filter(|left| **left > 0);
            prop_assert!(left.is_some(), "arrived, but was not sent, or not twice: {packet:02x?}");
            *left.expect("asserted") -= 1;
        }
        let replayed = pair.drops_at_b(Drop::Replayed);
        let given_up = pair.drops_at_b(Drop::IncompleteSegment);
        prop_assert_eq!(pair.drops(), replayed + given_up);
        if is_lossless && given_up == 0 {
            prop_assert_eq!(missing.values().sum::<usize>(), 0, "all was delivered");
        }
    }
}
