//! Frames that are not super-segments: bundles, lone frames merged by flow, and plain fragments.

mod kit;

use ipop_pipeline::{Config, Drop, Path, Total};
use ipop_wire::vnet::{CsumState, GsoType};
use ipop_wire::{Header, tcp};
use kit::frames::Shape;
use kit::segmenter::{segment, without_meaningless_id};
use kit::{MAC_A, MAC_B, Pair, Written, direct, source};
use proptest::prelude::*;

/// Lone frames of a few flows, of sizes that sometimes repeat, TCP flows going on where they were.
fn any_batch() -> impl Strategy<Value = Vec<Written>> {
    let sizes = prop_oneof![Just(64usize), Just(1200), 1..1300usize];
    let one = (0..4u8, sizes, any::<u8>(), 0..12u8);
    proptest::collection::vec(one, 1..120).prop_map(|frames| {
        let (mut sequences, mut ids) = ([u32::MAX - 2000; 4], [65_530u16; 4]);
        let mut batch = Vec::new();
        for (flow, payload_len, fill, quirk) in frames {
            let number = usize::from(flow);
            let flags = tcp::ACK | if quirk == 1 { tcp::PSH } else { 0 };
            let shape = Shape {
                is_v6: flow & 1 != 0,
                is_tcp: flow & 2 != 0,
                flags: if quirk == 2 { flags | tcp::FIN } else { flags },
                sequence: sequences[number],
                id: ids[number],
                dont_fragment: flow & 2 != 0,
                option: if quirk == 7 { 0 } else { 1 },
                tos: if quirk == 9 { 3 } else { 2 },
                window: if quirk == 8 { 99 } else { 512 },
                payload_len: if quirk == 3 { 0 } else { payload_len },
                fill,
                ..Shape::default()
            };
            sequences[number] = sequences[number].wrapping_add(shape.payload_len as u32);
            ids[number] = ids[number].wrapping_add(if quirk == 4 { 2 } else { 1 });
            let mut frame = shape.frame();
            if quirk == 5 {
                frame = finished(&frame, CsumState::Valid);
            } else if quirk == 6 {
                frame = finished(&frame, CsumState::Unknown);
            }
            batch.push(frame);
        }
        batch
    })
}

/// The frame with its checksum in it.
fn finished(frame: &Written, csum: CsumState) -> Written {
    let vnet = ipop_wire::VirtioNetHeader { csum, ..frame.vnet };
    Written { vnet, frame: segment(frame).remove(0) }
}

fn flow_of(frame: &[u8]) -> (bool, bool) {
    let is_v6 = frame[14] >> 4 == 6;
    (is_v6, if is_v6 { frame[20] == 6 } else { frame[23] == 6 })
}

/// Finished packets, flow by flow, each in its order.
fn by_flow(frames: &[Written]) -> Vec<Vec<Vec<u8>>> {
    let mut flows = vec![Vec::new(); 4];
    for packet in frames.iter().flat_map(segment) {
        let (is_v6, is_tcp) = flow_of(&packet);
        flows[usize::from(is_v6) + 2 * usize::from(is_tcp)].push(without_meaningless_id(packet));
    }
    flows
}

fn to_bytes(batch: &[Written]) -> Vec<Vec<u8>> {
    batch.iter().map(Written::to_bytes).collect()
}

