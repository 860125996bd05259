//! What must not pass, what is not data, and what is answered here.

mod kit;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipop_crypto::{ChainSecret, Cipher, KeyLife, Sealer};
use ipop_pipeline::{Config, Drop, Path, Sink, Total};
use ipop_wire::arp::{Arp, ArpRepr, Operation};
use ipop_wire::channel::channel_prefix;
use ipop_wire::ethernet::{BROADCAST, Ethernet};
use ipop_wire::geometry::Geometry;
use ipop_wire::neighbour::{AdvertisementRepr, Neighbour, SolicitationRepr};
use ipop_wire::vnet::{CsumState, GsoType};
use ipop_wire::{HEADER_LEN, Header, Kind, LinkIndex, Part, VirtioNetHeader};
use kit::frames::Shape;
use kit::traffic::any_super_segment;
use kit::*;
use proptest::prelude::*;

fn tap_bytes(frame: &[u8]) -> Vec<u8> {
    [&VirtioNetHeader::default().emit()[..], frame].concat()
}

fn arp_request(sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Vec<u8> {
    let operation = Operation::Request;
    let request =
        ArpRepr { operation, sender_mac: MAC_A, sender_ip, target_mac: [0; 6], target_ip };
    tap_bytes(&request.emit_frame(MAC_A, BROADCAST))
}

/// A pair with a third node's link and routes at both.
fn trio() -> Pair {
    let mut pair = Pair::new(direct(1472));
    pair.a.install_link(link(LinkIndex(7), LinkIndex(8), MAC_C, direct(1472)));
    pair.a.add_route(IP_C.into(), 32, MAC_C);
    pair.b.add_route(IP_C.into(), 32, MAC_C);
    pair
}

#[test]
fn a_known_address_is_answered_here() {
    let mut pair = trio();
    for probe in [IP_A, Ipv4Addr::UNSPECIFIED] {
        assert_eq!(pair.seal(&[arp_request(probe, IP_C)]), Vec::<Vec<u8>>::new());
        let answer = pair.a_out.writes.pop().expect("an answer");
        let ethernet = Ethernet::parse(&answer.frame).expect("Ethernet");
        assert_eq!((ethernet.source(), ethernet.destination()), (MAC_C, MAC_A));
        let reply = ArpRepr::of(&Arp::parse(ethernet.payload()).expect("ARP"));
        assert_eq!((reply.operation, reply.sender_mac), (Operation::Reply, MAC_C));
        assert_eq!((reply.sender_ip, reply.target_ip), (IP_C, probe));
    }
    assert_eq!(pair.a.counters().total(Total::NeighboursAnswered), 2);
}

#[test]
fn a_peer_whose_link_comes_later_is_announced_then() {
    let mut pair = Pair::new(direct(1472));
    pair.a.add_route(IP_C.into(), 32, MAC_C);
    let target = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0xc);
    pair.a.add_route(target.into(), 128, MAC_C);
    let question = SolicitationRepr { source: IP6_A, mac: MAC_A, target }.emit_frame();
    assert!(pair.seal(&[arp_request(IP_A, IP_C), tap_bytes(&question)]).is_empty());
    pair.a.announce(&MAC_C, &mut pair.a_out);
    assert_eq!(pair.a_out.writes, [], "nobody answers for a peer that cannot be reached");
    assert_eq!(pair.a.counters().drops_by(Drop::LinkNotUp), 2);
    pair.a.install_link(link(LinkIndex(7), LinkIndex(8), MAC_C, direct(1472)));
    pair.a.announce(&MAC_C, &mut pair.a_out);
    let [arp, advertisement] = &pair.a_out.writes[..] else { panic!("{:?}", pair.a_out.writes) };
    let frame = Ethernet::parse(&arp.frame).expect("Ethernet");
    let reply = ArpRepr::of(&Arp::parse(frame.payload()).expect("ARP"));
    assert_eq!((reply.operation, reply.sender_mac), (Operation::Reply, MAC_C));
    assert_eq!((reply.sender_ip, reply.target_ip), (IP_C, IP_A));
    let frame = Ethernet::parse(&advertisement.frame).expect("Ethernet");
    let parsed = Neighbour::parse(frame.payload()).expect("neighbour discovery");
    assert_eq!((parsed.target(), parsed.mac()), (target, Some(MAC_C)));
}

