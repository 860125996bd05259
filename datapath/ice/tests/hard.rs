//! Hard pairs: how often they meet, by how many probes and sockets, over many dice.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipop_ice::{
    Agent, AgentConfig, Candidate, CandidateKind, Credentials, OPENERS_MAX, Output, PROBES_MAX,
    Packet, foundation, priority,
};

const DELAY: Duration = Duration::from_millis(20);
const SERVERS: [&str; 2] = ["198.18.0.10:3478", "198.18.0.11:3478"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ports {
    /// One for all destinations.
    Same,
    Random,
    /// One behind the other.
    Counted,
}

/// A router that filters by address and port, and one machine behind it.
struct End {
    agent: Agent,
    ports: Ports,
    host: SocketAddr,
    public: IpAddr,
    /// Outer port by inner port and destination, and the other way round.
    outer: BTreeMap<(u16, SocketAddr), u16>,
    inner: BTreeMap<(u16, SocketAddr), u16>,
    next_port: u16,
    dice: u64,
    /// Sockets opened so far.
    opened: u16,
    /// Ports of the other end that the node's own socket sent to.
    probed: BTreeSet<u16>,
    turns: u32,
}

impl End {
    fn new(side: u8, ports: Ports, seed: u64, now: Instant) -> Self {
        let config = AgentConfig::new(
            credentials(side),
            side == 0,
            u64::from(side),
            [seed as u8 ^ (side << 7); 32],
        );
        Self {
            agent: Agent::new(config, now),
            ports,
            host: SocketAddr::from(([192, 168, side, 2], 5000)),
            public: IpAddr::from([198, 18, side + 1, 2]),
            outer: BTreeMap::new(),
            inner: BTreeMap::new(),
            next_port: 20_000,
            dice: seed * 2 + u64::from(side) + 1,
            opened: 0,
            probed: BTreeSet::new(),
            turns: 0,
        }
    }

    fn draw(&mut self) -> u16 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        1024 + ((self.dice >> 33) % 64_512) as u16
    }

    fn translate(&mut self, inner: u16, to: SocketAddr) -> SocketAddr {
        let known = self.outer.get(&(inner, to)).copied();
        let outer = known.unwrap_or_else(|| match self.ports {
            Ports::Same => inner,
            Ports::Random => loop {
                let port = self.draw();
                if !self.inner.contains_key(&(port, to)) {
                    break port;
                }
            },
            Ports::Counted => {
                self.next_port += 1;
                self.next_port
            }
        });
        self.outer.insert((inner, to), outer);
        self.inner.insert((outer, to), inner);
        SocketAddr::new(self.public, outer)
    }

    /// As two servers see it.
    fn candidates(&mut self) -> Vec<Candidate> {
        let mut list = vec![candidate(CandidateKind::Host, self.host, self.host, 0)];
        for (number, server) in SERVERS.iter().enumerate() {
            let mapped = self.translate(self.host.port(), server.parse().unwrap());
            list.push(candidate(CandidateKind::ServerReflexive, mapped, self.host, number));
        }
        list
    }
}

fn credentials(side: u8) -> Credentials {
    Credentials { ufrag: format!("frag{side}"), pwd: format!("password-of-the-side-{side}") }
}

fn candidate(kind: CandidateKind, address: SocketAddr, base: SocketAddr, n: usize) -> Candidate {
    let foundation = foundation(kind, base.ip(), Some(IpAddr::from([198, 18, 0, n as u8])));
    let related = (kind != CandidateKind::Host).then_some(base);
    let priority = priority(kind, 65_535 - n as u16, 1);
    Candidate { component: 1, kind, address, base, related, priority, foundation }
}

/// From which side, source and destination on the internet, data.
type Flying = (usize, SocketAddr, SocketAddr, Vec<u8>);

struct World {
    start: Instant,
    now: Instant,
    ends: [End; 2],
    flying: BTreeMap<(Instant, u64), Flying>,
    order: u64,
}

impl World {
    fn new(ports: [Ports; 2], seed: u64) -> Self {
        let now = Instant::now();
        let mut ends = [End::new(0, ports[0], seed, now), End::new(1, ports[1], seed, now)];
        let lists = ends.each_mut().map(End::candidates);
        for side in 0..2 {
            let agent = &mut ends[side].agent;
            lists[side].iter().for_each(|local| agent.add_local(now, local.clone()));
            agent.set_remote(now, credentials(1 - side as u8));
            for remote in &lists[1 - side] {
                agent.add_remote(now, Candidate { base: remote.address, ..remote.clone() });
            }
        }
        Self { start: now, now, ends, flying: BTreeMap::new(), order: 0 }
    }

