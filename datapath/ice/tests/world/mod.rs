//! Two agents behind simulated NATs, in virtual time. Either may be of another make.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipop_ice::{
    Agent, AgentConfig, Candidate, CandidateKind, Credentials, Output, Packet, Selected, State,
    foundation, priority,
};

/// A burst of losses is over after such a pause.
const OUTAGE_MEMORY: Duration = Duration::from_millis(100);
/// From any node to any other.
pub const DELAY: Duration = Duration::from_millis(20);
/// How long a rejecting router remembers a flow.
const FLOW_LIFE: Duration = Duration::from_secs(30);
const RELAY: [u8; 4] = [198, 18, 0, 10];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    Open,
    FullCone,
    AddressRestricted,
    PortRestricted,
    /// As port restricted, but what comes unasked leaves an entry behind: what is sent to that
    /// remote afterwards leaves from another port.
    Rejecting,
    Symmetric,
}

pub const KINDS: [Nat; 6] = [
    Nat::Open,
    Nat::FullCone,
    Nat::AddressRestricted,
    Nat::PortRestricted,
    Nat::Rejecting,
    Nat::Symmetric,
];

pub fn can_be_direct(a: Nat, b: Nat) -> bool {
    let hard = |nat| matches!(nat, Nat::PortRestricted | Nat::Rejecting | Nat::Symmetric);
    !((a == Nat::Symmetric && hard(b)) || (b == Nat::Symmetric && hard(a)))
}

/// Where the ends are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Site {
    /// Behind routers with addresses of their own.
    Apart,
    /// In one network: they reach each other's hosts, and share a public address.
    Lan,
    /// Behind one public address that can be reached from behind it, from its outside.
    Hairpin,
    /// Behind one public address that cannot be reached from behind it.
    NoHairpin,
}

/// An agent of any make.
pub enum Party {
    Ours(Box<Agent>),
    Theirs(Box<is::IceAgent>),
}

pub struct End {
    pub party: Party,
    pub nat: Nat,
    pub host: SocketAddr,
    pub public: IpAddr,
    pub relay: SocketAddr,
    /// The first port of its router.
    first_port: u16,
    /// Counts up when the router forgets everything.
    pub epoch: u16,
    /// Flows through the router, by outer port and remote, and when they were used last.
    flows: BTreeMap<(u16, SocketAddr), Instant>,
    /// The port of the latest flow.
    latest: Option<u16>,
    /// What the router rejected.
    rejected: BTreeMap<(u16, SocketAddr), Instant>,
    permitted: Vec<IpAddr>,
    pub selected: Vec<Selected>,
    pub states: Vec<(Instant, State)>,
    /// Where another make sends to.
    nominated: Option<(SocketAddr, SocketAddr)>,
}

impl End {
    pub fn agent(&mut self) -> &mut Agent {
        match &mut self.party {
            Party::Ours(agent) => agent,
            Party::Theirs(_) => panic!("another make"),
        }
    }

    /// The port that STUN servers see.
    fn port(&self) -> u16 {
        self.first_port + self.epoch * 100
    }

    pub fn mapped(&self) -> SocketAddr {
        match self.nat {
            Nat::Open => self.host,
            Nat::Symmetric => SocketAddr::new(self.public, 40_000 + self.epoch),
            _ => SocketAddr::new(self.public, self.port()),
        }
    }

    fn is_fresh(&self, at: Option<&Instant>, now: Instant) -> bool {
        at.is_some_and(|at| self.nat != Nat::Rejecting || now < *at + FLOW_LIFE)
    }

