//! A small internet in virtual time: machines behind routers, a STUN and TURN server, and
//! signalling, over a network that loses, doubles and delays.

pub mod machine;
pub mod nat;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipop_crypto::Fingerprint;
use ipop_link::{Candidate, Credentials, Event, LinkState, OpenLink, TurnServer, TurnWay};
use ipop_stun::Random;
use ipop_stun::server::BindingServer;
use turn_server_proto::api::{SocketAllocateError, Transmit, TurnServerApi, TurnServerPollRet};
use turn_server_proto::types::{AddressFamily, TransportType};

use self::machine::Machine;
use self::nat::{Kind, Nat};

pub const SERVER: &str = "198.51.100.1:3478";

/// From one end of the network to the other, and through signalling.
pub const LATENCY: Duration = Duration::from_millis(15);
pub const SIGNALLING: Duration = Duration::from_millis(40);

/// Of a hundred datagrams.
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    pub lost: u64,
    pub doubled: u64,
    /// Held back by up to 100 ms, so others overtake them.
    pub late: u64,
}

enum Delivery {
    Datagram { from: SocketAddr, to: SocketAddr, data: Vec<u8> },
    Candidate { to: usize, from: Fingerprint, session: u64, candidate: Candidate },
}

/// What signalling knows of a session: its two ends, and whom each expects.
#[derive(Clone, Copy)]
struct Conversation {
    ends: [usize; 2],
    expected: [Fingerprint; 2],
    session: u64,
}

pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub machines: Vec<Machine>,
    pub routers: Vec<Nat>,
    pub faults: Faults,
    /// Datagrams longer than this are lost without a word: bytes of UDP payload.
    pub datagram_len_max: usize,
    /// Datagrams between these two outside addresses are lost, both ways.
    pub cut: Vec<(IpAddr, IpAddr)>,
    sessions: Vec<Conversation>,
    told: Vec<usize>,
    turn: turn_server_proto::server::TurnServer,
    binding: BindingServer,
    relayed: Vec<SocketAddr>,
    queue: BTreeMap<(Instant, u64), Delivery>,
    sequence: u64,
    random: Random,
    pub datagrams: u64,
    destinations: BTreeMap<SocketAddr, u64>,
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub fn credentials(owner: usize, other: usize, session: u64) -> Credentials {
    Credentials {
        ufrag: format!("uf{owner}x{other}s{session}"),
        pwd: format!("password-of-{owner:04}-{other:04}-{session:08}"),
    }
}

impl World {
    /// One machine behind a router of its own for each kind.
    pub fn new(kinds: &[Kind], faults: Faults, seed: u8) -> Self {
        Self::with_lanes(&vec![1; kinds.len()], kinds, faults, seed)
    }

    /// The same, with so many lanes at each.
    pub fn with_lanes(lanes: &[u8], kinds: &[Kind], faults: Faults, seed: u8) -> Self {
        let start = Instant::now();
        let mut turn = turn_server_proto::server::TurnServer::new(
            TransportType::Udp,
            address(SERVER),
            "lab.test".into(),
        );
        turn.add_user("u".into(), "p".into());
        let mut world = World {
            start,
            now: start,
            machines: Vec::new(),
            routers: Vec::new(),
            faults,
            datagram_len_max: 1472,
            cut: Vec::new(),
            sessions: Vec::new(),
            told: Vec::new(),
            turn,
            binding: BindingServer::new("lab"),
            relayed: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            random: Random::new([seed; 32]),
            datagrams: 0,
            destinations: BTreeMap::new(),
        };
        for (kind, lanes) in kinds.iter().zip(lanes) {
            world.add_router(*kind);
            world.add_machine_with(world.routers.len() - 1, *lanes);
        }
        world
    }

    fn add_router(&mut self, kind: Kind) {
        let outside = IpAddr::from([203, 0, 113, self.routers.len() as u8 + 1]);
        self.routers.push(Nat::new(kind, outside));
    }

    /// One more machine, perhaps behind a router that has some already.
    pub fn add_machine(&mut self, router: usize) -> usize {
        self.add_machine_with(router, 1)
    }

    fn add_machine_with(&mut self, router: usize, lanes: u8) -> usize {
        let number = self.machines.len() as u8 + 1;
        let ip = match self.routers[router].kind {
            Kind::Public => self.routers[router].outside(),
            _ => IpAddr::from([10, 0, router as u8, number]),
        };
        let hosts = vec![SocketAddr::new(ip, 5000)];
        self.machines.push(Machine::new(number, router, hosts, lanes, self.now));
        self.told.push(0);
        self.machines.len() - 1
    }

