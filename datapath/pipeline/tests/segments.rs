//! Super-segments: cutting and joining gives the original bytes; and whatever subset of the parts
//! arrives, in whatever order and however often, exactly their segments reach the tap, correct.

mod kit;

use ipop_pipeline::{Config, Drop, Path, Total};
use ipop_wire::vnet::GsoType;
use ipop_wire::{HEADER_LEN, Header, tcp};
use kit::frames::Shape;
use kit::network::{Fate, any_path, deliver_group, suffer};
use kit::segmenter::{headers_len, segment};
use kit::traffic::any_super_segment;
use kit::{MAC_B, Pair, Written, direct, room, source};
use proptest::prelude::*;

fn sorted(mut segments: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    segments.sort();
    segments
}

fn all_segments(written: &[Written]) -> Vec<Vec<u8>> {
    written.iter().flat_map(segment).collect()
}

proptest! {
    #![proptest_config(kit::cases(300))]

    #[test]
    fn joining_undoes_cutting(
        (shape, gso_size, has_ecn) in any_super_segment(), path in any_path(),
    ) {
        let original = shape.super_segment(gso_size, has_ecn);
        let mut pair = Pair::new(path);
        let written = pair.carry(&[original.to_bytes()]);
        prop_assert_eq!(pair.drops(), 0);
        let (room, gso_size) = (room(path, &original), usize::from(gso_size));
        let is_fitting = gso_size <= room;
        let parts = shape.payload_len.div_ceil(room / gso_size.min(room) * gso_size.min(room));
        let is_one_row = parts <= 255;
        let is_one_write = shape.is_tcp || shape.payload_len.div_ceil(gso_size) <= 64;
        if is_fitting && is_one_row && is_one_write {
            prop_assert_eq!(written, vec![original]);
        } else if shape.is_tcp && !is_fitting {
            // Cut smaller than it was meant, but the same bytes.
            prop_assert_eq!(written.len(), 1);
            prop_assert_eq!(&written[0].frame, &original.frame);
            prop_assert_eq!(usize::from(written[0].vnet.gso_size), room);
        } else {
            let sent: Vec<_> = sorted(segment(&original));
            prop_assert_eq!(sorted(all_segments(&written)), sent);
        }
    }

    #[test]
    fn any_parts_in_any_order_give_correct_segments(
        (shape, gso_size, has_ecn) in any_super_segment(),
        path in any_path(),
        fates in proptest::collection::vec(any::<Fate>(), 255),
        grouping in proptest::collection::vec(0..6usize, 200),
    ) {
        let original = shape.super_segment(gso_size, has_ecn);
        let mut pair = Pair::new(path);
        let datagrams = pair.seal(&[original.to_bytes()]);
        prop_assume!(is_row_of_segments(&datagrams, path));

        let arriving = suffer(&datagrams, &fates);
        let mut written = Vec::new();
        let mut rest = &arriving[..];
        for group in &grouping {
            if rest.is_empty() {
                break;
            }
            let taken = deliver_group(&mut pair, rest, *group);
            rest = &rest[taken..];
            if group % 3 == 0 {
                written.extend(pair.flush());
            }
        }
        for datagram in rest {
            pair.b.ingress(pair.now, datagram, datagram.len(), source(), &mut pair.b_out);
        }
        written.extend(pair.flush());

        let mut here: Vec<usize> = arriving.iter().map(|d| part_index(d, path)).collect();
        here.sort_unstable();
        here.dedup();
        let expected = expected_segments(&original, &datagrams, path, &here);
        prop_assert_eq!(sorted(all_segments(&written)), sorted(expected));
        let doubled = arriving.len() - here.len();
        prop_assert_eq!(pair.drops_at_b(Drop::Replayed), doubled as u64);
        prop_assert_eq!(pair.drops(), doubled as u64);
    }

    #[test]
    fn a_tap_without_uso_gets_datagrams(
        (mut shape, gso_size, _) in any_super_segment(), path in any_path(),
        lost in any::<prop::sample::Index>(),
    ) {
        shape.is_tcp = false;
        let original = shape.super_segment(gso_size, false);
        let config = Config { takes_uso: false, ..Config::new(MAC_B, 1500) };
        let mut pair = Pair::with_config(path, config);
        let mut datagrams = pair.seal(&[original.to_bytes()]);
        prop_assume!(is_row_of_segments(&datagrams, path));
        let all = datagrams.clone();
        datagrams.remove(lost.index(datagrams.len()));
        let here: Vec<usize> = datagrams.iter().map(|d| part_index(d, path)).collect();
        pair.b_out = kit::Memory::new(200);
        let written = pair.open(&datagrams);
        prop_assert!(written.iter().all(|frame| frame.vnet.gso_type == GsoType::None));
        let expected = expected_segments(&original, &all, path, &here);
        prop_assert_eq!(sorted(all_segments(&written)), sorted(expected));
    }
}

/// Whether the row was cut by segments: fragments of single datagrams are another test's matter.
fn is_row_of_segments(datagrams: &[Vec<u8>], path: Path) -> bool {
    let counts: Vec<_> = datagrams.iter().map(|d| header(d, path).part.count).collect();
    counts.iter().all(|count| usize::from(*count) == datagrams.len())
}

fn header(datagram: &[u8], path: Path) -> Header {
    let prefix = if path.channel.is_some() { 4 } else { 0 };
    Header::parse(&datagram[prefix..]).expect("ours")
}

fn part_index(datagram: &[u8], path: Path) -> usize {
    usize::from(header(datagram, path).part.index)
}

