//! What the kernel drops in front of a worker that does not come is counted, by its reason, and a
//! flood to one peer leaves the others their room.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use ipop_lab::Nat;
use ipop_system_tests::{Node, Stage, eventually};
use rustix::process::{Signal, kill_process};

/// Twice as many as the longer of the queues holds, and more.
const COUNT: usize = 20_000;
const LEN: usize = 1200;
const SOON: Duration = Duration::from_secs(5);

/// Sends a flood of datagrams from a node's machine while the datapath of `stopped` stands still,
/// and then does something else.
fn flood(from: &Node, own: IpAddr, there: SocketAddr, stopped: &Node, then: impl FnOnce()) {
    let socket = socket_at(from, own);
    socket.connect(there).unwrap();
    let datapath = stopped.pid_of("datapath");
    kill_process(datapath, Signal::STOP).unwrap();
    for _ in 0..COUNT {
        // The other end may say that nobody listens there.
        let _ = socket.send(&[7; LEN]);
    }
    then();
    kill_process(datapath, Signal::CONT).unwrap();
}

fn socket_at(node: &Node, address: IpAddr) -> UdpSocket {
    let own = SocketAddr::new(address, 0);
    ipop_lab::inside(&node.namespace(), move || UdpSocket::bind(own)).unwrap()
}

/// Frames that the kernel says its interface dropped.
fn dropped_by_interface(node: &Node) -> u64 {
    let read = || std::fs::read_to_string("/proc/thread-self/net/dev");
    let table = ipop_lab::inside(&node.namespace(), read).unwrap();
    let line = table.lines().find_map(|line| line.trim().strip_prefix("ipop0:")).unwrap();
    line.split_whitespace().nth(11).unwrap().parse().unwrap()
}

#[test]
fn frames_that_the_interface_has_no_room_for_are_counted() {
    let stage = Stage::prosody().join([Nat::None, Nat::None]);
    stage.await_links();
    let (a, b) = stage.pair();
    assert_eq!(a.drops("interface_full"), 0);
    flood(a, a.v4(), SocketAddr::new(b.v4(), 9), a, || ());
    let dropped = dropped_by_interface(a);
    assert!(dropped > COUNT as u64 / 4, "{dropped} of {COUNT}");
    eventually("all that were dropped are counted", SOON, || {
        a.drops("interface_full") == dropped_by_interface(a)
    });
}

#[test]
fn datagrams_that_a_socket_has_no_room_for_are_counted() {
    let stage = Stage::prosody().join([Nat::None, Nat::None]);
    stage.await_links();
    let (a, b) = stage.pair();
    assert_eq!(b.drops("socket_full"), 0);
    // Past the overlay, to where its datagrams go.
    let there = a.row(b).unwrap().remote.unwrap();
    flood(a, stage.sites[0].address.into(), there, b, || ());
    eventually("what was dropped is counted", SOON, || b.drops("socket_full") > COUNT as u64 / 4);
}

#[test]
fn a_flood_to_one_peer_leaves_the_others_their_room() {
    const FLOWS: usize = 64;
    let stage = Stage::prosody().join([Nat::None, Nat::None, Nat::None]);
    stage.await_links();
    let [a, b, c] = stage.nodes.as_slice() else { panic!("three nodes") };
    let receiver = socket_at(c, c.v4());
    receiver.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let flows: Vec<_> = (0..FLOWS).map(|_| socket_at(a, a.v4())).collect();
    let there = receiver.local_addr().unwrap();
    let send = |flow: &UdpSocket| assert_eq!(flow.send_to(&[1], there).unwrap(), 1);
    // So that the host knows where C is.
    send(&flows[0]);
    receiver.recv_from(&mut [0]).unwrap();
    flood(a, a.v4(), SocketAddr::new(b.v4(), 9), a, || {
        flows.iter().for_each(send);
    });
    let mut came = 0;
    while receiver.recv_from(&mut [0]).is_ok() {
        came += 1;
    }
    // The kernel spreads flows over the queues by chance: one of them is the flood's.
    assert!(came >= FLOWS * 3 / 4, "{came} of {FLOWS}");
    assert!(a.drops("interface_full") > COUNT as u64 / 4);
}
