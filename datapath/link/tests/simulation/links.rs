//! Pairs of nodes in virtual time: every kind of router with every other, good and bad networks.

use std::time::Duration;

use crate::support::nat::Kind;
use crate::support::{Faults, SERVER, World};
use ipop_link::{ChoiceCause, IceTrace, LinkState, PathKind, Trace};

const BAD: Faults = Faults { lost: 12, doubled: 8, late: 15 };

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn kind_of_path(world: &World, at: usize, peer: usize) -> PathKind {
    let status = world.machines[at].status(world.fingerprint(peer)).expect("a link");
    status.path.expect("a path").kind
}

#[test]
fn two_public_machines_are_up_soon_and_tell_every_state() {
    let mut world = World::new(&[Kind::Public, Kind::Public], Faults::default(), 1);
    world.open(0, 1, 7);
    let took = world.run_until(seconds(5), |world| world.is_up(0, 1)).expect("up");
    assert!(took < Duration::from_millis(300), "{took:?}");
    assert_eq!(world.talk(0, 1, 100), [100, 100]);
    for (at, peer) in [(0, 1), (1, 0)] {
        let machine = &world.machines[at];
        // The end that answers knows the peer's credentials from the start.
        let told = [LinkState::Idle, LinkState::Checking, LinkState::Handshaking, LinkState::Up];
        assert_eq!(machine.told(), told[at..]);
        let status = machine.status(world.fingerprint(peer)).expect("a link");
        assert_eq!((status.session, status.reason.as_str()), (7, ""));
        assert_eq!(status.rtt, Some(crate::support::LATENCY * 2));
        assert_eq!(status.path.expect("a path").kind, PathKind::Direct);
        assert_eq!(machine.lanes.len(), 1);
    }
}

#[test]
fn every_step_of_a_link_is_told_in_order() {
    let mut world = World::new(&[Kind::PortRestricted, Kind::PortRestricted], Faults::default(), 1)
        .with_servers();
    world.run(Duration::from_millis(200));
    world.open(0, 1, 7);
    world.run_until(seconds(5), |world| world.is_up(0, 1)).expect("up");
    let is_choice = |trace: &Trace| {
        matches!(trace, Trace::Ice(IceTrace::Selected { cause: ChoiceCause::First, .. }))
    };
    let steps: [fn(&Trace) -> bool; 7] = [
        |trace| matches!(trace, Trace::Opened { .. }),
        |trace| *trace == Trace::State(LinkState::Checking),
        |trace| matches!(trace, Trace::Ice(IceTrace::CheckSent { number: 1, .. })),
        |trace| *trace == Trace::HandshakeStarted,
        |trace| matches!(trace, Trace::KeysInstalled { lanes: 1, .. }),
        |trace| matches!(trace, Trace::KeysConfirmed(_)),
        |trace| *trace == Trace::State(LinkState::Up),
    ];
    for machine in &world.machines {
        let mut rest = machine.traces.iter();
        for (number, is_step) in steps.iter().enumerate() {
            assert!(rest.any(is_step), "step {number}: {:#?}", machine.traces);
        }
        assert!(machine.traces.iter().any(is_choice), "{:#?}", machine.traces);
    }
    let peer = world.fingerprint(1);
    world.machines[0].node.close_link(world.now, peer, "enough").expect("a link");
    world.run(seconds(1));
    let closed = Trace::Closed("the peer closed the link: enough".into());
    assert!(world.machines[1].traces.contains(&closed), "{:#?}", world.machines[1].traces);
}

/// Behind filtering routers the peer's check comes through before ours is answered.
#[test]
fn a_handshake_waits_for_no_answer_where_the_peer_is_heard() {
    let mut world = World::new(&[Kind::PortRestricted, Kind::PortRestricted], Faults::default(), 1)
        .with_servers();
    world.run(Duration::from_millis(200));
    world.open(0, 1, 7);
    world.run_until(seconds(5), |world| world.is_up(0, 1)).expect("up");
    let traces = &world.machines[0].traces;
    let place = |is_step: fn(&Trace) -> bool| traces.iter().position(is_step).expect("told");
    let heard = place(|trace| matches!(trace, Trace::Ice(IceTrace::Heard(_))));
    let started = place(|trace| *trace == Trace::HandshakeStarted);
    let answered = place(|trace| matches!(trace, Trace::Ice(IceTrace::CheckAnswered { .. })));
    assert!(heard < started && started < answered, "{traces:#?}");
}

