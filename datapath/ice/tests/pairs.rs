//! Two agents behind simulated NATs, in virtual time.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipop_ice::{
    Agent, AgentConfig, Candidate, CandidateKind, Credentials, Output, Packet, Selected, State,
    foundation, priority,
};

const DELAY: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nat {
    Open,
    FullCone,
    AddressRestricted,
    PortRestricted,
    Symmetric,
}

struct End {
    agent: Agent,
    nat: Nat,
    host: SocketAddr,
    public: IpAddr,
    relay: SocketAddr,
    /// Mapped port by destination (symmetric) or for all (the same key).
    mappings: BTreeMap<Option<SocketAddr>, u16>,
    sent_to: BTreeSet<(u16, SocketAddr)>,
    permitted: BTreeSet<IpAddr>,
    selected: Vec<Selected>,
    states: Vec<State>,
}

impl End {
    /// Source address as the internet sees it.
    fn translate(&mut self, to: SocketAddr) -> SocketAddr {
        if self.nat == Nat::Open {
            return self.host;
        }
        let key = (self.nat == Nat::Symmetric).then_some(to);
        let next = 20_000 + self.mappings.len() as u16 * 7;
        let port = *self.mappings.entry(key).or_insert(next);
        self.sent_to.insert((port, to));
        SocketAddr::new(self.public, port)
    }

    fn lets_in(&self, port: u16, from: SocketAddr) -> bool {
        let sent = |fits: &dyn Fn(&SocketAddr) -> bool| {
            self.sent_to.iter().any(|(p, to)| *p == port && fits(to))
        };
        match self.nat {
            Nat::Open => true,
            Nat::FullCone => self.mappings.values().any(|p| *p == port),
            Nat::AddressRestricted => sent(&|to| to.ip() == from.ip()),
            Nat::PortRestricted | Nat::Symmetric => sent(&|to| *to == from),
        }
    }
}

/// Receiver, local base, remote, data.
type Arrival = (usize, SocketAddr, SocketAddr, Vec<u8>);

struct World {
    now: Instant,
    ends: [End; 2],
    /// By due time and order.
    flying: BTreeMap<(Instant, u64), Arrival>,
    order: u64,
    loss: u64,
    duplicates: u64,
    rng: u64,
    cut: Box<dyn Fn(SocketAddr, SocketAddr) -> bool>,
}

fn credentials(side: usize) -> Credentials {
    Credentials { ufrag: format!("frag{side}"), pwd: format!("password-of-the-side-{side}") }
}

fn end(side: usize, nat: Nat, controlling: bool, now: Instant, seed: u8) -> End {
    let number = side as u8 + 1;
    let public = IpAddr::from([198, 18, number, 2]);
    let host = match nat {
        Nat::Open => SocketAddr::new(public, 5000),
        _ => SocketAddr::new(IpAddr::from([192, 168, number, 2]), 5000),
    };
    let config =
        AgentConfig::new(credentials(side), controlling, u64::from(number), [seed ^ number; 32]);
    End {
        agent: Agent::new(config, now),
        nat,
        host,
        public,
        relay: SocketAddr::new(IpAddr::from([198, 18, 0, 10]), 40_000 + u16::from(number)),
        mappings: BTreeMap::new(),
        sent_to: BTreeSet::new(),
        permitted: BTreeSet::new(),
        selected: vec![],
        states: vec![],
    }
}

fn candidate(kind: CandidateKind, address: SocketAddr, base: SocketAddr) -> Candidate {
    let foundation = foundation(kind, base.ip(), None);
    let priority = priority(kind, 65535, 1);
    Candidate { component: 1, kind, address, base, related: None, priority, foundation }
}

