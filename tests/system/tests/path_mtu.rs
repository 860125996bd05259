//! Paths that carry less than the machines' interfaces, with ICMP dropped, and that change.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use ipop_lab::{Impairment, Nat};
use ipop_system_tests::{Flow, Node, Stage, transfer};

const MIB: u64 = 1 << 20;
/// IPv4 and UDP header.
const HEADERS: u16 = 28;

/// Two machines with interfaces of 9000 bytes, and a middle that says nothing to nobody: what is
/// too long is gone. TCP to the servers is told to keep small, as by many a router.
fn stage() -> Stage {
    let mut stage = Stage::prosody_on_cables_of(9000);
    for _ in 0..2 {
        stage.add_site(Nat::None, Impairment::default());
    }
    let rules = "table inet silence {
  chain forward { type filter hook forward priority filter;
    tcp flags syn tcp option maxseg size set 500
  }
  chain output { type filter hook output priority filter;
    icmp type destination-unreachable drop
    icmpv6 type packet-too-big drop
  }
}
";
    stage.internet().middle().nft(rules).unwrap();
    stage
}

/// What the middle passes on to both machines from now on.
fn narrow(stage: &Stage, mtu: u16) {
    for site in ["site1", "site2"] {
        stage.internet().middle().ip(&format!("link set {site} mtu {mtu}")).unwrap();
    }
}

/// Starts a node at each machine.
fn start(stage: &mut Stage, overlay_mtu: Option<u16>) {
    for number in 0..2 {
        let mut config = stage.config(number);
        if let Some(mtu) = overlay_mtu {
            config.overlay.push_str(&format!("mtu = {mtu}\n"));
        }
        stage.start(number, &config);
    }
}

/// The largest IP packet that a node takes the path to carry.
fn believed(node: &Node, peer: &Node) -> u16 {
    node.row(peer).map_or(0, |row| row.mtu.saturating_add(HEADERS))
}

/// Waits until both know what passes; how long that took. A search ends within eight bytes.
fn found(a: &Node, b: &Node, mtu: u16) -> Duration {
    let start = Instant::now();
    let is_known = |node, peer| (mtu - 7..=mtu).contains(&believed(node, peer));
    while !(is_known(a, b) && is_known(b, a)) {
        let (here, there) = (believed(a, b), believed(b, a));
        assert!(start.elapsed() < Duration::from_secs(20), "{here} and {there}, not {mtu}");
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

#[test]
fn every_size_of_path_is_found_and_carries() {
    let mut stage = stage();
    for (mtu, overlay) in
        [(576, None), (1280, None), (1337, None), (1400, None), (1500, None), (9000, Some(8900))]
    {
        narrow(&stage, mtu);
        start(&mut stage, overlay);
        stage.await_links();
        let (a, b) = stage.pair();
        // The link table is written twice a second.
        let took = found(a, b, mtu);
        println!("MTU {mtu}: known {took:?} after the link was up");
        assert!(took < Duration::from_secs(3), "{mtu}: {took:?}");
        for (from, to, address) in [(a, b, b.v4()), (b, a, a.v6())] {
            let result = transfer(from, to, address, MIB);
            println!("MTU {mtu}: 1 MiB to {address} in {:?}", result.time);
            assert_eq!((result.bytes, result.corrupted), (MIB, 0), "{mtu}");
        }
        stage.nodes.clear();
    }
}

#[test]
fn a_path_that_shrinks_and_grows_stalls_nothing() {
    let mut stage = stage();
    start(&mut stage, None);
    stage.await_links();
    let (a, b) = stage.pair();
    found(a, b, 9000);
    for mtu in [1500, 576, 1400, 1280, 9000] {
        let flows = [Flow::start(a, b, b.v4()), Flow::start(b, a, a.v4())];
        std::thread::sleep(Duration::from_secs(1));
        narrow(&stage, mtu);
        let took = found(a, b, mtu);
        std::thread::sleep(Duration::from_millis(500));
        for flow in flows {
            let result = flow.finish();
            println!("to MTU {mtu}: known after {took:?}, longest pause {:?}", result.pause);
            assert_eq!(result.corrupted, 0);
            assert!(result.pause < Duration::from_secs(3), "{mtu}: {:?}", result.pause);
        }
    }
    assert!(a.is_linked_to(b) && b.is_linked_to(a));
}

/// Our own interface shrinks: the kernel says so, and nobody has to find out.
#[test]
fn an_interface_that_shrinks_stalls_nothing() {
    let mut stage = stage();
    start(&mut stage, None);
    stage.await_links();
    let (a, b) = stage.pair();
    found(a, b, 9000);
    for mtu in [1300, 9000] {
        let flow = Flow::start(a, b, b.v4());
        std::thread::sleep(Duration::from_secs(1));
        stage.sites[0].node.ip(&format!("link set eth0 mtu {mtu}")).unwrap();
        narrow(&stage, mtu);
        let took = found(a, b, mtu);
        let result = flow.finish();
        println!("own MTU {mtu}: known after {took:?}, longest pause {:?}", result.pause);
        assert!(result.pause < Duration::from_secs(3), "{mtu}: {:?}", result.pause);
    }
}
