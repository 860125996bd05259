//! Keys: they change beside traffic without a lost packet, within limits that the configuration
//! sets, and do not get into core dumps.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipop_lab::{Impairment, Nat};
use ipop_system_tests::{Node, Scratch, Stage, eventually, iperf3, transfer};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::Value;

const BYTES: u64 = 32 << 20;
/// Changes of keys, ratchets and handshakes of both ends together, that a run sees at least. More
/// with `IPOP_REKEYS=1000`.
const REKEYS: u64 = 100;
/// Why frames are refused for their key, or not sent.
const KEY_REASONS: [&str; 6] =
    ["unknown_link", "unknown_epoch", "expired", "forged", "replayed", "key_exhausted"];
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
    // What the client sent before the server had the first keys is counted by then: where there
    // are no other keys, frames do not wait for the server's word.
    std::thread::sleep(Duration::from_millis(1500));
    stage
}

fn ratchets(nodes: &[Node]) -> u64 {
    nodes.iter().map(|node| node.counter("ratchets")).sum()
}

fn handshakes(nodes: &[Node]) -> u64 {
    nodes.iter().map(|node| node.counter("handshakes_completed")).sum()
}

/// How many frames were refused for the key that they were sealed with, by node and reason.
fn refused(nodes: &[Node]) -> Vec<[u64; KEY_REASONS.len()]> {
    nodes.iter().map(|node| KEY_REASONS.map(|reason| node.drops(reason))).collect()
}

/// Nothing was refused for its key since then.
fn assert_none_lost_to_keys(nodes: &[Node], before: &[[u64; KEY_REASONS.len()]]) {
    assert_eq!(refused(nodes), before, "{KEY_REASONS:?}");
}

#[test]
fn keys_change_beside_a_stream_without_a_lost_packet() {
    let asked = std::env::var("IPOP_REKEYS").map(|text| text.parse().unwrap());
    let stage = stage(SHORT_LIVED);
    let refused_before = refused(&stage.nodes);
    let (a, b) = stage.pair();
    let start = Instant::now();
    while ratchets(&stage.nodes) < asked.clone().unwrap_or(REKEYS) || handshakes(&stage.nodes) < 4 {
        for (from, to) in [(a, b), (b, a)] {
            let result = transfer(from, to, to.v4(), BYTES);
            assert_eq!((result.bytes, result.corrupted), (BYTES, 0));
        }
        assert_none_lost_to_keys(&stage.nodes, &refused_before);
    }
    let (ratchets, handshakes) = (ratchets(&stage.nodes), handshakes(&stage.nodes));
    println!("{ratchets} ratchets, {handshakes} ends of handshakes in {:?}", start.elapsed());
}

/// Numbered datagrams beside other traffic, a thousand a second, until they are not wanted.
struct Numbered {
    is_wanted: Arc<AtomicBool>,
    sender: JoinHandle<u32>,
    receiver: JoinHandle<BTreeSet<u32>>,
}