impl World {
    fn new(nats: [Nat; 2], relays: bool, seed: u8) -> Self {
        let now = Instant::now();
        let mut ends = [end(0, nats[0], true, now, seed), end(1, nats[1], false, now, seed)];
        let stun: SocketAddr = "198.18.0.10:3478".parse().unwrap();
        let lists = ends.each_mut().map(|end| {
            let mapped = end.translate(stun);
            let mut list = vec![candidate(CandidateKind::Host, end.host, end.host)];
            list.push(candidate(CandidateKind::ServerReflexive, mapped, end.host));
            if relays {
                list.push(candidate(CandidateKind::Relayed, end.relay, end.relay));
            }
            list
        });
        for side in 0..2 {
            for local in &lists[side] {
                ends[side].agent.add_local(now, local.clone());
            }
        }
        for side in 0..2 {
            ends[side].agent.set_remote(now, credentials(1 - side));
            for remote in &lists[1 - side] {
                let remote = Candidate { base: remote.address, ..remote.clone() };
                ends[side].agent.add_remote(now, remote);
            }
        }
        Self {
            now,
            ends,
            flying: BTreeMap::new(),
            order: 0,
            loss: 0,
            duplicates: 0,
            rng: u64::from(seed) + 1,
            cut: Box::new(|_, _| false),
        }
    }

    fn percent(&mut self, share: u64) -> bool {
        self.rng = self.rng.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.rng >> 33) % 100 < share
    }

    fn drain(&mut self) {
        for side in 0..2 {
            while let Some(output) = self.ends[side].agent.poll_output() {
                match output {
                    Output::Transmit { local, remote, data } => {
                        self.send(side, local, remote, data);
                    }
                    Output::Selected(selected) => self.ends[side].selected.push(selected),
                    Output::StateChanged(state) => self.ends[side].states.push(state),
                }
            }
        }
    }

    fn send(&mut self, side: usize, local: SocketAddr, remote: SocketAddr, data: Vec<u8>) {
        let sender = &mut self.ends[side];
        let source = if local == sender.relay {
            sender.permitted.insert(remote.ip());
            local
        } else {
            sender.translate(remote)
        };
        if self.percent(self.loss) || (self.cut)(source, remote) {
            return;
        }
        let other = &self.ends[1 - side];
        let to = if remote == other.relay {
            other.permitted.contains(&source.ip()).then_some(other.relay)
        } else if remote.ip() == other.public {
            let open = other.nat == Nat::Open && remote == other.host;
            (open || (other.nat != Nat::Open && other.lets_in(remote.port(), source)))
                .then_some(other.host)
        } else {
            None
        };
        let Some(base) = to else { return };
        let copies = if self.percent(self.duplicates) { 2 } else { 1 };
        for _ in 0..copies {
            self.order += 1;
            let jitter = Duration::from_micros(self.rng >> 52);
            let key = (self.now + DELAY + jitter, self.order);
            self.flying.insert(key, (1 - side, base, source, data.clone()));
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.drain();
        loop {
            let timer = self.ends.iter().filter_map(|end| end.agent.poll_timeout()).min();
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let Some(next) = timer.into_iter().chain(arrival).min().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.flying.first_entry().filter(|e| e.key().0 <= self.now) {
                let (side, local, remote, data) = entry.remove();
                let packet = Packet { local, remote, data: &data };
                let _ = self.ends[side].agent.handle_input(self.now, packet);
                self.drain();
            }
            for end in &mut self.ends {
                end.agent.handle_timeout(self.now);
            }
            self.drain();
        }
        self.now = end;
    }

    fn connected(&self) -> Option<[Selected; 2]> {
        let [a, b] = self.ends.each_ref().map(|end| end.agent.selected());
        let both = self.ends.iter().all(|end| end.agent.state() == State::Connected);
        Some([a?, b?]).filter(|_| both)
    }
}

const KINDS: [Nat; 5] =
    [Nat::Open, Nat::FullCone, Nat::AddressRestricted, Nat::PortRestricted, Nat::Symmetric];

