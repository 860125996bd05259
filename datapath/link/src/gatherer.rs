//! The node's own candidates: found by asking servers, kept alive by asking again.
//!
//! All links share the node's sockets, so one [`Gatherer`] serves them all: per host address and
//! STUN server a `BindingClient`, per TURN server a `TurnClient`. A server that is silent
//! delays nothing; what is found late is told late.
//!
//! TURN servers over TCP and TLS are for networks that let no UDP out: they are connected to, all
//! at once, when no relay over UDP has come up for a while, or when one is missed later.
//!
//! It also is where relayed datagrams are wrapped and unwrapped.

mod lane_relays;
mod reflexive;
mod relays;
mod servers;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use ipop_ice::{Candidate, CandidateKind, foundation, priority};
use ipop_stun::{Random, Retransmission};

use self::lane_relays::LaneRelay;
pub(crate) use self::lane_relays::LaneWish;
use self::reflexive::Probe;
use self::relays::Relay;
use self::servers::Streams;
pub use self::servers::{TurnServer, TurnWay};
use crate::port::{Datagram, Refused};

/// After this time gathering counts as done, whoever has not answered.
pub const GATHERING_TIME_MAX: Duration = Duration::from_secs(5);

/// How questions to servers are repeated: from a quarter of a second on, doubling, for as long as
/// RFC 8489 section 6.2.1 has it. A first address, permission or channel that waits for half a
/// second is what a user waits for.
const RETRANSMISSION: Retransmission =
    Retransmission { first: Duration::from_millis(250), count: 8, last: 32 };

/// Host addresses in use at most; the first ones count, as with servers.
pub const HOSTS_MAX: usize = 16;
/// STUN servers in use at most.
pub const STUN_SERVERS_MAX: usize = 8;
/// TURN servers in use at most.
pub const TURN_SERVERS_MAX: usize = 8;

/// What a [`Gatherer`] wants done or known.
#[derive(Debug, PartialEq, Eq)]
pub enum GathererOutput {
    /// Send a datagram from one of the node's sockets.
    Transmit {
        /// The source.
        local: SocketAddr,
        /// The server.
        remote: SocketAddr,
        /// The datagram.
        data: Vec<u8>,
    },
    /// One more address of ours.
    Candidate(Candidate),
    /// A known address of ours, as another server sees it: no news to peers, but it tells what our
    /// NAT does.
    Witness(Candidate),
    /// Every server has answered, failed, or had its time.
    Done,
    /// A server is of no use at the moment.
    ServerFailed {
        /// Which.
        address: SocketAddr,
        /// Why.
        text: String,
    },
    /// A connection is wanted; [`Gatherer::stream_connected`] or [`Gatherer::stream_lost`] answers.
    Connect {
        /// Whose, see [`TurnWay::Stream`].
        bridge: SocketAddr,
        /// The server to connect to, over what leads elsewhere now.
        to: SocketAddr,
    },
    /// A channel was bound or lost: [`Gatherer::relay_path`] has another answer.
    ChannelChanged {
        /// Our relayed address.
        relayed: SocketAddr,
        /// The peer's address.
        peer: SocketAddr,
    },
    /// Of the further lanes' relayed addresses beside this one of ours one has come or gone.
    LaneRelays {
        /// The first lane's.
        beside: SocketAddr,
    },
}

/// What a datagram from a server held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gathered {
    /// Nothing for anybody else.
    Nothing,
    /// A peer's datagram, relayed.
    Relayed {
        /// Our relayed address, to which the peer sent it.
        local: SocketAddr,
        /// The peer.
        remote: SocketAddr,
        /// Where in the datagram it stands.
        range: Range<usize>,
    },
}

/// How a worker reaches a peer through a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayPath {
    /// The source: our socket.
    pub local: SocketAddr,
    /// The TURN server.
    pub server: SocketAddr,
    /// The channel to the peer.
    pub channel: u16,
}

