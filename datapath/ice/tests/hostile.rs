//! A peer that knows the passwords and does whatever it likes, in any order; and a stranger that
//! changes what the peer says.

#![allow(missing_docs, clippy::unwrap_used)]

mod world;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_ice::{Agent, Candidate, CandidateKind, Output, Packet, State};
use ipop_stun::{Attribute, Builder, Class, Key, Message, Method, TransactionId};
use proptest::prelude::*;
use world::{candidate, credentials, our_agent};

/// Timers that are due at one instant, at most: more are a loop.
const TURNS_MAX: usize = 300;

#[derive(Clone, Debug)]
enum Act {
    AddLocal(CandidateKind, usize),
    AddRemote(CandidateKind, usize, u32),
    SetRemote,
    EndOfRemote,
    Wait(u64),
    Check {
        local: usize,
        remote: usize,
        controlling: bool,
        tie_breaker: u64,
        nominates: bool,
    },
    /// Answers one of the latest checks: 0 is success.
    Answer {
        back: usize,
        code: u16,
    },
    Indicate(usize, usize),
}

fn kinds() -> impl Strategy<Value = CandidateKind> {
    prop_oneof![
        Just(CandidateKind::Host),
        Just(CandidateKind::PeerReflexive),
        Just(CandidateKind::ServerReflexive),
        Just(CandidateKind::Relayed),
    ]
}

fn acts() -> impl Strategy<Value = Act> {
    let priorities = prop_oneof![any::<u32>(), Just(u32::MAX)];
    let tie_breakers = prop_oneof![Just(0), Just(u64::MAX)];
    let checks = (0..SLOTS, 0..SLOTS, any::<bool>(), tie_breakers, any::<bool>());
    prop_oneof![
        2 => (kinds(), 0..SLOTS).prop_map(|(kind, slot)| Act::AddLocal(kind, slot)),
        2 => (kinds(), 0..SLOTS, priorities).prop_map(|(k, s, p)| Act::AddRemote(k, s, p)),
        1 => Just(Act::SetRemote),
        1 => Just(Act::EndOfRemote),
        3 => prop_oneof![0..200u64, 0..20_000u64].prop_map(Act::Wait),
        3 => checks.prop_map(|(local, remote, controlling, tie_breaker, nominates)| {
            Act::Check { local, remote, controlling, tie_breaker, nominates }
        }),
        8 => (0..8usize, prop_oneof![6 => Just(0), 1 => Just(487), 1 => Just(400)])
            .prop_map(|(back, code)| Act::Answer { back, code }),
        1 => (0..SLOTS, 0..SLOTS).prop_map(|(l, r)| Act::Indicate(l, r)),
    ]
}

const SLOTS: usize = 6;

fn here(slot: usize) -> SocketAddr {
    let text =
        ["10.0.0.1:1", "10.0.0.2:1", "[fd00::1]:1", "[fe80::1]:1", "192.0.2.1:9", "1.2.3.4:5"];
    text[slot].parse().unwrap()
}

fn there(slot: usize) -> SocketAddr {
    let text =
        ["10.0.1.1:1", "10.0.1.2:1", "[fd00::2]:1", "[fe80::2]:1", "192.0.2.2:9", "127.0.0.1:5"];
    text[slot].parse().unwrap()
}

/// An agent and what its peer knows of it.
struct Harness {
    agent: Agent,
    now: Instant,
    /// Checks that it has sent: base, remote, transaction.
    sent: VecDeque<(SocketAddr, SocketAddr, Vec<u8>)>,
    number: u32,
}

impl Harness {
    fn new(controlling: bool) -> Self {
        let now = Instant::now();
        Self { agent: our_agent(0, controlling, 5, now), now, sent: VecDeque::new(), number: 0 }
    }

    fn act(&mut self, act: &Act) {
        let now = self.now;
        match *act {
            Act::AddLocal(kind, slot) => {
                self.agent.add_local(now, candidate(kind, here(slot), here(slot)));
            }
            Act::AddRemote(kind, slot, priority) => {
                let candidate = Candidate { priority, ..candidate(kind, there(slot), there(slot)) };
                self.agent.add_remote(now, candidate);
            }
            Act::SetRemote => self.agent.set_remote(now, credentials(1)),
            Act::EndOfRemote => self.agent.end_of_remote_candidates(now),
            Act::Wait(ms) => return self.wait(Duration::from_millis(ms)),
            Act::Check { local, remote, controlling, tie_breaker, nominates } => {
                let role = match controlling {
                    true => Attribute::IceControlling(tie_breaker),
                    false => Attribute::IceControlled(tie_breaker),
                };
                let mut check = self.builder(Class::Request).with(role);
                if nominates {
                    check = check.with(Attribute::UseCandidate);
                }
                self.say(here(local), there(remote), check);
            }
            Act::Answer { back, code } => self.answer(back, code),
            Act::Indicate(local, remote) => {
                let indication = self.builder(Class::Indication);
                self.say(here(local), there(remote), indication);
            }
        }
        self.drain();
    }