#[test]
fn own_addresses_are_nobodys_to_answer() {
    let mut pair = trio();
    pair.a.add_route(IP_A.into(), 32, MAC_C);
    let probes = [
        arp_request(Ipv4Addr::UNSPECIFIED, IP_A),
        arp_request(IP_A, IP_A),
        tap_bytes(
            &SolicitationRepr { source: Ipv6Addr::UNSPECIFIED, mac: MAC_A, target: IP6_A }
                .emit_frame(),
        ),
    ];
    assert_eq!(pair.seal(&probes), Vec::<Vec<u8>>::new());
    assert_eq!(pair.a_out.writes, []);
    assert_eq!(pair.a_out.told, []);
    assert_eq!(pair.a.counters().total(Total::OwnProbes), 3);
}

#[test]
fn an_unknown_address_is_told_to_the_agent_once() {
    let mut pair = trio();
    let stranger = Ipv4Addr::new(10, 77, 9, 9);
    let mut frame = Shape::udp(10, 1).frame();
    frame.frame[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    frame.frame[30..34].copy_from_slice(&stranger.octets());
    pair.seal(&[arp_request(IP_A, stranger), arp_request(IP_A, stranger), frame.to_bytes()]);
    assert_eq!(pair.a_out.told, [Told::NoRoute(stranger.into())]);
    assert_eq!(pair.a.counters().drops_by(Drop::NoRoute), 3);
    pair.now += Duration::from_secs(2);
    pair.seal(&[frame.to_bytes()]);
    assert_eq!(pair.a_out.told.len(), 2);
}

#[test]
fn solicitations_are_answered_for_peers() {
    let mut pair = trio();
    let ask =
        |source, target| tap_bytes(&SolicitationRepr { source, mac: MAC_A, target }.emit_frame());
    let local: Ipv6Addr = "fe80::ff:fe00:c".parse().expect("derived from C's MAC");
    let asked =
        [(IP6_A, IP6_B, MAC_B), (IP6_A, local, MAC_C), (Ipv6Addr::UNSPECIFIED, IP6_B, MAC_B)];
    for (source, target, mac) in asked {
        assert_eq!(pair.seal(&[ask(source, target)]), Vec::<Vec<u8>>::new());
        let answer = pair.a_out.writes.pop().expect("an answer");
        let ethernet = Ethernet::parse(&answer.frame).expect("Ethernet");
        let view = Neighbour::parse(ethernet.payload()).expect("an advertisement");
        let repr = AdvertisementRepr::of(&view, ethernet.destination()).expect("plain");
        assert_eq!((repr.target, repr.mac), (target, mac));
        let solicitor = (!source.is_unspecified()).then_some((source, MAC_A));
        assert_eq!(repr.solicitor, solicitor);
    }
    // Nobody knows this one here, but somebody may have it.
    assert_eq!(pair.seal(&[ask(IP6_A, "fe80::1".parse().expect("address"))]).len(), 2);
    let unknown: Ipv6Addr = "fd00::99".parse().expect("address");
    assert_eq!(pair.seal(&[ask(IP6_A, unknown)]).len(), 0);
    assert_eq!(pair.a_out.told, [Told::NoRoute(unknown.into())]);
}

#[test]
fn a_group_frame_goes_to_every_link() {
    let mut pair = trio();
    let mut frame = Shape::udp(50, 1).frame();
    frame.frame[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 0xfb]);
    pair.seal_to_sends(&[frame.to_bytes()]);
    let links: Vec<_> = pair.a_out.sends.iter().map(|(_, run)| run.link).collect();
    assert_eq!(links, [INDEX_AT_A, LinkIndex(7)]);
    let datagram = pair.a_out.take_datagrams().remove(0);
    assert_eq!(pair.open(&[datagram]), [frame]);
}

