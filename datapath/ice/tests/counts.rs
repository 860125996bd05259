//! How much is sent, to the datagram, and that no timer runs in circles.

#![allow(missing_docs, clippy::unwrap_used)]

mod world;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ipop_ice::{CandidateKind, State};
use ipop_stun::{Class, Message};
use world::{Nat, World, candidate, is_relay};

/// Checks, nominations among them, answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    checks: u32,
    nominations: u32,
    answers: u32,
}

fn count(world: &mut World) -> Rc<RefCell<[Count; 2]>> {
    let counts = Rc::new(RefCell::new([Count::default(); 2]));
    let counted = counts.clone();
    world.cut = Box::new(move |side, _, _, data| {
        let message = Message::parse(data).unwrap();
        let count = &mut counted.borrow_mut()[side];
        match message.class() {
            Class::Request => count.checks += 1,
            _ => count.answers += 1,
        }
        count.nominations += u32::from(message.use_candidate());
        false
    });
    counts
}

#[test]
fn a_clear_path_takes_three_checks_to_five() {
    // One check each way and the nomination; and once more by whoever hears the other while it
    // waits for its answer: what it sent first may have met a closed hole. The check of an end that
    // is earlier is under way when the count begins.
    for (signalling_ms, checks) in [(0, [3, 2]), (30, [2, 0])] {
        let signalling = Duration::from_millis(signalling_ms);
        let mut world = World::staggered([Nat::Open; 2], false, 1, signalling);
        world.jitter_us = 0;
        let counts = count(&mut world);
        world.run(Duration::from_secs(3));
        assert!(world.is_settled());
        let [controlling, controlled] = *counts.borrow();
        assert_eq!([controlling.checks, controlled.checks], checks, "{signalling_ms}");
        assert_eq!([controlling.nominations, controlled.nominations], [1, 0]);
        assert_eq!([controlled.answers, controlling.answers], checks);
    }
}

#[test]
fn what_never_works_is_asked_eight_times() {
    let mut world = World::staggered([Nat::Symmetric; 2], false, 1, Duration::ZERO);
    let counts = count(&mut world);
    // Two pairs each, that rest ten seconds after.
    world.run(Duration::from_secs(9));
    let asked = Count { checks: 16, nominations: 0, answers: 0 };
    assert_eq!(*counts.borrow(), [asked; 2]);
    world.run(Duration::from_secs(30));
    assert!(world.ends.iter().all(|end| end.states.last().unwrap().1 == State::Failed));
}

#[test]
fn a_path_that_blinks_costs_no_storm_however_many_dead_pairs_there_are() {
    for offset in 0..120 {
        let mut world = World::new([Nat::Symmetric, Nat::Symmetric], true, 1);
        let now = world.now;
        for port in 0..60 {
            let dead = SocketAddr::from(([203, 0, 113, 9], 1000 + port));
            let dead = candidate(CandidateKind::Host, dead, dead);
            assert!(world.ends[0].agent().add_remote(now, dead));
        }
        world.run(Duration::from_millis(36_000 + 50 * offset));
        assert!(world.is_settled() && !world.is_direct());
        world.cut = Box::new(|_, _, _, _| true);
        let end = world.now + Duration::from_secs(10);
        world.run_until(end, |w| w.ends[0].states.last().unwrap().1 == State::Disconnected);
        world.cut = Box::new(|_, from, to, _| !is_relay(from) && !is_relay(to));
        let before = world.datagrams;
        world.run(Duration::from_secs(2));
        assert!(world.is_settled(), "{offset}");
        assert!(world.datagrams - before < 1000, "{offset}: {}", world.datagrams - before);
    }
}
