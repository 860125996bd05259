//! Keys: they change beside traffic without a lost packet, within limits that the configuration
//! sets, and do not get into core dumps.

#![allow(missing_docs, clippy::unwrap_used)]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use ipop_lab::{Impairment, Nat};
use ipop_system_tests::{Node, Scratch, Stage, eventually, iperf3, transfer};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::Value;

const BYTES: u64 = 32 << 20;
/// Changes of keys, ratchets and handshakes of both ends together, that a run sees at least. More
/// with `IPOP_REKEYS=1000`.
const REKEYS: u64 = 100;
/// Keys that live as short as allowed.
const SHORT_LIVED: &str = "[keys]\nseconds = 1\npackets = 1024\nhandshake_seconds = 10\n";

fn stage(further: &str) -> Stage {
    let mut stage = Stage::prosody();
    for _ in 0..2 {
        let number = stage.add_site(Nat::None, Impairment::default());
        let mut config = stage.config(number);
        config.nat.push_str(further);
        stage.start(number, &config);
    }
    stage.await_links();
    stage
}

fn ratchets(nodes: &[Node]) -> u64 {
    nodes.iter().map(|node| node.counter("ratchets")).sum()
}

fn handshakes(nodes: &[Node]) -> u64 {
    nodes.iter().map(|node| node.counter("handshakes_completed")).sum()
}

/// Nothing was refused for the key that it was sealed with.
fn assert_none_lost_to_keys(nodes: &[Node]) {
    for node in nodes {
        for reason in ["unknown_epoch", "forged", "unknown_index", "replayed"] {
            assert_eq!(node.drops(reason), 0, "{reason}: {}", node.status()["drops"]);
        }
    }
}

#[test]
fn keys_change_beside_a_stream_without_a_lost_packet() {
    let asked = std::env::var("IPOP_REKEYS").map(|text| text.parse().unwrap());
    let stage = stage(SHORT_LIVED);
    let (a, b) = stage.pair();
    let start = Instant::now();
    while ratchets(&stage.nodes) < asked.clone().unwrap_or(REKEYS) || handshakes(&stage.nodes) < 4 {
        for (from, to) in [(a, b), (b, a)] {
            let result = transfer(from, to, to.v4(), BYTES);
            assert_eq!((result.bytes, result.corrupted), (BYTES, 0));
        }
        assert_none_lost_to_keys(&stage.nodes);
    }
    let (ratchets, handshakes) = (ratchets(&stage.nodes), handshakes(&stage.nodes));
    println!("{ratchets} ratchets, {handshakes} ends of handshakes in {:?}", start.elapsed());
}

#[test]
fn a_steady_stream_of_datagrams_loses_none_while_keys_change() {
    let stage = stage(SHORT_LIVED);
    let (a, b) = stage.pair();
    let before = (ratchets(&stage.nodes), handshakes(&stage.nodes));
    let output = iperf3(a, b, b.v4(), "-u -b 20M -l 1000 -t 12 -J");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sum = &said["end"]["sum"];
    assert_eq!(sum["lost_packets"].as_u64(), Some(0), "{sum}");
    assert!(sum["packets"].as_u64().unwrap() > 20_000, "{sum}");
    assert!(ratchets(&stage.nodes) > before.0 + 10);
    assert!(handshakes(&stage.nodes) > before.1);
    assert_none_lost_to_keys(&stage.nodes);
}

#[test]
fn processes_with_keys_leave_no_core_dumps() {
    let mut limits = getrlimit(Resource::Core);
    limits.current = limits.maximum;
    setrlimit(Resource::Core, Rlimit { ..limits }).unwrap();
    let scratch = Scratch::new();
    let mut aborting = Command::new("sh");
    aborting.args(["-c", "kill -ABRT $$"]).current_dir(scratch.folder());
    let dumps = aborting.status().unwrap().core_dumped();
    println!("this machine makes core dumps of others: {dumps}");
    let stage = stage("");
    let node = &stage.nodes[0];
    // The controller first: it starts anew with the datapath as well.
    for role in ["controller", "datapath"] {
        let pid = node.pid_of(role);
        kill_process(pid, Signal::ABORT).unwrap();
        node.await_successor(role, pid);
    }
    eventually("the supervisor says how both ended", Duration::from_secs(5), || {
        node.log().matches("SIGABRT").count() >= 2
    });
    assert!(!node.log().contains("core dumped"), "{}", node.log());
}