    /// Tells all machines of the server.
    pub fn with_servers(mut self) -> Self {
        let turn = turn_server(address(SERVER), "p");
        for machine in &mut self.machines {
            machine.node.set_servers(self.now, &[address(SERVER)], std::slice::from_ref(&turn));
        }
        self
    }

    /// The node of a machine dies and starts again, with the sockets that it had and nothing else.
    pub fn restart(&mut self, at: usize, lanes: u8) {
        let (router, hosts) = (self.machines[at].router, self.machines[at].hosts.clone());
        self.machines[at] = Machine::of_run((at as u8 + 1, 1), router, hosts, lanes, self.now);
        self.told[at] = 0;
    }

    /// Opens one end with the credentials of session `of` and the candidates that the peer has.
    pub fn reopen(&mut self, at: usize, peer: usize, (session, of): (u64, u64), controlling: bool) {
        let (local, remote) = (credentials(at, peer, of), credentials(peer, at, of));
        let (of_peer, now) = (self.fingerprint(peer), self.now);
        self.wish(at, of_peer, session, controlling, local, Some(remote));
        for candidate in self.machines[peer].node.local_candidates().to_vec() {
            let node = &mut self.machines[at].node;
            node.add_remote_candidate(now, of_peer, session, candidate).expect("of use");
        }
    }

    pub fn fingerprint(&self, machine: usize) -> Fingerprint {
        self.machines[machine].fingerprint
    }

    /// Opens a link between two machines as signalling does: the first one offers, the second
    /// one hears of it and answers, both trickle.
    pub fn open(&mut self, a: usize, b: usize, session: u64) {
        let nobody = (usize::MAX, self.fingerprint(a));
        self.open_as(a, b, session, nobody);
    }

    /// The same, but one end was told to expect another peer.
    pub fn open_as(&mut self, a: usize, b: usize, session: u64, told: (usize, Fingerprint)) {
        let expected = |world: &World, at: usize, peer: usize| {
            if told.0 == at { told.1 } else { world.fingerprint(peer) }
        };
        let (peer_of_a, peer_of_b) = (expected(self, a, b), expected(self, b, a));
        let (of_a, of_b) = (credentials(a, b, session), credentials(b, a, session));
        self.wish(a, peer_of_a, session, true, of_a.clone(), None);
        self.run(SIGNALLING);
        self.wish(b, peer_of_b, session, false, of_b.clone(), Some(of_a));
        self.sessions.push(Conversation {
            ends: [a, b],
            expected: [peer_of_a, peer_of_b],
            session,
        });
        for (end, at) in [a, b].into_iter().enumerate() {
            for candidate in self.machines[at].node.local_candidates().to_vec() {
                self.signal(self.sessions.len() - 1, end, candidate);
            }
        }
        self.run(SIGNALLING);
        let now = self.now;
        self.machines[a].node.set_remote(now, peer_of_a, session, of_b).expect("known");
    }

    /// Opens one end only.
    pub fn open_end(
        &mut self,
        at: usize,
        peer: usize,
        session: u64,
        controlling: bool,
        remote: Option<Credentials>,
    ) {
        let local = credentials(at, peer, session);
        self.wish(at, self.fingerprint(peer), session, controlling, local, remote);
    }

    fn wish(
        &mut self,
        at: usize,
        peer: Fingerprint,
        session: u64,
        controlling: bool,
        local: Credentials,
        remote: Option<Credentials>,
    ) {
        let head_start = Duration::from_millis(if controlling { 0 } else { 1000 });
        let wish = OpenLink { peer, session, controlling, head_start, local, remote };
        let now = self.now;
        self.machines[at].node.open_link(now, wish).expect("opened");
    }

    /// One end of a conversation tells the other of a candidate.
    fn signal(&mut self, conversation: usize, end: usize, candidate: Candidate) {
        let Conversation { ends, expected, session } = self.sessions[conversation];
        let (to, from) = (ends[1 - end], expected[1 - end]);
        let at = self.now + SIGNALLING;
        self.put(at, Delivery::Candidate { to, from, session, candidate });
    }

