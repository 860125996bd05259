//! Our TURN client beside another make, `turn-client-proto`: both do the same at the same kind of
//! server, and what they send is compared attribute by attribute.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_stun::{Credential, Input, TurnClient, TurnConfig, TurnOutput};
use turn_client_proto::api::{TransmitBuild, TurnClientApi};
use turn_client_proto::stun::auth::Feature;
use turn_client_proto::stun::types::message::IntegrityAlgorithm;
use turn_client_proto::udp::TurnClientUdp;
use turn_server_proto::api::{Transmit, TurnServerApi, TurnServerPollRet};
use turn_server_proto::server::TurnServer;
use turn_server_proto::types::{Instant as ServerInstant, TransportType};

const SERVER: &str = "198.18.0.20:3478";
const CLIENT: &str = "203.0.113.1:40000";
const PEER: &str = "192.0.2.7:6000";
const PAYLOAD: &[u8] = b"thirteen byte";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A client of any make.
trait Client {
    fn sent(&mut self, now: Instant) -> Option<Vec<u8>>;
    fn receive(&mut self, now: Instant, data: Vec<u8>);
    fn advance(&mut self, now: Instant);
    fn permit(&mut self, now: Instant);
    fn bind(&mut self, now: Instant);
    fn relay(&mut self, now: Instant) -> Option<Vec<u8>>;
    fn close(&mut self, now: Instant);
}

impl Client for TurnClient {
    fn sent(&mut self, _: Instant) -> Option<Vec<u8>> {
        loop {
            if let TurnOutput::Transmit { data, .. } = self.poll_output()? {
                return Some(data);
            }
        }
    }
    fn receive(&mut self, now: Instant, data: Vec<u8>) {
        self.handle_input(now, Input { remote: at(SERVER), data: &data }).unwrap();
    }
    fn advance(&mut self, now: Instant) {
        self.handle_timeout(now);
    }
    /// Ours asks for a permission when it has something to send.
    fn permit(&mut self, now: Instant) {
        TurnClient::relay(self, now, at(PEER), PAYLOAD).unwrap();
    }
    fn bind(&mut self, now: Instant) {
        TurnClient::bind(self, now, at(PEER)).unwrap();
    }
    fn relay(&mut self, now: Instant) -> Option<Vec<u8>> {
        TurnClient::relay(self, now, at(PEER), PAYLOAD).unwrap();
        None
    }
    fn close(&mut self, now: Instant) {
        TurnClient::close(self, now);
    }
}

/// The other make, with its clock.
struct Theirs(TurnClientUdp, Instant);

impl Theirs {
    fn clock(&self, now: Instant) -> ServerInstant {
        ServerInstant::from_nanos(i64::try_from((now - self.1).as_nanos()).unwrap())
    }
}

impl Client for Theirs {
    fn sent(&mut self, now: Instant) -> Option<Vec<u8>> {
        let clock = self.clock(now);
        self.0.poll_transmit(clock).map(|transmit| transmit.data.to_vec())
    }
    fn receive(&mut self, now: Instant, data: Vec<u8>) {
        let clock = self.clock(now);
        let transmit = Transmit::new(data, TransportType::Udp, at(SERVER), at(CLIENT));
        self.0.recv(transmit, clock);
    }
    fn advance(&mut self, now: Instant) {
        let clock = self.clock(now);
        while self.0.poll_event().is_some() {}
        self.0.poll(clock);
    }
    fn permit(&mut self, now: Instant) {
        let clock = self.clock(now);
        self.0.create_permission(TransportType::Udp, at(PEER).ip(), clock).unwrap();
    }
    fn bind(&mut self, now: Instant) {
        let clock = self.clock(now);
        self.0.bind_channel(TransportType::Udp, at(PEER), clock).unwrap();
    }
    fn relay(&mut self, now: Instant) -> Option<Vec<u8>> {
        let clock = self.clock(now);
        let sent = self.0.send_to(TransportType::Udp, at(PEER), PAYLOAD, clock).unwrap();
        sent.map(|sent: TransmitBuild<_>| sent.build().data)
    }
    fn close(&mut self, now: Instant) {
        let clock = self.clock(now);
        self.0.delete(clock).unwrap();
    }
}

/// Both makes hand a client's datagrams to a server of its own.
struct Session<C> {
    client: C,
    server: TurnServer,
    start: Instant,
    now: Instant,
    sent: Vec<Vec<u8>>,
}

impl<C: Client> Session<C> {
    fn new(client: C, start: Instant) -> Self {
        let mut server = TurnServer::new(TransportType::Udp, at(SERVER), "lab.test".into());
        server.add_user("u".into(), "p".into());
        Self { client, server, start, now: start, sent: Vec::new() }
    }

