//! Two agents behind simulated NATs, in virtual time.

#![allow(missing_docs, clippy::unwrap_used)]

mod world;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_ice::{Agent, AgentConfig, CandidateKind, Credentials, Output, Packet, State};
use world::{DELAY, KINDS, Nat, World, can_be_direct, candidate, credentials, is_relay, our_agent};

/// From the answer to an offer until the offerer has it.
const SIGNALLING: Duration = Duration::from_millis(45);

#[test]
fn every_pair_of_nats_connects_and_directly_where_that_is_possible() {
    for a in KINDS {
        for b in KINDS {
            for seed in 0..10 {
                let mut world = World::staggered([a, b], true, seed, SIGNALLING);
                world.run(Duration::from_secs(2));
                assert!(world.is_settled(), "{a:?} {b:?} {seed}");
                assert_eq!(world.is_direct(), can_be_direct(a, b), "{a:?} {b:?} {seed}");
            }
        }
    }
}

#[test]
fn rejecting_routers_are_punched_together() {
    for (a, b) in [
        (Nat::Rejecting, Nat::PortRestricted),
        (Nat::PortRestricted, Nat::Rejecting),
        (Nat::Rejecting, Nat::FullCone),
        (Nat::FullCone, Nat::Rejecting),
        (Nat::Rejecting, Nat::Rejecting),
    ] {
        // With luck at once, else when the routers have forgotten.
        for signalling in [0, 10, 30, 60, 100, 300, 1000] {
            for seed in 0..5 {
                let signalling = Duration::from_millis(signalling);
                let mut world = World::staggered([a, b], true, seed, signalling);
                world.run(Duration::from_secs(1));
                assert!(world.connected().is_some(), "{a:?} {b:?} {signalling:?}");
                let end = world.now + Duration::from_secs(60);
                let direct = world.run_until(end, |w| w.is_direct() && w.is_settled());
                assert!(direct, "{a:?} {b:?} {signalling:?} {seed}");
                world.run(Duration::from_secs(300));
                assert!(world.is_direct() && world.is_settled());
            }
        }
    }
}

#[test]
fn rejecting_routers_on_a_bad_network_are_punched_in_the_end() {
    for seed in 0..20 {
        let signalling = Duration::from_millis(500);
        let mut world = World::staggered([Nat::Rejecting, Nat::Rejecting], true, seed, signalling);
        world.loss = 10;
        let end = world.now + Duration::from_secs(900);
        assert!(world.run_until(end, |w| w.is_direct() && w.is_settled()), "seed {seed}");
    }
}

#[test]
fn a_symmetric_pair_stays_relayed_at_little_cost() {
    let mut world = World::new([Nat::Symmetric, Nat::Symmetric], true, 3);
    world.run(Duration::from_secs(60));
    let before = world.datagrams;
    world.run(Duration::from_secs(3600));
    assert!(!world.is_direct() && world.is_settled());
    // Consent and warmth: four relayed pairs.
    let per_minute = (world.datagrams - before) / 60;
    assert!(per_minute < 150, "{per_minute}");
}

fn time_to_connect(world: &mut World) -> Option<Duration> {
    let since = world.now;
    let end = since + Duration::from_secs(20);
    world.run_until(end, |w| w.connected().is_some()).then(|| world.now - since)
}

#[test]
fn direct_pairs_connect_within_four_round_trips() {
    for a in KINDS {
        for b in KINDS.into_iter().filter(|b| can_be_direct(a, *b)) {
            for seed in 0..20 {
                let mut world = World::staggered([a, b], true, seed, SIGNALLING);
                let time = time_to_connect(&mut world).unwrap();
                assert!(world.is_direct(), "{a:?} {b:?} {seed}");
                assert!(time <= 8 * DELAY, "{a:?} {b:?} {seed}: {time:?}");
            }
        }
    }
}

#[test]
fn with_loss_99_of_100_connect_within_two_seconds() {
    for (a, b) in [
        (Nat::Open, Nat::Open),
        (Nat::PortRestricted, Nat::PortRestricted),
        (Nat::Symmetric, Nat::AddressRestricted),
        (Nat::Symmetric, Nat::Symmetric),
    ] {
        let mut times: Vec<Duration> = (0..=255)
            .map(|seed| {
                let mut world = World::staggered([a, b], true, seed, SIGNALLING);
                world.loss = 10;
                world.duplicates = 2;
                time_to_connect(&mut world).unwrap()
            })
            .collect();
        times.sort();
        let (median, late) = (times[128], times[256 * 99 / 100]);
        println!("{a:?} {b:?}: median {median:?}, 99 % {late:?}, worst {:?}", times[255]);
        assert!(late <= Duration::from_secs(2), "{a:?} {b:?}: {late:?}");
    }
}

#[test]
fn a_direct_pair_takes_few_round_trips() {
    let mut world = World::new([Nat::PortRestricted, Nat::PortRestricted], true, 3);
    world.run(Duration::from_millis(300));
    assert!(world.connected().is_some(), "{:?}", world.ends[0].states);
}