    fn builder(&mut self, class: Class) -> Builder {
        self.number += 1;
        let mut id = [0; 12];
        id[..4].copy_from_slice(&self.number.to_be_bytes());
        let names = format!("{}:{}", credentials(0).ufrag, credentials(1).ufrag);
        Builder::new(class, Method::Binding, TransactionId(id))
            .with(Attribute::Username(names))
            .with(Attribute::Priority(self.number))
    }

    fn say(&mut self, local: SocketAddr, remote: SocketAddr, message: Builder) {
        let key = Key::short_term(&credentials(0).pwd).unwrap();
        let data = message.integrity(&key).fingerprint().build().unwrap();
        let _ = self.agent.handle_input(self.now, Packet { local, remote, data: &data });
    }

    fn answer(&mut self, back: usize, code: u16) {
        let Some(index) = self.sent.len().checked_sub(back + 1) else { return };
        let Some((local, remote, check)) = self.sent.remove(index) else { return };
        let check = Message::parse(&check).unwrap();
        let answer = match code {
            0 => Builder::success(&check).with(Attribute::XorMappedAddress(local)),
            code => Builder::error(&check, code, "No"),
        };
        let key = Key::short_term(&credentials(1).pwd).unwrap();
        let data = answer.integrity(&key).fingerprint().build().unwrap();
        let _ = self.agent.handle_input(self.now, Packet { local, remote, data: &data });
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        let mut turns = 0;
        while let Some(at) = self.agent.poll_timeout().filter(|at| *at <= end) {
            turns = if at > self.now { 0 } else { turns + 1 };
            assert!(turns < TURNS_MAX, "a timer that is due does nothing");
            self.now = self.now.max(at);
            self.agent.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.agent.handle_timeout(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.agent.poll_output() {
            let Output::Transmit { local, remote, data } = output else { continue };
            let message = Message::parse(&data).unwrap();
            if message.class() == Class::Request {
                assert_ne!(self.agent.state(), State::Failed);
                let controlled = message.ice_controlled().is_some();
                assert!(!(controlled && message.use_candidate()), "only one end nominates");
                self.sent.push_back((local, remote, data));
            }
            while self.sent.len() > 64 {
                self.sent.pop_front();
            }
        }
        let in_use = matches!(self.agent.state(), State::Connected | State::Disconnected);
        assert_eq!(self.agent.selected().is_some(), in_use);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_the_peer_does_the_agent_keeps_its_rules(
        controlling in any::<bool>(),
        acts in proptest::collection::vec(acts(), 0..120),
    ) {
        let mut harness = Harness::new(controlling);
        harness.act(&Act::AddLocal(CandidateKind::Host, 0));
        harness.act(&Act::AddRemote(CandidateKind::Host, 0, 1));
        for act in &acts {
            harness.act(act);
        }
        // Nobody answers any more.
        harness.wait(Duration::from_secs(60));
        prop_assert!(matches!(harness.agent.state(), State::New | State::Failed));
        prop_assert!(harness.agent.poll_timeout().is_none());
    }

    #[test]
    fn a_check_with_any_byte_changed_is_never_answered(place in 0..200usize, by in 1..=255u8) {
        let mut harness = Harness::new(true);
        harness.act(&Act::SetRemote);
        let key = Key::short_term(&credentials(0).pwd).unwrap();
        let check = harness.builder(Class::Request).with(Attribute::IceControlled(1));
        let mut data = check.integrity(&key).fingerprint().build().unwrap();
        // All but the header of FINGERPRINT, which says no more than that there is one.
        let place = place % (data.len() - 8);
        data[place] ^= by;
        let packet = Packet { local: here(0), remote: there(0), data: &data };
        prop_assert!(harness.agent.handle_input(harness.now, packet).is_err());
        prop_assert!(std::iter::from_fn(|| harness.agent.poll_output())
            .all(|output| matches!(output, Output::StateChanged(_))));
        prop_assert!(!harness.agent.validated(there(0)));
    }
}