    fn drain(&mut self) {
        for side in 0..2 {
            while let Some(output) = self.ends[side].agent.poll_output() {
                let other = self.ends[1 - side].public;
                let end = &mut self.ends[side];
                match output {
                    Output::Transmit { local, remote, data } => {
                        if local == end.host && remote.ip() == other {
                            end.probed.insert(remote.port());
                        }
                        self.send(side, local.port(), remote, data);
                    }
                    // It passes its own router and is dropped by the next one.
                    Output::Knock { local, remote, .. } => {
                        end.translate(local.port(), remote);
                    }
                    Output::Open { base, remote, data } => {
                        assert_eq!(base, end.host);
                        end.opened += 1;
                        let port = 30_000 + end.opened;
                        self.send(side, port, remote, data);
                    }
                    Output::WantsTurn => {
                        end.turns += 1;
                        end.agent.grant_turn(self.now);
                    }
                    Output::TurnIsOver | Output::Selected(_) | Output::StateChanged(_) => {}
                    Output::PeerRestarted => panic!("no agent is replaced here"),
                }
            }
        }
    }

    fn send(&mut self, side: usize, inner: u16, to: SocketAddr, data: Vec<u8>) {
        let source = self.ends[side].translate(inner, to);
        self.order += 1;
        self.flying.insert((self.now + DELAY, self.order), (side, source, to, data));
    }

    fn is_direct(&self) -> bool {
        self.ends.iter().all(|end| end.agent.selected().is_some())
    }

    /// Whether there is a path within that time.
    fn run(&mut self, time: Duration) -> bool {
        self.drain();
        while !self.is_direct() {
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let timers = self.ends.iter().filter_map(|end| end.agent.poll_timeout());
            let Some(next) = timers.chain(arrival).min() else { return false };
            if next > self.start + time {
                return false;
            }
            self.now = self.now.max(next);
            while let Some(entry) = self.flying.first_entry().filter(|e| e.key().0 <= self.now) {
                let (side, source, to, data) = entry.remove();
                let end = &mut self.ends[1 - side];
                let inner = end.inner.get(&(to.port(), source)).copied();
                if let Some(inner) = inner.filter(|_| to.ip() == end.public) {
                    let local = SocketAddr::new(end.host.ip(), inner);
                    let packet = Packet { local, remote: source, data: &data };
                    let _ = end.agent.handle_input(self.now, packet);
                }
                self.drain();
            }
            for end in &mut self.ends {
                end.agent.handle_timeout(self.now);
            }
            self.drain();
        }
        true
    }
}

/// Of so many worlds, how many meet within 10 s; the budget holds in all.
fn meetings(ports: [Ports; 2], worlds: u64) -> u64 {
    let mut met = 0;
    let (mut slowest, mut sockets) = (Duration::ZERO, 0);
    for seed in 0..worlds {
        let mut world = World::new(ports, seed);
        let is_direct = world.run(Duration::from_secs(10));
        met += u64::from(is_direct);
        for end in &world.ends {
            // Two ports have pairs of their own: what the servers see. Pairs that are found count
            // with the probes that found them.
            let found = if is_direct { 4 } else { 0 };
            assert!(end.probed.len() <= PROBES_MAX + 2 + found, "{}", end.probed.len());
            assert!(usize::from(end.opened) <= OPENERS_MAX, "{}", end.opened);
            assert!(end.turns <= 1);
            sockets += u64::from(end.opened);
        }
        if is_direct {
            slowest = slowest.max(world.now - world.start);
        }
    }
    println!("{ports:?}: {met} of {worlds}, slowest {slowest:?}, {} sockets", sockets / worlds);
    met
}

#[test]
fn port_restricted_and_random_symmetric_meet_in_nine_of_ten_tries() {
    for ports in [[Ports::Same, Ports::Random], [Ports::Random, Ports::Same]] {
        let met = meetings(ports, 250);
        assert!(met >= 225, "{ports:?}: {met} of 250");
    }
}

#[test]
fn counted_ports_are_always_met() {
    for ports in [
        [Ports::Same, Ports::Counted],
        [Ports::Counted, Ports::Same],
        [Ports::Counted, Ports::Counted],
    ] {
        assert_eq!(meetings(ports, 20), 20, "{ports:?}");
    }
}

