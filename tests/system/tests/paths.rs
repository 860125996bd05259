//! Which way nodes find to each other, by what kind of NATs, and what then passes.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use ipop_lab::{Impairment, Nat};
use ipop_system_tests::{
    Node, Stage, USERS, answers, assert_all_answer, eventually, transfer, turn_credential,
};

/// Waits for the path that both shall agree on in the end: a link may start through a relay.
fn await_path(node: &Node, peer: &Node, path: &str) {
    eventually(&format!("{path}: {}", node.link_to(peer)), Duration::from_secs(10), || {
        node.link_to(peer)["path"] == path
    });
}

#[test]
fn two_port_restricted_nats_are_linked_directly() {
    let stage = Stage::prosody().join([Nat::PortRestricted, Nat::PortRestricted]);
    stage.await_links();
    let (a, b) = stage.pair();
    for (node, peer, site) in [(a, b, &stage.sites[1]), (b, a, &stage.sites[0])] {
        await_path(node, peer, "direct");
        let link = node.link_to(peer);
        // The other end is the outside of the other's NAT.
        let remote = link["remote"].as_str().unwrap_or_default();
        assert!(remote.starts_with(&format!("{}:", site.public)), "{link}");
    }
    assert_all_answer(&stage.nodes);
}

#[test]
fn two_symmetric_nats_are_relayed() {
    let stage = Stage::prosody().join([Nat::Symmetric, Nat::Symmetric]);
    stage.await_links();
    let (a, b) = stage.pair();
    for (node, peer) in [(a, b), (b, a)] {
        let link = node.link_to(peer);
        assert_eq!(link["path"], "relayed", "{link}");
    }
    // One of the two ends is an address on the TURN server.
    let link = a.link_to(b);
    let relay = stage.internet().hub_address().to_string();
    assert!(["local", "remote"].iter().any(|end| link[end].to_string().contains(&relay)), "{link}");
    assert_all_answer(&stage.nodes);
    for (from, to) in [(a, b), (b, a)] {
        let result = transfer(from, to, to.v4(), 8 << 20);
        assert_eq!((result.bytes, result.corrupted), (8 << 20, 0));
    }
    // Observers see the counters a moment later.
    eventually("the relayed datagrams are counted", Duration::from_secs(5), || {
        [a, b].iter().any(|node| node.counter("relayed_datagrams_in") > 5_000)
    });
}

/// What `[nat]` names is used where the XMPP server offers nothing.
#[test]
fn configured_servers_are_used() {
    let mut stage = Stage::prosody_and_hidden_coturn();
    let (username, password) = turn_credential();
    for nat in [Nat::PortRestricted, Nat::PortRestricted, Nat::Symmetric] {
        let number = stage.add_site(nat, Impairment::default());
        let mut config = stage.config(number);
        config.nat = format!(
            "[nat]\nstun = [\"stun:198.18.0.10:3478\"]\nturn = [{{ uri = \
             \"turn:198.18.0.10:3478?transport=udp\", username = \"{username}\", password = \
             \"{password}\" }}]\n"
        );
        stage.start(number, &config);
    }
    stage.await_links();
    let (a, b) = stage.pair();
    await_path(a, b, "direct");
    // Through the relay first, whatever becomes of it.
    assert!(a.is_linked_to(&stage.nodes[2]));
}

#[test]
fn kinds_that_let_a_way_through_are_linked_directly() {
    let nats = [Nat::None, Nat::Firewall, Nat::FullCone, Nat::Symmetric, Nat::Rejecting];
    let stage = Stage::prosody().join(nats);
    stage.await_links();
    for (i, a) in stage.nodes.iter().enumerate() {
        for (j, b) in stage.nodes.iter().enumerate().filter(|(j, _)| *j != i) {
            let is_pair = |one, other| [[one, other], [other, one]].contains(&[nats[i], nats[j]]);
            match () {
                // A symmetric NAT's next port is not known to who filters by port: luck decides.
                () if is_pair(Nat::Symmetric, Nat::Firewall) => assert!(a.is_linked_to(b)),
                () if is_pair(Nat::Symmetric, Nat::Rejecting) => assert!(a.is_linked_to(b)),
                () => await_path(a, b, "direct"),
            }
        }
    }
}

#[test]
fn broadcast_and_multicast_reach_all_members() {
    let nats = [Nat::PortRestricted, Nat::PortRestricted, Nat::None];
    let stage = Stage::prosody().join(nats);
    stage.await_links();
    let heed = "sysctl -qw net.ipv4.icmp_echo_ignore_broadcasts=0";
    for site in &stage.sites {
        site.node.run(heed).unwrap();
    }
    let first = &stage.nodes[0];
    let others: BTreeSet<_> = stage.nodes[1..].iter().map(Node::v4).collect();
    for group in ["-b 10.77.0.255", "-I ipop0 224.0.0.1"] {
        let heard = answers(first, &format!("-c 3 -i 0.2 {group}"));
        assert!(heard.is_superset(&others), "{group}: {heard:?} of {others:?}");
    }
    let others: BTreeSet<_> = stage.nodes[1..].iter().map(Node::v6).collect();
    let heard = answers(first, &format!("-c 3 -i 0.2 -I {} ff02::1%ipop0", first.v6()));
    assert!(heard.is_superset(&others), "ff02::1: {heard:?} of {others:?}");
}

/// Two members on one machine: neither takes the other's overlay for a network, which would carry
/// its links inside the other's.
#[test]
fn an_overlay_carries_no_other_overlay() {
    let mut stage = Stage::prosody().join([Nat::PortRestricted, Nat::PortRestricted]);
    stage.await_links();
    let mut config = stage.config(0);
    config.identity = stage.keys().path("third.pem");
    config.overlay = "address = \"10.77.0.9/24\"\ninterface = \"third\"\n".to_owned();
    config.signalling =
        config.signalling.replace(&format!("{}@", USERS[0]), &format!("{}@", USERS[2]));
    stage.start(0, &config);
    let [first, other, third] = &stage.nodes[..] else { unreachable!() };
    // Its overlay shares a prefix with the other's, so what it carries is not asked for here.
    eventually("the third is linked", Duration::from_secs(20), || {
        third.log().matches(" is up, ").count() >= 2
    });
    for peer in [first, other] {
        let link = third.link_to(peer);
        let end = |name: &str| link[name].as_str().unwrap().to_owned();
        for address in [end("local"), end("remote")] {
            assert!(!address.starts_with("10.77."), "{link}");
            assert!(!address.starts_with("[fd"), "{link}");
        }
    }
    for address in first.addresses().into_iter().chain(other.addresses()) {
        assert!(!third.log().contains(&format!("direct to {address}")), "{}", third.log());
    }
}
