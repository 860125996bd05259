//! Two agents behind simulated NATs, in virtual time.

#![allow(missing_docs, clippy::unwrap_used)]

mod world;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_ice::{Agent, AgentConfig, CandidateKind, Credentials, Output, Packet, State};
use ipop_stun::{Attribute, Builder, Key, Message, Method, TransactionId};
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

/// Pairs with a rejecting router.
const REJECTING: [(Nat, Nat); 5] = [
    (Nat::Rejecting, Nat::PortRestricted),
    (Nat::PortRestricted, Nat::Rejecting),
    (Nat::Rejecting, Nat::FullCone),
    (Nat::FullCone, Nat::Rejecting),
    (Nat::Rejecting, Nat::Rejecting),
];

#[test]
fn who_knows_the_other_first_knocks_and_spoils_no_router() {
    for (a, b) in REJECTING {
        for signalling in [0, 10, 30, 60, 100, 200, 400] {
            for relays in [false, true] {
                for seed in 0..5 {
                    let delay = Duration::from_millis(signalling);
                    let mut world = World::staggered([a, b], relays, seed, delay);
                    world.run(Duration::from_millis(200));
                    let is_well = world.is_direct() && world.is_settled();
                    assert!(is_well, "{a:?} {b:?} {signalling} {relays} {seed}");
                }
            }
        }
    }
}

#[test]
fn a_newcomer_gives_the_other_a_moment_and_spoils_no_router() {
    for (a, b) in REJECTING {
        for later in [0, 10, 30, 60] {
            for (relays, controls) in [(false, false), (false, true), (true, false), (true, true)] {
                for seed in 0..5 {
                    let later = Duration::from_millis(later);
                    let mut world = World::met([a, b], relays, seed, later, controls);
                    world.run(Duration::from_millis(200));
                    let is_well = world.is_direct() && world.is_settled();
                    assert!(is_well, "{a:?} {b:?} {later:?} {relays} {controls} {seed}");
                }
            }
        }
    }
}