proptest! {
    #![proptest_config(kit::cases(200))]

    #[test]
    fn a_batch_arrives_flow_by_flow_in_order(
        batch in any_batch(),
        channel in proptest::option::of(0x4000..=0x4fffu16),
        datagram_len in prop_oneof![Just(1472u16), 900..1500u16, 1500..9000u16],
    ) {
        let mut pair = Pair::new(Path { channel, datagram_len, is_settled: true, is_lossy: false });
        let written = pair.carry(&to_bytes(&batch));
        prop_assert_eq!(pair.drops(), 0);
        prop_assert_eq!(by_flow(&written), by_flow(&batch));
    }

    #[test]
    fn a_batch_arrives_when_received_one_by_one(batch in any_batch()) {
        let mut pair = Pair::new(direct(1472));
        let datagrams = pair.seal(&to_bytes(&batch));
        let written = pair.open(&datagrams);
        prop_assert_eq!(by_flow(&written), by_flow(&batch));
    }

    #[test]
    fn what_is_not_lost_of_a_flow_arrives(
        sizes in proptest::collection::vec(prop_oneof![Just(1300usize), 800..1300usize], 2..40),
        is_tcp: bool, lost in proptest::collection::vec(0..4u8, 40), takes_uso: bool,
    ) {
        // Each frame is too large to be bundled, so datagrams and frames are the same in number.
        let mut sequence = 1;
        let batch: Vec<_> = sizes
            .iter()
            .map(|payload_len| {
                let frame = Shape { is_tcp, sequence, ..Shape::udp(*payload_len, 3) }.frame();
                sequence += *payload_len as u32;
                frame
            })
            .collect();
        let config = Config { takes_uso, ..Config::new(MAC_B, 1500) };
        let mut pair = Pair::with_config(direct(1472), config);
        let datagrams = pair.seal(&to_bytes(&batch));
        prop_assert_eq!(datagrams.len(), batch.len());
        let is_here = |number: usize| lost[number] != 0;
        let here = (0..batch.len()).filter(|number| is_here(*number));
        let (arriving, expected): (Vec<_>, Vec<_>) =
            here.map(|number| (datagrams[number].clone(), batch[number].clone())).unzip();
        let written = pair.open(&arriving);
        prop_assert_eq!(by_flow(&written), by_flow(&expected));
        let has_uso = written.iter().any(|frame| frame.vnet.gso_type == GsoType::Udp);
        prop_assert!(takes_uso || !has_uso);
    }

    #[test]
    fn fragments_arrive_in_any_order(
        payload_len in 700..8900usize, is_v6: bool, is_tcp: bool, vlan: Option<u16>, fill: u8,
        order in proptest::collection::vec(any::<u32>(), 40), flush_every in 1..5usize,
    ) {
        let shape = Shape { is_v6, is_tcp, vlan, payload_len, fill, ..Shape::default() };
        let frame = shape.frame();
        let config = Config::new(MAC_B, 9000);
        let mut pair = Pair::with_config(direct(600), config);
        let datagrams = pair.seal(&[frame.to_bytes()]);
        prop_assert!(datagrams.len() > 1);
        let mut arriving: Vec<_> = datagrams.iter().zip(&order).collect();
        arriving.sort_by_key(|(_, order)| **order);
        let mut written = Vec::new();
        for (number, (datagram, _)) in arriving.iter().enumerate() {
            prop_assert!(written.is_empty());
            pair.b.ingress(pair.now, datagram, 0, source(), &mut pair.b_out);
            if number % flush_every == 0 {
                written.extend(pair.flush());
            }
        }
        written.extend(pair.flush());
        prop_assert_eq!(by_flow(&written), by_flow(&[frame]));
        prop_assert_eq!(pair.drops(), 0);
    }
}

#[test]
fn equal_datagrams_become_one_write() {
    for (payload_len, sends, writes) in [(64, 1, 2), (1200, 2, 2)] {
        let batch: Vec<_> = (0..100).map(|fill| Shape::udp(payload_len, fill).frame()).collect();
        let mut pair = Pair::new(direct(1472));
        pair.seal_to_sends(&to_bytes(&batch));
        assert_eq!(pair.a_out.sends.len(), sends, "{payload_len}");
        let datagrams = pair.a_out.take_datagrams();
        let written = pair.open(&datagrams);
        assert_eq!(written.len(), writes);
        assert_eq!(written[0].vnet.gso_type, GsoType::Udp);
        assert_eq!(usize::from(written[0].vnet.gso_size), payload_len);
        assert_eq!(by_flow(&written), by_flow(&batch));
        assert_eq!(pair.b.counters().total(Total::FramesCoalesced), 100);
    }
}

#[test]
fn a_bundle_carries_many() {
    let batch: Vec<_> = (0..30).map(|fill| Shape::udp(64, fill).frame()).collect();
    let mut pair = Pair::new(direct(1472));
    let datagrams = pair.seal(&to_bytes(&batch));
    // 14 bytes of Ethernet stay at home, 6 bytes of record come on top of each 106 byte frame.
    assert_eq!(datagrams.len(), 30_usize.div_ceil((1472 - 32) / (6 + 106 - 14)));
    assert_eq!(pair.a.counters().total(Total::FramesBundled), 30);
    for datagram in &datagrams {
        assert_eq!(Header::parse(datagram).map(|header| header.part.count), Ok(0));
    }
}

