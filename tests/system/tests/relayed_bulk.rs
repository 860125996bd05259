//! Bulk through a relay over UDP: how many lanes it takes, how it leaves, and how it arrives.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use ipop_lab::{Impairment, Internet, InternetConfig, Nat};
use ipop_system_tests::{Hub, Node, Stage, eventually, transfer};

const BYTES: u64 = 64 << 20;

/// A link that is busy for a while gets a relay for each of its lanes.
fn await_lanes(a: &Node, b: &Node) {
    let lanes = || [a.link_to(b)["lanes"].clone(), b.link_to(a)["lanes"].clone()];
    assert_eq!(lanes(), [1, 1], "nobody asks for more than there is use for");
    eventually("a lane for each worker", Duration::from_secs(60), || {
        transfer(a, b, b.v4(), BYTES);
        lanes() == [2, 2]
    });
    assert_eq!(a.link_to(b)["path"], "relayed", "{}", a.link_to(b));
}

/// Datagrams per send of one end and per receive of the other while bulk flows.
fn joined(from: &Node, to: &Node) -> (f64, f64) {
    assert_eq!(from.link_to(to)["path"], "relayed", "{}", from.link_to(to));
    let names = ["datagrams_out", "send_batches", "datagrams_in", "receive_batches"];
    let counters = || {
        let sums = [from, from, to, to];
        std::array::from_fn::<_, 4, _>(|at| sums[at].counter(names[at]))
    };
    let before = counters();
    let result = transfer(from, to, to.v4(), BYTES);
    assert_eq!((result.bytes, result.corrupted), (BYTES, 0));
    // Observers see the counters a moment later.
    let expected = BYTES / 1500;
    eventually("the datagrams are counted", Duration::from_secs(10), || {
        let now = counters();
        now[0] - before[0] > expected && now[2] - before[2] > expected
    });
    let after = counters();
    let [out, sends, came, receives] = std::array::from_fn(|at| (after[at] - before[at]) as f64);
    println!("{out} datagrams in {sends} sends, {came} in {receives} receives");
    // One of the two has the relay, the other sends to its address there.
    let relayed = ["relayed_datagrams_in", "relayed_datagrams_out"];
    let relayed = relayed.into_iter().flat_map(|name| [from.counter(name), to.counter(name)]);
    assert!(relayed.max().unwrap() > expected);
    (out / sends, came / receives)
}

#[test]
fn bulk_through_a_hub_leaves_and_arrives_joined() {
    let mut internet = Internet::build(InternetConfig::default()).unwrap();
    let hub = Hub::new(internet.hub(), internet.hub_address());
    let site = |_| internet.add_site(Nat::Symmetric, Impairment::default()).unwrap();
    let sites: Vec<_> = (0..2).map(site).collect();
    let node = |number: usize| Node::join_with(&sites[number].node, &hub.ticket(), "--workers 2");
    let nodes: [Node; 2] = std::array::from_fn(node);
    nodes.iter().for_each(|node| node.wait_for(1, 30));
    await_lanes(&nodes[0], &nodes[1]);
    for (from, to) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
        let (sent, received) = joined(from, to);
        assert!(sent > 8.0, "{sent} datagrams leave at once");
        assert!(received > 4.0, "{received} datagrams arrive at once");
    }
}

/// coturn takes and sends datagrams one by one, so they arrive as the kernel joins them.
#[test]
fn bulk_through_coturn_leaves_joined() {
    let mut stage = Stage::prosody();
    for number in 0..2 {
        stage.add_site(Nat::Symmetric, Impairment::default());
        let mut config = stage.config(number);
        config.overlay.push_str("workers = 2\n");
        stage.start(number, &config);
    }
    stage.await_links();
    let (a, b) = stage.pair();
    await_lanes(a, b);
    for (from, to) in [(a, b), (b, a)] {
        let (sent, _) = joined(from, to);
        assert!(sent > 8.0, "{sent} datagrams leave at once");
    }
}