impl Numbered {
    fn start(from: &Node, to: &Node) -> Self {
        let address = SocketAddr::new(to.v4(), 0);
        let receiver = ipop_lab::inside(&to.namespace(), move || UdpSocket::bind(address)).unwrap();
        let own = SocketAddr::new(from.v4(), 0);
        let sender = ipop_lab::inside(&from.namespace(), move || UdpSocket::bind(own)).unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let is_wanted = Arc::new(AtomicBool::new(true));
        let is_still_wanted = is_wanted.clone();
        let sender = std::thread::spawn(move || {
            let mut payload = [0x5a; 1000];
            let mut count = 0u32;
            while is_still_wanted.load(Ordering::Relaxed) {
                payload[..4].copy_from_slice(&count.to_be_bytes());
                sender.send(&payload).unwrap();
                count += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            count
        });
        let receiver = std::thread::spawn(move || {
            let (mut arrived, mut datagram) = (BTreeSet::new(), [0; 2000]);
            while let Ok(len) = receiver.recv(&mut datagram) {
                assert_eq!(len, 1000);
                arrived.insert(u32::from_be_bytes(*datagram.first_chunk().unwrap()));
            }
            arrived
        });
        Self { is_wanted, sender, receiver }
    }

    /// How many were sent, and which of them never came.
    fn finish(self) -> (u32, Vec<u32>) {
        self.is_wanted.store(false, Ordering::Relaxed);
        let sent = self.sender.join().unwrap();
        let arrived = self.receiver.join().unwrap();
        (sent, (0..sent).filter(|number| !arrived.contains(number)).collect())
    }
}

/// What full queues of the kernel dropped on a node's machine: of the interface, and of sockets.
fn queue_drops(node: &Node) -> u64 {
    let said = |program: &str, words: &[&str]| {
        let output = node.command(program).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let links: Value =
        serde_json::from_str(&said("ip", &["-s", "-j", "link", "show", "ipop0"])).unwrap();
    let stats = &links[0]["stats64"];
    let interface = ["rx", "tx"].map(|way| stats[way]["dropped"].as_u64().unwrap());
    let snmp = said("cat", &["/proc/net/snmp"]);
    let mut udp = snmp.lines().filter(|line| line.starts_with("Udp:"));
    let (names, values) = (udp.next().unwrap(), udp.next().unwrap());
    let sockets = names.split_whitespace().zip(values.split_whitespace());
    let sockets = sockets.filter(|(name, _)| ["RcvbufErrors", "SndbufErrors"].contains(name));
    let sockets = sockets.map(|(_, value)| value.parse::<u64>().unwrap());
    interface.into_iter().chain(sockets).sum()
}

/// TCP takes all that there is, beside it datagrams are counted, and keys change all the time.
#[test]
fn nothing_is_lost_to_keys_that_change_at_full_load() {
    let wanted = std::env::var("IPOP_REKEYS").map_or(REKEYS, |text| text.parse().unwrap());
    let stage = stage(SHORT_LIVED);
    let refused_before = refused(&stage.nodes);
    let (a, b) = stage.pair();
    let (first, queues) = (ratchets(&stage.nodes), [a, b].map(queue_drops));
    let numbered = Numbered::start(a, b);
    let (start, mut bytes, mut retransmits) = (Instant::now(), 0, 0);
    while ratchets(&stage.nodes) < first + wanted || handshakes(&stage.nodes) < 4 {
        let said: Value = serde_json::from_slice(&iperf3(a, b, b.v4(), "-t 3").stdout).unwrap();
        let end = &said["end"];
        bytes += end["sum_received"]["bytes"].as_u64().unwrap();
        retransmits += end["sum_sent"]["retransmits"].as_u64().unwrap();
    }
    let (time, (sent, lost)) = (start.elapsed(), numbered.finish());
    let queues = [a, b].map(queue_drops).iter().sum::<u64>() - queues.iter().sum::<u64>();
    println!(
        "{} ratchets, {} ends of handshakes, {:.2} Gbit/s for {time:?}: of {sent} datagrams {} \
         lost, {queues} in the kernel's queues; {retransmits} TCP segments sent again",
        ratchets(&stage.nodes) - first,
        handshakes(&stage.nodes),
        bytes as f64 * 8e-9 / time.as_secs_f64(),
        lost.len(),
    );
    assert_none_lost_to_keys(&stage.nodes, &refused_before);
    for node in [a, b] {
        println!("drops: {}", node.status()["drops"]);
    }
    assert!(lost.len() as u64 <= queues, "{lost:?}");
}

#[test]
fn a_steady_stream_of_datagrams_loses_none_while_keys_change() {
    let stage = stage(SHORT_LIVED);
    let refused_before = refused(&stage.nodes);
    let (a, b) = stage.pair();
    let before = (ratchets(&stage.nodes), handshakes(&stage.nodes));
    let queues = || [a, b].map(queue_drops).iter().sum::<u64>();
    let full = queues();
    let output = iperf3(a, b, b.v4(), "-u -b 20M -l 1000 -t 12 -J");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sum = &said["end"]["sum"];
    // The receiving program may not come to its socket for a while on a busy machine.
    let full = queues() - full;
    assert!(sum["lost_packets"].as_u64().unwrap() <= full, "{full} by full queues: {sum}");
    assert!(sum["packets"].as_u64().unwrap() > 20_000, "{sum}");
    assert!(ratchets(&stage.nodes) > before.0 + 10);
    assert!(handshakes(&stage.nodes) > before.1);
    assert_none_lost_to_keys(&stage.nodes, &refused_before);
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
