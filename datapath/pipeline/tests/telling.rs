//! What senders are told of packets that take several datagrams, and that the packets travel all
//! the same.

mod kit;

use std::net::IpAddr;
use std::time::Duration;

use ipop_pipeline::{Path, Total};
use ipop_wire::ethernet::{BROADCAST, Ethernet};
use ipop_wire::too_big::{MTU_MIN_V4, MTU_MIN_V6, TooBig};
use kit::frames::Shape;
use kit::network::any_path;
use kit::{IP_A, IP_B, IP6_A, IP6_B, MAC_A, MAC_B, Pair, Written, direct};
use proptest::prelude::*;

/// Largest IP packet in one datagram of the path, in bytes, behind a header of Ethernet that
/// travels.
fn carried(path: Path, ethernet_len: usize) -> usize {
    let prefix = if path.channel.is_some() { 4 } else { 0 };
    usize::from(path.datagram_len) - 32 - prefix - 12 - ethernet_len
}

/// The message that A's host was told, if it was one; and whose it was.
fn told(pair: &mut Pair) -> Option<(u32, IpAddr, IpAddr)> {
    let written = pair.a_out.writes.pop()?;
    assert_eq!(pair.a_out.writes, [], "one is enough");
    let frame = Ethernet::parse(&written.frame).expect("Ethernet");
    assert_eq!((frame.source(), frame.destination()), (MAC_B, MAC_A));
    let message = TooBig::parse(frame.payload()).expect("ICMP");
    Some((message.mtu(), message.source(), message.destination()))
}

fn ends(shape: &Shape) -> (IpAddr, IpAddr) {
    if shape.is_v6 { (IP6_B.into(), IP6_A.into()) } else { (IP_B.into(), IP_A.into()) }
}

fn udp(payload_len: usize, is_v6: bool) -> Shape {
    Shape { is_v6, ..Shape::udp(payload_len, 3) }
}

proptest! {
    #![proptest_config(kit::cases(400))]

    #[test]
    fn what_one_datagram_does_not_carry_is_told_and_travels(
        payload_len in 0..9000usize, is_v6: bool, is_tcp: bool, dont_fragment: bool,
        vlan in proptest::option::of(1..4000u16), path in any_path(), is_settled: bool,
    ) {
        let path = Path { is_settled, ..path };
        let shape = Shape { is_v6, is_tcp, dont_fragment, vlan, ..Shape::udp(payload_len, 3) };
        let original = shape.frame();
        let mut pair = Pair::new(path);
        let written = pair.carry(&[original.to_bytes()]);
        prop_assert_eq!(pair.drops(), 0);
        prop_assert_eq!(&written[0].frame, &original.frame, "it travels");

        let ethernet_len = if vlan.is_some() { 18 } else { 0 };
        let carried = carried(path, ethernet_len);
        let packet_len = original.frame.len() - if vlan.is_some() { 18 } else { 14 };
        let min = if is_v6 { MTU_MIN_V6 } else { MTU_MIN_V4 };
        let mtu = carried.max(usize::from(min));
        let is_due = is_settled && packet_len > mtu && (is_v6 || dont_fragment);
        let (source, destination) = ends(&shape);
        let expected = is_due.then_some((mtu as u32, source, destination));
        prop_assert_eq!(told(&mut pair), expected);
        prop_assert_eq!(pair.a.counters().total(Total::SendersTold), u64::from(is_due));
    }
}

#[test]
fn the_told_size_travels_whole() {
    for (is_v6, datagram_len) in [(false, 1472), (true, 1472), (false, 8972), (true, 8972)] {
        let mut pair = Pair::new(direct(datagram_len));
        let headers = if is_v6 { 48 } else { 28 };
        let large = udp(9000 - headers, is_v6).frame().to_bytes();
        assert!(pair.seal(&[large]).len() > 1);
        let (mtu, ..) = told(&mut pair).expect("told");
        let fitting = udp(mtu as usize - headers, is_v6).frame().to_bytes();
        assert_eq!(pair.seal(&[fitting]).len(), 1);
        assert_eq!(told(&mut pair), None);
        pair.now += Duration::from_secs(2);
        let longer = udp(mtu as usize + 1 - headers, is_v6).frame().to_bytes();
        assert_eq!(pair.seal(&[longer]).len(), 2, "not a byte is wasted");
        assert_eq!(told(&mut pair).map(|(mtu, ..)| mtu), Some(mtu));
    }
}

#[test]
fn a_sender_is_told_once_a_second() {
    let mut pair = Pair::new(direct(1472));
    let frames: Vec<_> = (0..10).map(|_| udp(1500, false).frame().to_bytes()).collect();
    assert_eq!(pair.seal(&frames).len(), 20);
    assert!(told(&mut pair).is_some());
    pair.now += Duration::from_secs(1);
    assert_eq!(pair.seal(&frames).len(), 20);
    assert!(told(&mut pair).is_some());
}

/// A byte stream's segments are cut anew, so there is nothing to tell; datagrams cannot be.
#[test]
fn of_super_segments_only_datagrams_are_told() {
    let mut pair = Pair::new(direct(1472));
    let stream = Shape { payload_len: 20_000, ..Shape::default() };
    pair.seal(&[stream.super_segment(4000, false).to_bytes()]);
    assert_eq!(told(&mut pair), None);
    pair.seal(&[udp(20_000, true).super_segment(4000, false).to_bytes()]);
    assert_eq!(told(&mut pair).map(|(mtu, ..)| mtu), Some(carried(direct(1472), 0) as u32));
    pair.now += Duration::from_secs(2);
    pair.seal(&[udp(20_000, true).super_segment(1300, false).to_bytes()]);
    assert_eq!(told(&mut pair), None, "each one fits");
}

#[test]
fn nobody_is_told_of_a_frame_to_a_group() {
    let mut pair = Pair::new(direct(1472));
    let Written { vnet, mut frame } = udp(3000, false).frame();
    frame[..6].copy_from_slice(&BROADCAST);
    assert!(pair.seal(&[Written { vnet, frame }.to_bytes()]).len() > 1);
    assert_eq!(told(&mut pair), None);
}
