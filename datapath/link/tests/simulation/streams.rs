//! TURN servers over TCP and TLS, as the gatherer sees them: when they are connected to, and what
//! comes and goes with a connection.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::turn_server;
use ipop_ice::CandidateKind;
use ipop_link::{Candidate, Datagram, Gatherer, GathererOutput, TurnServer, TurnWay};
use ipop_stun::{Attribute, Builder, Message};

const HOST: &str = "192.0.2.9:5000";
const UDP_SERVER: &str = "198.18.0.20:3478";
const STREAM_SERVER: &str = "198.18.0.30:443";
const BRIDGE: &str = "127.0.0.1:40000";
const LOCAL: &str = "127.0.0.1:5000";

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn milliseconds(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn over_tls() -> TurnServer {
    let way = TurnWay::Stream { bridge: at(BRIDGE), local: at(LOCAL), is_tls: true };
    TurnServer { way, ..turn_server(at(STREAM_SERVER), "p") }
}

struct Bench {
    gatherer: Gatherer,
    start: Instant,
    now: Instant,
    connections: Vec<(SocketAddr, SocketAddr)>,
    candidates: Vec<Candidate>,
    failures: Vec<(SocketAddr, String)>,
    /// Requests that wait for an answer: our end, the server's, the request.
    asked: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
}

impl Bench {
    fn new(turn: &[TurnServer]) -> Self {
        let now = Instant::now();
        let mut gatherer = Gatherer::new([7; 32]);
        gatherer.set_hosts(now, &[at(HOST)]);
        gatherer.set_servers(now, &[], turn);
        let (connections, candidates, failures, asked) = Default::default();
        let mut bench =
            Self { gatherer, start: now, now, connections, candidates, failures, asked };
        bench.drain();
        bench
    }

    fn drain(&mut self) {
        while let Some(output) = self.gatherer.poll_output() {
            match output {
                GathererOutput::Transmit { local, remote, data } => {
                    self.asked.push((local, remote, data));
                }
                GathererOutput::Candidate(candidate) => self.candidates.push(candidate),
                GathererOutput::Connect { bridge, to } => self.connections.push((bridge, to)),
                GathererOutput::ServerFailed { address, text } => {
                    self.failures.push((address, text));
                }
                _ => {}
            }
        }
    }

    fn wait(&mut self, end: Duration) {
        while let Some(next) = self.gatherer.poll_timeout()
            && next <= self.start + end
        {
            self.now = next;
            self.gatherer.handle_timeout(next);
            self.drain();
        }
        self.now = self.start + end;
    }

    /// Grants whatever a server was asked for.
    fn answer(&mut self, server: SocketAddr, relayed: &str) {
        for (local, remote, request) in std::mem::take(&mut self.asked) {
            if remote != server {
                continue;
            }
            let message = Message::parse(&request).expect("a request");
            let answer = Builder::success(&message)
                .with(Attribute::XorMappedAddress(at("203.0.113.1:9")))
                .with(Attribute::XorRelayedAddress(at(relayed)))
                .with(Attribute::LifetimeSeconds(600))
                .build()
                .expect("an answer");
            let datagram = Datagram { local, remote, data: &answer };
            let _ = self.gatherer.handle_input(self.now, datagram);
        }
        self.drain();
    }

    fn connect(&mut self) {
        self.gatherer.stream_connected(self.now, at(BRIDGE));
        self.drain();
    }

    fn relayed(&self) -> Vec<&Candidate> {
        let all = self.gatherer.candidates().iter();
        all.filter(|candidate| candidate.kind == CandidateKind::Relayed).collect()
    }
}

#[test]
fn nobody_is_connected_to_while_udp_works() {
    let mut bench = Bench::new(&[turn_server(at(UDP_SERVER), "p"), over_tls()]);
    bench.answer(at(UDP_SERVER), "198.18.0.20:50000");
    bench.wait(milliseconds(1500));
    assert!(bench.gatherer.is_done(), "a server that is not asked keeps nobody waiting");
    assert_eq!(bench.connections, []);
    // A peer that is gone is no reason, as long as the relay answers.
    bench.gatherer.doubt_relays(bench.now);
    bench.drain();
    bench.answer(at(UDP_SERVER), "198.18.0.20:50000");
    bench.wait(milliseconds(5000));
    assert_eq!(bench.connections, []);
    bench.gatherer.doubt_relays(bench.now);
    bench.wait(milliseconds(5900));
    assert_eq!(bench.connections, []);
    bench.wait(milliseconds(6100));
    assert_eq!(bench.connections, [(at(BRIDGE), at(STREAM_SERVER))]);
}

#[test]
fn without_udp_connections_are_made_after_a_moment() {
    let mut bench = Bench::new(&[turn_server(at(UDP_SERVER), "p"), over_tls()]);
    bench.wait(milliseconds(450));
    assert_eq!(bench.connections, []);
    bench.wait(milliseconds(550));
    assert_eq!(bench.connections, [(at(BRIDGE), at(STREAM_SERVER))]);
    assert!(!bench.gatherer.is_done());
    bench.wait(milliseconds(60_000));
    assert_eq!(bench.connections.len(), 1, "the bridge goes on by itself");
}

#[test]
fn an_allocation_comes_and_goes_with_its_connection() {
    let mut bench = Bench::new(&[over_tls()]);
    assert_eq!(bench.connections, [(at(BRIDGE), at(STREAM_SERVER))], "there is nothing else");
    assert!(bench.asked.is_empty());
    bench.connect();
    let (local, remote, _) = bench.asked.first().expect("a request");
    assert_eq!((*local, *remote), (at(LOCAL), at(BRIDGE)));
    bench.answer(at(BRIDGE), "198.18.0.30:50000");
    let [candidate] = bench.relayed()[..] else { panic!("{:?}", bench.candidates) };
    assert_eq!(candidate.address, at("198.18.0.30:50000"));
    assert!(candidate.related.is_none_or(|related| !related.ip().is_loopback()));
    let reflexive = |candidate: &&Candidate| candidate.kind == CandidateKind::ServerReflexive;
    assert_eq!(bench.candidates.iter().filter(reflexive).count(), 0, "what TCP has is not ours");
    assert!(bench.gatherer.is_done());
    for (seconds, text) in [(1, "reset"), (2, "refused"), (4, "refused"), (8, "refused")] {
        bench.wait(milliseconds(seconds * 1000));
        bench.gatherer.stream_lost(bench.now, at(BRIDGE), text.to_owned());
        bench.drain();
        assert!(bench.relayed().is_empty());
    }
    let told = |text: &str| (at(STREAM_SERVER), text.to_owned());
    assert_eq!(bench.failures, [told("reset"), told("refused")], "once each, by its own address");
    bench.connect();
    bench.answer(at(BRIDGE), "198.18.0.30:50001");
    assert_eq!(bench.relayed().len(), 1);
}

#[test]
fn a_relay_over_udp_is_preferred() {
    let mut bench = Bench::new(&[turn_server(at(UDP_SERVER), "p"), over_tls()]);
    bench.wait(milliseconds(600));
    bench.connect();
    bench.answer(at(BRIDGE), "198.18.0.30:50000");
    bench.wait(milliseconds(800));
    bench.answer(at(UDP_SERVER), "198.18.0.20:50000");
    let [tls, udp] = bench.relayed()[..] else { panic!("{:?}", bench.candidates) };
    assert!(udp.priority > tls.priority, "{udp:?} {tls:?}");
    assert_ne!(udp.foundation, tls.foundation);
}

#[test]
fn a_renewed_credential_leaves_the_relay_as_it_is() {
    let mut bench = Bench::new(&[over_tls()]);
    bench.connect();
    bench.answer(at(BRIDGE), "198.18.0.30:50000");
    let renewed = TurnServer { username: "later".into(), ..over_tls() };
    bench.gatherer.set_servers(bench.now, &[], &[renewed]);
    bench.drain();
    assert_eq!(bench.relayed().len(), 1);
    assert_eq!((bench.connections.len(), bench.asked.len()), (1, 0));
    bench.gatherer.set_servers(bench.now, &[], &[]);
    assert!(bench.relayed().is_empty());
}
