//! Much traffic: every byte is checked, and iperf3 is content.

#![allow(missing_docs, clippy::unwrap_used)]

use ipop_lab::Nat;
use ipop_system_tests::{Node, Stage, iperf3, transfer};

const BYTES: u64 = 256 << 20;

#[test]
fn bulk_transfers_arrive_whole() {
    let stage = Stage::prosody().join([Nat::PortRestricted, Nat::PortRestricted]);
    stage.await_links();
    let (a, b) = stage.pair();
    for (from, to) in [(a, b), (b, a)] {
        for address in [to.v4(), to.v6()] {
            let result = transfer(from, to, address, BYTES);
            assert_eq!((result.bytes, result.corrupted), (BYTES, 0), "{address}");
        }
    }
    // Both ways at once.
    let (there, back) = (b.v4(), a.v4());
    let both = std::thread::scope(|scope| {
        let one = scope.spawn(|| transfer(a, b, there, BYTES / 4));
        let other = scope.spawn(|| transfer(b, a, back, BYTES / 4));
        [one.join().unwrap(), other.join().unwrap()]
    });
    for result in both {
        assert_eq!((result.bytes, result.corrupted), (BYTES / 4, 0));
    }
    for node in [a, b] {
        for reason in ["forged", "malformed_plaintext", "foreign_source", "tap_write_failed"] {
            assert_eq!(node.drops(reason), 0, "{reason}: {}", node.status()["drops"]);
        }
    }
}

/// Runs iperf3 from `a` to `b`; returns the bytes that arrived.
fn measured(a: &Node, b: &Node, words: &str) -> u64 {
    let output = iperf3(a, b, b.v4(), words);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "iperf3 {words}: {text}");
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let end = &report["end"];
    let sum = if end["sum_received"].is_null() { &end["sum"] } else { &end["sum_received"] };
    sum["bytes"].as_u64().unwrap_or_default()
}

#[test]
fn iperf3_works_both_ways() {
    let stage = Stage::prosody().join([Nat::PortRestricted, Nat::PortRestricted]);
    stage.await_links();
    let (a, b) = stage.pair();
    for words in ["-t 3 -C cubic", "-t 3 -C cubic -R", "-t 3 -C cubic --bidir", "-t 3 -P 4"] {
        let bytes = measured(a, b, words);
        assert!(bytes > 10 << 20, "iperf3 {words}: {bytes} bytes");
    }
    for words in ["-t 3 -u -b 50M", "-t 3 -u -b 50M -R", "-t 3 -u -b 20M -l 8000"] {
        let bytes = measured(a, b, words);
        assert!(bytes > 5 << 20, "iperf3 {words}: {bytes} bytes");
    }
}
