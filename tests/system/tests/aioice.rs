//! Our ICE agent against an independent one over real sockets: aioice, from Debian's packages,
//! behind routers, in both roles, with coturn as STUN and TURN server.
//!
//! Its kin in `datapath/ice/tests/interop.rs` meets another make in virtual time, in more places.

#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ipop_ice::{
    Agent, AgentConfig, Candidate, CandidateKind, Credentials, Output, Packet, State, foundation,
    priority,
};
use ipop_lab::{Impairment, Internet, InternetConfig, Nat, Site};
use ipop_system_tests::{Coturn, turn_credential};
use serde_json::{Value, json};

/// Where our agent listens.
const PORT: u16 = 4000;
/// aioice asks its servers first, and checks every half second.
const PATIENCE: Duration = Duration::from_secs(20);
/// aioice ends a session without consent after about this time.
const CONSENT: Duration = Duration::from_secs(35);

/// How their datagrams may reach us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Direct,
    Relay,
}

/// Keeps a machine from sending to our agent itself.
const SERVERS_ONLY: &str = "table inet servers_only {
  chain output { type filter hook output priority filter;
    udp dport 4000 drop
  }
}
";

struct Peer {
    child: Child,
    input: ChildStdin,
    /// What it says, a line each.
    lines: Receiver<String>,
}