    /// Source address as the internet sees it.
    fn translate(&mut self, now: Instant, to: SocketAddr) -> SocketAddr {
        let first = self.port();
        let known = self
            .flows
            .iter()
            .find(|((_, remote), at)| *remote == to && self.is_fresh(Some(at), now));
        let known = known.map(|((port, _), _)| *port);
        let next = first + 1 + self.flows.len() as u16;
        let port = match self.nat {
            Nat::Open => return self.host,
            Nat::Symmetric => known.unwrap_or(next),
            Nat::Rejecting if self.is_fresh(self.rejected.get(&(first, to)), now) => {
                known.unwrap_or(next)
            }
            // As Linux does it: as the latest mapping of the same socket, if that lives.
            Nat::Rejecting => {
                let latest = self.latest.filter(|port| {
                    let mut flows = self.flows.iter().filter(|((of, _), _)| of == port);
                    flows.any(|(_, at)| self.is_fresh(Some(at), now))
                });
                known.or(latest).unwrap_or(first)
            }
            _ => first,
        };
        if known.is_none() {
            self.latest = Some(port);
        }
        self.flows.insert((port, to), now);
        SocketAddr::new(self.public, port)
    }

    fn lets_in(&mut self, now: Instant, port: u16, from: SocketAddr) -> bool {
        let flow = self.flows.get(&(port, from));
        let is_open = match self.nat {
            Nat::Open => port == self.host.port(),
            Nat::FullCone => port == self.port(),
            Nat::AddressRestricted => {
                self.flows.keys().any(|(p, to)| *p == port && to.ip() == from.ip())
            }
            Nat::PortRestricted | Nat::Symmetric | Nat::Rejecting => self.is_fresh(flow, now),
        };
        if self.nat == Nat::Rejecting {
            let table = if is_open { &mut self.flows } else { &mut self.rejected };
            table.insert((port, from), now);
        }
        is_open
    }

    /// The router restarts: nothing is left of what it knew, and ports are others.
    pub fn restart_router(&mut self) {
        self.epoch += 1;
        self.flows.clear();
        self.rejected.clear();
        self.latest = None;
    }

    pub fn candidates(&self, relays: bool) -> Vec<Candidate> {
        let mut list = vec![candidate(CandidateKind::Host, self.host, self.host)];
        list.push(candidate(CandidateKind::ServerReflexive, self.mapped(), self.host));
        if relays {
            list.push(candidate(CandidateKind::Relayed, self.relay, self.relay));
        }
        list
    }

    /// The pair in use, local and remote, if all is well with it.
    pub fn path(&self) -> Option<(SocketAddr, SocketAddr)> {
        match &self.party {
            Party::Ours(agent) => {
                let selected = agent.selected().filter(|_| agent.state() == State::Connected)?;
                Some((selected.local, selected.remote))
            }
            Party::Theirs(agent) => self.nominated.filter(|_| agent.state().is_connected()),
        }
    }
}

/// What a party wants sent.
struct Sending {
    local: SocketAddr,
    remote: SocketAddr,
    data: Vec<u8>,
    is_knock: bool,
}

/// Base sent from, source and destination on the internet, data.
struct Flying {
    from_side: usize,
    source: SocketAddr,
    to: SocketAddr,
    data: Vec<u8>,
}

/// Whether what goes from here to there, from this side, is lost.
type Cut = Box<dyn Fn(usize, SocketAddr, SocketAddr, &[u8]) -> bool>;

pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub ends: [End; 2],
    site: Site,
    /// By due time and order.
    flying: BTreeMap<(Instant, u64), Flying>,
    order: u64,
    pub delay: Duration,
    /// What the delay varies by, microseconds: more than nothing reorders.
    pub jitter_us: u64,
    pub loss: u64,
    /// How many are lost in a row on average, each way for itself; 0: each by chance alone.
    pub burst: u64,
    /// By sender: whether its datagrams are being lost, and when it sent last.
    outages: [(bool, Option<Instant>); 2],
    pub duplicates: u64,
    rng: u64,
    pub cut: Cut,
    pub datagrams: u64,
}

pub fn credentials(side: usize) -> Credentials {
    Credentials { ufrag: format!("frag{side}"), pwd: format!("password-of-the-side-{side}") }
}

pub fn candidate(kind: CandidateKind, address: SocketAddr, base: SocketAddr) -> Candidate {
    let foundation = foundation(kind, base.ip(), None);
    let priority = priority(kind, 65535, 1);
    Candidate { component: 1, kind, address, base, related: None, priority, foundation }
}

