//! Several queues of one tap in a port's hands. Each test runs on both ports.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use common::{KernelPort, MAC_A, Namespace, on_every_port, reap_until};
use ipop_uring::{Batch, Completion, PortConfig, TAP_QUEUES_MAX, TapQueues};

/// A flood that nobody reads fills its own queue; other flows' frames are in others.
fn a_full_queue_leaves_others_their_room<P: KernelPort>() {
    const FLOWS: u16 = 32;
    const ROOM: u32 = 100;
    let namespace = Namespace::new();
    let (mut tap, queues) = namespace.tap_with_queues("tap0", TAP_QUEUES_MAX, MAC_A, "10.9.0.1");
    tap.set_queue_len(ROOM).unwrap();
    namespace.ip("neigh add 10.9.0.2 lladdr 02:00:00:00:00:0b dev tap0 nud permanent");
    let send = |from: u16, count: u32| {
        let socket = namespace.run(|| std::net::UdpSocket::bind(("10.9.0.1", from)).unwrap());
        (0..count).for_each(|_| drop(socket.send_to(&[7; 64], "10.9.0.2:9")));
    };
    send(4000, 4 * ROOM);
    (0..FLOWS).for_each(|flow| send(5000 + flow, 1));

    let mut port: P = P::open(TapQueues::new(queues).unwrap(), None, None, &PortConfig::default());
    let (mut batch, mut flows) = (port.batch(), std::collections::BTreeSet::new());
    let mut flooded = 0;
    while !port_is_idle(&mut port, &mut batch) {
        for completion in batch.drain() {
            let Completion::TapFrame(frame) = completion else { continue };
            // Behind the virtio-net header, Ethernet's and IPv4's.
            match frame.bytes().get(46..48).map(|port| u16::from_be_bytes([port[0], port[1]])) {
                Some(4000) => flooded += 1,
                Some(source) if frame.bytes()[24..26] == [8, 0] => drop(flows.insert(source)),
                _ => {}
            }
            port.release_frame(frame);
        }
    }
    assert!((1..=ROOM).contains(&flooded), "{flooded}");
    // An eighth of them share the flood's queue, by chance.
    assert!(flows.len() > usize::from(FLOWS) / 2, "{flows:?}");
}

fn port_is_idle(port: &mut impl KernelPort, batch: &mut Batch) -> bool {
    port.wait(Some(Duration::from_millis(300)), batch).unwrap();
    batch.is_empty()
}

/// What answers a flow takes the queue of who sent the flow, once one answer has come.
fn answers_come_from_all_queues_and_in_order<P: KernelPort>() {
    const PEERS: u8 = 16;
    const PINGS: u8 = 3;
    let namespace = Namespace::new();
    let (_tap, queues) = namespace.tap_with_queues("tap0", TAP_QUEUES_MAX, MAC_A, "10.9.0.1");
    let mut port: P = P::open(TapQueues::new(queues).unwrap(), None, None, &PortConfig::default());
    let mut batch = port.batch();
    for peer in 1..=PEERS {
        let host = peer + 1;
        namespace.ip(&format!("neigh add 10.9.0.{host} lladdr 02:00:00:00:00:{peer:02x} dev tap0"));
        write(&mut port, &ping(peer, 0));
    }
    let first = answers(&mut port, &mut batch, PEERS.into());
    assert_eq!(first.iter().map(|answer| answer.1).collect::<Vec<_>>(), [0; PEERS as usize]);
    for number in 1..=PINGS {
        (1..=PEERS).for_each(|peer| write(&mut port, &ping(peer, number)));
    }
    let others = answers(&mut port, &mut batch, usize::from(PEERS * PINGS));
    for peer in 1..=PEERS {
        let of_peer = others.iter().filter(|answer| answer.0 == peer).map(|answer| answer.1);
        assert!(of_peer.eq(1..=PINGS), "{peer}: {others:?}");
    }
}

fn write(port: &mut impl KernelPort, frame: &[u8]) {
    let mut slot = port.output().unwrap();
    slot[..frame.len()].copy_from_slice(frame);
    port.write_tap(slot, 0..frame.len());
}

/// So many answers to pings: peer and number of each.
fn answers(port: &mut impl KernelPort, batch: &mut Batch, count: usize) -> Vec<(u8, u8)> {
    let mut answers = Vec::new();
    reap_until(port, batch, |port, completion| {
        let Completion::TapFrame(frame) = completion else { return false };
        let bytes = frame.bytes();
        // IPv4, ICMP, echo reply.
        if bytes[24..26] == [8, 0] && bytes[35] == 1 && bytes[46] == 0 {
            answers.push((bytes[17], bytes[53]));
        }
        port.release_frame(frame);
        answers.len() == count
    });
    answers
}

/// An echo request of a peer, virtio-net header first.
fn ping(peer: u8, number: u8) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0, peer, 0, number];
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    let mut ip = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 9, 0, peer + 1, 10, 9, 0, 1];
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    [&[0; 12][..], &MAC_A, &[2, 0, 0, 0, 0, peer], &[8, 0], &ip, &icmp].concat()
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    (!(sum + (sum >> 16)) as u16).to_be_bytes()
}

on_every_port! {
    a_full_queue_leaves_others_their_room
    answers_come_from_all_queues_and_in_order
}