#[test]
fn a_replacing_link_sends_when_told() {
    let mut pair = Pair::new(direct(1472));
    let mut newer = link(LinkIndex(3), LinkIndex(4), MAC_B, direct(1472));
    newer.is_sending = false;
    pair.a.install_link(newer);
    let frame = Shape::udp(50, 1).frame().to_bytes();
    let used = |pair: &mut Pair| {
        pair.seal_to_sends(std::slice::from_ref(&frame));
        pair.a_out.sends.pop().map(|(_, run)| run.link)
    };
    assert_eq!(used(&mut pair), Some(INDEX_AT_A));
    assert!(pair.a.use_link(LinkIndex(3)));
    assert_eq!(used(&mut pair), Some(LinkIndex(3)));
    assert!(pair.a.remove_link(INDEX_AT_A).is_some());
    assert_eq!(used(&mut pair), Some(LinkIndex(3)));
    assert!(pair.a.remove_link(LinkIndex(3)).is_some());
    assert_eq!(used(&mut pair), None);
    assert_eq!(pair.a.counters().drops_by(Drop::LinkNotUp), 1);
    assert_eq!(pair.a_out.told, [Told::NoRoute(IP_B.into())]);
}

#[test]
fn a_link_without_a_path_drops() {
    let mut pair = Pair::new(direct(1472));
    assert!(pair.a.set_path(INDEX_AT_A, None));
    assert_eq!(pair.carry(&[Shape::udp(50, 1).frame().to_bytes()]), []);
    assert_eq!(pair.a.counters().drops_by(Drop::LinkNotUp), 1);
    pair.a.set_path(INDEX_AT_A, Some(direct(1472)));
    assert_eq!(pair.carry(&[Shape::udp(50, 1).frame().to_bytes()]).len(), 1);
}

#[test]
fn what_waits_for_a_removed_link_is_not_sealed_for_another() {
    let mut pair = Pair::new(direct(1472));
    let frame = Shape::udp(50, 1).frame().to_bytes();
    pair.a.egress(pair.now, &frame, &mut pair.a_out);
    pair.a.remove_link(INDEX_AT_A);
    pair.a.install_link(link(LinkIndex(7), LinkIndex(8), MAC_C, direct(1472)));
    pair.a.flush_egress(&mut pair.a_out);
    assert_eq!(pair.a_out.sends.len(), 0);
    assert!(pair.a_out.is_whole());
    assert_eq!(pair.a.counters().drops_by(Drop::LinkNotUp), 1);
}

#[test]
fn replays_and_forgeries_are_dropped() {
    let mut pair = Pair::new(direct(1472));
    let frames: Vec<_> = (0..3).map(|fill| Shape::udp(900, fill).frame().to_bytes()).collect();
    let mut datagrams = pair.seal(&frames);
    assert_eq!(pair.open(&datagrams).len(), 1);
    assert_eq!(pair.open(&datagrams), []);
    assert_eq!(pair.drops_at_b(Drop::Replayed), 3);

    let mut fresh = pair.seal(&frames);
    for (at, reason) in
        [(0, Drop::Forged), (20, Drop::Forged), (3, Drop::Forged), (1, Drop::WrongLane)]
    {
        let mut forged = fresh[0].clone();
        // Epoch bits make an unknown epoch, so the part count stands for the header.
        let at = if at == 0 { forged.len() - 1 } else { at };
        forged[at] ^= 1;
        if at == 3 {
            forged[at] = 9;
        }
        let before = pair.drops_at_b(reason);
        assert_eq!(pair.open(&[forged]), []);
        assert_eq!(pair.drops_at_b(reason), before + 1);
    }
    fresh[0][7] ^= 1;
    assert_eq!(pair.open(&fresh[..1]), []);
    assert_eq!(pair.drops_at_b(Drop::UnknownLink), 1);
    let header = Header { kind: Kind::Control, ..Header::parse(&fresh[0]).expect("a header") };
    fresh[0][..HEADER_LEN].copy_from_slice(&header.emit());
    assert_eq!(pair.open(&fresh[..1]), []);
    assert_eq!(pair.drops_at_b(Drop::EarlyControl), 1);
    datagrams[0].truncate(30);
    assert_eq!(pair.open(&datagrams[..1]), []);
    assert_eq!(pair.drops_at_b(Drop::Truncated), 1);
    assert_eq!(pair.open(&[vec![200; 50]]), []);
    assert_eq!(pair.drops_at_b(Drop::UnknownProtocol), 1);
}

