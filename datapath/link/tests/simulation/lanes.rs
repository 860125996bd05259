//! Links over several lanes: each finds its own way, or the link does without it.

use std::time::Duration;

use crate::support::machine::Machine;
use crate::support::nat::Kind;
use crate::support::{Faults, SERVER, World};
use ipop_link::PathKind;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Lanes besides the first that carry frames, at both ends.
fn lanes_up(world: &World) -> [usize; 2] {
    [0, 1].map(|at| {
        let paths = world.machines[at].lane_paths(world.fingerprint(1 - at));
        let up = paths.iter().flatten().count();
        let status = world.machines[at].status(world.fingerprint(1 - at)).expect("a link");
        let told = status.keys.map_or(0, |keys| usize::from(keys.lanes));
        assert_eq!(told, up + 1, "the status says what is");
        up
    })
}

fn linked(lanes: [u8; 2], kinds: [Kind; 2], faults: Faults, seed: u8) -> World {
    let mut world = World::with_lanes(&lanes, &kinds, faults, seed).with_servers();
    world.run(Duration::from_millis(200));
    world.open(0, 1, 1);
    world.run_until(seconds(20), |world| world.is_up(0, 1)).expect("up");
    world
}

#[test]
fn every_lane_that_both_ends_serve_comes_up_at_once() {
    for (lanes, expected) in [([4, 4], 3), ([2, 4], 1), ([1, 4], 0), ([1, 1], 0)] {
        let mut world = linked(lanes, [Kind::Public, Kind::Public], Faults::default(), 1);
        world.run(Duration::from_millis(200));
        assert_eq!(lanes_up(&world), [expected, expected], "{lanes:?}");
        let local = |path: ipop_link::Path| (path.local.port(), path.kind);
        let paths = world.machines[0].lane_paths(world.fingerprint(1));
        let ports: Vec<_> = paths.into_iter().flatten().map(local).collect();
        let all = [(5001, PathKind::Direct), (5002, PathKind::Direct), (5003, PathKind::Direct)];
        assert_eq!(ports, all[..expected], "each from its own socket");
    }
}

#[test]
fn a_nat_at_one_end_lets_all_lanes_through() {
    for kind in [Kind::FullCone, Kind::PortRestricted, Kind::Symmetric] {
        for kinds in [[kind, Kind::Public], [Kind::Public, kind]] {
            let mut world = linked([3, 3], kinds, Faults::default(), 2);
            world.run(seconds(1));
            assert_eq!(lanes_up(&world), [2, 2], "{kinds:?}");
        }
    }
}

#[test]
fn where_only_one_lane_gets_through_the_link_works_with_one() {
    let only = Kind::OnlyTo(SERVER.parse().expect("an address"));
    for kinds in [
        [Kind::PortRestricted, Kind::PortRestricted],
        [Kind::PortRestricted, Kind::Symmetric],
        [only, Kind::Public],
    ] {
        let mut world = linked([2, 2], kinds, Faults::default(), 3);
        // The first probes for a hard pair are over by then.
        world.run(seconds(3));
        let before = world.datagrams;
        world.run(seconds(60));
        assert_eq!(lanes_up(&world), [0, 0], "{kinds:?}");
        assert!(world.is_up(0, 1));
        assert!(world.datagrams - before < 600, "looking on costs little");
        assert_eq!(world.talk(0, 1, 20), [20, 20]);
    }
}

#[test]
fn lanes_come_up_on_a_bad_network_and_survive_new_keys() {
    for seed in 0..20 {
        let bad = Faults { lost: 12, doubled: 8, late: 15 };
        let mut world = linked([3, 3], [Kind::Public, Kind::PortRestricted], bad, seed);
        world.run(seconds(10));
        assert_eq!(lanes_up(&world), [2, 2], "seed {seed}");
        world.faults = Faults::default();
        world.run(seconds(10));
        let (now, peer) = (world.now, world.fingerprint(1));
        let installed = world.machines[0].installed;
        world.machines[0].node.rehandshake(now, peer).expect("a link");
        world.run(seconds(2));
        assert!(world.machines[0].installed >= installed + 3, "a lane each");
        assert_eq!(lanes_up(&world), [2, 2], "the paths are the link's, not the keys'");
    }
}

#[test]
fn a_router_that_forgets_a_lane_gets_it_back() {
    let mut world = linked([2, 2], [Kind::PortRestricted, Kind::Public], Faults::default(), 4);
    world.run(seconds(1));
    assert_eq!(lanes_up(&world), [1, 1]);
    world.routers[0].restart();
    let back = world.run_until(seconds(30), |world| {
        let outside = world.machines[1].lane_paths(world.fingerprint(0));
        world.is_up(0, 1) && outside.iter().flatten().any(|path| path.remote.port() > 21_000)
    });
    assert!(back.is_some(), "the lane follows its new mapping");
    world.run(seconds(10));
    assert_eq!(lanes_up(&world), [1, 1]);
}

