//! Links over paths that carry less, or more, than one thinks, and say nothing about it.

use std::time::Duration;

use crate::support::nat::Kind;
use crate::support::{Faults, World};
use ipop_link::PathKind;

/// IPv4 and UDP header.
const HEADERS: usize = 28;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Two machines with interfaces of `interface_mtu` and a path of `mtu` between.
fn world(kinds: [Kind; 2], mtu: usize, interface_mtu: usize) -> World {
    let mut world = World::new(&kinds, Faults::default(), 1).with_servers();
    world.datagram_len_max = mtu - HEADERS;
    for machine in &mut world.machines {
        machine.datagram_len_max = interface_mtu - HEADERS;
    }
    world.run(Duration::from_millis(200));
    world
}

/// What both ends believe the path to carry, in bytes of IP; nothing while they differ.
fn mtu(world: &World) -> Option<usize> {
    let of = |at: usize| world.machines[at].datagram_len(world.fingerprint(1 - at));
    of(0).filter(|len| of(1) == Some(*len)).map(|len| usize::from(len) + HEADERS)
}

/// Traffic for as long as it takes until both ends know, within a few bytes, what passes.
fn settle(world: &mut World, expected: usize) -> Duration {
    let start = world.now;
    loop {
        for at in [0, 1] {
            let peer = world.fingerprint(1 - at);
            world.machines[at].report_traffic(world.now, peer);
        }
        let is_known =
            |world: &World| mtu(world).is_some_and(|mtu| (expected - 7..=expected).contains(&mtu));
        if world.run_until(Duration::from_millis(500), is_known).is_some() {
            return world.now - start;
        }
        assert!(world.now - start < seconds(30), "{:?} instead of {expected}", mtu(world));
    }
}

#[test]
fn a_link_comes_up_over_any_path_and_finds_its_length_within_three_seconds() {
    for path in [576, 700, 1280, 1337, 1400, 1500, 4000, 9000] {
        for interface in [1500, 9000] {
            let path = path.min(interface);
            let mut world = world([Kind::Public, Kind::PortRestricted], path, interface);
            world.open(0, 1, 1);
            let up = world.run_until(seconds(5), |world| world.is_up(0, 1)).expect("up");
            assert!(up < seconds(2), "{path}: the handshake too has to fit, {up:?}");
            let took = settle(&mut world, path);
            assert!(took < seconds(3), "{path} behind {interface}: {took:?}");
            assert_eq!(world.talk(0, 1, 20), [20, 20]);
        }
    }
}

#[test]
fn a_path_that_changes_is_followed_down_and_up() {
    let mut world = world([Kind::Public, Kind::Public], 9000, 9000);
    world.open(0, 1, 1);
    world.run_until(seconds(5), |world| world.is_up(0, 1)).expect("up");
    settle(&mut world, 9000);
    for path in [1500, 576, 1400, 9000, 1280, 1500] {
        world.run(seconds(10));
        world.datagram_len_max = path - HEADERS;
        let took = settle(&mut world, path);
        assert!(took < seconds(4), "{path}: {took:?}");
        assert!(world.is_up(0, 1));
    }
    assert_eq!(world.machines[0].installed, 1, "and the keys stay");
}

#[test]
fn a_relay_gets_what_an_ethernet_carries() {
    let mut world = world([Kind::Symmetric, Kind::Symmetric], 9000, 9000);
    world.open(0, 1, 1);
    world.run_until(seconds(5), |world| world.is_up(0, 1)).expect("up");
    settle(&mut world, 1496);
    let status = world.machines[0].status(world.fingerprint(1)).expect("a link");
    assert_eq!(status.path.expect("a path").kind, PathKind::Relayed);
    assert_eq!(status.datagram_len, Some(1468));
}

#[test]
fn an_idle_link_is_not_probed() {
    let mut world = world([Kind::Public, Kind::Public], 1500, 1500);
    world.open(0, 1, 1);
    world.run_until(seconds(5), |world| world.is_up(0, 1)).expect("up");
    settle(&mut world, 1500);
    world.run(seconds(5));
    let probes = |world: &World| world.machines.iter().map(|machine| machine.probes).sum::<usize>();
    let before = probes(&world);
    world.run(seconds(3600));
    assert_eq!(probes(&world), before);
    world.machines[0].node.note_network_changed(world.now);
    world.run(seconds(5));
    assert!(probes(&world) > before, "but looked at when something has changed");
}
