//! Nodes that may not use io_uring, by a filter of system calls as containers have it: a poll loop
//! runs the same pipeline, and says so.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use ipop_lab::{Impairment, Nat};
use ipop_system_tests::{IO_URING, Node, Stage, eventually, iperf3, transfer, without_calls};

const BYTES: u64 = 64 << 20;

/// Adds a node to which these system calls are refused.
fn add_without(stage: &mut Stage, nat: Nat, calls: &[i64]) {
    let number = stage.add_site(nat, Impairment::default());
    let config = stage.config(number);
    let machine = &stage.sites[number].node;
    let node = without_calls(calls, || Node::start(machine, &config));
    stage.nodes.push(node);
}

fn io(node: &Node) -> String {
    node.status()["datapath"]["io"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn traffic_passes_where_io_uring_is_forbidden() {
    let mut stage = Stage::prosody();
    add_without(&mut stage, Nat::PortRestricted, &IO_URING);
    add_without(&mut stage, Nat::PortRestricted, &IO_URING);
    stage.add(Nat::None);
    stage.await_links();
    let [a, b, with_ring] = &stage.nodes[..] else { unreachable!() };
    for node in [a, b] {
        let io = io(node);
        assert!(io.starts_with("poll loop (io_uring is not permitted (EPERM): "), "{io}");
        assert!(io.ends_with("), UDP IPv4 IPv6, segmented sends"), "{io}");
        let shown = String::from_utf8(node.ipop("status").stdout).unwrap();
        let line = shown.lines().find(|line| line.trim_start().starts_with("io ")).unwrap();
        assert!(line.contains("poll loop (io_uring is not permitted"), "{shown}");
        let error = shown.lines().find(|line| line.contains("error ")).unwrap();
        assert!(error.contains("a poll loop carries the packets"), "{shown}");
        assert!(node.log().contains("a poll loop carries the packets"), "{}", node.log());
    }
    assert!(io(with_ring).starts_with("io_uring ("), "{}", io(with_ring));
    eventually("the direct path is taken", Duration::from_secs(10), || {
        a.link_to(b)["path"] == "direct"
    });
    for (from, to) in [(a, b), (a, with_ring), (with_ring, a)] {
        for address in [to.v4(), to.v6()] {
            let result = transfer(from, to, address, BYTES);
            assert_eq!((result.bytes, result.corrupted), (BYTES, 0), "{address}");
        }
    }
    for words in ["-t 2 -P 4 -C cubic --bidir", "-t 2 -u -b 20M -l 64", "-t 2 -u -b 50M -l 8000"] {
        let output = iperf3(a, b, b.v4(), words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "iperf3 {words}: {text}");
    }
    for node in [a, b, with_ring] {
        for reason in ["forged", "malformed_plaintext", "foreign_source", "tap_write_failed"] {
            assert_eq!(node.drops(reason), 0, "{reason}: {}", node.status()["drops"]);
        }
    }
}

#[test]
fn each_call_of_io_uring_may_be_missing_and_a_poll_loop_may_be_asked_for() {
    let mut stage = Stage::prosody();
    for call in IO_URING {
        add_without(&mut stage, Nat::None, &[call]);
    }
    let number = stage.add_site(Nat::PortRestricted, Impairment::default());
    let mut config = stage.config(number);
    config.overlay.push_str("io = \"poll\"\n");
    stage.start(number, &config);
    stage.await_links();
    let (asked, without) = stage.nodes.split_last().unwrap();
    for node in without {
        assert!(io(node).starts_with("poll loop ("), "{}", io(node));
    }
    assert_eq!(io(asked), "poll loop, UDP IPv4 IPv6, segmented sends");
    assert_eq!(asked.status()["errors"].as_array().map(Vec::len), Some(0));
}