#[test]
fn a_forgery_does_not_cut_a_join_in_two() {
    let shape = Shape { payload_len: 20 * 1376, ..Shape::default() };
    let frame = shape.super_segment(1376, false);
    let mut pair = Pair::new(direct(1472));
    let mut datagrams = pair.seal(&[frame.to_bytes()]);
    let mut forged = datagrams[15].clone();
    forged[500] ^= 1;
    datagrams.insert(7, forged);
    assert_eq!(pair.open(&datagrams), [frame]);
}

#[test]
fn nobody_speaks_for_another() {
    // A claims each of these; only the first is its own.
    let sources: [(IpAddr, usize); 4] = [
        (IP_A.into(), 1),
        (IP_C.into(), 0),
        (IP_B.into(), 0),
        (Ipv4Addr::new(10, 1, 1, 1).into(), 1),
    ];
    for payload_len in [50, 900, 1440] {
        let mut pair = trio();
        for (address, passes) in sources {
            let mut frame = Shape::udp(payload_len, 1).frame();
            let IpAddr::V4(v4) = address else { continue };
            frame.frame[26..30].copy_from_slice(&v4.octets());
            assert_eq!(pair.carry(&[frame.to_bytes()]).len(), passes, "{address} {payload_len}");
        }
        assert_eq!(pair.drops_at_b(Drop::ForeignSource), 2);
        // What was A's a moment ago is C's now.
        let frame = Shape::udp(payload_len, 1).frame().to_bytes();
        assert_eq!(pair.carry(std::slice::from_ref(&frame)).len(), 1);
        pair.b.add_route(IP_A.into(), 32, MAC_C);
        assert_eq!(pair.carry(&[frame]), []);
    }
    let mut pair = trio();
    let mut spoofed = Shape { payload_len: 5000, ..Shape::default() }.super_segment(1000, false);
    spoofed.frame[26..30].copy_from_slice(&IP_C.octets());
    assert_eq!(pair.carry(&[spoofed.to_bytes()]), []);
    let config = Config { strict_source: false, ..Config::new(MAC_B, 1500) };
    let mut lax = Pair::with_config(direct(1472), config);
    lax.b.add_route(IP_C.into(), 32, MAC_C);
    assert_eq!(lax.carry(&[spoofed.to_bytes()]).len(), 1);
}

#[test]
fn hardware_addresses_are_the_links_own() {
    let mut pair = trio();
    let mut frame = Shape { vlan: Some(3), ..Shape::udp(50, 1) }.frame();
    frame.frame[11] ^= 1;
    assert_eq!(pair.carry(&[frame.to_bytes()]), []);
    assert_eq!(pair.a.counters().drops_by(Drop::ForeignSource), 1);
    // A dishonest node does not stop there.
    for (at, reason) in [(11, Drop::ForeignSource), (5, Drop::UnknownMac)] {
        let mut frame = Shape::udp(50, 1).frame().frame;
        frame[at] ^= 1;
        let record = ipop_wire::bundle::Record {
            len: frame.len() as u16,
            csum: CsumState::Unknown,
            is_ethernet_elided: false,
        };
        let plaintext = [&record.emit()[..], &frame].concat();
        let datagram = Dishonest::new().seal(Part::BUNDLE, &plaintext);
        let mut pair = trio();
        assert_eq!(pair.open(&[datagram]), []);
        assert_eq!(pair.drops_at_b(reason), 1);
    }
}

