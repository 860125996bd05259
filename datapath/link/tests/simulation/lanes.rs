//! Links over several lanes: each finds its own way, or the link does without it.

use std::time::Duration;

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
