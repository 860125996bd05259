//! The signalling server dies: links do not care, and when it is back, members join again.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use ipop_lab::Nat;
use ipop_system_tests::{Pinging, Stage, eventually};

fn survives(mut stage: Stage) {
    stage.await_links();
    let (a, b) = stage.pair();
    let (there, back) = (b.v4(), a.v6());
    let sessions = [a.row(b), b.row(a)].map(|row| row.unwrap().session);
    let pings = [
        Pinging::start(a, there, 1500, Duration::from_millis(10)),
        Pinging::start(b, back, 1500, Duration::from_millis(10)),
    ];
    stage.server.kill();
    let (a, b) = stage.pair();
    for node in [a, b] {
        eventually("the loss of the server is noticed", Duration::from_secs(10), || {
            !signalling(&node.status()).starts_with("online")
        });
    }
    std::thread::sleep(Duration::from_secs(3));
    assert!(a.is_linked_to(b) && b.is_linked_to(a));
    stage.server.start();
    let (a, b) = stage.pair();
    assert!(pings.iter().all(Pinging::is_running), "the pings cover the outage");
    for node in [a, b] {
        eventually("the node is in the group again", Duration::from_secs(60), || {
            signalling(&node.status()).starts_with("online")
        });
    }
    pings.into_iter().for_each(Pinging::assert_lossless);
    assert_eq!([a.row(b), b.row(a)].map(|row| row.unwrap().session), sessions, "same links");
    stage.add(Nat::PortRestricted);
    stage.await_links();
}

fn signalling(status: &serde_json::Value) -> String {
    status["controller"]["signalling"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn links_survive_the_death_of_prosody() {
    survives(Stage::prosody().join([Nat::PortRestricted, Nat::PortRestricted]));
}

#[test]
fn links_survive_the_death_of_ejabberd() {
    survives(Stage::ejabberd().join([Nat::PortRestricted, Nat::PortRestricted]));
}

/// The server is away when the node starts: it waits instead of ending.
#[test]
fn a_node_that_starts_without_a_server_joins_later() {
    let mut stage = Stage::prosody();
    stage.server.kill();
    stage.add(Nat::None);
    stage.add(Nat::PortRestricted);
    for node in &stage.nodes {
        eventually("the reason is shown", Duration::from_secs(10), || {
            node.log().contains("198.18.0.10:5222")
        });
    }
    stage.server.start();
    stage.await_links();
}