#[test]
fn neighbour_messages_of_peers_are_checked() {
    for (target, mac, passes) in
        [(IP6_A, MAC_A, 1), (IP6_B, MAC_A, 0), (IP6_A, MAC_C, 0), (Ipv6Addr::LOCALHOST, MAC_A, 1)]
    {
        let advertisement = AdvertisementRepr { target, mac, solicitor: None };
        let mut frame = advertisement.emit_frame();
        frame[6..12].copy_from_slice(&MAC_A);
        frame[14 + 8..14 + 24].copy_from_slice(&IP6_A.octets());
        let mut pair = trio();
        assert_eq!(pair.carry(&[tap_bytes(&frame)]).len(), passes, "{target} {mac:?}");
    }
    for (mac, ip, passes) in [(MAC_A, IP_A, 1), (MAC_C, IP_A, 0), (MAC_A, IP_C, 0)] {
        let reply = ArpRepr {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: ip,
            target_mac: MAC_B,
            target_ip: IP_B,
        };
        let mut pair = trio();
        let frame = tap_bytes(&reply.emit_frame(MAC_A, MAC_B));
        assert_eq!(pair.carry(&[frame]).len(), passes);
    }
}

#[test]
fn what_is_not_data_goes_to_the_agent() {
    let channel = Some(0x4001);
    let mut pair =
        Pair::new(Path { channel, datagram_len: 1400, is_settled: true, is_lossy: false });
    let mut control = [0; 200];
    let len =
        pair.a.seal_control(pair.now, INDEX_AT_A, channel, b"hello", &mut control).expect("sealed");
    let stun = vec![0, 1, 2, 3];
    let relayed_stun = [&channel_prefix(0x4002, 4)[..], &stun].concat();
    let handshake = Header {
        kind: Kind::Handshake,
        epoch: 0,
        lane: 0,
        part: Part::WHOLE,
        receiver: LinkIndex(99),
        counter: 0,
    };
    let handshake = [&handshake.emit()[..], b"flight"].concat();
    let relayed_handshake =
        [&channel_prefix(0x4003, handshake.len() as u16)[..], &handshake].concat();
    let control = control[..len].to_vec();
    let all = [stun.clone(), relayed_stun.clone(), handshake, relayed_handshake, control.clone()];
    assert_eq!(pair.open(&all), []);
    let expected = [
        Told::Stun(stun),
        Told::TurnChannel(relayed_stun),
        Told::Handshake(None, b"flight".to_vec()),
        Told::Handshake(Some(0x4003), b"flight".to_vec()),
        Told::Control(INDEX_AT_B, channel, b"hello".to_vec()),
    ];
    assert_eq!(pair.b_out.told, expected);
    pair.open(&[control]);
    assert_eq!(pair.drops_at_b(Drop::Replayed), 1);
    assert_eq!(pair.b.counters().total(Total::RelayedDatagramsIn), 4);
}

#[test]
fn keys_ratchet_on_the_way_and_links_know_their_state() {
    let mut pair = Pair::new(direct(1472));
    let frame = Shape::udp(50, 1).frame().to_bytes();
    for _ in 0..5 {
        assert_eq!(pair.carry(std::slice::from_ref(&frame)).len(), 1);
        pair.now += Duration::from_secs(130);
    }
    let status = pair.b.link_statuses().next().expect("one link");
    assert_eq!((status.index, status.opening_epoch), (INDEX_AT_B, 4));
    assert_eq!(status.counters.datagrams_in, 5);
    assert!(status.heard.is_some());
    assert_eq!(pair.a.counters().total(Total::Ratchets), 4);
    pair.a.maintain(pair.now);
    assert_eq!(pair.a.counters().total(Total::Ratchets), 5);
}

