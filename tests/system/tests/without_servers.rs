//! XMPP, STUN and TURN servers are all gone: links go on, and whoever is restarted finds its peers
//! again. `IPOP_AWAY` says how many seconds the outage lasts; in a long one, of which 1800 is the
//! full test, nodes are restarted again and again.

#![allow(missing_docs, clippy::unwrap_used)]

use std::time::{Duration, Instant};

use ipop_lab::Nat;
use ipop_system_tests::{Node, Pinging, Stage, assert_all_answer, eventually};

/// How long an outage lasts.
const AWAY: Duration = Duration::from_secs(30);
/// From one ping to the next.
const BEAT: Duration = Duration::from_millis(50);

fn away() -> Duration {
    let seconds = std::env::var("IPOP_AWAY").ok().and_then(|text| text.parse().ok());
    seconds.map_or(AWAY, Duration::from_secs)
}

/// Four nodes that know each other, and no server any more.
fn alone(nats: [Nat; 4]) -> Stage {
    let mut stage = Stage::prosody().join(nats);
    stage.await_links();
    // Each direct path is found, and what is known is in the files.
    std::thread::sleep(Duration::from_secs(3));
    stage.kill_servers();
    for node in &stage.nodes {
        eventually("the loss is noticed", Duration::from_secs(15), || !is_online(node));
    }
    stage
}

fn is_online(node: &Node) -> bool {
    let status = node.status();
    status["controller"]["signalling"].as_str().is_some_and(|text| text.starts_with("online"))
}

/// How long it takes until the node is linked to all others.
fn regain(node: &Node, peers: usize, what: &str) -> Duration {
    let start = Instant::now();
    node.wait_for(peers, 120);
    let took = start.elapsed();
    println!("{what}: {took:?} until {peers} of {peers} peers are linked");
    took
}

fn pings(nodes: &[Node], time: Duration) -> Vec<Pinging> {
    let count = u16::try_from(time.as_millis() / BEAT.as_millis()).unwrap();
    let pairs = nodes.iter().flat_map(|a| nodes.iter().map(move |b| (a, b)));
    let pairs = pairs.filter(|(a, b)| a.name != b.name);
    pairs.map(|(a, b)| Pinging::start(a, b.v4(), count, BEAT)).collect()
}

/// For how many seconds a node that is restarted stays away, in turn.
const ABSENCES: [u64; 4] = [0, 5, 30, 120];
/// How long a node that was restarted has for finding its peers.
const REGAIN_PATIENCE: u32 = 60;
/// From links that are there again to the next restart.
const REST: Duration = Duration::from_secs(20);

/// One of four is restarted again and again; between the others no packet is lost, before,
/// meanwhile and when the servers are back.
fn outage(cut: impl Fn(&mut Node)) {
    let mut stage = Stage::prosody().join([Nat::PortRestricted; 4]);
    stage.await_links();
    std::thread::sleep(Duration::from_secs(3));
    let pings = self::pings(&stage.nodes[..3], away() + Duration::from_secs(10));
    let begin = Instant::now();
    stage.kill_servers();
    std::thread::sleep(away() / 8);
    let [mut regained, mut restarts] = [0; 2];
    for absence in ABSENCES.into_iter().map(Duration::from_secs).cycle() {
        // The last one has the time to find its peers before the servers come back.
        let time = absence + Duration::from_secs(REGAIN_PATIENCE.into()) / 3;
        if restarts > 0 && begin.elapsed() + time > away() {
            break;
        }
        cut(&mut stage.nodes[3]);
        std::thread::sleep(absence);
        stage.nodes[3].start_again();
        regained += found(&stage.nodes[3], 3, absence);
        restarts += 1;
        assert_all_answer(&stage.nodes);
        std::thread::sleep(REST.min(away() / 8));
    }
    println!("{regained} of {} peers regained in {restarts} restarts", restarts * 3);
    assert!(regained * 100 >= restarts * 3 * 99);
    let sessions = sessions(&stage);
    std::thread::sleep(away().saturating_sub(begin.elapsed()));
    println!("the servers were away for {:?}", begin.elapsed());
    stage.server.start();
    for node in &stage.nodes {
        eventually("the node is in the group again", Duration::from_secs(120), || is_online(node));
    }
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(self::sessions(&stage), sessions, "links are as they were");
    let sent = pings.iter().map(Pinging::count).sum::<usize>();
    pings.into_iter().for_each(Pinging::assert_lossless);
    println!("0 of {sent} pings and answers lost");
    stage.add(Nat::None);
    stage.await_links();
}

/// How many peers a node finds that is there again after `absence`.
fn found(node: &Node, peers: usize, absence: Duration) -> usize {
    let start = Instant::now();
    let output = node.ipop(&format!("wait --peers {peers} --timeout {REGAIN_PATIENCE}"));
    let status = node.status();
    let names = status["controller"]["regained"].as_str().unwrap_or_default();
    let regained = names.split_whitespace().count();
    println!("away for {absence:?}: {regained} of {peers} regained after {:?}", start.elapsed());
    if !output.status.success() || regained < peers {
        println!("{status:#}\n{}", node.scratch().read("again"));
    }
    regained
}

