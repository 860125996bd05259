//! Our TURN client against `turn-server-proto` as the server, in virtual time, over a network
//! that delays, loses, doubles and reorders.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_stun::server::{BindingServer, is_fit_for_relay};
use ipop_stun::{
    Credential, Dropped, Input, Random, Received, TurnClient, TurnConfig, TurnError, TurnOutput,
};
use turn_server_proto::api::{SocketAllocateError, Transmit, TurnServerApi, TurnServerPollRet};
use turn_server_proto::server::TurnServer;
use turn_server_proto::types::{AddressFamily, TransportType};

const SERVER: &str = "198.18.0.20:3478";
const SERVER_V6: &str = "[2001:db8::20]:3478";
const CLIENT: &str = "203.0.113.1:40000";
const PEER: &str = "192.0.2.7:6000";
const PEER_V6: &str = "[2001:db8:7::7]:6000";
const PEERS: [&str; 2] = [PEER, PEER_V6];

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    data: Vec<u8>,
}

/// Of a hundred datagrams.
#[derive(Clone, Copy, Default)]
struct Faults {
    lost: u64,
    doubled: u64,
    late: u64,
}

struct World {
    start: Instant,
    now: Instant,
    server: TurnServer,
    binding: BindingServer,
    relayed: Vec<SocketAddr>,
    capacity: usize,
    /// Whether the server has relayed addresses of IPv6.
    has_v6: bool,
    client: TurnClient,
    client_address: SocketAddr,
    /// What is under way, by its time of arrival.
    wire: BTreeMap<(Instant, u64), Datagram>,
    count: u64,
    random: Random,
    faults: Faults,
    events: VecDeque<TurnOutput>,
    /// What the peer got, which it sends back.
    echoed: u64,
    /// What came back.
    received: Vec<Vec<u8>>,
    dropped: Vec<Dropped>,
}

fn server() -> TurnServer {
    let mut server = TurnServer::new(TransportType::Udp, at(SERVER), "lab.test".into());
    server.add_user("u".into(), "p".into());
    server
}

fn client(password: &str, seed: u8, now: Instant) -> TurnClient {
    let credential = Credential::new("u", password).unwrap();
    TurnClient::new(TurnConfig::new(at(SERVER), credential), [seed; 32], now)
}

impl World {
    fn new(password: &str, faults: Faults) -> Self {
        let start = Instant::now();
        Self {
            start,
            now: start,
            server: server(),
            binding: BindingServer::new("ipop"),
            relayed: Vec::new(),
            capacity: usize::MAX,
            has_v6: false,
            client: client(password, 1, start),
            client_address: at(CLIENT),
            wire: BTreeMap::new(),
            count: 0,
            random: Random::new([9; 32]),
            faults,
            events: VecDeque::new(),
            echoed: 0,
            received: Vec::new(),
            dropped: Vec::new(),
        }
    }

    fn server_now(&self) -> turn_server_proto::types::Instant {
        let nanos = i64::try_from((self.now - self.start).as_nanos()).unwrap();
        turn_server_proto::types::Instant::from_nanos(nanos)
    }

    fn chance(&mut self, percent: u64) -> bool {
        percent > 0 && self.random.number() % 100 < percent
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, data: Vec<u8>) {
        if self.chance(self.faults.lost) {
            return;
        }
        let copies = if self.chance(self.faults.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let late = if self.chance(self.faults.late) { 300 } else { 0 };
            let arrival = self.now + Duration::from_millis(15 + late);
            self.count += 1;
            self.wire.insert((arrival, self.count), Datagram { from, to, data: data.clone() });
        }
    }