fn can_be_direct(a: Nat, b: Nat) -> bool {
    let hard = |nat| matches!(nat, Nat::PortRestricted | Nat::Symmetric);
    !((a == Nat::Symmetric && hard(b)) || (b == Nat::Symmetric && hard(a)))
}

#[test]
fn every_pair_of_nats_connects_and_directly_where_that_is_possible() {
    for a in KINDS {
        for b in KINDS {
            let mut world = World::new([a, b], true, 7);
            world.run(Duration::from_secs(2));
            let selected = world.connected().unwrap_or_else(|| panic!("{a:?} {b:?}"));
            for one in selected {
                assert_eq!(one.is_direct(), can_be_direct(a, b), "{a:?} {b:?} {one:?}");
            }
            assert_eq!(selected[0].is_direct(), selected[1].is_direct());
        }
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
fn two_controlling_agents_settle_their_roles() {
    let mut world = World::new([Nat::Open, Nat::Open], false, 5);
    let now = world.now;
    let lists = [world.ends[0].host, world.ends[1].host];
    for side in 0..2 {
        let mut fresh = end(side, Nat::Open, true, now, 9);
        fresh.agent.add_local(now, candidate(CandidateKind::Host, lists[side], lists[side]));
        fresh.agent.set_remote(now, credentials(1 - side));
        let other = lists[1 - side];
        fresh.agent.add_remote(now, candidate(CandidateKind::Host, other, other));
        world.ends[side] = fresh;
    }
    world.run(Duration::from_secs(2));
    assert!(world.connected().is_some());
    assert_ne!(world.ends[0].agent.is_controlling(), world.ends[1].agent.is_controlling());
}

#[test]
fn a_dead_direct_path_gives_way_to_the_relay_and_comes_back() {
    let mut world = World::new([Nat::PortRestricted, Nat::PortRestricted], true, 11);
    world.run(Duration::from_secs(3));
    assert!(world.connected().unwrap()[0].is_direct());
    world.cut = Box::new(|from, to| {
        let relay = |address: SocketAddr| address.ip() == IpAddr::from([198, 18, 0, 10]);
        !relay(from) && !relay(to)
    });
    world.run(Duration::from_secs(12));
    let selected = world.connected().expect("the relay takes over");
    assert!(!selected[0].is_direct() && !selected[1].is_direct());
    world.cut = Box::new(|_, _| false);
    world.run(Duration::from_secs(40));
    assert!(world.connected().expect("still there")[0].is_direct());
}

#[test]
fn consent_ends_when_nothing_answers() {
    let mut world = World::new([Nat::Open, Nat::Open], false, 13);
    world.run(Duration::from_secs(2));
    world.cut = Box::new(|_, _| true);
    world.run(Duration::from_secs(60));
    for end in &world.ends {
        let tail = &end.states[end.states.len() - 2..];
        assert_eq!(tail, [State::Disconnected, State::Failed]);
    }
}

#[test]
fn a_connected_pair_stays_so_for_hours() {
    let mut world = World::new([Nat::PortRestricted, Nat::PortRestricted], true, 17);
    world.loss = 2;
    world.run(Duration::from_secs(4 * 3600));
    assert!(world.connected().is_some());
    assert!(!world.ends[0].states.contains(&State::Failed));
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
    while other.ends[1].agent.poll_output().is_some() {}
    let mut checks = 0;
    while let Some(output) = impostor.poll_output() {
        if let Output::Transmit { local, remote, data } = output {
            checks += 1;
            let packet = Packet { local: remote, remote: local, data: &data };
            assert!(other.ends[1].agent.handle_input(now, packet).is_err());
        }
    }
    assert!(checks > 0);
    assert_eq!(other.ends[1].agent.poll_output(), None);
    assert!(!other.ends[1].agent.validated(here));
}

#[test]
fn checks_that_come_before_the_credentials_count_later() {
    let now = Instant::now();
    let mut a = end(0, Nat::Open, true, now, 1).agent;
    let mut b = end(1, Nat::Open, false, now, 1).agent;
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