/// Session numbers of all links, by node and peer.
fn sessions(stage: &Stage) -> Vec<u64> {
    let pairs = stage.nodes.iter().flat_map(|a| stage.nodes.iter().map(move |b| (a, b)));
    let pairs = pairs.filter(|(a, b)| a.name != b.name);
    pairs.map(|(a, b)| a.row(b).unwrap().session).collect()
}

#[test]
fn a_node_comes_back_after_a_power_cut_and_the_others_do_not_notice() {
    outage(Node::power_cut);
}

#[test]
fn a_node_comes_back_after_an_orderly_stop_and_the_others_do_not_notice() {
    outage(|node| assert_eq!(node.stop(), Some(0)));
}

/// Only one of the others lets strangers in; it carries words to the rest.
#[test]
fn a_node_whose_address_changed_meanwhile_is_led_to_all_by_one() {
    let mut stage =
        alone([Nat::None, Nat::PortRestricted, Nat::PortRestricted, Nat::PortRestricted]);
    stage.nodes[3].power_cut();
    stage.sites[3].reboot_router(47_000).unwrap();
    stage.nodes[3].start_again();
    regain(&stage.nodes[3], 3, "restarted elsewhere");
    assert!(stage.nodes[3].scratch().read("again").contains("through another member"));
    assert_all_answer(&stage.nodes);
}

#[test]
fn all_nodes_come_back_after_a_power_cut_of_all() {
    let mut stage = alone([Nat::PortRestricted; 4]);
    stage.nodes.iter_mut().for_each(Node::power_cut);
    for node in &mut stage.nodes {
        node.start_again();
    }
    for node in &stage.nodes {
        regain(node, 3, "all restarted");
    }
    assert_all_answer(&stage.nodes);
}

/// The datapath keeps its links while there is nobody who could tell a new controller of members.
#[test]
fn a_new_controller_needs_no_server() {
    let stage = alone([Nat::PortRestricted; 4]);
    let pings = pings(&stage.nodes[..2], Duration::from_secs(15));
    for _ in 0..3 {
        let dead = stage.nodes[0].kill("controller");
        stage.nodes[0].await_successor("controller", dead);
        std::thread::sleep(Duration::from_millis(500));
    }
    pings.into_iter().for_each(Pinging::assert_lossless);
    assert_all_answer(&stage.nodes);
}

/// A datapath that died has lost its keys, not its peers.
#[test]
fn a_new_datapath_needs_no_server() {
    let stage = alone([Nat::PortRestricted; 4]);
    let dead = stage.nodes[0].kill("datapath");
    stage.nodes[0].await_successor("datapath", dead);
    regain(&stage.nodes[0], 3, "datapath restarted");
    assert_all_answer(&stage.nodes);
}

/// Links follow a machine that moves, and a router that forgets.
#[test]
fn links_roam_without_servers() {
    let stage = alone([Nat::None, Nat::PortRestricted, Nat::PortRestricted, Nat::PortRestricted]);
    let sessions = sessions(&stage);
    let node = &stage.sites[1].node;
    node.ip("address del 192.168.2.2/24 dev eth0").unwrap();
    node.ip("address add 192.168.2.77/24 dev eth0").unwrap();
    node.ip("route replace default via 192.168.2.1").unwrap();
    moved(&stage, 1);
    stage.sites[2].reboot_router(43_000).unwrap();
    moved(&stage, 2);
    assert_eq!(
        self::sessions(&stage)[..3],
        sessions[..3],
        "the links of the open one are the same"
    );
}

/// Prints how long it takes until the node and all others answer each other again.
fn moved(stage: &Stage, number: usize) {
    let node = &stage.nodes[number];
    let start = Instant::now();
    // Their direct paths have to be found anew, some through the open one.
    for peer in stage.nodes.iter().filter(|peer| peer.name != node.name) {
        for (a, b) in [(node, peer), (peer, node)] {
            let what = format!("{} answers {}", b.name, a.name);
            eventually(&what, Duration::from_secs(40), || {
                a.ipop(&format!("ping {} --count 1", b.v4())).status.success()
            });
        }
    }
    println!("node {number} moved: {:?} until all answer each other", start.elapsed());
    assert_all_answer(&stage.nodes);
}

/// A file that is damaged is said, and the node starts.
#[test]
fn a_damaged_file_is_no_hindrance() {
    let mut stage = Stage::prosody().join([Nat::None, Nat::PortRestricted]);
    stage.await_links();
    std::thread::sleep(Duration::from_secs(3));
    let key = stage.config(0).identity;
    let file = key.with_file_name(format!("{}.peers", key.file_name().unwrap().display()));
    assert_eq!(stage.nodes[0].stop(), Some(0));
    assert!(file.exists());
    std::fs::write(&file, "not a list of peers").unwrap();
    stage.nodes[0].start_again();
    stage.await_links();
    let errors = stage.nodes[0].status()["errors"].to_string();
    assert!(errors.contains("nothing is remembered"), "{errors}");
}