/// Both ends say so often that they carry so many bytes a second, for so long.
fn carry(world: &mut World, bytes: u64, time: Duration) {
    let end = world.now + time;
    while world.now < end {
        world.run(Duration::from_millis(500));
        let (now, [a, b]) = (world.now, [0, 1].map(|at| world.fingerprint(at)));
        world.machines[0].report_load(now, b, bytes / 2);
        world.machines[1].report_load(now, a, bytes / 2);
    }
}

const MUCH: u64 = 100_000_000;

/// The ends of further lanes: whether it is a channel of a relay, and the socket's port.
fn lane_ends(machine: &Machine, peer: ipop_crypto::Fingerprint) -> Vec<(bool, u16, PathKind)> {
    let paths = machine.lane_paths(peer).into_iter().flatten();
    paths.map(|path| (path.channel.is_some(), path.local.port(), path.kind)).collect()
}

#[test]
fn a_busy_relayed_link_gets_a_relay_for_each_lane() {
    let only = Kind::OnlyTo(SERVER.parse().expect("an address"));
    for kinds in [[Kind::Symmetric, Kind::Symmetric], [only, Kind::Symmetric], [only, only]] {
        let mut world = linked([3, 4], kinds, Faults::default(), 5);
        carry(&mut world, 100_000, seconds(20));
        assert_eq!(lanes_up(&world), [0, 0], "{kinds:?}: one lane carries that");
        carry(&mut world, MUCH, seconds(5));
        assert_eq!(lanes_up(&world), [2, 2], "{kinds:?}");
        assert!(world.is_up(0, 1));
        let ends = [0, 1].map(|at| lane_ends(&world.machines[at], world.fingerprint(1 - at)));
        let relayed = ends.iter().flatten().filter(|(is_relayed, ..)| *is_relayed).count();
        let both = kinds == [only, only];
        assert_eq!(relayed, if both { 4 } else { 2 }, "{kinds:?}: {ends:?}");
        let ports = |ends: &[(bool, u16, PathKind)]| {
            ends.iter().map(|(_, port, kind)| (*port, *kind)).collect::<Vec<_>>()
        };
        let all = [(5001, PathKind::Relayed), (5002, PathKind::Relayed)];
        assert_eq!([ports(&ends[0]), ports(&ends[1])], [all.to_vec(), all.to_vec()]);
        // New keys take the lanes' paths over, and lanes outlive permissions and channels.
        let (now, peer) = (world.now, world.fingerprint(1));
        world.machines[0].node.rehandshake(now, peer).expect("a link");
        carry(&mut world, MUCH, seconds(700));
        assert_eq!(lanes_up(&world), [2, 2], "{kinds:?}");
        for machine in &world.machines {
            assert_eq!(machine.not_opened, [], "{kinds:?}");
        }
    }
}

#[test]
fn relays_of_lanes_are_given_back_when_a_link_has_been_idle_for_a_while() {
    let kinds = [Kind::Symmetric, Kind::Symmetric];
    let mut world = linked([2, 2], kinds, Faults::default(), 6);
    carry(&mut world, MUCH, seconds(5));
    assert_eq!(lanes_up(&world), [1, 1]);
    carry(&mut world, 1000, seconds(110));
    assert_eq!(lanes_up(&world), [1, 1]);
    carry(&mut world, 1000, seconds(30));
    assert_eq!(lanes_up(&world), [0, 0]);
    assert!(world.is_up(0, 1));
    assert_eq!(world.talk(0, 1, 20), [20, 20]);
    let before = world.datagrams;
    world.run(seconds(60));
    assert!(world.datagrams - before < 900, "{}", world.datagrams - before);
    carry(&mut world, MUCH, seconds(5));
    assert_eq!(lanes_up(&world), [1, 1], "and it gets them again");
}

/// A link whose path goes silent waits for it, and nothing turns meanwhile.
#[test]
fn lanes_of_a_link_without_a_path_wait() {
    let mut world = linked([2, 2], [Kind::Public, Kind::Public], Faults::default(), 7);
    world.run(seconds(1));
    let ends = [0, 1].map(|at| world.routers[at].outside());
    let server = SERVER.parse::<std::net::SocketAddr>().expect("an address").ip();
    world.cut = vec![(ends[0], ends[1]), (ends[0], server), (ends[1], server)];
    let lost = world.run_until(seconds(20), |world| !world.is_up(0, 1));
    assert!(lost.is_some());
    world.run(seconds(5));
    world.cut.clear();
    world.run_until(seconds(10), |world| world.is_up(0, 1)).expect("up again");
    // Perhaps by the relay at first: a direct pair that has just been given up has ten seconds.
    world.run(seconds(15));
    assert_eq!(lanes_up(&world), [1, 1]);
}

#[test]
fn relayed_lanes_come_up_on_a_bad_network() {
    for seed in 0..10 {
        let kinds = [Kind::Symmetric, Kind::Symmetric];
        let mut world = linked([3, 3], kinds, Faults::default(), seed);
        world.faults = Faults { lost: 12, doubled: 8, late: 15 };
        carry(&mut world, MUCH, seconds(20));
        world.faults = Faults::default();
        carry(&mut world, MUCH, seconds(12));
        assert_eq!(lanes_up(&world), [2, 2], "seed {seed}");
    }
}
