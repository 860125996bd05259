//! Our agent with another make: `is`, the one of str0m.

#![allow(missing_docs, clippy::unwrap_used)]

mod world;

use std::time::{Duration, Instant};

use ipop_ice::{Candidate, CandidateKind, State};
use world::{End, KINDS, Nat, Party, World, can_be_direct, credentials, is_relay, our_agent};

/// Which end is ours; the other is the other make.
type Side = usize;

fn their_agent(side: Side, controlling: bool) -> is::IceAgent {
    let ours = credentials(side);
    let mut agent = is::IceAgent::new(is::IceCreds { ufrag: ours.ufrag, pass: ours.pwd });
    agent.set_controlling(controlling);
    agent
}

/// As it stands in the description that the other make reads (RFC 8839 section 5.1).
fn described(candidate: &Candidate) -> String {
    let kind = match candidate.kind {
        CandidateKind::Host => "host",
        CandidateKind::PeerReflexive => "prflx",
        CandidateKind::ServerReflexive => "srflx",
        CandidateKind::Relayed => "relay",
    };
    let (ip, port) = (candidate.address.ip(), candidate.address.port());
    let related = match candidate.kind {
        CandidateKind::Host => String::new(),
        _ => format!(" raddr {} rport {}", candidate.base.ip(), candidate.base.port()),
    };
    let Candidate { foundation, component, priority, .. } = candidate;
    format!("candidate:{foundation} {component} udp {priority} {ip} {port} typ {kind}{related}")
}

fn add_theirs(agent: &mut is::IceAgent, end_host: std::net::SocketAddr, list: &[Candidate]) {
    for candidate in list {
        let theirs = match candidate.kind {
            CandidateKind::Host => is::Candidate::host(candidate.address, "udp").unwrap(),
            CandidateKind::Relayed => {
                is::Candidate::relayed(candidate.address, end_host, "udp").unwrap()
            }
            // It sends from the base in any case.
            _ => continue,
        };
        agent.add_local_candidate(theirs);
    }
}

fn world(nats: [Nat; 2], relays: bool, ours: Side, controlling: [bool; 2], seed: u8) -> World {
    let now = Instant::now();
    let parties = [0, 1].map(|side| match side == ours {
        true => Party::Ours(our_agent(side, controlling[side], seed, now).into()),
        false => Party::Theirs(their_agent(side, controlling[side]).into()),
    });
    let mut world = World::of(nats, parties, seed, now);
    let lists = world.ends.each_ref().map(|end| end.candidates(relays));
    for side in 0..2 {
        let End { party, host, .. } = &mut world.ends[side];
        match party {
            Party::Ours(agent) => {
                lists[side].iter().for_each(|local| agent.add_local(now, local.clone()));
                agent.set_remote(now, credentials(1 - side));
                for remote in &lists[1 - side] {
                    agent.add_remote(now, Candidate { base: remote.address, ..remote.clone() });
                }
                agent.end_of_remote_candidates(now);
            }
            Party::Theirs(agent) => {
                add_theirs(agent, *host, &lists[side]);
                let peer = credentials(1 - side);
                let creds = is::IceCreds { ufrag: peer.ufrag, pass: peer.pwd };
                agent.set_remote_credentials(creds);
                for remote in &lists[1 - side] {
                    let text = described(remote);
                    agent.add_remote_candidate(is::Candidate::from_sdp_string(&text).unwrap());
                }
                agent.handle_timeout(now);
            }
        }
    }
    world
}

const ROLES: [[bool; 2]; 2] = [[true, false], [false, true]];

fn settles(world: &mut World, patience: Duration) -> bool {
    let end = world.now + patience;
    world.run_until(end, World::is_settled)
}

#[test]
fn host_to_host_in_both_roles() {
    for controlling in ROLES {
        for ours in 0..2 {
            let mut world = world([Nat::Open, Nat::Open], false, ours, controlling, 1);
            assert!(settles(&mut world, Duration::from_secs(2)), "{controlling:?} {ours}");
            world.run(Duration::from_secs(120));
            assert!(world.is_settled(), "{controlling:?} {ours}");
            assert_eq!(world.ends[ours].agent().is_controlling(), controlling[ours]);
        }
    }
}

#[test]
fn through_every_pair_of_nats() {
    let kinds = KINDS.into_iter().filter(|nat| *nat != Nat::Rejecting);
    for a in kinds.clone() {
        for b in kinds.clone() {
            for controlling in ROLES {
                let mut world = world([a, b], true, 0, controlling, 3);
                world.run(Duration::from_secs(15));
                assert!(world.is_settled(), "{a:?} {b:?} {controlling:?}");
                let (local, remote) = world.ends[0].path().unwrap();
                let direct = !is_relay(local) && !is_relay(remote);
                assert_eq!(direct, can_be_direct(a, b), "{a:?} {b:?} {controlling:?}");
            }
        }
    }
}

#[test]
fn loss_and_duplicates_only_cost_time() {
    for controlling in ROLES {
        for seed in 0..30 {
            let nats = [Nat::PortRestricted, Nat::FullCone];
            let mut world = world(nats, false, usize::from(seed % 2 == 0), controlling, seed);
            world.loss = 20;
            world.duplicates = 20;
            assert!(settles(&mut world, Duration::from_secs(15)), "{controlling:?} {seed}");
        }
    }
}

#[test]
fn a_role_conflict_is_settled() {
    for controlling in [[true, true], [false, false]] {
        for tie_breaker in [0, u64::MAX] {
            let mut world = world([Nat::Open, Nat::PortRestricted], false, 0, controlling, 7);
            let Party::Theirs(theirs) = &mut world.ends[1].party else { unreachable!() };
            theirs.set_control_tie_breaker(tie_breaker);
            assert!(settles(&mut world, Duration::from_secs(5)), "{controlling:?} {tie_breaker}");
            let ours = world.ends[0].agent().is_controlling();
            let Party::Theirs(theirs) = &world.ends[1].party else { unreachable!() };
            assert_ne!(ours, theirs.controlling());
            // Of two controlled ends, the other make lets the greater one stay so (RFC 8445 section
            // 7.3.1.1 has it the other way round); roles may cross, and settle all the same.
            if controlling[0] {
                assert_eq!(ours, tie_breaker == 0, "the greater tie-breaker controls");
            }
        }
    }
}

#[test]
fn a_path_stays_for_an_hour() {
    for controlling in ROLES {
        let mut world = world([Nat::PortRestricted, Nat::Symmetric], true, 1, controlling, 9);
        world.loss = 2;
        world.run(Duration::from_secs(3600));
        // The other make wavers between relayed pairs of one worth: it may just have nominated.
        assert!(settles(&mut world, Duration::from_secs(10)), "{controlling:?}");
        let states = &world.ends[1].states;
        assert!(!states.iter().any(|(_, state)| *state == State::Failed), "{states:?}");
    }
}
