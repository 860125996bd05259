//! Several workers: a link takes a lane of each, flows spread over them, and one does where only
//! one gets through.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use ipop_lab::{Impairment, Nat};
use ipop_system_tests::{Node, Stage, eventually, iperf3, transfer};

const BYTES: u64 = 32 << 20;

fn stage(nats: [Nat; 2], workers: [u8; 2]) -> Stage {
    let mut stage = Stage::prosody();
    for (nat, workers) in nats.into_iter().zip(workers) {
        let number = stage.add_site(nat, Impairment::default());
        let mut config = stage.config(number);
        config.overlay.push_str(&format!("workers = {workers}\n"));
        stage.start(number, &config);
    }
    stage.await_links();
    stage
}

fn lanes(from: &Node, to: &Node) -> u64 {
    from.link_to(to)["lanes"].as_u64().unwrap_or_default()
}

/// CPU time of each worker of a node so far, in clock ticks.
fn worker_ticks(node: &Node) -> Vec<u64> {
    let pid = std::fs::read_to_string(format!("/run/ipop/{}/datapath.pid", node.name)).unwrap();
    let mut ticks = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", pid.trim())).unwrap() {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        if stat.contains("(worker-") {
            let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            ticks.push(fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap());
        }
    }
    ticks
}

fn check_transfers(a: &Node, b: &Node) {
    for (from, to) in [(a, b), (b, a)] {
        for address in [to.v4(), to.v6()] {
            let result = transfer(from, to, address, BYTES);
            assert_eq!((result.bytes, result.corrupted), (BYTES, 0), "{address}");
        }
    }
}

#[test]
fn flows_spread_over_the_lanes_of_both_ends() {
    let stage = stage([Nat::None, Nat::PortRestricted], [2, 3]);
    let (a, b) = stage.pair();
    for (from, to) in [(a, b), (b, a)] {
        let up = || lanes(from, to) == 2;
        eventually("as many lanes as both ends have workers", Duration::from_secs(10), up);
    }
    check_transfers(a, b);
    // Which flow takes which lane is the kernel's choice: sixteen do not all take the same.
    let output = iperf3(a, b, b.v4(), "-t 4 -P 16 -C cubic");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    for node in [a, b] {
        let busy = worker_ticks(node).into_iter().filter(|ticks| *ticks > 10).count();
        assert_eq!(busy, 2, "{:?}", worker_ticks(node));
        for reason in ["forged", "replayed", "wrong_lane", "malformed_plaintext"] {
            assert_eq!(node.drops(reason), 0, "{reason}: {}", node.status()["drops"]);
        }
    }
}

#[test]
fn one_lane_does_where_only_one_gets_through() {
    for (nats, workers) in [
        ([Nat::None, Nat::None], [2, 1]),
        // Its ports are not kept, and both ends filter: only the lane that ICE led gets through.
        ([Nat::Symmetric, Nat::PortRestricted], [2, 2]),
    ] {
        let stage = stage(nats, workers);
        let (a, b) = stage.pair();
        // A busy relayed link takes all its lanes: only direct paths are meant here.
        let is_direct = || a.link_to(b)["path"] == "direct" && b.link_to(a)["path"] == "direct";
        eventually("a direct path", Duration::from_secs(45), is_direct);
        check_transfers(a, b);
        assert_eq!((lanes(a, b), lanes(b, a)), (1, 1), "{nats:?}");
        // Counters are told once a second.
        eventually("the second worker, without a lane, hands over", Duration::from_secs(5), || {
            a.counter("frames_handed_over") > 0
        });
    }
}