#[test]
fn keys_that_change_amid_a_frame_are_counted() {
    let mut pair = Pair::new(direct(1472));
    let config = Config {
        key_life: KeyLife { packets: 10, ..KeyLife::default() },
        ..Config::new(MAC_A, 1500)
    };
    pair.a = Node::new(config, &[IP_A.into()]);
    pair.a.install_link(link(INDEX_AT_A, INDEX_AT_B, MAC_B, direct(1472)));
    let stream = Shape { payload_len: 44 * 1348, ..Shape::default() };
    let frame = stream.super_segment(1348, false).to_bytes();
    for _ in 0..5 {
        assert_eq!(pair.carry(std::slice::from_ref(&frame)).len(), 1);
    }
    pair.a.maintain(pair.now);
    let sealed = pair.a.counters().total(Total::DatagramsOut);
    let status = pair.a.link_statuses().next().expect("one link");
    assert_eq!(pair.a.counters().total(Total::Ratchets), status.sealing_epoch);
    assert_eq!(status.sealing_epoch, sealed / 10);
    assert_eq!(pair.drops(), 0);
}

#[test]
fn full_means_drop_and_count() {
    let frames: Vec<_> = (0..40).map(|fill| Shape::udp(1300, fill).frame().to_bytes()).collect();
    for (slots_a, slots_b) in [(0, 48), (48, 0), (1, 1), (2, 2)] {
        let mut pair = Pair::new(direct(1472));
        pair.a_out = Memory::new(slots_a);
        pair.b_out = Memory::new(slots_b);
        let datagrams = pair.seal(&frames);
        let written = pair.open(&datagrams);
        assert_eq!(written.len(), if slots_a * slots_b == 0 { 0 } else { 1 });
        let dropped_at = |node: &Node| node.counters().drops_by(Drop::OutputFull);
        assert_eq!(dropped_at(&pair.a), if slots_a == 0 { 40 } else { 0 });
        assert_eq!(dropped_at(&pair.b), if slots_b == 0 { 40 } else { 0 });
    }
}

/// A peer with keys that keeps no rules.
struct Dishonest {
    sealer: Sealer,
}

impl Dishonest {
    fn new() -> Dishonest {
        let secret = ChainSecret::new([INDEX_AT_B.0 as u8 ^ (INDEX_AT_B.0 >> 24) as u8; 32]);
        Dishonest { sealer: Sealer::new(Cipher::Aes128Gcm, &secret, Instant::now()) }
    }

    fn seal(&mut self, part: Part, plaintext: &[u8]) -> Vec<u8> {
        let header =
            Header { kind: Kind::Data, epoch: 0, lane: 0, part, receiver: INDEX_AT_B, counter: 0 };
        let mut out = vec![0; plaintext.len() + 32];
        self.sealer.seal(header, plaintext, &[], &mut out).expect("sealed");
        out
    }
}

fn any_geometry() -> impl Strategy<Value = Geometry> {
    let gso = prop_oneof![
        Just(GsoType::None),
        Just(GsoType::Tcp4),
        Just(GsoType::Tcp6),
        Just(GsoType::Udp)
    ];
    let start = prop_oneof![Just(34u16), Just(54), any::<u16>()];
    let csum = (start, prop_oneof![Just(6u16), Just(16), any::<u16>()])
        .prop_map(|(start, offset)| CsumState::Needed(ipop_wire::vnet::Csum { start, offset }));
    let csum = prop_oneof![Just(CsumState::Unknown), Just(CsumState::Valid), csum];
    let sizes = (prop_oneof![Just(14u16), Just(42), Just(66), 14..300u16], 1..1500u16, 0..9u16);
    (gso, csum, any::<[bool; 2]>(), sizes).prop_map(
        |(gso_type, csum, [is_ethernet_elided, has_ecn], (header_len, gso_size, offset))| {
            Geometry {
                gso_type,
                has_ecn,
                csum,
                is_ethernet_elided,
                header_len,
                gso_size,
                offset: offset * gso_size,
            }
        },
    )
}