/// The segments of the original that these parts carry. How much payload a part has follows from
/// its length: what the first has, all but the last have.
fn expected_segments(
    original: &Written,
    datagrams: &[Vec<u8>],
    path: Path,
    parts: &[usize],
) -> Vec<Vec<u8>> {
    let prefix = if path.channel.is_some() { 4 } else { 0 };
    let total_len: usize = datagrams.iter().map(Vec::len).sum();
    let payload_len = original.frame.len() - headers_len(&original.frame);
    let overhead = (total_len - payload_len) / datagrams.len();
    assert!(overhead >= prefix + HEADER_LEN + 16);
    let part_len = datagrams[0].len() - overhead;
    if datagrams.len() == 1 {
        return if parts.is_empty() { Vec::new() } else { segment(original) };
    }
    // The path may have made segments smaller: then each part is one.
    let mut original = original.clone();
    original.vnet.gso_size = original.vnet.gso_size.min(part_len as u16);
    let gso_size = usize::from(original.vnet.gso_size);
    assert_eq!(part_len % gso_size, 0);
    let segments = segment(&original);
    let per_part = part_len / gso_size;
    let of_part = |part: &usize| {
        let start = part * per_part;
        segments[start..(start + per_part).min(segments.len())].to_vec()
    };
    parts.iter().flat_map(of_part).collect()
}

#[test]
fn one_read_is_one_send_is_one_write() {
    let shape = Shape { payload_len: 44 * 1376, ..Shape::default() };
    let frame = shape.super_segment(1376, false);
    let mut pair = Pair::new(direct(1472));
    for _ in 0..10 {
        pair.seal_to_sends(&[frame.to_bytes()]);
        let sends = std::mem::take(&mut pair.a_out.sends);
        assert_eq!(sends.len(), 1);
        let (bytes, run) = &sends[0];
        assert_eq!((run.segment_size, bytes.len()), (1472, 44 * 1472));
        pair.b.ingress(pair.now, bytes, run.segment_size, source(), &mut pair.b_out);
        assert_eq!(pair.b_out.writes, std::slice::from_ref(&frame));
        assert_eq!(pair.flush(), std::slice::from_ref(&frame));
    }
    assert_eq!(pair.b.counters().total(Total::SegmentsJoined), 10);
}

#[test]
fn super_segments_share_a_send_but_are_not_split() {
    let shape = Shape { payload_len: 10 * 1376, ..Shape::default() };
    let frames: Vec<_> = (0..9).map(|_| shape.super_segment(1376, false).to_bytes()).collect();
    let mut pair = Pair::new(direct(1472));
    pair.seal_to_sends(&frames);
    let lens: Vec<_> = pair.a_out.sends.iter().map(|(bytes, _)| bytes.len() / 1472).collect();
    assert_eq!(lens, [40, 40, 10]);
    let datagrams = pair.a_out.take_datagrams();
    assert_eq!(pair.open(&datagrams).len(), 9);
}

#[test]
fn a_super_segment_over_two_receives_is_still_one_write() {
    let shape = Shape { payload_len: 20 * 1376, ..Shape::default() };
    let frame = shape.super_segment(1376, false);
    let mut pair = Pair::new(direct(1472));
    let datagrams = pair.seal(&[frame.to_bytes()]);
    let (early, late) = datagrams.split_at(7);
    for part in [early, late] {
        pair.b.ingress(pair.now, &part.concat(), 1472, source(), &mut pair.b_out);
    }
    assert_eq!(pair.flush(), [frame]);
}

#[test]
fn parts_of_two_super_segments_do_not_mix() {
    let shape = |sequence| Shape { payload_len: 10 * 1376, sequence, ..Shape::default() };
    let frames = [shape(0), shape(10 * 1376)].map(|shape| shape.super_segment(1376, false));
    let mut pair = Pair::new(direct(1472));
    let datagrams = pair.seal(&frames.clone().map(|frame| frame.to_bytes()));
    let arriving = [&datagrams[..5], &datagrams[15..]].concat();
    let written = pair.open(&arriving);
    assert_eq!(written.len(), 2);
    let sent = all_segments(&frames);
    assert_eq!(all_segments(&written), [&sent[..5], &sent[15..]].concat());
}

#[test]
fn a_kernel_gets_no_more_datagrams_at_once_than_it_takes() {
    for (gso_size, datagram_len) in [(300, 1472), (30, 1472), (100, 9000)] {
        let original = Shape::udp(128 * gso_size, 5).super_segment(gso_size as u16, false);
        let mut pair = Pair::new(direct(datagram_len));
        let written = pair.carry(&[original.to_bytes()]);
        assert!(written.len() <= 3);
        assert_eq!(all_segments(&written), segment(&original));
        assert_eq!(pair.drops(), 0);
    }
}

#[test]
fn a_super_segment_of_more_parts_than_can_be_numbered_is_not_lost() {
    // Of each part half is empty: 250 bytes where 416 would fit.
    let flags = tcp::ACK | tcp::CWR | tcp::PSH;
    let shape = Shape { payload_len: 65_483, flags, ..Shape::default() };
    let original = shape.super_segment(250, true);
    let mut pair = Pair::new(direct(512));
    let datagrams = pair.seal(&[original.to_bytes()]);
    assert_eq!(datagrams.len(), 65_483_usize.div_ceil(250));
    let written = pair.open(&datagrams);
    assert_eq!(written.len(), 2);
    assert_eq!(all_segments(&written), segment(&original));
    assert_eq!(pair.drops(), 0);
}