#[test]
fn every_pair_of_routers_connects() {
    let kinds = [
        Kind::Public,
        Kind::FullCone,
        Kind::PortRestricted,
        Kind::Symmetric,
        Kind::OnlyTo(SERVER.parse().expect("an address")),
    ];
    for a in kinds {
        for b in kinds {
            let mut world = World::new(&[a, b], Faults::default(), 2).with_servers();
            world.run(Duration::from_millis(200));
            world.open(0, 1, 1);
            let took = world.run_until(seconds(10), |world| world.is_up(0, 1));
            let took =
                took.unwrap_or_else(|| panic!("{a:?} {b:?}: {:?}", world.machines[0].told()));
            assert!(took < Duration::from_millis(1500), "{a:?} {b:?}: {took:?}");
            assert_eq!(world.talk(0, 1, 50), [50, 50], "{a:?} {b:?}");
            let blocked = [a, b].iter().any(|kind| matches!(kind, Kind::OnlyTo(_)));
            // These count their ports, so one is found by who looks where they come next.
            world.run(seconds(3));
            let symmetric = [a, b] == [Kind::Symmetric; 2];
            let expected = if blocked || symmetric { PathKind::Relayed } else { PathKind::Direct };
            assert_eq!(kind_of_path(&world, 0, 1), expected, "{a:?} {b:?}");
            assert_eq!(kind_of_path(&world, 1, 0), expected, "{a:?} {b:?}");
        }
    }
}

#[test]
fn bad_networks_only_take_longer() {
    let kinds = [
        [Kind::FullCone, Kind::PortRestricted],
        [Kind::PortRestricted, Kind::PortRestricted],
        [Kind::Symmetric, Kind::PortRestricted],
        [Kind::Public, Kind::Symmetric],
    ];
    for seed in 0..60u8 {
        let kinds = kinds[usize::from(seed) % kinds.len()];
        let mut world = World::new(&kinds, BAD, seed).with_servers();
        world.open(0, 1, 1);
        let took = world.run_until(seconds(30), |world| world.is_up(0, 1));
        assert!(took.is_some(), "seed {seed} {kinds:?}: {:?}", world.reasons());
        world.run(seconds(60));
        assert!(world.is_up(0, 1), "seed {seed}: {:?}", world.reasons());
        for arrived in world.talk(0, 1, 100) {
            assert!(arrived > 60, "seed {seed}: {arrived} of 100");
        }
    }
}

/// Two machines whose link is up.
fn up(kinds: [Kind; 2], seed: u8) -> World {
    let mut world = World::new(&kinds, Faults::default(), seed).with_servers();
    world.run(Duration::from_millis(200));
    world.open(0, 1, 1);
    world.run_until(seconds(10), |world| world.is_up(0, 1)).expect("up");
    world
}

#[test]
fn a_link_stays_up_for_hours_and_its_keys_move_on_without_a_lost_frame() {
    let mut world = up([Kind::PortRestricted, Kind::PortRestricted], 3);
    let keys = |world: &World| {
        let status = world.machines[0].status(world.fingerprint(1)).expect("a link");
        status.keys.expect("keys").established
    };
    let first = keys(&world);
    let mut epoch = 0;
    for _ in 0..250 {
        assert_eq!(world.talk(0, 1, 3), [3, 3]);
        world.run(seconds(29));
        let sealers = world.machines[0].lanes.values().map(|lane| lane.sealer.epoch());
        epoch = sealers.chain([epoch]).max().unwrap_or_default();
    }
    assert!(epoch > 16, "keys are ratcheted in between, {epoch} times");
    assert!(world.is_up(0, 1));
    assert!(keys(&world) > first + seconds(3600));
    for machine in &world.machines {
        assert_eq!(machine.told().last(), Some(&LinkState::Up));
        assert_eq!((machine.installed, machine.lanes.len()), (3, 1), "a handshake an hour");
        assert_eq!((machine.unknown, &machine.not_opened[..]), (0, &[][..]));
    }
}

#[test]
fn new_keys_at_either_ends_wish() {
    let mut world = up([Kind::Public, Kind::PortRestricted], 4);
    for (wishing, installed) in [(0, 2), (1, 3)] {
        world.run(seconds(6));
        let peer = world.fingerprint(1 - wishing);
        let now = world.now;
        world.machines[wishing].node.rehandshake(now, peer).expect("known");
        assert_eq!(world.talk(0, 1, 100), [100, 100]);
        assert!(world.machines.iter().all(|machine| machine.installed == installed));
    }
}

#[test]
fn a_new_session_takes_over_without_a_lost_frame() {
    for kinds in [[Kind::Public, Kind::PortRestricted], [Kind::Symmetric, Kind::Symmetric]] {
        let mut world = up(kinds, 5);
        world.open(0, 1, 2);
        assert_eq!(world.talk(0, 1, 200), [200, 200]);
        for (at, peer) in [(0, 1), (1, 0)] {
            let status = world.machines[at].status(world.fingerprint(peer)).expect("a link");
            assert_eq!((status.session, status.state), (2, LinkState::Up));
        }
        world.run(seconds(15));
        assert!(world.machines.iter().all(|machine| machine.lanes.len() == 1));
        // The other way round: the one that answered offers.
        world.open(1, 0, 3);
        assert_eq!(world.talk(0, 1, 200), [200, 200]);
        world.run(seconds(15));
        assert!(world.is_up(0, 1));
        assert!(world.machines.iter().all(|machine| machine.lanes.len() == 1));
    }
}