    fn drain_client(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                TurnOutput::Transmit { to, data } => self.send(self.client_address, to, data),
                event => self.events.push_back(event),
            }
        }
    }

    fn drain_server(&mut self) {
        let now = self.server_now();
        loop {
            while let Some(transmit) = self.server.poll_transmit(now) {
                self.send(transmit.from, transmit.to, transmit.data);
            }
            match self.server.poll(now) {
                TurnServerPollRet::AllocateSocket {
                    transport,
                    listen_addr,
                    client_addr,
                    allocation_transport,
                    family,
                } => {
                    let port = 50_000 + u16::try_from(self.relayed.len()).unwrap();
                    let is_v6 = family == AddressFamily::IPV6;
                    let ip = if is_v6 { at(SERVER_V6).ip() } else { at(SERVER).ip() };
                    let address = SocketAddr::new(ip, port);
                    let socket = if is_v6 && !self.has_v6 {
                        Err(SocketAllocateError::AddressFamilyNotSupported)
                    } else if self.relayed.len() < self.capacity {
                        self.relayed.push(address);
                        Ok(address)
                    } else {
                        Err(SocketAllocateError::InsufficientCapacity)
                    };
                    self.server.allocated_socket(
                        transport,
                        listen_addr,
                        client_addr,
                        allocation_transport,
                        family,
                        socket,
                        now,
                    );
                }
                TurnServerPollRet::SocketClose { .. } => {}
                _ => break,
            }
        }
        while let Some(transmit) = self.server.poll_transmit(now) {
            self.send(transmit.from, transmit.to, transmit.data);
        }
    }

    fn deliver(&mut self, datagram: Datagram) {
        let Datagram { from, to, data } = datagram;
        if to == self.client_address {
            match self.client.handle_input(self.now, Input { remote: from, data: &data }) {
                Ok(Received::Data { peer, range }) => {
                    assert!(PEERS.map(at).contains(&peer));
                    self.received.push(data[range].to_vec());
                }
                Ok(Received::Nothing) => {}
                Err(dropped) => self.dropped.push(dropped),
            }
        } else if PEERS.map(at).contains(&to) {
            self.echoed += 1;
            self.send(to, from, data);
        } else if let Ok(answer) = self.binding.answer(to, from, &data) {
            // The server under test sends its Binding responses to itself.
            self.send(answer.from, from, answer.data);
        } else {
            let now = self.server_now();
            let transmit = Transmit::new(data, TransportType::Udp, from, to);
            let sent = self.server.recv(transmit, now).map(|transmit| transmit.build());
            if let Some(sent) = sent {
                self.send(sent.from, sent.to, sent.data);
            }
        }
    }

    /// Lets time pass until `end` after the start.
    fn run(&mut self, end: Duration) {
        let end = self.start + end;
        loop {
            self.drain_client();
            self.drain_server();
            let arrival = self.wire.first_key_value().map(|((time, _), _)| *time);
            let timer = self.client.poll_timeout();
            let Some(next) = arrival.into_iter().chain(timer).min().filter(|t| *t <= end) else {
                break;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.wire.first_entry()
                && entry.key().0 <= self.now
            {
                let datagram = entry.remove();
                self.deliver(datagram);
            }
            self.client.handle_timeout(self.now);
        }
        self.now = end;
    }

    /// Sends a payload every `every` until `end`; says how many came back.
    fn talk(&mut self, every: Duration, end: Duration) -> (usize, usize) {
        let (mut sent, before) = (0, self.received.len());
        while self.now + every <= self.start + end {
            if self.client.relay(self.now, at(PEER), b"ping").is_ok() {
                sent += 1;
            }
            self.run(self.now + every - self.start);
        }
        (sent, self.received.len() - before)
    }
}

#[test]
fn data_goes_both_ways_as_indications_and_in_a_channel() {
    let mut world = World::new("p", Faults::default());
    world.run(seconds(1));
    let allocated = world.events.pop_front();
    let relayed = world.client.relayed().to_vec();
    assert_eq!(relayed, [world.relayed[0]]);
    assert_eq!(allocated, Some(TurnOutput::Allocated { relayed, mapped: Some(at(CLIENT)) }));

    world.client.relay(world.now, at(PEER), b"in an indication").unwrap();
    world.run(seconds(2));
    assert_eq!(world.received.pop().unwrap(), b"in an indication");

    world.client.bind(world.now, at(PEER)).unwrap();
    world.run(seconds(3));
    let channel = world.client.channel(at(PEER)).unwrap();
    assert_eq!(
        world.events.pop_front(),
        Some(TurnOutput::ChannelBound { peer: at(PEER), channel })
    );
    world.client.relay(world.now, at(PEER), b"in a channel").unwrap();
    world.run(seconds(4));
    assert_eq!(world.received.pop().unwrap(), b"in a channel");

    // As the fast path does it: header and payload from two places.
    let datagram = [&channel.header(4)[..], b"fast"].concat();
    world.send(at(CLIENT), at(SERVER), datagram);
    world.run(seconds(5));
    assert_eq!(world.received.pop().unwrap(), b"fast");
    assert!(world.dropped.is_empty(), "{:?}", world.dropped);

    world.client.close(world.now);
    world.run(seconds(6));
    assert_eq!(world.events.pop_front(), Some(TurnOutput::Closed));
    let mut next = client("p", 2, world.now);
    std::mem::swap(&mut world.client, &mut next);
    world.run(seconds(7));
    assert_eq!(world.client.relayed(), [world.relayed[1]], "the five-tuple is free again");
}