impl Peer {
    fn start(site: &Site, server: &str, controlling: bool) -> Self {
        let (user, password) = turn_credential();
        let mut command = site.node.command("/usr/bin/python3");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/aioice_peer.py"));
        command.arg(if controlling { "controlling" } else { "controlled" });
        command.args([server, &user, &password]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        Self { child, input, lines }
    }

    fn read(&self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.expect("aioice speaks; it is Debian's package python3-aioice");
        serde_json::from_str(&line).unwrap()
    }

    fn end(mut self) {
        self.input.write_all(b"\n").unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

/// Our agent on one real socket.
struct Ours {
    agent: Agent,
    socket: UdpSocket,
    address: SocketAddr,
    /// What came from the peer and is no STUN.
    data: Vec<Vec<u8>>,
}

impl Ours {
    fn new(site: &Site, controlling: bool) -> Self {
        let address = SocketAddr::from((site.address, PORT));
        let socket = site.node.inside(move || UdpSocket::bind(address)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let local = Credentials { ufrag: "ours".into(), pwd: "0123456789abcdefghijkl".into() };
        let now = Instant::now();
        let mut agent = Agent::new(AgentConfig::new(local, controlling, 77, [7; 32]), now);
        agent.add_local(now, candidate(CandidateKind::Host, address));
        Self { agent, socket, address, data: Vec::new() }
    }

    fn meet(&mut self, peer: &mut Peer) {
        let hello = peer.read();
        let text = |key: &str| hello[key].as_str().unwrap().to_owned();
        let now = Instant::now();
        for described in hello["candidates"].as_array().unwrap() {
            let candidate = parse(described.as_str().unwrap());
            assert!(self.agent.add_remote(now, candidate), "{described}");
        }
        let credentials = Credentials { ufrag: text("ufrag"), pwd: text("pwd") };
        self.agent.set_remote(now, credentials);
        self.agent.end_of_remote_candidates(now);
        let SocketAddr::V4(at) = self.address else { unreachable!() };
        let described = format!("1 1 udp 2130706431 {} {} typ host", at.ip(), at.port());
        let ours = json!({
            "ufrag": "ours", "pwd": "0123456789abcdefghijkl", "candidates": [described],
        });
        writeln!(peer.input, "{ours}").unwrap();
    }

    /// Runs the agent for one turn: what it wants sent is sent, what comes is handed in.
    fn turn(&mut self) {
        let mut buffer = [0; 2048];
        if let Ok((len, remote)) = self.socket.recv_from(&mut buffer) {
            let data = &buffer[..len];
            if data[0] < 4 {
                let packet = Packet { local: self.address, remote, data };
                // What our agent refuses is answered by nobody: the session shows it.
                let _ = self.agent.handle_input(Instant::now(), packet);
            } else {
                self.data.push(data.to_vec());
            }
        }
        self.agent.handle_timeout(Instant::now());
        while let Some(output) = self.agent.poll_output() {
            if let Output::Transmit { remote, data, .. } = output {
                self.socket.send_to(&data, remote).unwrap();
            }
        }
    }

    fn until(&mut self, what: &str, patience: Duration, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + patience;
        while !holds(self) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.agent);
            self.turn();
        }
    }

    /// Sends a datagram along the selected pair until it comes back.
    fn echo(&mut self, word: &[u8]) {
        self.data.clear();
        let deadline = Instant::now() + PATIENCE;
        while !self.data.iter().any(|data| data == word) {
            assert!(Instant::now() < deadline, "no echo: {:?}", self.agent);
            let selected = self.agent.selected().unwrap();
            self.socket.send_to(word, selected.remote).unwrap();
            for _ in 0..20 {
                self.turn();
            }
        }
    }
}

fn candidate(kind: CandidateKind, address: SocketAddr) -> Candidate {
    Candidate {
        component: 1,
        kind,
        address,
        base: address,
        related: None,
        priority: priority(kind, 65535, 1),
        foundation: foundation(kind, address.ip(), None),
    }
}

/// Reads a candidate as descriptions have it (RFC 8839 section 5.1).
fn parse(described: &str) -> Candidate {
    let words: Vec<_> = described.split_whitespace().collect();
    let kind = match words[7] {
        "host" => CandidateKind::Host,
        "srflx" => CandidateKind::ServerReflexive,
        "relay" => CandidateKind::Relayed,
        other => panic!("a candidate of kind {other}"),
    };
    let address = SocketAddr::new(words[4].parse().unwrap(), words[5].parse().unwrap());
    let named = Candidate { priority: words[3].parse().unwrap(), ..candidate(kind, address) };
    Candidate { foundation: words[0].into(), ..named }
}

struct World {
    internet: Internet,
    _coturn: Coturn,
}

impl World {
    fn new() -> Self {
        let internet = Internet::build(InternetConfig::default()).unwrap();
        let second = internet.add_hub_address(11).unwrap();
        let coturn = Coturn::new(internet.hub(), internet.hub_address(), second);
        Self { internet, _coturn: coturn }
    }

    /// A session with aioice behind a router of kind `theirs`; whether we and they control.
    fn session(&mut self, theirs: Nat, roles: [bool; 2], way: Way) -> Session {
        let mut site = |nat| self.internet.add_site(nat, Impairment::default()).unwrap();
        let (our_site, their_site) = (site(Nat::None), site(theirs));
        if way == Way::Relay {
            their_site.node.nft(SERVERS_ONLY).unwrap();
        }
        let server = self.internet.hub_address().to_string();
        let mut peer = Peer::start(&their_site, &server, roles[1]);
        let mut ours = Ours::new(&our_site, roles[0]);
        ours.meet(&mut peer);
        ours.until("both select a pair", PATIENCE, |ours| {
            ours.agent.state() == State::Connected && ours.agent.selected().is_some()
        });
        Session { ours, peer, _sites: [our_site, their_site] }
    }
}

struct Session {
    ours: Ours,
    peer: Peer,
    _sites: [Site; 2],
}

impl Session {
    /// Waits until aioice says that it is connected as well; whether it controls.
    fn they_control(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let said = loop {
            assert!(Instant::now() < deadline, "aioice does not connect");
            self.ours.turn();
            if let Ok(line) = self.peer.lines.try_recv() {
                break serde_json::from_str::<Value>(&line).unwrap();
            }
        };
        assert_eq!(said["connected"], true);
        said["controlling"].as_bool().unwrap()
    }
}

#[test]
fn a_session_in_both_roles_behind_every_router() {
    let mut world = World::new();
    for nat in [Nat::None, Nat::FullCone, Nat::PortRestricted, Nat::Symmetric] {
        for roles in [[true, false], [false, true]] {
            let mut session = world.session(nat, roles, Way::Direct);
            assert_eq!(session.they_control(), roles[1]);
            session.ours.echo(b"a datagram");
            let selected = session.ours.agent.selected().unwrap();
            assert!(selected.is_direct(), "{nat:?}, {roles:?}: {selected:?}");
            session.peer.end();
        }
    }
}

#[test]
fn a_session_over_their_relay_in_both_roles() {
    let mut world = World::new();
    for roles in [[true, false], [false, true]] {
        let mut session = world.session(Nat::Symmetric, roles, Way::Relay);
        session.they_control();
        session.ours.echo(b"a datagram");
        let selected = session.ours.agent.selected().unwrap();
        assert!(!selected.is_direct(), "{roles:?}: {selected:?}");
        session.peer.end();
    }
}

#[test]
fn one_role_is_left_where_both_take_the_same() {
    let mut world = World::new();
    for role in [true, false] {
        let mut session = world.session(Nat::PortRestricted, [role, role], Way::Direct);
        let theirs = session.they_control();
        assert_ne!(theirs, session.ours.agent.is_controlling());
        session.ours.echo(b"a datagram");
        session.peer.end();
    }
}

#[test]
fn consent_is_given_and_taken() {
    let mut world = World::new();
    let mut session = world.session(Nat::PortRestricted, [true, false], Way::Direct);
    session.they_control();
    let end = Instant::now() + CONSENT;
    session.ours.until("time passes", CONSENT + PATIENCE, |_| Instant::now() > end);
    assert_eq!(session.ours.agent.state(), State::Connected);
    session.ours.echo(b"still there");
    session.peer.end();
}
