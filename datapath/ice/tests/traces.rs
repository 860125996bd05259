//! What an agent tells of its work, and why it chose.

#![allow(missing_docs, clippy::unwrap_used)]

mod world;

use std::time::Duration;

use ipop_ice::{CandidateKind, CheckFailure, ChoiceCause, Outcome, Trace};
use world::{Nat, World};

fn traces(world: &mut World, side: usize) -> Vec<Trace> {
    std::iter::from_fn(|| world.ends[side].agent().poll_trace()).collect()
}

type IsStep = fn(&Trace) -> bool;

/// Asserts that steps of these kinds come in this order, others in between.
fn assert_order(traces: &[Trace], steps: &[(&str, IsStep)]) {
    let mut at = 0;
    for (name, is_step) in steps {
        let found = traces[at..].iter().position(is_step);
        at += found.unwrap_or_else(|| panic!("no {name} in {:#?}", &traces[at..])) + 1;
    }
}

#[test]
fn a_link_that_comes_up_is_told_in_order_and_then_there_is_silence() {
    let mut world = World::new([Nat::PortRestricted, Nat::PortRestricted], true, 1);
    world.run(Duration::from_secs(30));
    for side in 0..2 {
        let told = traces(&mut world, side);
        assert_order(
            &told,
            &[
                ("candidate of ours", |t| matches!(t, Trace::LocalCandidate { .. })),
                ("candidate of the peer", |t| matches!(t, Trace::RemoteCandidate { .. })),
                ("pair", |t| matches!(t, Trace::PairFormed(_))),
                ("check", |t| matches!(t, Trace::CheckSent { number: 1, .. })),
                ("answer", |t| matches!(t, Trace::CheckAnswered { .. })),
                ("choice", |t| matches!(t, Trace::Selected { cause: ChoiceCause::First, .. })),
            ],
        );
        assert!(told.iter().any(|t| matches!(t, Trace::Heard(_))));
        let choice = world.ends[side].agent().choice().unwrap();
        assert_eq!((choice.cause, choice.is_peers), (ChoiceCause::First, side == 1));
        assert!(choice.at < world.start + Duration::from_secs(1));
    }
    world.run(Duration::from_secs(3600));
    for side in 0..2 {
        // What never works, the peer's private address, is tried again now and then.
        let unreachable = world.ends[1 - side].host;
        let is_about_others = |step: &Trace| match step {
            Trace::CheckSent { pair, .. } | Trace::CheckFailed { pair, .. } => {
                pair.remote != unreachable
            }
            other => !matches!(other, Trace::Punch { .. }),
        };
        let told: Vec<_> = traces(&mut world, side).into_iter().filter(is_about_others).collect();
        assert_eq!(told, [], "consent and warmth are no steps");
    }
}

#[test]
fn what_became_of_pairs_that_cannot_work_is_known() {
    let mut world = World::new([Nat::Symmetric, Nat::Symmetric], true, 3);
    world.run(Duration::from_secs(20));
    for side in 0..2 {
        let outcomes = world.ends[side].agent().outcomes();
        let of = |local, remote| -> Outcome {
            let is_it = |o: &&Outcome| (o.local_kind, o.remote_kind) == (local, remote);
            *outcomes.iter().find(is_it).unwrap_or_else(|| panic!("{local:?} {remote:?}"))
        };
        let direct = of(CandidateKind::Host, CandidateKind::ServerReflexive);
        assert_eq!((direct.pairs, direct.working, direct.failed), (1, 0, 1), "{direct:?}");
        assert_eq!(direct.last_failure, Some(CheckFailure::Timeout));
        assert!(direct.checks >= 8, "{direct:?}");
        let relayed = of(CandidateKind::Relayed, CandidateKind::Relayed);
        assert_eq!((relayed.working, relayed.last_failure), (1, None));
        let total: u32 = outcomes.iter().map(|outcome| outcome.pairs).sum();
        assert!(total >= 4, "{outcomes:?}");
    }
    let told = traces(&mut world, 0);
    let is_news = |step: &Trace| matches!(step, Trace::SeenAs { .. });
    assert!(told.iter().any(is_news), "the other relay sees another port: {told:#?}");
    world.run(Duration::from_secs(3600));
    let told = traces(&mut world, 0);
    assert!(told.len() < 600, "{} steps in an hour of a link that is well", told.len());
}

#[test]
fn a_path_whose_address_goes_is_left_for_that_reason() {
    let mut world = World::new([Nat::PortRestricted, Nat::PortRestricted], true, 5);
    world.run(Duration::from_secs(10));
    traces(&mut world, 0);
    let (now, host) = (world.now, world.ends[0].host);
    let public = world.ends[0].public;
    world.cut = Box::new(move |side, source, _, _| side == 0 && source.ip() == public);
    world.ends[0].agent().remove_local(now, host);
    world.run(Duration::from_secs(5));
    let told = traces(&mut world, 0);
    assert_order(
        &told,
        &[
            ("address", |t| matches!(t, Trace::LocalGone(_))),
            ("failure", |t| {
                matches!(t, Trace::CheckFailed { cause: CheckFailure::AddressGone, .. })
            }),
            ("silence", |t| matches!(t, Trace::Silent(_))),
            ("choice", |t| {
                let cause = ChoiceCause::AddressGone;
                matches!(t, Trace::Selected { cause: c, is_peers: false, .. } if *c == cause)
            }),
        ],
    );
}