proptest! {
    #![proptest_config(kit::cases(400))]

    #[test]
    fn strangers_cannot_break_anything(
        datagrams in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..80), 1..20),
        first: u8, segment_size in 0..100usize,
    ) {
        let mut pair = Pair::new(direct(1472));
        for mut datagram in datagrams {
            if let Some(byte) = datagram.first_mut() {
                *byte = (*byte & 0x3f) | first;
            }
            if let Some(index) = datagram.get_mut(4..8) {
                index.copy_from_slice(&INDEX_AT_B.0.to_be_bytes());
            }
            pair.b.ingress(pair.now, &datagram, segment_size, source(), &mut pair.b_out);
        }
        prop_assert_eq!(pair.flush(), []);
    }

    #[test]
    fn hosts_cannot_break_anything(
        (shape, gso_size, has_ecn) in any_super_segment(),
        flips in proptest::collection::vec((0..120usize, any::<u8>()), 0..6),
        cut: Option<prop::sample::Index>,
    ) {
        let mut bytes = shape.super_segment(gso_size, has_ecn).to_bytes();
        for (at, byte) in flips {
            // The shortest has fewer than that.
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let mut pair = Pair::new(direct(1472));
        pair.seal(&[bytes]);
    }

    #[test]
    fn peers_cannot_break_anything(
        parts in proptest::collection::vec(
            (any_geometry(), 0..4u8, 0..5u8, 0..2000usize, any::<u8>(), any::<bool>()), 1..30),
        flips in proptest::collection::vec((0..60usize, any::<u8>()), 0..4),
    ) {
        let mut peer = Dishonest::new();
        let mut pair = Pair::new(direct(9000));
        // Headers that look like something, so that more than the front door is tested.
        let mut headers = Shape::udp(700, 0).frame().frame;
        headers.resize(320, 0x45);
        for (at, byte) in flips {
            headers[at] = byte;
        }
        for (geometry, index, count, payload_len, byte, is_v6) in parts {
            let part = Part { index, count };
            if !part.is_valid() {
                continue;
            }
            let on_wire = geometry.headers_on_wire();
            let start = usize::from(geometry.header_len) - on_wire;
            headers[14] = if is_v6 { 0x60 } else { 0x45 };
            let mut plaintext = vec![byte; payload_len];
            plaintext.extend(&headers[start..start + on_wire]);
            plaintext.extend(geometry.emit());
            if count == 0 {
                plaintext = [&[0, byte, geometry.gso_type as u8, 6, 0, 34], &headers[..]].concat();
            }
            let datagram = peer.seal(part, &plaintext);
            pair.b.ingress(pair.now, &datagram, 0, source(), &mut CarefreeTap(&mut pair.b_out));
            if byte % 4 == 0 {
                pair.b.flush_ingress(pair.now, &mut CarefreeTap(&mut pair.b_out));
            }
        }
        pair.b.flush_ingress(pair.now, &mut CarefreeTap(&mut pair.b_out));
        prop_assert!(pair.b_out.is_whole(), "a slot was lost");
    }
}

/// A tap that takes frames that a kernel would refuse: what a dishonest peer gets is its own
/// matter, as long as it gets nothing else.
struct CarefreeTap<'a>(&'a mut Memory);

impl Sink for CarefreeTap<'_> {
    type Slot = Box<[u8]>;

    fn reserve(&mut self) -> Option<Box<[u8]>> {
        self.0.reserve()
    }

    fn discard(&mut self, slot: Box<[u8]>) {
        self.0.discard(slot);
    }

    fn send(&mut self, slot: Box<[u8]>, run: ipop_pipeline::SendRun) {
        self.0.send(slot, run);
    }

    fn write_tap(&mut self, slot: Box<[u8]>, range: std::ops::Range<usize>) {
        assert!(range.start < range.end && range.end <= slot.len());
        self.0.discard(slot);
    }

    fn hand_over(&mut self, tap_frame: &[u8]) {
        self.0.hand_over(tap_frame);
    }

    fn to_agent(&mut self, item: ipop_pipeline::ToAgent<'_>) {
        self.0.to_agent(item);
    }
}
