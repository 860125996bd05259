//! Ends that share a public address, or a network.

#![allow(missing_docs, clippy::unwrap_used)]

mod world;

use std::time::Duration;

use ipop_ice::CandidateKind;
use world::{DELAY, KINDS, Nat, Site, World, can_be_direct};

const SIGNALLING: Duration = Duration::from_millis(45);

/// Pairs of NATs with an inside.
fn nats() -> impl Iterator<Item = [Nat; 2]> {
    let kinds = || KINDS.into_iter().filter(|nat| *nat != Nat::Open);
    kinds().flat_map(move |a| kinds().map(move |b| [a, b]))
}

#[test]
fn in_one_network_hosts_talk_to_hosts() {
    for nats in nats() {
        for seed in 0..5 {
            let mut world = World::sited(Site::Lan, nats, true, seed, SIGNALLING);
            let end = world.now + 8 * DELAY;
            assert!(world.run_until(end, |w| w.connected().is_some()), "{nats:?} {seed}");
            world.run(Duration::from_secs(60));
            assert!(world.is_settled(), "{nats:?} {seed}");
            for selected in world.connected().unwrap() {
                assert_eq!(selected.local_kind, CandidateKind::Host);
                assert_eq!(selected.remote_kind, CandidateKind::Host);
            }
        }
    }
}

#[test]
fn behind_one_address_that_turns_back_paths_are_as_behind_two() {
    for nats in nats() {
        for seed in 0..5 {
            let mut world = World::sited(Site::Hairpin, nats, true, seed, SIGNALLING);
            world.run(Duration::from_secs(2));
            assert!(world.is_settled(), "{nats:?} {seed}");
            // Who filters by address alone lets everybody behind its own address in, once it has
            // sent anything there.
            assert_eq!(world.is_direct(), can_be_direct(nats[0], nats[1]), "{nats:?} {seed}");
        }
    }
}

#[test]
fn behind_one_address_that_does_not_turn_back_the_relay_is_used() {
    for nats in nats() {
        for seed in 0..5 {
            let mut world = World::sited(Site::NoHairpin, nats, true, seed, SIGNALLING);
            world.run(Duration::from_secs(60));
            assert!(world.is_settled() && !world.is_direct(), "{nats:?} {seed}");
        }
    }
}