#[test]
fn a_session_that_only_one_end_replaces_goes_on_carrying() {
    let mut world = up([Kind::Public, Kind::PortRestricted], 6);
    world.open_end(0, 1, 2, true, None);
    assert_eq!(world.machines[0].state(world.fingerprint(1)), Some(LinkState::Idle));
    assert_eq!(world.talk(0, 1, 300), [300, 300]);
    world.run(seconds(3600 + 60));
    assert_eq!(world.talk(0, 1, 100), [100, 100], "and renews its keys");
}

#[test]
fn who_is_not_the_announced_one_stays_outside() {
    // The controlling end meets an impostor, then the controlled end does.
    for impostor in [1, 0] {
        let kinds = [Kind::Public, Kind::Public, Kind::Public];
        let mut world = World::new(&kinds, Faults::default(), 7);
        let (honest, posed) = (1 - impostor, world.fingerprint(2));
        // Signalling announced machine 2, but the impostor has the session's passwords.
        world.open_as(0, 1, 1, (honest, posed));
        world.run(seconds(20));
        let reasons = world.reasons();
        assert_eq!(
            reasons[honest],
            ["the peer's key does not have the fingerprint that signalling announced"]
        );
        let expected = ["the peer refused our key: it expects another fingerprint"];
        assert_eq!(reasons[impostor], expected);
        assert_eq!(world.machines[honest].installed, 0, "no key was ever installed");
        assert!(world.machines.iter().all(|machine| machine.lanes.is_empty()));
    }
}

#[test]
fn a_router_that_forgets_its_mappings_costs_a_moment() {
    let mut world = up([Kind::Public, Kind::PortRestricted], 8);
    world.run(seconds(10));
    world.routers[1].restart();
    let peer = world.fingerprint(0);
    let is_back = |world: &World| {
        world.is_up(0, 1)
            && world.machines[0]
                .lanes
                .values()
                .all(|lane| lane.path.is_some_and(|path| path.remote.port() >= 21_000))
    };
    let took = world.run_until(seconds(30), is_back).expect("back");
    assert!(took < seconds(15), "{took:?}");
    assert_eq!(world.talk(0, 1, 100), [100, 100]);
    assert_eq!(world.machines[1].status(peer).expect("a link").session, 1);
}

#[test]
fn when_the_direct_path_dies_the_relay_takes_over_and_gives_back() {
    let mut world = up([Kind::PortRestricted, Kind::PortRestricted], 9);
    world.run(seconds(5));
    assert_eq!(kind_of_path(&world, 0, 1), PathKind::Direct);
    let outside = [world.routers[0].outside(), world.routers[1].outside()];
    world.cut.push((outside[0], outside[1]));
    let is_relayed = |world: &World| {
        world.is_up(0, 1)
            && [(0, 1), (1, 0)]
                .iter()
                .all(|(at, peer)| kind_of_path(world, *at, *peer) == PathKind::Relayed)
    };
    let took = world.run_until(seconds(60), is_relayed).expect("relayed");
    assert!(took < seconds(15), "{took:?}");
    assert_eq!(world.talk(0, 1, 50), [50, 50]);
    world.cut.clear();
    let is_direct = |world: &World| {
        world.is_up(0, 1)
            && [(0, 1), (1, 0)]
                .iter()
                .all(|(at, peer)| kind_of_path(world, *at, *peer) == PathKind::Direct)
    };
    world.run_until(seconds(400), is_direct).expect("direct again");
    assert_eq!(world.talk(0, 1, 50), [50, 50]);
}

#[test]
fn a_short_outage_is_a_disconnection_and_a_long_one_the_end() {
    let mut world = World::new(&[Kind::Public, Kind::Public], Faults::default(), 10);
    world.open(0, 1, 1);
    world.run_until(seconds(5), |world| world.is_up(0, 1)).expect("up");
    let outside = [world.routers[0].outside(), world.routers[1].outside()];
    world.cut.push((outside[0], outside[1]));
    world.run(seconds(12));
    let peer = world.fingerprint(1);
    assert_eq!(world.machines[0].state(peer), Some(LinkState::Disconnected));
    world.cut.clear();
    world.run_until(seconds(10), |world| world.is_up(0, 1)).expect("up again");
    assert_eq!(world.talk(0, 1, 50), [50, 50]);
    assert_eq!(world.machines[0].installed, 1, "the keys were kept");

    world.cut.push((outside[0], outside[1]));
    world.run(seconds(60));
    for machine in &world.machines {
        assert_eq!(machine.reasons(), ["the path to the peer went silent and no other works"]);
        assert!(machine.lanes.is_empty());
    }
    world.cut.clear();
    world.open(0, 1, 2);
    world.run_until(seconds(5), |world| world.is_up(0, 1)).expect("a new session helps");
}

#[test]
fn closing_says_good_bye() {
    let mut world = up([Kind::PortRestricted, Kind::PortRestricted], 11);
    let peer = world.fingerprint(1);
    let now = world.now;
    world.machines[0].node.close_link(now, peer, "the node is going down").expect("known");
    world.run(seconds(1));
    assert_eq!(world.machines[0].state(peer), None);
    assert_eq!(world.machines[1].reasons(), ["the peer closed the link: the node is going down"]);
    assert!(world.machines.iter().all(|machine| machine.lanes.is_empty()));
}
