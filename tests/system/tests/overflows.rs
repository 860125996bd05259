//! What the kernel drops in front of a worker that does not come is counted, by its reason.

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

/// Sends a flood of datagrams from a node's machine while the datapath of `stopped` stands still.
fn flood(from: &Node, own: IpAddr, there: SocketAddr, stopped: &Node) {
    let own = SocketAddr::new(own, 0);
    let socket = ipop_lab::inside(&from.namespace(), move || UdpSocket::bind(own)).unwrap();
    socket.connect(there).unwrap();
    let datapath = stopped.pid_of("datapath");
    kill_process(datapath, Signal::STOP).unwrap();
    for _ in 0..COUNT {
        // The other end may say that nobody listens there.
        let _ = socket.send(&[7; LEN]);
    }
    kill_process(datapath, Signal::CONT).unwrap();
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
    flood(a, a.v4(), SocketAddr::new(b.v4(), 9), a);
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
    flood(a, stage.sites[0].address.into(), there, b);
    eventually("what was dropped is counted", SOON, || b.drops("socket_full") > COUNT as u64 / 4);
}