pub fn our_agent(side: usize, controlling: bool, seed: u8, now: Instant) -> Agent {
    Agent::new(our_config(side, controlling, seed), now)
}

fn our_config(side: usize, controlling: bool, seed: u8) -> AgentConfig {
    let number = side as u8 + 1;
    let config =
        AgentConfig::new(credentials(side), controlling, u64::from(number), [seed ^ number; 32]);
    // Those who play the game of hard pairs bring their own agents.
    AgentConfig { hard_tries: 0, ..config }
}

pub fn is_relay(address: SocketAddr) -> bool {
    address.ip() == IpAddr::from(RELAY)
}

fn end(side: usize, nat: Nat, party: Party) -> End {
    let number = side as u8 + 1;
    let public = IpAddr::from([198, 18, number, 2]);
    let host = match nat {
        Nat::Open => public,
        _ => IpAddr::from([192, 168, number, 2]),
    };
    End {
        party,
        nat,
        host: SocketAddr::new(host, 5000),
        public,
        relay: SocketAddr::new(IpAddr::from(RELAY), 40_000 + u16::from(number)),
        first_port: 10_000 + 10_000 * u16::from(number),
        epoch: 0,
        flows: BTreeMap::new(),
        latest: None,
        rejected: BTreeMap::new(),
        permitted: vec![],
        selected: vec![],
        states: vec![],
        nominated: None,
    }
}

impl World {
    /// Two of ours that hear of each other now.
    pub fn new(nats: [Nat; 2], relays: bool, seed: u8) -> Self {
        Self::staggered(nats, relays, seed, Duration::ZERO)
    }

    /// Two of ours; the controlled one answers an offer, and the other hears of it so much later.
    pub fn staggered(nats: [Nat; 2], relays: bool, seed: u8, signalling: Duration) -> Self {
        Self::sited(Site::Apart, nats, relays, seed, signalling)
    }

    /// The same, at a site.
    pub fn sited(site: Site, nats: [Nat; 2], relays: bool, seed: u8, signalling: Duration) -> Self {
        let now = Instant::now();
        let parties = [0, 1].map(|side| Party::Ours(our_agent(side, side == 0, seed, now).into()));
        let mut world = Self::of(nats, parties, seed, now);
        world.site = site;
        if site != Site::Apart {
            world.ends[1].public = world.ends[0].public;
        }
        world.gather(relays);
        world.introduce_first(1, relays, signalling);
        world
    }

    /// Two of ours that need no offer: the first is new, and the one that was there hears of it so
    /// much later than it hears of that.
    pub fn met(nats: [Nat; 2], relays: bool, seed: u8, later: Duration, controls: bool) -> Self {
        let now = Instant::now();
        let parties = [(controls, 50), (!controls, 1000)];
        let parties = [0, 1].map(|side| {
            let (controls, head_start_ms) = parties[side];
            let head_start = Duration::from_millis(head_start_ms);
            let config = AgentConfig { head_start, ..our_config(side, controls, seed) };
            Party::Ours(Agent::new(config, now).into())
        });
        let mut world = Self::of(nats, parties, seed, now);
        world.gather(relays);
        world.introduce_first(0, relays, later);
        world
    }

    /// One end hears of the other, which hears of it so much later.
    fn introduce_first(&mut self, first: usize, relays: bool, later: Duration) {
        self.introduce(first, relays);
        if !later.is_zero() {
            self.run(later);
        }
        self.introduce(1 - first, relays);
    }

    fn gather(&mut self, relays: bool) {
        let now = self.now;
        for end in &mut self.ends {
            for local in end.candidates(relays) {
                end.agent().add_local(now, local);
            }
        }
    }

    pub fn of(nats: [Nat; 2], [a, b]: [Party; 2], seed: u8, now: Instant) -> Self {
        Self {
            start: now,
            now,
            ends: [end(0, nats[0], a), end(1, nats[1], b)],
            site: Site::Apart,
            flying: BTreeMap::new(),
            order: 0,
            delay: DELAY,
            jitter_us: 4096,
            loss: 0,
            burst: 0,
            outages: Default::default(),
            duplicates: 0,
            rng: u64::from(seed) + 1,
            cut: Box::new(|_, _, _, _| false),
            datagrams: 0,
        }
    }