#[test]
fn a_peer_that_was_forgotten_can_be_bound_again() {
    let mut world = World::new("p", Faults::default());
    world.run(seconds(1));
    let mut channels = Vec::new();
    for round in 0..4 {
        world.client.bind(world.now, at(PEER)).unwrap();
        world.run(seconds(2 + 200 * round));
        channels.push(world.client.channel(at(PEER)).expect("bound at the first try"));
        world.client.forget(world.now, at(PEER));
        assert_eq!(world.talk(seconds(1), seconds(10 + 200 * round)), (8, 8));
        // Another peer in between must not get the number.
        let other = SocketAddr::new(at(PEER).ip(), 7000 + u16::try_from(round).unwrap());
        world.client.bind(world.now, other).unwrap();
        world.run(seconds(150 + 200 * round));
        assert!(world.client.channel(other).is_some_and(|channel| channel != channels[0]));
    }
    assert!(channels.iter().all(|channel| *channel == channels[0]), "{channels:?}");
    let refused = world.events.iter().any(|event| matches!(event, TurnOutput::Refused { .. }));
    assert!(!refused, "{:?}", world.events);
    assert!(world.dropped.is_empty(), "what comes in a forgotten channel is still taken");
}

#[test]
fn an_allocation_lives_for_a_day() {
    let mut world = World::new("p", Faults::default());
    world.server.set_nonce_expiry_duration(seconds(600));
    world.run(seconds(1));
    world.client.bind(world.now, at(PEER)).unwrap();
    let (sent, received) = world.talk(seconds(30), seconds(86_400));
    assert_eq!(sent, received);
    assert!(sent > 2800);
    assert_eq!(world.relayed.len(), 1);
    assert_eq!(world.events.len(), 2, "allocated and bound, nothing else: {:?}", world.events);
    assert!(world.dropped.is_empty(), "{:?}", world.dropped);
}

#[test]
fn an_allocation_lives_for_hours_on_a_bad_network() {
    let faults = Faults { lost: 20, doubled: 5, late: 5 };
    let mut world = World::new("p", faults);
    world.server.set_nonce_expiry_duration(seconds(300));
    world.run(seconds(40));
    let first = world.client.relayed().to_vec();
    assert_eq!(first.len(), 1, "40 s of tries at 20 % loss");
    world.client.bind(world.now, at(PEER)).unwrap();
    let (sent, received) = world.talk(seconds(5), seconds(6 * 3600));
    let lost = world.events.iter().any(|event| matches!(event, TurnOutput::Lost(_)));
    assert!(!lost, "{:?}", world.events);
    assert_eq!(world.client.relayed(), first);
    assert!(sent > 4000);
    // Four hops: 0.8^4 = 41 %, and some are doubled.
    assert!(received * 100 > sent * 35, "{received} of {sent}");
    let forged = world.dropped.iter().any(|dropped| *dropped != Dropped::Unexpected);
    assert!(!forged, "only late and doubled answers are dropped");
}

#[test]
fn a_wrong_password_is_refused() {
    let mut world = World::new("wrong", Faults::default());
    world.run(seconds(60));
    let failed = TurnOutput::Failed { error: TurnError::WrongCredential, retry_at: None };
    assert_eq!(world.events, [failed]);
    assert!(world.relayed.is_empty());
}

#[test]
fn a_full_server_is_tried_again() {
    let mut world = World::new("p", Faults::default());
    world.capacity = 0;
    world.run(seconds(9));
    let failed = world.events.pop_front();
    assert!(matches!(
        failed,
        Some(TurnOutput::Failed { error: TurnError::Capacity, retry_at: Some(_) })
    ));
    world.capacity = 1;
    world.run(seconds(12));
    assert!(!world.client.relayed().is_empty());
}