    fn put(&mut self, at: Instant, delivery: Delivery) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), delivery);
    }

    fn chance(&mut self, percent: u64) -> bool {
        percent > 0 && self.random.number() % 100 < percent
    }

    /// Lets this much time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_while(end, |_| true);
        self.now = end;
    }

    /// Lets time pass until `is_done`, at most `time`; how long it took, if it came to that.
    pub fn run_until(
        &mut self,
        time: Duration,
        is_done: impl Fn(&World) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        self.run_while(start + time, |world| !is_done(world));
        is_done(self).then(|| self.now - start)
    }

    fn run_while(&mut self, end: Instant, goes_on: impl Fn(&World) -> bool) {
        loop {
            self.collect();
            if !goes_on(self) {
                return;
            }
            let arrival = self.queue.keys().next().map(|(at, _)| *at);
            let timers = self.machines.iter().filter_map(|machine| machine.node.poll_timeout());
            let Some(next) = timers.chain(arrival).min().filter(|next| *next <= end) else {
                return;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.queue.first_entry()
                && entry.key().0 <= self.now
            {
                let delivery = entry.remove();
                self.deliver(delivery);
            }
            for machine in &mut self.machines {
                if machine.node.poll_timeout().is_some_and(|at| self.now >= at) {
                    machine.node.handle_timeout(self.now);
                }
                machine.lanes.values_mut().for_each(|lane| {
                    if lane.sealer.needs_ratchet(self.now) {
                        lane.sealer.ratchet(self.now);
                    }
                });
            }
        }
    }

    /// Takes what machines and server have to send, and candidates for signalling.
    fn collect(&mut self) {
        for at in 0..self.machines.len() {
            self.machines[at].drain(self.now);
            for (from, to, data) in std::mem::take(&mut self.machines[at].sending) {
                self.leave(at, from, to, data);
            }
            for (from, to) in std::mem::take(&mut self.machines[at].knocks) {
                self.routers[self.machines[at].router].leave(self.now, from, to);
            }
            let events = self.machines[at].events[self.told[at]..].to_vec();
            self.told[at] += events.len();
            for (_, event) in events {
                let Event::LocalCandidate(candidate) = event else { continue };
                for number in 0..self.sessions.len() {
                    let ends = self.sessions[number].ends;
                    if let Some(end) = ends.iter().position(|end| *end == at) {
                        self.signal(number, end, candidate.clone());
                    }
                }
            }
        }
        self.collect_server();
    }

    /// A datagram leaves a machine; machines behind one router reach each other directly.
    fn leave(&mut self, at: usize, from: SocketAddr, to: SocketAddr, data: Vec<u8>) {
        let router = self.machines[at].router;
        let neighbour = |machine: &Machine| machine.router == router && machine.has_socket(&to);
        if self.machines.iter().any(neighbour) {
            return self.transmit(from, to, data);
        }
        if let Some(outside) = self.routers[router].leave(self.now, from, to) {
            self.transmit(outside, to, data);
        }
    }

    /// How many datagrams were sent to an address.
    pub fn to(&self, address: SocketAddr) -> u64 {
        self.destinations.get(&address).copied().unwrap_or_default()
    }

    /// What is on its way just now.
    pub fn under_way(&self) -> impl Iterator<Item = &[u8]> {
        self.queue.values().filter_map(|delivery| match delivery {
            Delivery::Datagram { data, .. } => Some(&**data),
            Delivery::Candidate { .. } => None,
        })
    }

    pub fn transmit(&mut self, from: SocketAddr, to: SocketAddr, data: Vec<u8>) {
        self.datagrams += 1;
        *self.destinations.entry(to).or_default() += 1;
        if data.len() > self.datagram_len_max {
            return;
        }
        let (a, b) = (from.ip(), to.ip());
        if self.cut.contains(&(a, b)) || self.cut.contains(&(b, a)) || self.chance(self.faults.lost)
        {
            return;
        }
        let copies = if self.chance(self.faults.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let late =
                if self.chance(self.faults.late) { self.random.number() % 100_000 } else { 0 };
            let arrival = self.now + LATENCY + Duration::from_micros(late);
            self.put(arrival, Delivery::Datagram { from, to, data: data.clone() });
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Datagram { from, to, data } => self.arrive(from, to, data),
            Delivery::Candidate { to, from, session, candidate } => {
                let node = &mut self.machines[to].node;
                // The link may be gone or replaced by now.
                let _ = node.add_remote_candidate(self.now, from, session, candidate);
            }
        }
    }

    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, data: Vec<u8>) {
        if to == address(SERVER) || self.relayed.contains(&to) {
            return self.arrive_at_server(from, to, data);
        }
        let now = self.now;
        let router = self.routers.iter_mut().position(|router| router.outside() == to.ip());
        let inside = match router {
            Some(router) => self.routers[router].enter(now, to, from),
            None => Some(to),
        };
        let Some(inside) = inside else { return };
        if let Some(machine) = self.machines.iter_mut().find(|m| m.has_socket(&inside)) {
            machine.receive(now, inside, from, &data);
        }
    }

    fn server_now(&self) -> turn_server_proto::types::Instant {
        let nanos = i64::try_from((self.now - self.start).as_nanos()).expect("not that long");
        turn_server_proto::types::Instant::from_nanos(nanos)
    }

    fn arrive_at_server(&mut self, from: SocketAddr, to: SocketAddr, data: Vec<u8>) {
        if to == address(SERVER)
            && let Ok(answer) = self.binding.answer(to, from, &data)
        {
            return self.transmit(to, from, answer.data);
        }
        let now = self.server_now();
        let transmit = Transmit::new(data, TransportType::Udp, from, to);
        let sent = self.turn.recv(transmit, now).map(|transmit| transmit.build());
        if let Some(sent) = sent {
            self.transmit(sent.from, sent.to, sent.data);
        }
        self.collect_server();
    }

    fn collect_server(&mut self) {
        let now = self.server_now();
        loop {
            while let Some(sent) = self.turn.poll_transmit(now) {
                self.transmit(sent.from, sent.to, sent.data);
            }
            let TurnServerPollRet::AllocateSocket {
                transport,
                listen_addr,
                client_addr,
                allocation_transport,
                family,
            } = self.turn.poll(now)
            else {
                break;
            };
            let port = 50_000 + self.relayed.len() as u16;
            let relayed = SocketAddr::new(address(SERVER).ip(), port);
            // This internet has no IPv6.
            let given = match family {
                AddressFamily::IPV4 => Ok(relayed),
                AddressFamily::IPV6 => Err(SocketAllocateError::AddressFamilyNotSupported),
            };
            self.relayed.extend(given.ok());
            self.turn.allocated_socket(
                transport,
                listen_addr,
                client_addr,
                allocation_transport,
                family,
                given,
                now,
            );
        }
        while let Some(sent) = self.turn.poll_transmit(now) {
            self.transmit(sent.from, sent.to, sent.data);
        }
    }

    /// Both ends say that the link is up.
    pub fn is_up(&self, a: usize, b: usize) -> bool {
        let state = |at: usize, peer: usize| self.machines[at].state(self.fingerprint(peer));
        state(a, b) == Some(LinkState::Up) && state(b, a) == Some(LinkState::Up)
    }

    /// Why links failed, by machine.
    pub fn reasons(&self) -> Vec<Vec<&str>> {
        self.machines.iter().map(Machine::reasons).collect()
    }

    /// Sends frames both ways, ten milliseconds apart, and counts those that arrive.
    pub fn talk(&mut self, a: usize, b: usize, frames: u32) -> [u32; 2] {
        let (of_a, of_b) = (self.fingerprint(a), self.fingerprint(b));
        self.machines[a].frames.clear();
        self.machines[b].frames.clear();
        for number in 0..frames {
            let frame = number.to_be_bytes();
            self.machines[a].send_frame(of_b, &frame);
            self.machines[b].send_frame(of_a, &frame);
            self.run(Duration::from_millis(10));
        }
        self.run(Duration::from_millis(200));
        let count = |at: usize, peer: Fingerprint| {
            let frames = self.machines[at].frames.iter();
            let mut numbers: Vec<_> =
                frames.filter(|(from, _)| *from == peer).map(|(_, frame)| frame.clone()).collect();
            let arrived = numbers.len() as u32;
            numbers.sort();
            numbers.dedup();
            assert_eq!(numbers.len() as u32, arrived, "a frame came twice");
            arrived
        };
        [count(b, of_a), count(a, of_b)]
    }
}

/// A server over UDP, and the user `u` there.
pub fn turn_server(address: SocketAddr, password: &str) -> TurnServer {
    TurnServer { address, way: TurnWay::Udp, username: "u".into(), password: password.into() }
}
