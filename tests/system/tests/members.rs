//! Members come and go, on ejabberd, which is STUN and TURN server as well.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use ipop_lab::{Impairment, Nat};
use ipop_system_tests::{Node, NodeConfig, Stage, assert_all_answer, eventually};

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_third_joins_and_leaves() {
    let mut stage = Stage::ejabberd().join([Nat::PortRestricted, Nat::PortRestricted]);
    stage.await_links();
    stage.add(Nat::Symmetric);
    stage.await_links();
    let third = &stage.nodes[2];
    for node in &stage.nodes[..2] {
        assert_eq!(node.link_to(third)["path"], "relayed");
    }
    let (first, second) = stage.pair();
    eventually("the others are linked directly", PATIENCE, || {
        first.link_to(second)["path"] == "direct"
    });
    assert_all_answer(&stage.nodes);
    let mut third = stage.nodes.pop().unwrap();
    assert_eq!(third.stop(), Some(0), "{}", third.log());
    for node in &stage.nodes {
        eventually("the link to who left is gone", Duration::from_secs(5), || {
            node.link_to(&third).is_null() && node.row(&third).is_none()
        });
    }
    assert_all_answer(&stage.nodes);
    // The same machine comes back with the same key.
    let config = stage.config(2);
    stage.start(2, &config);
    stage.await_links();
}

#[test]
fn members_log_in_in_all_the_ways_that_a_configuration_offers() {
    let mut stage = Stage::prosody();
    for number in 0..3 {
        stage.add_site(Nat::None, Impairment::default());
        let mut config = stage.config(number);
        let signalling = &mut config.signalling;
        match number {
            0 => {}
            1 => *signalling = signalling.replace(":5222\"", ":5223\"\ntls = \"direct\""),
            _ => {
                let file = stage.keys().write("password", "secret\n");
                let from_file = format!("password_file = \"{}\"", file.display());
                *signalling = signalling.replace("password = \"secret\"", &from_file);
            }
        }
        stage.start(number, &config);
    }
    stage.await_links();
}

fn derived(stage: &Stage, number: usize, prefix: &str) -> NodeConfig {
    let overlay = format!("address = \"auto\"\nprefix = \"{prefix}\"\n");
    NodeConfig { overlay, ..stage.config(number) }
}

#[test]
fn derived_addresses_are_distinct() {
    let mut stage = Stage::ejabberd();
    // Four nodes on six addresses: most runs have a conflict to settle.
    for number in 0..4 {
        stage.add_site(Nat::None, Impairment::default());
        let config = derived(&stage, number, "10.78.0.0/29");
        stage.start(number, &config);
    }
    let distinct = |nodes: &[Node]| {
        let taken: BTreeSet<IpAddr> = nodes.iter().map(Node::v4).collect();
        taken.len() == nodes.len()
    };
    eventually("all addresses are distinct", PATIENCE, || distinct(&stage.nodes));
    stage.await_links();
    assert!(distinct(&stage.nodes));
    for node in &stage.nodes {
        let IpAddr::V4(address) = node.v4() else { unreachable!() };
        assert_eq!(address.octets()[..3], [10, 78, 0]);
        assert!((1..=6).contains(&address.octets()[3]), "{address}");
    }
    assert_all_answer(&stage.nodes);
}

#[test]
fn a_derived_address_gives_way_to_a_configured_one() {
    let mut stage = Stage::prosody();
    stage.add_site(Nat::None, Impairment::default());
    let config = derived(&stage, 0, "10.78.0.0/28");
    stage.start(0, &config);
    let first = stage.nodes[0].v4();
    // Another one is configured with the very address.
    stage.add_site(Nat::PortRestricted, Impairment::default());
    let overlay = format!("address = \"{first}/28\"\n");
    let config = NodeConfig { overlay, ..stage.config(1) };
    stage.start(1, &config);
    eventually("the derived address gives way", PATIENCE, || stage.nodes[0].v4() != first);
    stage.await_links();
    assert_eq!(stage.nodes[1].v4(), first);
    assert_all_answer(&stage.nodes);
}