#[test]
fn a_restarted_server_is_noticed_within_the_refresh_interval() {
    let mut world = World::new("p", Faults::default());
    world.run(seconds(1));
    world.client.bind(world.now, at(PEER)).unwrap();
    world.talk(seconds(5), seconds(100));
    world.events.clear();
    world.server = server();
    world.talk(seconds(5), seconds(230));
    let lost = TurnOutput::Lost(TurnError::Mismatch);
    assert!(world.events.contains(&lost), "{:?}", world.events);
    let (sent, received) = world.talk(seconds(5), seconds(300));
    assert_eq!(sent, received);
    assert!(sent > 10);
    assert!(world.client.channel(at(PEER)).is_some());
}

#[test]
fn a_restarted_client_replaces_its_own_old_allocation() {
    let mut world = World::new("p", Faults::default());
    world.run(seconds(1));
    let old = world.client.relayed()[0];
    world.client = client("p", 2, world.now);
    world.run(seconds(2));
    let new = world.client.relayed()[0];
    assert_ne!(old, new);
    assert_eq!(world.talk(seconds(1), seconds(10)), (8, 8));
}

#[test]
fn a_nat_that_changes_its_mapping_costs_a_keepalive_interval() {
    let mut world = World::new("p", Faults::default());
    world.run(seconds(1));
    world.client.bind(world.now, at(PEER)).unwrap();
    world.talk(seconds(5), seconds(50));
    world.client_address = at("203.0.113.1:41000");
    world.talk(seconds(5), seconds(75));
    let (sent, received) = world.talk(seconds(5), seconds(100));
    assert_eq!((sent, received), (5, 5));
    assert_eq!(world.relayed.len(), 2);
}

#[test]
fn a_hundred_unlucky_starts_all_end_well() {
    for seed in 0..100 {
        let mut world = World::new("p", Faults { lost: 30, doubled: 10, late: 20 });
        world.random = Random::new([seed; 32]);
        world.run(seconds(90));
        assert!(!world.client.relayed().is_empty(), "seed {seed}: {:?}", world.events);
    }
}

/// One datagram of a stranger, without any password. When the first assertion fails, the panic is
/// mended upstream, and [`is_fit_for_relay`] can go.
#[test]
fn the_server_under_test_has_to_be_guarded() {
    let mut datagram = vec![0, 3, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    datagram.extend_from_slice(&[7; 12]);
    let nonce = "obMatJos2aaa\u{e9}x".as_bytes();
    for (kind, value) in [(0x06, &b"u"[..]), (0x14, b"r"), (0x15, nonce), (0x08, &[0; 20])] {
        datagram.extend_from_slice(&[0, kind, 0, u8::try_from(value.len()).unwrap()]);
        datagram.extend_from_slice(value);
        datagram.resize(datagram.len().next_multiple_of(4), 0);
    }
    datagram[3] = u8::try_from(datagram.len() - 20).unwrap();
    let shown = datagram.clone();
    let panicked = std::panic::catch_unwind(|| {
        let transmit = Transmit::new(shown, TransportType::Udp, at(CLIENT), at(SERVER));
        server().recv(transmit, turn_server_proto::types::Instant::ZERO).is_some()
    });
    assert!(panicked.is_err());
    assert!(!is_fit_for_relay(&datagram));
    let mut harmless = datagram.clone();
    harmless[20..].iter_mut().for_each(|byte| *byte &= 0x7f);
    assert!(is_fit_for_relay(&harmless));
    assert!(is_fit_for_relay(&[0x40, 0, 0, 1, 0xff]));
    assert!(!is_fit_for_relay(&datagram[..datagram.len() - 4]));
}

#[test]
fn both_families_travel_through_one_allocation() {
    let mut world = World::new("p", Faults::default());
    world.has_v6 = true;
    world.run(seconds(1));
    assert_eq!(world.client.relayed().len(), 2);
    for peer in PEERS {
        world.client.relay(world.now, at(peer), b"in an indication").unwrap();
        world.run(world.now - world.start + seconds(1));
        assert_eq!(world.received.pop().unwrap(), b"in an indication");
        world.client.bind(world.now, at(peer)).unwrap();
        world.run(world.now - world.start + seconds(1));
        world.client.relay(world.now, at(peer), b"in a channel").unwrap();
        world.run(world.now - world.start + seconds(1));
        assert_eq!(world.received.pop().unwrap(), b"in a channel");
    }
    // One refresh keeps up both.
    world.run(seconds(3600));
    assert_eq!(world.client.relayed().len(), 2);
    for peer in PEERS {
        world.client.relay(world.now, at(peer), b"still").unwrap();
        world.run(world.now - world.start + seconds(1));
        assert_eq!(world.received.pop().unwrap(), b"still");
    }
}