#[test]
fn order_within_a_flow_survives_a_mix_of_sizes() {
    // Small, large, super-segment, small: three ways to travel, one flow.
    let mut sequence = 5000;
    let mut batch = Vec::new();
    for round in 0..6u8 {
        for payload_len in [40, 1300, 5 * 1000, 60] {
            let shape = Shape { sequence, payload_len, fill: round, ..Shape::default() };
            sequence += payload_len as u32;
            let is_super = payload_len > 1400;
            batch.push(if is_super { shape.super_segment(1000, false) } else { shape.frame() });
        }
    }
    let mut pair = Pair::new(direct(1472));
    let written = pair.carry(&to_bytes(&batch));
    assert_eq!(pair.drops(), 0);
    // Where segments meet may have moved; the stream may not have.
    let stream = |frames: &[Written]| -> Vec<(u32, u8)> {
        let mut bytes = Vec::new();
        for packet in by_flow(frames).concat() {
            let sequence = u32::from_be_bytes([packet[38], packet[39], packet[40], packet[41]]);
            bytes.extend(packet[66..].iter().zip(sequence..).map(|(byte, at)| (at, *byte)));
        }
        bytes
    };
    assert_eq!(stream(&written), stream(&batch));
}

#[test]
fn a_lost_fragment_loses_its_frame_and_memory_is_bounded() {
    let mut pair = Pair::with_config(direct(600), Config::new(MAC_B, 1500));
    for fill in 0..20 {
        let mut datagrams = pair.seal(&[Shape::udp(1400, fill).frame().to_bytes()]);
        datagrams.remove(1);
        assert_eq!(pair.open(&datagrams), []);
    }
    assert_eq!(pair.drops_at_b(Drop::IncompleteSegment), 12);
    let frame = Shape::udp(1400, 99).frame();
    assert_eq!(by_flow(&pair.carry(&[frame.to_bytes()])), by_flow(&[frame]));
}

#[test]
fn a_frame_too_large_to_number_is_refused() {
    let mut pair = Pair::new(direct(512));
    let mut frame = Shape::udp(1000, 1).frame();
    frame.vnet.csum = CsumState::Unknown;
    frame.frame.resize(14 + 65_536, 0);
    assert_eq!(pair.carry(&[frame.to_bytes()]), []);
    assert_eq!(pair.a.counters().drops_by(Drop::TooBig), 1);
}

#[test]
fn other_protocols_pass_whole() {
    let mut pair = Pair::new(direct(1472));
    let mut frames = Vec::new();
    for len in [0, 1, 46, 700, 1380, 1486] {
        let mut frame = vec![0x5a; 14 + len];
        frame[..6].copy_from_slice(&MAC_B);
        frame[6..12].copy_from_slice(&MAC_A);
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        frames.push(Written { vnet: Default::default(), frame });
    }
    assert_eq!(pair.carry(&to_bytes(&frames)), frames);
}

#[test]
fn a_slow_path_of_large_udp_datagrams_is_fragmented_one_by_one() {
    let original = Shape::udp(20 * 1400, 3).super_segment(1400, false);
    let mut pair = Pair::new(direct(900));
    let datagrams = pair.seal(&[original.to_bytes()]);
    assert_eq!(datagrams.len(), 40);
    let sent = by_flow(std::slice::from_ref(&original));
    assert_eq!(by_flow(&pair.open(&datagrams)), sent);

    let mut datagrams = pair.seal(&[original.to_bytes()]);
    datagrams.remove(11);
    let rest = by_flow(&pair.open(&datagrams)).concat();
    assert_eq!(rest.len(), 19);
    assert!(rest.iter().all(|packet| sent.concat().contains(packet)));
}

#[test]
fn nothing_overtakes_a_super_segment_whose_end_is_lost() {
    for payload_len in [1300, 40] {
        let lone = |fill| Shape::udp(payload_len, fill).frame();
        let super_segment = Shape::udp(5 * 1300, 9).super_segment(1300, false);
        let batches = [vec![lone(1)], vec![super_segment.clone()], vec![lone(2), lone(3)]];
        let mut pair = Pair::new(direct(1472));
        let mut arriving = Vec::new();
        for (number, batch) in batches.iter().enumerate() {
            let mut datagrams = pair.seal(&to_bytes(batch));
            if number == 1 {
                assert_eq!(datagrams.len(), 5);
                datagrams.pop();
            }
            arriving.extend(datagrams);
        }
        let mut expected = by_flow(&batches.concat()).concat();
        assert_eq!(expected.len(), 8);
        expected.remove(5);
        assert_eq!(by_flow(&pair.open(&arriving)).concat(), expected);
    }
}