/// The node's addresses: host, server-reflexive and relayed candidates, found and kept.
pub struct Gatherer {
    random: Random,
    hosts: Vec<SocketAddr>,
    stun: Vec<SocketAddr>,
    turn: Vec<TurnServer>,
    /// Further addresses of STUN servers: two observers tell more of a NAT than one.
    others: Vec<SocketAddr>,
    probes: Vec<Probe>,
    relays: Vec<Relay>,
    /// Those for the lanes besides the first.
    lane_relays: Vec<LaneRelay>,
    streams: Streams,
    /// Relays that are being given back.
    closing: Vec<Relay>,
    /// What the router maps to a host's address.
    mapping: Option<(SocketAddr, SocketAddr)>,
    candidates: Vec<Candidate>,
    /// The same addresses, as further servers see them.
    witnesses: Vec<Candidate>,
    done: Done,
    outputs: VecDeque<GathererOutput>,
}

/// The timer of gathering, and whether its end was told.
enum Done {
    /// Nobody has named an address yet.
    Idle,
    /// Until then servers have time.
    Gathering {
        until: Instant,
    },
    Told,
}

impl Gatherer {
    /// Knows no address and no server. `seed`: 32 secret random bytes, used for nothing else.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        Gatherer {
            random: Random::new(seed),
            hosts: Vec::new(),
            stun: Vec::new(),
            turn: Vec::new(),
            others: Vec::new(),
            probes: Vec::new(),
            relays: Vec::new(),
            lane_relays: Vec::new(),
            streams: Streams::Standby,
            closing: Vec::new(),
            mapping: None,
            candidates: Vec::new(),
            witnesses: Vec::new(),
            done: Done::Idle,
            outputs: VecDeque::new(),
        }
    }

    /// The addresses of the node's interfaces with the port of the socket, best first, without
    /// the overlay's own. May be called again when they change.
    pub fn set_hosts(&mut self, now: Instant, hosts: &[SocketAddr]) {
        let hosts: Vec<_> = hosts.iter().copied().filter(is_usable_host).take(HOSTS_MAX).collect();
        if hosts == self.hosts {
            return;
        }
        let gone = |address: &SocketAddr| !hosts.contains(address);
        self.candidates.retain(|candidate| !gone(&candidate.base));
        self.witnesses.retain(|candidate| !gone(&candidate.base));
        self.hosts.clone_from(&hosts);
        for host in hosts {
            let candidate = self.candidate(CandidateKind::Host, host, host, None, None);
            self.announce(candidate);
        }
        self.set_mapping(self.mapping);
        self.restart(now);
    }

    /// The servers to use. May be called again when they change.
    pub fn set_servers(&mut self, now: Instant, stun: &[SocketAddr], turn: &[TurnServer]) {
        let stun: Vec<_> = stun.iter().copied().take(STUN_SERVERS_MAX).collect();
        let turn: Vec<_> = turn.iter().take(TURN_SERVERS_MAX).cloned().collect();
        if (&stun, &turn) == (&self.stun, &self.turn) {
            return;
        }
        (self.stun, self.turn) = (stun, turn);
        self.others.clear();
        self.restart(now);
    }

    /// The addresses at which the node may be reached now.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Those of them that further servers see too, as these do.
    #[must_use]
    pub fn witnesses(&self) -> &[Candidate] {
        &self.witnesses
    }

    /// Whether it is the address of an interface that there is now.
    #[must_use]
    pub fn is_host(&self, local: SocketAddr) -> bool {
        self.hosts.contains(&local)
    }

    /// Whether an interface has that address, whatever the port.
    #[must_use]
    pub fn is_host_ip(&self, ip: IpAddr) -> bool {
        self.hosts.iter().any(|host| host.ip() == ip)
    }

    /// Whether every server has answered, failed, or had its time.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.done, Done::Told)
    }

    /// Whether a datagram from there may be for the gatherer.
    #[must_use]
    pub fn is_server(&self, remote: SocketAddr) -> bool {
        self.probes.iter().any(|probe| probe.server() == remote)
            || self.all_relays().chain(&self.closing).any(|relay| relay.server() == remote)
    }

    /// Those that relay, of all lanes.
    fn all_relays(&self) -> impl Iterator<Item = &Relay> {
        self.relays.iter().chain(self.lane_relays.iter().map(LaneRelay::relay))
    }

    /// Takes a datagram from a server.
    ///
    /// # Errors
    /// [`Refused`]: it is not for the gatherer; perhaps it is for a link.
    pub fn handle_input(&mut self, now: Instant, input: Datagram<'_>) -> Result<Gathered, Refused> {
        let result = self.dispatch(now, input);
        self.settle(now);
        result
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.probes.iter_mut().for_each(|probe| probe.handle_timeout(now));
        let lanes = self.lane_relays.iter_mut().map(LaneRelay::relay_mut);
        let relays = self.relays.iter_mut().chain(lanes).chain(&mut self.closing);
        relays.for_each(|relay| relay.handle_timeout(now));
        self.advance_streams(now);
        self.settle(now);
    }

    /// What is to be done next; ask until `None`.
    pub fn poll_output(&mut self) -> Option<GathererOutput> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let done = match self.done {
            Done::Gathering { until } => Some(until),
            Done::Idle | Done::Told => None,
        };
        let probes = self.probes.iter().filter_map(Probe::poll_timeout);
        let relays = self.relays.iter().chain(&self.closing).filter_map(Relay::poll_timeout);
        let lanes = self.lane_relays.iter().filter_map(LaneRelay::poll_timeout);
        probes.chain(relays).chain(lanes).chain(done).chain(self.streams.due()).min()
    }

    fn dispatch(&mut self, now: Instant, input: Datagram<'_>) -> Result<Gathered, Refused> {
        let mut refused = Refused::Stranger;
        for probe in &mut self.probes {
            match probe.handle_input(now, input) {
                Ok(()) => return Ok(Gathered::Nothing),
                Err(error) => refused = refused.max(error),
            }
        }
        let lanes = self.lane_relays.iter_mut().map(LaneRelay::relay_mut);
        for relay in self.relays.iter_mut().chain(lanes).chain(&mut self.closing) {
            match relay.handle_input(now, input) {
                Ok(gathered) => return Ok(gathered),
                Err(error) => refused = refused.max(error),
            }
        }
        Err(refused)
    }

    /// Brings clients in line with addresses and servers, and starts the clock.
    fn restart(&mut self, now: Instant) {
        self.restart_probes(now);
        self.restart_relays(now);
        self.restart_streams(now);
        if !self.hosts.is_empty() {
            self.done = Done::Gathering { until: now + GATHERING_TIME_MAX };
        }
        self.settle(now);
    }

    /// Takes what the clients put out.
    fn settle(&mut self, now: Instant) {
        self.drain_probes(now);
        self.advance_lane_relays(now);
        self.drain_relays(now);
        self.drain_lane_relays();
        if let Done::Gathering { until } = self.done {
            let all_known = self.probes.iter().all(Probe::is_settled)
                && self.relays.iter().all(Relay::is_settled);
            if all_known || now >= until {
                self.done = Done::Told;
                self.outputs.push_back(GathererOutput::Done);
            }
        }
    }

    /// Tells of a candidate, unless it is known.
    fn announce(&mut self, candidate: Candidate) {
        let is_same =
            |known: &&Candidate| (known.address, known.base) == (candidate.address, candidate.base);
        match self.candidates.iter().find(is_same) {
            None => {
                self.candidates.push(candidate.clone());
                self.outputs.push_back(GathererOutput::Candidate(candidate));
            }
            Some(known) if known.foundation == candidate.foundation => {}
            Some(_) if self.witnesses.contains(&candidate) => {}
            Some(_) => {
                self.witnesses.push(candidate.clone());
                self.outputs.push_back(GathererOutput::Witness(candidate));
            }
        }
    }

    /// `host` is where it was gathered from; the base of a relayed candidate is itself.
    fn candidate(
        &self,
        kind: CandidateKind,
        address: SocketAddr,
        host: SocketAddr,
        related: Option<SocketAddr>,
        server: Option<IpAddr>,
    ) -> Candidate {
        let base = if kind == CandidateKind::Relayed { address } else { host };
        let order = self.hosts.iter().position(|known| *known == host).unwrap_or(HOSTS_MAX);
        // IPv6 first (RFC 8421 section 4): no NAT in between, more often than not.
        let best = if address.is_ipv6() { u16::MAX } else { u16::MAX >> 1 };
        Candidate {
            component: 1,
            kind,
            address,
            base,
            related,
            priority: priority(kind, best - order as u16, 1),
            foundation: foundation(kind, host.ip(), server),
        }
    }
}

/// Addresses that mean something to others, and from which one can send.
fn is_usable_host(address: &SocketAddr) -> bool {
    let is_link_local = match address.ip() {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
    };
    let ip = address.ip();
    address.port() != 0 && !(is_link_local || ip.is_unspecified() || ip.is_multicast())
}
