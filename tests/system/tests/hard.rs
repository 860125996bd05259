//! Hard pairs of NATs: links that start through a relay and become direct by many probes, under
//! traffic that notices nothing.
//!
//! A single try succeeds nine times in ten or more, and the next one comes after 30 seconds: the
//! tests wait for the second, and print how long it took.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use ipop_lab::Nat;
use ipop_system_tests::{Flow, Node, Pinging, Stage, assert_all_answer, eventually};

/// From linked to direct at both ends: two tries.
const PATIENCE: Duration = Duration::from_secs(45);
/// How often the main case is repeated; `IPOP_HARD_ROUNDS` says otherwise.
const ROUNDS: usize = 3;

fn rounds() -> usize {
    std::env::var("IPOP_HARD_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap())
}

fn is_direct(a: &Node, b: &Node) -> bool {
    [(a, b), (b, a)].iter().all(|(node, peer)| {
        let link = node.link_to(peer);
        link["path"] == "direct" && link["state"] == "up"
    })
}

/// How long it takes from the start of the nodes until both ends are direct.
fn time_to_direct(stage: &Stage, started: Instant) -> Duration {
    let (a, b) = stage.pair();
    eventually("the direct path", PATIENCE, || is_direct(a, b));
    started.elapsed()
}

#[test]
fn port_restricted_and_symmetric_become_direct() {
    let mut within = 0;
    for round in 0..rounds() {
        let nats = match round % 2 {
            0 => [Nat::PortRestricted, Nat::Symmetric],
            _ => [Nat::Symmetric, Nat::PortRestricted],
        };
        let started = Instant::now();
        let stage = Stage::prosody().join(nats);
        stage.await_links();
        let time = time_to_direct(&stage, started);
        within += usize::from(time < Duration::from_secs(10));
        println!("{nats:?}: direct after {time:?}");
        assert_all_answer(&stage.nodes);
    }
    println!("{within} of {} within 10 s", rounds());
}

/// Runs something until the path of a pair has become direct, and a little longer.
fn while_it_becomes_direct(run: impl FnOnce(&Node, &Node, &dyn Fn())) {
    let stage = Stage::prosody().join([Nat::PortRestricted, Nat::Symmetric]);
    stage.await_links();
    let (a, b) = stage.pair();
    println!("direct before: {}", is_direct(a, b));
    let session = a.row(b).unwrap().session;
    run(a, b, &|| {
        eventually("the direct path", PATIENCE, || is_direct(a, b));
        std::thread::sleep(Duration::from_secs(3));
    });
    assert_eq!(a.row(b).unwrap().session, session, "the link was made anew");
    // The socket that met the peer is a worker's by now, and stays.
    assert!(is_direct(a, b));
}

#[test]
fn streams_do_not_notice_that_the_path_becomes_direct() {
    while_it_becomes_direct(|a, b, wait| {
        let flows = [Flow::start(a, b, b.v4()), Flow::start(b, a, a.v4())];
        wait();
        let flows = flows.map(Flow::finish);
        println!("streams paused {:?}", flows.map(|flow| flow.pause));
        assert!(flows.iter().all(|flow| flow.corrupted == 0 && flow.bytes > 0));
        // No stream waited for a repetition that waits for a second.
        assert!(flows.iter().all(|flow| flow.pause < Duration::from_secs(1)));
    });
}

#[test]
fn no_packet_is_lost_while_the_path_becomes_direct() {
    while_it_becomes_direct(|a, b, wait| {
        let pings = Pinging::start(a, b.v4(), 1000, Duration::from_millis(10));
        wait();
        pings.assert_lossless();
    });
}

#[test]
fn nats_that_count_their_ports_are_aimed_at() {
    for nats in [[Nat::Sequential, Nat::PortRestricted], [Nat::Sequential, Nat::Sequential]] {
        let started = Instant::now();
        let stage = Stage::prosody().join(nats);
        stage.await_links();
        println!("{nats:?}: direct after {:?}", time_to_direct(&stage, started));
        assert_all_answer(&stage.nodes);
    }
}

#[test]
fn a_nat_behind_a_nat_is_met_as_one() {
    for nats in [[Nat::Double, Nat::PortRestricted], [Nat::PortRestricted, Nat::Carrier]] {
        let started = Instant::now();
        let stage = Stage::prosody().join(nats);
        stage.await_links();
        println!("{nats:?}: direct after {:?}", time_to_direct(&stage, started));
    }
}

/// Two machines behind one router, without a network in common.
#[test]
fn neighbours_are_linked_with_and_without_a_router_that_reflects() {
    for nat in [Nat::Hairpin, Nat::PortRestricted, Nat::Symmetric] {
        let mut stage = Stage::prosody();
        stage.add(nat);
        stage.add_neighbour();
        stage.await_links();
        let (a, b) = stage.pair();
        if nat == Nat::Hairpin {
            eventually("the reflected path", PATIENCE, || is_direct(a, b));
        }
        println!("{nat}: {}", a.link_to(b)["path"]);
        assert_all_answer(&stage.nodes);
    }
}