/// The checks of many sockets arrive within less than a round trip. The first one is the one that
/// stays; its answer finds its pair.
#[test]
fn many_sockets_at_a_time_do_not_crowd_out_the_first() {
    let now = Instant::now();
    let mut ends = [0, 1].map(|side| End::new(side, Ports::Same, 1, now));
    for side in 0..2 {
        let (host, peer) = (ends[side].host, ends[1 - side].host);
        let agent = &mut ends[side].agent;
        agent.add_local(now, candidate(CandidateKind::Host, host, host, 0));
        agent.set_remote(now, credentials(1 - side as u8));
        agent.add_remote(now, candidate(CandidateKind::Host, peer, peer, 0));
    }
    let [a, b] = &mut ends;
    let from = |port: u16| SocketAddr::from(([198, 18, 1, 2], port));
    let sent_to = |end: &mut End, to: SocketAddr| {
        let outputs = std::iter::from_fn(|| end.agent.poll_output());
        let sent = outputs.filter_map(|output| match output {
            Output::Transmit { remote, data, .. } if remote == to => Some(data),
            _ => None,
        });
        sent.collect::<Vec<_>>()
    };
    a.agent.handle_timeout(now);
    let check = sent_to(a, b.host).pop().expect("a check");
    for port in 20_000..20_064 {
        let packet = Packet { local: b.host, remote: from(port), data: &check };
        b.agent.handle_input(now, packet).expect("an authentic check");
        b.agent.handle_timeout(now);
    }
    // Its answer to the check, and a check of its own.
    for data in sent_to(b, from(20_000)) {
        let packet = Packet { local: a.host, remote: b.host, data: &data };
        let _ = a.agent.handle_input(now, packet);
    }
    let answers = sent_to(a, b.host);
    assert!(!answers.is_empty());
    for data in answers {
        let packet = Packet { local: b.host, remote: from(20_000), data: &data };
        assert_eq!(b.agent.handle_input(now + DELAY * 2, packet), Ok(()));
    }
}

#[test]
fn two_random_symmetric_nats_are_not_tried() {
    let mut world = World::new([Ports::Random; 2], 1);
    assert!(!world.run(Duration::from_secs(60)));
    assert!(world.ends.iter().all(|end| end.opened == 0 && end.turns == 0));
    assert!(world.ends.iter().all(|end| end.probed.len() == 2 && end.agent.needs_relay()));
}

#[test]
fn who_has_a_direct_path_never_tries() {
    let mut world = World::new([Ports::Same; 2], 1);
    assert!(world.run(Duration::from_secs(1)));
    for _ in 0..100 {
        let timers = world.ends.iter().filter_map(|end| end.agent.poll_timeout());
        world.now = timers.min().unwrap();
        world.ends.iter_mut().for_each(|end| end.agent.handle_timeout(world.now));
        world.drain();
    }
    assert!(world.ends.iter().all(|end| end.turns == 0 && end.opened == 0));
}

/// Without luck there are four tries, and then no more.
#[test]
fn tries_end() {
    let now = Instant::now();
    let mut end = End::new(0, Ports::Random, 1, now);
    end.candidates().into_iter().for_each(|local| end.agent.add_local(now, local));
    end.agent.set_remote(now, credentials(1));
    let relay = SocketAddr::from(([198, 18, 0, 10], 50_000));
    let host = SocketAddr::from(([198, 18, 9, 2], 5000));
    for (kind, at) in [(CandidateKind::Relayed, relay), (CandidateKind::Host, host)] {
        end.agent.add_remote(now, candidate(kind, at, at, 0));
    }
    let mut peer = End::new(1, Ports::Same, 1, now);
    peer.agent.add_local(now, candidate(CandidateKind::Host, relay, relay, 0));
    peer.agent.set_remote(now, credentials(0));
    let mut at = now;
    // The peer answers through its relay only.
    while at < now + Duration::from_secs(3600) {
        let timers = [end.agent.poll_timeout(), peer.agent.poll_timeout()];
        at = timers.into_iter().flatten().min().unwrap().max(at);
        end.agent.handle_timeout(at);
        peer.agent.handle_timeout(at);
        loop {
            let (ours, theirs) = (end.agent.poll_output(), peer.agent.poll_output());
            if ours.is_none() && theirs.is_none() {
                break;
            }
            match ours {
                Some(Output::Transmit { remote, data, .. }) if remote == relay => {
                    let packet = Packet { local: relay, remote: end.host, data: &data };
                    let _ = peer.agent.handle_input(at, packet);
                }
                Some(Output::WantsTurn) => {
                    end.turns += 1;
                    end.agent.grant_turn(at);
                }
                Some(Output::Open { .. }) => end.opened += 1,
                _ => {}
            }
            if let Some(Output::Transmit { remote, data, .. }) = theirs {
                let packet = Packet { local: end.host, remote: relay, data: &data };
                assert_eq!(remote, end.host);
                let _ = end.agent.handle_input(at, packet);
            }
        }
    }
    assert_eq!(end.turns, 4);
    assert_eq!(usize::from(end.opened), 4 * OPENERS_MAX);
    assert!(!end.agent.selected().unwrap().is_direct());
}