#[test]
fn loss_and_duplicates_only_cost_time() {
    for seed in 0..40 {
        let mut world = World::new([Nat::PortRestricted, Nat::FullCone], false, seed);
        world.loss = 25;
        world.duplicates = 20;
        world.run(Duration::from_secs(8));
        assert!(world.connected().is_some(), "seed {seed}: {:?}", world.ends[0].states);
    }
}

#[test]
fn two_of_one_role_settle_it() {
    for controlling in [true, false] {
        let mut world = World::new([Nat::Open, Nat::Open], false, 5);
        let now = world.now;
        let lists = [world.ends[0].host, world.ends[1].host];
        for side in 0..2 {
            let mut fresh = our_agent(side, controlling, 9, now);
            fresh.add_local(now, candidate(CandidateKind::Host, lists[side], lists[side]));
            fresh.set_remote(now, credentials(1 - side));
            let other = lists[1 - side];
            fresh.add_remote(now, candidate(CandidateKind::Host, other, other));
            *world.ends[side].agent() = fresh;
        }
        world.run(Duration::from_secs(2));
        assert!(world.connected().is_some() && world.is_settled());
        let [a, b] = &mut world.ends;
        assert_ne!(a.agent().is_controlling(), b.agent().is_controlling());
    }
}

#[test]
fn a_dead_direct_path_gives_way_to_the_relay_and_comes_back() {
    let mut world = World::new([Nat::PortRestricted, Nat::PortRestricted], true, 11);
    world.run(Duration::from_secs(3));
    assert!(world.connected().unwrap()[0].is_direct());
    world.cut = Box::new(|_, from, to, _| !is_relay(from) && !is_relay(to));
    world.run(Duration::from_secs(12));
    let selected = world.connected().expect("the relay takes over");
    assert!(!selected[0].is_direct() && !selected[1].is_direct());
    world.cut = Box::new(|_, _, _, _| false);
    world.run(Duration::from_secs(40));
    assert!(world.connected().expect("still there")[0].is_direct());
}

#[test]
fn consent_ends_when_nothing_answers() {
    let mut world = World::new([Nat::Open, Nat::Open], false, 13);
    world.run(Duration::from_secs(2));
    world.cut = Box::new(|_, _, _, _| true);
    world.run(Duration::from_secs(60));
    for end in &world.ends {
        let states: Vec<State> = end.states.iter().map(|(_, state)| *state).collect();
        assert!(states.ends_with(&[State::Disconnected, State::Failed]), "{states:?}");
    }
}

#[test]
fn a_connected_pair_stays_so_for_hours() {
    let mut world = World::new([Nat::PortRestricted, Nat::PortRestricted], true, 17);
    world.loss = 2;
    world.run(Duration::from_secs(4 * 3600));
    assert!(world.connected().is_some());
    assert!(!world.ends[0].states.iter().any(|(_, state)| *state == State::Failed));
}

#[test]
fn a_stranger_is_never_answered() {
    let mut world = World::new([Nat::Open, Nat::Open], false, 19);
    world.run(Duration::from_secs(1));
    let mut other = World::new([Nat::Open, Nat::Open], false, 23);
    // Same names, other passwords.
    let now = other.now;
    let bad = Credentials { ufrag: "frag1".into(), pwd: "another-password-altogether".into() };
    let config = AgentConfig::new(credentials(0), true, 9, [1; 32]);
    let mut impostor = Agent::new(config, now);
    let (here, there) = (other.ends[0].host, other.ends[1].host);
    impostor.add_local(now, candidate(CandidateKind::Host, here, here));
    impostor.set_remote(now, bad);
    impostor.add_remote(now, candidate(CandidateKind::Host, there, there));
    while other.ends[1].agent().poll_output().is_some() {}
    let mut checks = 0;
    while let Some(output) = impostor.poll_output() {
        if let Output::Transmit { local, remote, data } = output {
            checks += 1;
            let packet = Packet { local: remote, remote: local, data: &data };
            assert!(other.ends[1].agent().handle_input(now, packet).is_err());
        }
    }
    assert!(checks > 0);
    assert_eq!(other.ends[1].agent().poll_output(), None);
    assert!(!other.ends[1].agent().validated(here));
}

#[test]
fn checks_that_come_before_the_credentials_count_later() {
    let now = Instant::now();
    let mut a = our_agent(0, true, 1, now);
    let mut b = our_agent(1, false, 1, now);
    let (x, y): (SocketAddr, SocketAddr) =
        ("198.18.1.2:1".parse().unwrap(), "198.18.2.2:2".parse().unwrap());
    a.add_local(now, candidate(CandidateKind::Host, x, x));
    b.add_local(now, candidate(CandidateKind::Host, y, y));
    a.set_remote(now, credentials(1));
    a.add_remote(now, candidate(CandidateKind::Host, y, y));
    while let Some(output) = a.poll_output() {
        if let Output::Transmit { local, remote, data } = output {
            b.handle_input(now, Packet { local: remote, remote: local, data: &data }).unwrap();
        }
    }
    let answers = std::iter::from_fn(|| b.poll_output()).count();
    assert_eq!(answers, 1, "answered, but not checked back yet");
    b.set_remote(now, credentials(0));
    let outputs: Vec<_> = std::iter::from_fn(|| b.poll_output()).collect();
    assert!(outputs.iter().any(|o| matches!(o, Output::Transmit { remote, .. } if *remote == x)));
}