    fn hand_over(&mut self, data: Vec<u8>) {
        self.sent.push(data.clone());
        let clock = ServerInstant::from_nanos((self.now - self.start).as_nanos() as i64);
        let transmit = Transmit::new(data, TransportType::Udp, at(CLIENT), at(SERVER));
        let answer = self.server.recv(transmit, clock).map(|transmit| transmit.build());
        let mut answers: Vec<_> = answer.into_iter().collect();
        while let TurnServerPollRet::AllocateSocket {
            transport,
            listen_addr,
            client_addr,
            allocation_transport,
            family,
        } = self.server.poll(clock)
        {
            let relayed = Ok(SocketAddr::new(at(SERVER).ip(), 50_000));
            self.server.allocated_socket(
                transport,
                listen_addr,
                client_addr,
                allocation_transport,
                family,
                relayed,
                clock,
            );
        }
        for answer in answers.drain(..).filter(|answer| answer.to == at(CLIENT)) {
            self.client.receive(self.now, answer.data);
        }
        while let Some(answer) = self.server.poll_transmit(clock) {
            if answer.to == at(CLIENT) {
                self.client.receive(self.now, answer.data);
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..10 {
            self.now += Duration::from_millis(60);
            self.client.advance(self.now);
            while let Some(data) = self.client.sent(self.now) {
                self.hand_over(data);
            }
        }
    }

    /// Allocate, permission, indication, channel, ChannelData, release.
    fn run(mut self) -> Vec<Vec<u8>> {
        self.settle();
        self.client.permit(self.now);
        self.settle();
        let data = self.client.relay(self.now);
        data.into_iter().for_each(|data| self.hand_over(data));
        self.settle();
        self.client.bind(self.now);
        self.settle();
        let data = self.client.relay(self.now);
        data.into_iter().for_each(|data| self.hand_over(data));
        self.settle();
        self.client.close(self.now);
        self.settle();
        self.sent
    }
}

/// The attributes of a message by type, read here without any codec. Addresses stay as they are:
/// over IPv4 their encoding does not depend on the transaction.
fn attributes(message: &[u8]) -> BTreeMap<u16, Vec<u8>> {
    assert_eq!(message[4..8], [0x21, 0x12, 0xa4, 0x42]);
    assert_eq!(usize::from(u16::from_be_bytes([message[2], message[3]])), message.len() - 20);
    let mut rest = &message[20..];
    let mut found = BTreeMap::new();
    while !rest.is_empty() {
        let kind = u16::from_be_bytes([rest[0], rest[1]]);
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        found.insert(kind, rest[4..4 + length].to_vec());
        rest = &rest[4 + length.next_multiple_of(4)..];
    }
    found
}

/// Message type and what must be the same whoever sends it.
fn essence(datagram: &[u8]) -> (u16, BTreeMap<u16, Vec<u8>>) {
    const ALLOCATE: u16 = 0x003;
    const LIFETIME: u16 = 0x0d;
    const DONT_FRAGMENT: u16 = 0x1a;
    const NONCE: u16 = 0x15;
    const INTEGRITY: u16 = 0x08;
    const INTEGRITY_SHA256: u16 = 0x1c;
    let kind = u16::from_be_bytes([datagram[0], datagram[1]]);
    let mut found = attributes(datagram);
    // SOFTWARE, FINGERPRINT and other optional ones are a matter of taste.
    found.retain(|kind, _| *kind < 0x8000);
    if kind == ALLOCATE {
        // How long, and whether the relay shall fragment, is the client's choice.
        found.retain(|kind, _| ![LIFETIME, DONT_FRAGMENT].contains(kind));
    }
    for differs in [NONCE, INTEGRITY, INTEGRITY_SHA256] {
        if let Some(value) = found.get_mut(&differs) {
            value.clear();
        }
    }
    (kind, found)
}

#[test]
fn both_makes_send_the_same() {
    let start = Instant::now();
    let credential = Credential::new("u", "p").unwrap();
    let ours = TurnClient::new(TurnConfig::new(at(SERVER), credential), [1; 32], start);
    let ours = Session::new(ours, start).run();
    let credentials = turn_client_proto::types::TurnCredentials::new("u", "p");
    let mut config = turn_client_proto::api::TurnConfig::new(credentials);
    config.add_supported_integrity(IntegrityAlgorithm::Sha256);
    // Ours does not hide its name.
    config.set_anonymous_username(Feature::Disabled);
    let theirs = TurnClientUdp::allocate(at(CLIENT), at(SERVER), config);
    let theirs = Session::new(Theirs(theirs, start), start).run();

    let by_kind = |sent: &[Vec<u8>]| -> BTreeMap<u16, Vec<BTreeMap<u16, Vec<u8>>>> {
        let mut kinds: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        for datagram in sent.iter().filter(|datagram| datagram[0] < 4) {
            let (kind, found) = essence(datagram);
            let list = kinds.entry(kind).or_default();
            if !list.contains(&found) {
                list.push(found);
            }
        }
        kinds
    };
    let names = [
        ("Allocate", 0x003),
        ("Refresh", 0x004),
        ("CreatePermission", 0x008),
        ("ChannelBind", 0x009),
        ("Send", 0x016),
    ];
    let (ours_by_kind, theirs_by_kind) = (by_kind(&ours), by_kind(&theirs));
    for (name, kind) in names {
        assert_eq!(ours_by_kind[&kind], theirs_by_kind[&kind], "{name}");
    }
    assert!(ours_by_kind.keys().eq(names.iter().map(|(_, kind)| kind)), "and nothing else");
    let in_channel = |sent: &[Vec<u8>]| -> Vec<Vec<u8>> {
        sent.iter().filter(|datagram| datagram[0] >= 0x40).cloned().collect()
    };
    assert_eq!(in_channel(&ours), in_channel(&theirs));
    assert_eq!(in_channel(&ours).len(), 1);
}