    /// One of ours hears of the other.
    pub fn introduce(&mut self, side: usize, relays: bool) {
        let now = self.now;
        let remotes = self.ends[1 - side].candidates(relays);
        let agent = self.ends[side].agent();
        agent.set_remote(now, credentials(1 - side));
        for remote in remotes {
            agent.add_remote(now, Candidate { base: remote.address, ..remote });
        }
    }

    fn percent(&mut self, share: u64) -> bool {
        self.rng = self.rng.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.rng >> 33) % 100 < share
    }

    /// Whether a datagram is lost. After a pause, a burst is over (as in `ipop_lab`'s wires).
    fn loses(&mut self, side: usize) -> bool {
        let (is_losing, last) = self.outages[side];
        let goes_on = last.is_some_and(|last| self.now < last + OUTAGE_MEMORY);
        let is_losing = match goes_on && self.burst > 0 {
            false => self.percent(self.loss),
            true if is_losing => !self.percent(100 / self.burst),
            true => self.percent(100 * self.loss / (self.burst * (100 - self.loss))),
        };
        self.outages[side] = (is_losing, Some(self.now));
        is_losing
    }

    fn drain(&mut self) {
        for side in 0..2 {
            while let Some(Sending { local, remote, data, is_knock }) = self.next_sending(side) {
                match is_knock {
                    false => self.send(side, local, remote, data),
                    true => self.knock(side, local, remote, &data),
                }
            }
        }
    }

    /// What passes its own router and is dropped by the next one, or is a permission.
    fn knock(&mut self, side: usize, local: SocketAddr, remote: SocketAddr, data: &[u8]) {
        self.datagrams += 1;
        if is_relay(local) {
            return self.ends[side].permitted.push(remote.ip());
        }
        let source = self.ends[side].translate(self.now, remote);
        let _ = (self.cut)(side, source, remote, data);
    }

    /// Whatever is under way is lost.
    pub fn lose_all(&mut self) {
        self.drain();
        self.flying.clear();
    }

    fn next_sending(&mut self, side: usize) -> Option<Sending> {
        let (now, end) = (self.now, &mut self.ends[side]);
        match &mut end.party {
            Party::Ours(agent) => loop {
                match agent.poll_output()? {
                    Output::Transmit { local, remote, data } => {
                        return Some(Sending { local, remote, data, is_knock: false });
                    }
                    Output::Knock { local, remote, data } => {
                        return Some(Sending { local, remote, data, is_knock: true });
                    }
                    Output::Selected(selected) => end.selected.push(selected),
                    Output::StateChanged(state) => end.states.push((now, state)),
                    Output::Open { .. } | Output::WantsTurn | Output::TurnIsOver => {}
                    // Some agents draw a new tie-breaker after a role conflict.
                    Output::PeerRestarted => {}
                }
            },
            Party::Theirs(agent) => {
                while let Some(event) = agent.poll_event() {
                    if let is::IceAgentEvent::NominatedSend { source, destination, .. } = event {
                        end.nominated = Some((source, destination));
                    }
                }
                let transmit = agent.poll_transmit()?;
                Some(Sending {
                    local: transmit.source,
                    remote: transmit.destination,
                    data: transmit.contents.into(),
                    is_knock: false,
                })
            }
        }
    }

    pub fn send(&mut self, side: usize, local: SocketAddr, remote: SocketAddr, data: Vec<u8>) {
        let inside = self.site == Site::Lan && remote == self.ends[1 - side].host;
        let (now, sender) = (self.now, &mut self.ends[side]);
        let source = if local == sender.relay {
            sender.permitted.push(remote.ip());
            local
        } else if inside {
            local
        } else {
            sender.translate(now, remote)
        };
        self.datagrams += 1;
        let turns = source.ip() == remote.ip() && !is_relay(source);
        if turns && matches!(self.site, Site::Lan | Site::NoHairpin) {
            return;
        }
        if self.loses(side) || (self.cut)(side, source, remote, &data) {
            return;
        }
        let copies = if self.percent(self.duplicates) { 2 } else { 1 };
        for _ in 0..copies {
            self.order += 1;
            let jitter = Duration::from_micros((self.rng >> 52) % self.jitter_us.max(1));
            let key = (self.now + self.delay + jitter, self.order);
            let data = data.clone();
            self.flying.insert(key, Flying { from_side: side, source, to: remote, data });
        }
    }

    fn arrive(&mut self, Flying { from_side, source, to, data }: Flying) {
        let inside = self.site == Site::Lan;
        let (now, other) = (self.now, &mut self.ends[1 - from_side]);
        let base = if inside && to == other.host {
            Some(other.host)
        } else if to == other.relay {
            other.permitted.contains(&source.ip()).then_some(other.relay)
        } else {
            (to.ip() == other.public && other.lets_in(now, to.port(), source)).then_some(other.host)
        };
        let Some(local) = base else { return };
        match &mut other.party {
            Party::Ours(agent) => {
                let _ = agent.handle_input(now, Packet { local, remote: source, data: &data });
            }
            Party::Theirs(agent) => {
                let Ok(message) = is::stun::StunMessage::parse(&data) else { return };
                let proto = is::Protocol::Udp;
                let packet = is::stun::StunPacket { proto, source, destination: local, message };
                agent.handle_packet(now, packet);
            }
        }
    }

    fn handle_timeouts(&mut self) {
        let now = self.now;
        for end in &mut self.ends {
            match &mut end.party {
                Party::Ours(agent) => agent.handle_timeout(now),
                Party::Theirs(agent) => agent.handle_timeout(now),
            }
        }
    }

    fn next_timer(&mut self) -> Option<Instant> {
        let timers = self.ends.iter_mut().filter_map(|end| match &mut end.party {
            Party::Ours(agent) => agent.poll_timeout(),
            Party::Theirs(agent) => agent.poll_timeout(),
        });
        timers.min()
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(end, |_| false);
        self.now = end;
    }

    /// Runs until `done`; true if it was reached before `end`.
    pub fn run_until(&mut self, end: Instant, done: impl Fn(&Self) -> bool) -> bool {
        self.drain();
        let mut idle = 0;
        while !done(self) {
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let next = self.next_timer().into_iter().chain(arrival).min();
            let Some(next) = next.filter(|at| *at <= end) else { return false };
            idle = if next > self.now { 0 } else { idle + 1 };
            assert!(idle < 1000, "a timer that is due does nothing");
            self.now = self.now.max(next);
            while let Some(entry) = self.flying.first_entry().filter(|e| e.key().0 <= self.now) {
                let flying = entry.remove();
                self.arrive(flying);
                self.drain();
            }
            self.handle_timeouts();
            self.drain();
        }
        true
    }

    /// Both ends use the same path: each sends to where the other is seen to send from.
    pub fn is_settled(&self) -> bool {
        let [Some((a_local, a_remote)), Some((b_local, b_remote))] =
            self.ends.each_ref().map(End::path)
        else {
            return false;
        };
        let [a, b] = &self.ends;
        let seen = |end: &End, local: SocketAddr, at: SocketAddr| {
            at == local || (local == end.host && at.ip() == end.public)
        };
        seen(a, a_local, b_remote) && seen(b, b_local, a_remote)
    }

    /// What both of ours use.
    pub fn connected(&self) -> Option<[Selected; 2]> {
        let one = |end: &End| match &end.party {
            Party::Ours(agent) if agent.state() == State::Connected => agent.selected(),
            _ => None,
        };
        let [a, b] = self.ends.each_ref().map(one);
        Some([a?, b?])
    }

    pub fn is_direct(&self) -> bool {
        self.connected().is_some_and(|pair| pair.iter().all(Selected::is_direct))
    }
}