#[test]
fn rejecting_routers_are_punched_together() {
    for (a, b) in REJECTING {
        // If not at once, then when the routers have forgotten.
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

/// Neither end waits for the nomination, which takes half a round trip more.
#[test]
fn a_direct_pair_with_nothing_in_the_way_takes_one_round_trip() {
    for seed in 0..20 {
        let mut world = World::new([Nat::Open, Nat::Open], true, seed);
        let time = time_to_connect(&mut world).unwrap();
        assert!(time < 5 * DELAY / 2, "{seed}: {time:?}");
        world.run(Duration::from_secs(1));
        assert!(world.is_settled(), "{seed}");
    }
}

/// The same where only relays lead through: as soon as a pair is known to work both ways.
#[test]
fn a_relayed_pair_does_not_wait_for_the_nomination_either() {
    for seed in 0..20 {
        let mut world = World::new([Nat::Symmetric, Nat::Symmetric], true, seed);
        let time = time_to_connect(&mut world).unwrap();
        // The patience with relays, and no round trip after it.
        assert!(time < Duration::from_millis(220), "{seed}: {time:?}");
        world.run(Duration::from_secs(1));
        assert!(world.is_settled(), "{seed}");
    }
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
    for seed in 0..20 {
        let mut world = World::new([Nat::Open, Nat::Open], false, seed);
        world.run(Duration::from_millis(2000 + 317 * u64::from(seed)));
        let cut = world.now;
        world.cut = Box::new(|_, _, _, _| true);
        world.run(Duration::from_secs(60));
        for end in &world.ends {
            let last = &end.states[end.states.len() - 2..];
            let [(silent, State::Disconnected), (over, State::Failed)] = last else {
                panic!("{last:?}")
            };
            assert!(*silent <= cut + Duration::from_secs(8), "{:?}", *silent - cut);
            // Thirty seconds from the last question that was answered (RFC 7675 section 5.1).
            assert!(*over <= cut + Duration::from_secs(30));
            assert!(*over >= cut + Duration::from_secs(25));
        }
        let before = world.datagrams;
        world.run(Duration::from_secs(600));
        assert_eq!(world.datagrams, before, "nothing is sent without consent");
    }
}

#[test]
fn a_dead_pair_is_replaced_at_both_ends_within_seconds() {
    for seed in 0..20 {
        let mut world = World::new([Nat::PortRestricted, Nat::Open], true, seed);
        world.run(Duration::from_millis(3000 + 431 * u64::from(seed)));
        assert!(world.is_direct());
        world.cut = Box::new(|_, from, to, _| !is_relay(from) && !is_relay(to));
        let end = world.now + Duration::from_millis(7500);
        assert!(world.run_until(end, |w| w.is_settled() && !w.is_direct()), "{seed}");
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

/// Binding requests, by the class bits of the message type.
fn is_request(data: &[u8]) -> bool {
    data[..2] == [0, 1]
}

#[test]
fn a_path_that_works_one_way_only_is_not_used() {
    for side in 0..2 {
        for seed in 0..10 {
            let mut world = World::new([Nat::Open, Nat::PortRestricted], true, seed);
            world.cut = Box::new(move |from, a, b, _| from == side && !is_relay(a) && !is_relay(b));
            world.run(Duration::from_secs(10));
            assert!(world.is_settled() && !world.is_direct(), "{side} {seed}");
            let switches = world.ends.iter().map(|end| end.selected.len()).max();
            assert_eq!(switches, Some(1), "nobody wavers");
        }
    }
}

/// Requests of one end are lost on the direct path while its answers pass, so that one end sees it
/// valid and the other does not.
#[test]
fn ends_that_see_different_pairs_valid_agree_in_the_end() {
    for side in 0..2 {
        let mut world = World::new([Nat::Open, Nat::Open], true, 3);
        world.lose_all();
        world.cut = Box::new(move |from, a, b, data| {
            from == side && is_request(data) && !is_relay(a) && !is_relay(b)
        });
        world.run(Duration::from_secs(30));
        let both = world.ends.each_mut().map(|end| end.agent().selected().is_some());
        println!("{side}: {both:?} settled {}", world.is_settled());
        assert!(world.is_settled(), "{side}: {both:?}");
    }
}

#[test]
fn a_router_that_restarts_at_one_end_costs_seconds() {
    for side in 0..2 {
        for nats in [[Nat::PortRestricted; 2], [Nat::Open, Nat::FullCone]] {
            for seed in 0..10 {
                let mut world = World::new(nats, false, seed);
                world.run(Duration::from_secs(60));
                assert!(world.is_settled());
                if nats[side] == Nat::Open {
                    continue;
                }
                world.ends[side].restart_router();
                // The node's STUN client finds out and signals the new address.
                world.run(Duration::from_millis(100));
                announce(&mut world, side);
                let end = world.now + Duration::from_secs(12);
                assert!(world.run_until(end, World::is_settled), "{side} {nats:?} {seed}");
                let before = world.now;
                world.run(Duration::from_secs(60));
                let failed = |end: &world::End| {
                    let late = end.states.iter().filter(|(at, _)| *at > before);
                    late.filter(|(_, state)| *state != State::Connected).count()
                };
                assert!(world.is_settled(), "{side} {nats:?} {seed}");
                assert!(world.ends.iter().map(failed).sum::<usize>() <= 1);
            }
        }
    }
}

/// Tells the other end where this one is mapped now.
fn announce(world: &mut World, side: usize) {
    let (now, mapped, host) = (world.now, world.ends[side].mapped(), world.ends[side].host);
    let local = candidate(CandidateKind::ServerReflexive, mapped, host);
    world.ends[side].agent().add_local(now, local);
    let remote = candidate(CandidateKind::ServerReflexive, mapped, mapped);
    world.ends[1 - side].agent().add_remote(now, remote);
}

#[test]
fn routers_that_restart_at_both_ends_cost_seconds_again_and_again() {
    let mut world = World::new([Nat::PortRestricted, Nat::PortRestricted], false, 21);
    world.run(Duration::from_secs(30));
    for round in 0..100 {
        assert!(world.is_settled(), "{round}");
        for side in 0..2 {
            world.ends[side].restart_router();
        }
        world.run(Duration::from_secs(1));
        announce(&mut world, 0);
        world.run(Duration::from_millis(200));
        announce(&mut world, 1);
        let end = world.now + Duration::from_secs(15);
        assert!(world.run_until(end, World::is_settled), "{round}");
        world.run(Duration::from_secs(60));
    }
}

#[test]
fn sockets_that_change_at_both_ends_are_followed() {
    let mut world = World::new([Nat::FullCone, Nat::PortRestricted], false, 23);
    world.run(Duration::from_secs(30));
    for round in 0..5 {
        for side in 0..2 {
            let end = &mut world.ends[side];
            end.restart_router();
            end.host.set_port(6000 + round);
            let host = candidate(CandidateKind::Host, end.host, end.host);
            let now = world.now;
            end.agent().add_local(now, host);
            announce(&mut world, side);
        }
        let end = world.now + Duration::from_secs(15);
        assert!(world.run_until(end, World::is_settled), "{round}");
        world.run(Duration::from_secs(60));
        assert!(world.is_settled(), "{round}");
    }
}

#[test]
fn round_trips_are_measured_on_slow_and_lossy_paths() {
    for delay in [1, 40, 150, 400] {
        for loss in [0, 15] {
            let mut world = World::new([Nat::PortRestricted, Nat::Open], false, 25);
            world.delay = Duration::from_millis(delay);
            world.loss = loss;
            world.run(Duration::from_secs(120));
            for selected in world.connected().unwrap() {
                let rtt = selected.rtt.unwrap();
                let (low, high) = (2 * world.delay, 2 * world.delay + Duration::from_millis(10));
                assert!((low..high).contains(&rtt), "{delay} {loss}: {rtt:?}");
            }
        }
    }
}

#[test]
fn consent_costs_one_question_every_few_seconds() {
    for delay in [5, 150] {
        let mut world = World::new([Nat::Open, Nat::Open], false, 27);
        world.delay = Duration::from_millis(delay);
        world.run(Duration::from_secs(60));
        let before = world.datagrams;
        world.run(Duration::from_secs(600));
        // Two ends, question and answer, every 4 s on average: RFC 7675 section 5.1.
        let datagrams = world.datagrams - before;
        assert!((550..=650).contains(&datagrams), "{delay}: {datagrams}");
    }
}

/// A check of the peer, from wherever it says.
fn forged_check(world: &mut World, number: u32) -> Vec<u8> {
    let mut id = [7; 12];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let ours = credentials(0);
    let key = Key::short_term(&ours.pwd).unwrap();
    let role = match world.ends[0].agent().is_controlling() {
        true => Attribute::IceControlled(1),
        false => Attribute::IceControlling(1),
    };
    Builder::request(Method::Binding, TransactionId(id))
        .with(Attribute::Username(format!("{}:{}", ours.ufrag, credentials(1).ufrag)))
        .with(Attribute::Priority(u32::MAX >> 1))
        .with(role)
        .integrity(&key)
        .fingerprint()
        .build()
        .unwrap()
}

#[test]
fn a_peer_that_forges_its_source_crowds_nothing_out() {
    let mut world = World::new([Nat::Open, Nat::Open], true, 29);
    let (now, local) = (world.now, world.ends[0].host);
    let mut answers = 0;
    for number in 0..5000_u32 {
        let data = forged_check(&mut world, number);
        let ip = [100, (number >> 16) as u8, (number >> 8) as u8, number as u8];
        let remote = SocketAddr::from((ip, 1000));
        let agent = world.ends[0].agent();
        agent.handle_input(now, Packet { local, remote, data: &data }).unwrap();
        while let Some(output) = agent.poll_output() {
            answers += usize::from(matches!(output, Output::Transmit { .. }));
        }
    }
    assert!(answers <= 2 * 5000 + 10, "an answer and a check for each: {answers}");
    // What is named afterwards is taken, and the true path is found.
    for port in 0..50 {
        let address = SocketAddr::from(([198, 18, 9, 9], 3000 + port));
        let named = candidate(CandidateKind::Host, address, address);
        assert!(world.ends[0].agent().add_remote(now, named), "{port}");
    }
    world.run(Duration::from_secs(3));
    assert!(world.is_settled() && world.is_direct());
}

#[test]
fn a_check_on_a_relayed_base_is_answered_there() {
    // Only the relay of one end can be reached, and the other end's address is not known.
    let mut world = World::new([Nat::Symmetric, Nat::Symmetric], true, 31);
    world.cut = Box::new(|_, a, b, _| is_relay(a) == is_relay(b));
    world.run(Duration::from_secs(10));
    assert!(world.is_settled(), "{:?}", world.connected());
    assert!(!world.is_direct());
}

#[test]
fn what_must_be_understood_and_is_not_is_refused() {
    let mut world = World::new([Nat::Open, Nat::Open], false, 33);
    let ours = credentials(0);
    let check = Builder::request(Method::Binding, TransactionId([9; 12]))
        .with(Attribute::Username(format!("{}:{}", ours.ufrag, credentials(1).ufrag)))
        .build()
        .unwrap();
    // An attribute of a required type that nobody has defined, and the integrity over all.
    let data = with_unknown_attribute(check, &ours.pwd);
    let (now, local) = (world.now, world.ends[0].host);
    let agent = world.ends[0].agent();
    while agent.poll_output().is_some() {}
    let remote: SocketAddr = "198.18.7.7:7".parse().unwrap();
    agent.handle_input(now, Packet { local, remote, data: &data }).unwrap();
    let Some(Output::Transmit { data, .. }) = agent.poll_output() else { panic!("no answer") };
    let answer = Message::parse(&data).unwrap();
    assert_eq!(answer.error().map(|error| error.code), Some(420));
    assert!(!agent.validated(remote));
}

fn with_unknown_attribute(mut check: Vec<u8>, password: &str) -> Vec<u8> {
    const INTEGRITY_LEN: u8 = 24;
    check.extend_from_slice(&[0x3f, 0xff, 0, 0]);
    check[3] = u8::try_from(check.len() - 20).unwrap() + INTEGRITY_LEN;
    let key = aws_lc_rs::hmac::Key::new(
        aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        password.as_bytes(),
    );
    let tag = aws_lc_rs::hmac::sign(&key, &check);
    check.extend_from_slice(&[0, 8, 0, 20]);
    check.extend_from_slice(tag.as_ref());
    check
}
