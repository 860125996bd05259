//! The hub and its ticket: all that a node needs, without a configuration.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use ipop_hub::Ticket;
use ipop_lab::{Impairment, Internet, InternetConfig, Nat, Site};
use ipop_system_tests::{
    Hub, Node, Pinging, assert_all_answer, binary, ended, eventually, transfer,
};
use rustix::process::Signal;

/// A hub in the middle, and nodes that have nothing but its ticket.
struct Stage {
    nodes: Vec<Node>,
    sites: Vec<Site>,
    hub: Hub,
    internet: Internet,
}

impl Stage {
    fn new() -> Self {
        let internet = Internet::build(InternetConfig::default()).unwrap();
        let hub = Hub::new(internet.hub(), internet.hub_address());
        Self { nodes: Vec::new(), sites: Vec::new(), hub, internet }
    }

    fn join(&mut self, nat: Nat) -> &mut Node {
        let ticket = self.hub.ticket();
        self.join_by(nat, &ticket)
    }

    fn join_by(&mut self, nat: Nat, ticket: &str) -> &mut Node {
        self.sites.push(self.internet.add_site(nat, Impairment::default()).unwrap());
        let node = Node::join(&self.sites.last().unwrap().node, ticket);
        self.nodes.push(node);
        self.nodes.last_mut().unwrap()
    }

    fn await_links(&self) {
        for node in &self.nodes {
            node.wait_for(self.nodes.len() - 1, 30);
        }
    }
}

#[test]
fn a_ticket_is_all_it_takes() {
    let mut stage = Stage::new();
    for nat in [Nat::PortRestricted, Nat::PortRestricted, Nat::Symmetric] {
        stage.join(nat);
    }
    stage.await_links();
    let [a, b, c] = &stage.nodes[..] else { unreachable!() };
    eventually("the direct path is taken", Duration::from_secs(10), || {
        a.link_to(b)["path"] == "direct"
    });
    assert_eq!(a.link_to(c)["path"], "relayed");
    assert_eq!(b.link_to(c)["path"], "relayed");
    let addresses: BTreeSet<_> = stage.nodes.iter().map(Node::v4).collect();
    assert_eq!(addresses.len(), 3, "derived addresses are distinct");
    assert_all_answer(&stage.nodes);
    for (from, to) in [(a, b), (c, a)] {
        let result = transfer(from, to, to.v4(), 8 << 20);
        assert_eq!((result.bytes, result.corrupted), (8 << 20, 0));
    }
    // Who leaves is gone from the others' tables.
    let mut third = stage.nodes.pop().unwrap();
    assert_eq!(third.stop(), Some(0), "{}", third.log());
    for node in &stage.nodes {
        eventually("the link to who left is gone", Duration::from_secs(5), || {
            node.link_to(&third).is_null()
        });
    }
}

#[test]
fn links_survive_the_death_of_the_hub() {
    let mut stage = Stage::new();
    for _ in 0..2 {
        stage.join(Nat::PortRestricted);
    }
    stage.await_links();
    let ticket = stage.hub.ticket();
    let there = stage.nodes[1].v4();
    let pings = Pinging::start(&stage.nodes[0], there, 1000, Duration::from_millis(10));
    stage.hub.kill();
    std::thread::sleep(Duration::from_secs(4));
    stage.hub.start();
    assert!(pings.is_running());
    assert_eq!(stage.hub.ticket(), ticket, "the ticket stays good");
    for node in &stage.nodes {
        eventually("the node is in the group again", Duration::from_secs(60), || {
            node.status()["controller"]["signalling"].to_string().contains("online")
        });
    }
    pings.assert_lossless();
    stage.join_by(Nat::None, &ticket);
    stage.await_links();
}

#[test]
fn a_hub_stops_cleanly_and_keeps_its_secrets() {
    let mut stage = Stage::new();
    let ticket = stage.hub.scratch().path("ticket");
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(ticket), 0o600);
    let state = stage.hub.scratch().path("state");
    for entry in std::fs::read_dir(&state).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(path.clone()) & 0o077, 0, "{}", path.display());
    }
    let hub = stage.hub.process().unwrap();
    hub.signal(Signal::TERM);
    let status = hub.wait(Duration::from_secs(5)).expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", hub.log());
}

#[test]
fn a_hub_whose_port_is_taken_says_so() {
    let stage = Stage::new();
    let mut command = stage.internet.hub().command(binary());
    command.args(["hub", "--domain", "hub.test", "--listen", "198.18.0.10:5222", "--state"]);
    command.arg(stage.hub.scratch().path("other"));
    let ended = ended(command);
    assert_eq!(ended.code, Some(1), "{}", ended.text);
    assert!(ended.text.contains("198.18.0.10:5222"), "{}", ended.text);
    assert!(ended.text.contains("--listen"), "{}", ended.text);
}

#[test]
fn a_mistyped_ticket_is_told_at_once() {
    let stage = Stage::new();
    let ticket = stage.hub.ticket();
    let site = stage.internet.hub();
    let wrong = [
        (ticket[..ticket.len() - 3].to_owned(), "cut short"),
        (ticket.replacen("ipop1", "ipop7", 1), "version"),
        ("friday".to_owned(), "no ticket"),
        ("@/does/not/exist".to_owned(), "/does/not/exist"),
    ];
    for (ticket, word) in wrong {
        let scratch = ipop_system_tests::Scratch::new();
        let mut command = site.command(binary());
        command.args(["up", "--join", &ticket, "--name", "mistyped", "--identity"]);
        command.arg(scratch.path("identity.pem"));
        let ended = ended(command);
        assert_eq!(ended.code, Some(2), "{}", ended.text);
        assert!(ended.text.contains("--join") && ended.text.contains(word), "{}", ended.text);
    }
}

#[test]
fn a_wrong_ticket_is_refused() {
    let mut stage = Stage::new();
    let ticket: Ticket = stage.hub.ticket().parse().unwrap();
    let forged = [
        (Ticket { secret: [7; 32], ..ticket.clone() }, "password"),
        (Ticket { certificate: [7; 32], ..ticket }, "certificate"),
    ];
    for (ticket, word) in forged {
        let node = stage.join_by(Nat::None, &ticket.to_string());
        let status = node.process().wait(Duration::from_secs(20)).expect("it ends");
        let text = node.log();
        assert_eq!(status.code(), Some(1), "{text}");
        assert!(text.contains(word) && text.contains("ticket"), "{text}");
        assert!(!node.run_dir().exists());
    }
}
