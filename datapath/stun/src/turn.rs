//! One allocation at one TURN server (RFC 8656): a second address, for peers that no direct path
//! reaches.
//!
//! ```text
//!   Idle --> Allocating --> Active --> Releasing --> Ended
//!    ^        |   |  ^         |
//!    +- later +   |  +- lost --+
//!                 +--> Dead
//! ```
//!
//! The client allocates at once, answers the server's challenges, refreshes the allocation, its
//! permissions and its channels, and keeps the NAT's mapping to the server open. An allocation
//! that is lost (the server restarted, the NAT gave us another address) is asked for anew, with
//! all that is still wanted in it. Errors that time may heal are retried, ever more slowly; the
//! others end the client.
//!
//! Relayed addresses of both families are asked for in one request. A server that does not know of
//! that gives one of IPv4; one that refuses it is asked again for less.
//!
//! A server may name another (300, Try Alternate): it is followed a few times, and left for the
//! first one when it does not answer or forgets the allocation. Another credential for the same
//! server is used from the next allocation on; the one that stands keeps the old.
//!
//! Over TCP or TLS ([`TurnConfig::is_stream`]) somebody else keeps the connection and says
//! [`connected`](TurnClient::connected) and [`disconnected`](TurnClient::disconnected): without a
//! connection nothing is asked, and an allocation ends with it.
//!
//! Payload goes through [`relay`](TurnClient::relay) as an indication until
//! [`bind`](TurnClient::bind) has made a channel; from then on the fast path writes the header of
//! [`channel`](TurnClient::channel) in front of its data by itself.
//!
//! Files: this one has the verbs, `allocation` the answers and what they change, `peers` and
//! `lease` permissions and channels, `credential` the long-term mechanism.

mod allocation;
mod credential;
mod error;
mod lease;
mod peers;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

pub use self::credential::Credential;
use self::credential::LongTerm;
pub use self::error::{RelayError, TurnError};
use self::peers::{Ask, Change, Peers};
use crate::channel::{CHANNEL_HEADER_LEN, ChannelData, ChannelNumber};
use crate::message::{Attribute, Builder, Class, Family, Message, Method};
use crate::random::Random;
use crate::transaction::{Due, Retransmission, Transaction};
use crate::{Dropped, Input};

/// Outputs that may wait before [`TurnClient::relay`] refuses more.
const OUTPUTS_MAX: usize = 4096;
/// Servers that are followed from one to the next.
const REDIRECTIONS_MAX: u32 = 3;

/// What a [`TurnClient`] is told once.
#[derive(Debug, Clone)]
pub struct TurnConfig {
    /// The server; everything is accepted from this address alone, or from the one that it names
    /// instead.
    pub server: SocketAddr,
    /// Whether a connection leads there, which somebody else keeps.
    pub is_stream: bool,
    /// Who we are there.
    pub credential: Credential,
    /// Families of the relayed addresses.
    pub families: Families,
    /// How requests are repeated.
    pub retransmission: Retransmission,
    /// From one question that keeps the NAT's mapping open to the next.
    pub keepalive: Duration,
    /// From one refresh to the next, unless the allocation's lifetime asks for an earlier one.
    /// Far below the usual ten minutes, because it is how a restarted server is noticed.
    pub refresh: Duration,
}

impl TurnConfig {
    /// Both families, standard schedule, keepalive of 20 s, refresh every two minutes.
    pub fn new(server: SocketAddr, credential: Credential) -> Self {
        Self {
            server,
            is_stream: false,
            credential,
            families: Families::Both,
            retransmission: Retransmission::STANDARD,
            keepalive: Duration::from_secs(20),
            refresh: Duration::from_secs(120),
        }
    }
}

/// Which relayed addresses an allocation shall have (RFC 8656 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// One of each family, as far as the server has them; what older servers understand, where they
    /// refuse that.
    Both,
    /// One, of this family.
    Only(Family),
    /// One, of a family that the server chooses, IPv4 mostly.
    Unspecified,
}

/// What a [`TurnClient`] wants done or known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TurnOutput {
    /// Send this datagram from the client's socket.
    Transmit {
        /// The server.
        to: SocketAddr,
        /// The whole datagram.
        data: Vec<u8>,
    },
    /// There is an allocation.
    Allocated {
        /// Our addresses at the server, for peers: one, or one of each family.
        relayed: Vec<SocketAddr>,
        /// Where the server sees us, if it says so.
        mapped: Option<SocketAddr>,
    },
    /// Data to this peer can travel in this channel.
    ChannelBound {
        /// The peer.
        peer: SocketAddr,
        /// Its channel.
        channel: ChannelNumber,
    },
    /// The channel is no longer bound; [`TurnClient::relay`] still works.
    ChannelLost {
        /// The peer.
        peer: SocketAddr,
    },
    /// The server refuses to relay to this address, for a minute at least.
    Refused {
        /// The peer's address.
        peer: IpAddr,
        /// Why.
        error: TurnError,
    },
    /// The relayed addresses are no longer ours. New ones are being asked for.
    Lost(TurnError),
    /// Over a stream: the server wants to be asked at this address instead. Connect there;
    /// [`TurnClient::disconnected`] and [`TurnClient::connected`] follow.
    Elsewhere(SocketAddr),
    /// There is no allocation. Told once for the same reason in a row.
    Failed {
        /// Why.
        error: TurnError,
        /// When it is tried again; `None`: never.
        retry_at: Option<Instant>,
    },
    /// The allocation was given back. The last output.
    Closed,
}

/// What came in for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// Nothing; the client dealt with it.
    Nothing,
    /// A peer's payload.
    Data {
        /// The peer.
        peer: SocketAddr,
        /// Where in the datagram it stands.
        range: Range<usize>,
    },
}

/// What a request is for: the name of its timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Get an allocation.
    Allocate,
    /// End an allocation of ours that is in the way: of a former life, or one whose answer was
    /// lost at a server that takes the repeated request for another.
    Clear,
    /// Keep the allocation.
    Refresh,
    /// Give the allocation back.
    Release,
    /// Keep the NAT's mapping and see whether it is still the same.
    Keepalive,
    /// Get or keep a permission or a channel.
    Peer(Ask),
}

/// A request under way.
#[derive(Debug)]
struct Request {
    purpose: Purpose,
    method: Method,
    /// Whether it carries our credential, so that its answer must prove itself.
    signed: bool,
    /// How many challenges it has answered.
    challenges: u32,
    transaction: Transaction,
}

/// An allocation that stands.
#[derive(Debug)]
struct Allocation {
    /// One, or one of each family.
    relayed: Vec<SocketAddr>,
    mapped: Option<SocketAddr>,
    /// When the server forgets it.
    expires: Instant,
    /// The next refresh; `None` while one is under way.
    refresh_at: Option<Instant>,
    /// The next keepalive.
    keepalive_at: Instant,
}

#[derive(Debug)]
enum State {
    /// Waits for a connection.
    Unconnected,
    /// Tries at this time.
    Idle { at: Instant },
    /// Asks; `clears`: how often something in the way was ended.
    Allocating { clears: u32 },
    /// Relays.
    Active(Allocation),
    /// Gives back.
    Releasing,
    /// Failed for good.
    Dead,
    /// Is over.
    Ended,
}

/// See the [module](self).
#[derive(Debug)]
pub struct TurnClient {
    config: TurnConfig,
    /// Where requests go: the configured server, or one that it named.
    server: SocketAddr,
    /// What is asked for: as configured, or less, where the server refuses that.
    families: Families,
    /// How often another server was named since there was an allocation.
    redirections: u32,
    random: Random,
    auth: LongTerm,
    state: State,
    requests: Vec<Request>,
    peers: Peers,
    /// Failures in a row.
    failures: u32,
    /// The last failure that was told.
    told: Option<TurnError>,
    outputs: VecDeque<TurnOutput>,
}

impl TurnClient {
    /// Starts allocating at `now`, or with the connection. `seed`: 32 secret random bytes.
    ///
    /// A server knows one allocation per five-tuple: a second client for the same server on the
    /// same socket would end the allocation of the first.
    pub fn new(config: TurnConfig, seed: [u8; 32], now: Instant) -> Self {
        let auth = LongTerm::new(config.credential.clone());
        let state = if config.is_stream { State::Unconnected } else { State::Idle { at: now } };
        let mut client = Self {
            server: config.server,
            families: config.families,
            redirections: 0,
            config,
            random: Random::new(seed),
            auth,
            state,
            requests: Vec::new(),
            peers: Peers::new(),
            failures: 0,
            told: None,
            outputs: VecDeque::new(),
        };
        client.handle_timeout(now);
        client
    }

    /// The server.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// The connection to the server stands.
    pub fn connected(&mut self, now: Instant) {
        if matches!(self.state, State::Unconnected) {
            self.allocate(now, 0);
        }
    }

    /// The connection is gone, and the allocation with it.
    pub fn disconnected(&mut self, now: Instant) {
        if matches!(self.state, State::Dead | State::Ended | State::Unconnected) {
            return;
        }
        self.requests.clear();
        self.auth = LongTerm::new(self.config.credential.clone());
        match std::mem::replace(&mut self.state, State::Unconnected) {
            State::Active(_) => {
                let changes = self.peers.restart(now);
                self.tell(changes);
                self.outputs.push_back(TurnOutput::Lost(TurnError::Disconnected));
            }
            State::Releasing => self.end(),
            _ => {}
        }
    }

    /// Who we are from now on. An allocation that stands belongs to who asked for it, and is kept
    /// up under the old name for as long as the server lets it.
    pub fn set_credential(&mut self, now: Instant, credential: Credential) {
        if self.config.credential == credential {
            return;
        }
        self.config.credential = credential;
        match self.state {
            State::Active(_) | State::Releasing | State::Ended => {}
            State::Unconnected => self.auth = LongTerm::new(self.config.credential.clone()),
            State::Dead | State::Idle { .. } | State::Allocating { .. } => {
                self.requests.clear();
                self.auth = LongTerm::new(self.config.credential.clone());
                self.allocate(now, 0);
            }
        }
    }

    /// Our addresses at the server: none, one, or one of each family.
    pub fn relayed(&self) -> &[SocketAddr] {
        match &self.state {
            State::Active(allocation) => &allocation.relayed,
            _ => &[],
        }
    }

    /// Our address at the server that `peer` is reached from.
    pub fn relayed_to(&self, peer: SocketAddr) -> Option<SocketAddr> {
        let is_of_family = |relayed: &&SocketAddr| relayed.is_ipv4() == peer.is_ipv4();
        self.relayed().iter().find(is_of_family).copied()
    }

    /// The bound channel to `peer`: put [`ChannelNumber::header`] in front of the data and send
    /// it to the [`server`](Self::server).
    pub fn channel(&self, peer: SocketAddr) -> Option<ChannelNumber> {
        self.peers.channel(peer)
    }

    /// The peer that a channel leads to.
    pub fn peer_of(&self, channel: ChannelNumber) -> Option<SocketAddr> {
        self.peers.peer(channel)
    }

    /// Takes a datagram of the socket.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) -> Result<Received, Dropped> {
        if input.remote != self.server {
            return Err(Dropped::Stranger);
        }
        if matches!(input.data.first(), Some(0x40..=0x4f)) {
            return self.on_channel_data(input.data);
        }
        let message = Message::parse(input.data)?;
        match (message.class(), message.method()) {
            (Class::Indication, Method::Data) => self.on_data(&message),
            (Class::Success | Class::Error, _) => {
                self.on_response(now, &message).map(|()| Received::Nothing)
            }
            _ => Err(Dropped::Unexpected),
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let State::Idle { at } = self.state
            && at <= now
        {
            self.allocate(now, 0);
        }
        self.advance_requests(now);
        self.advance_allocation(now);
        self.advance_peers(now);
    }

    /// The next thing to do or to know.
    pub fn poll_output(&mut self) -> Option<TurnOutput> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let requests = self.requests.iter().map(|request| request.transaction.next()).min();
        let state = match &self.state {
            State::Idle { at } => Some(*at),
            State::Active(allocation) => [
                Some(allocation.expires),
                Some(allocation.keepalive_at),
                allocation.refresh_at,
                self.peers.next(),
            ]
            .into_iter()
            .flatten()
            .min(),
            State::Unconnected
            | State::Allocating { .. }
            | State::Releasing
            | State::Dead
            | State::Ended => None,
        };
        requests.into_iter().chain(state).min()
    }

    /// Sends `payload` to `peer` through the server. The first call for an address also asks for
    /// a permission, ahead of the payload; servers take them in that order, networks mostly.
    pub fn relay(
        &mut self,
        now: Instant,
        peer: SocketAddr,
        payload: &[u8],
    ) -> Result<(), RelayError> {
        self.check_peer(peer)?;
        self.peers.permit(now, peer.ip())?;
        if self.outputs.len() >= OUTPUTS_MAX {
            return Err(RelayError::Full);
        }
        self.advance_peers(now);
        let data = match self.peers.channel(peer) {
            Some(channel) => in_channel(channel, payload)?,
            None => self.indication(peer, payload)?,
        };
        self.transmit(data);
        Ok(())
    }

    /// Asks for a permission for `peer`'s address, ahead of anything that is sent there.
    pub fn permit(&mut self, now: Instant, peer: SocketAddr) -> Result<(), RelayError> {
        self.check_peer(peer)?;
        self.peers.permit(now, peer.ip())?;
        self.advance_peers(now);
        Ok(())
    }

    /// Asks for a channel to `peer` and keeps it until [`forget`](Self::forget).
    pub fn bind(&mut self, now: Instant, peer: SocketAddr) -> Result<(), RelayError> {
        self.check_peer(peer)?;
        self.peers.bind(now, peer)?;
        self.advance_peers(now);
        Ok(())
    }

    /// No longer keeps the channel to `peer`; its permission runs out when nothing uses it.
    pub fn forget(&mut self, now: Instant, peer: SocketAddr) {
        if self.peers.forget(now, peer) {
            self.outputs.push_back(TurnOutput::ChannelLost { peer });
        }
    }

    /// Asks the server now whether the allocation still stands: for a caller whose relayed paths
    /// went silent.
    pub fn probe(&mut self, now: Instant) {
        if let State::Active(allocation) = &mut self.state
            && let Some(at) = &mut allocation.refresh_at
        {
            *at = now;
            self.advance_allocation(now);
        }
    }

    /// Gives the allocation back; [`TurnOutput::Closed`] follows, answered or not.
    pub fn close(&mut self, now: Instant) {
        let active = matches!(self.state, State::Active(_));
        self.requests.clear();
        if active {
            self.state = State::Releasing;
            self.start(now, Purpose::Release, 0);
        } else {
            self.end();
        }
    }

    fn check_peer(&self, peer: SocketAddr) -> Result<(), RelayError> {
        if self.relayed().is_empty() {
            return Err(RelayError::NotAllocated);
        }
        self.relayed_to(peer).map(drop).ok_or(RelayError::WrongFamily)
    }

    fn indication(&mut self, peer: SocketAddr, payload: &[u8]) -> Result<Vec<u8>, RelayError> {
        let id = self.random.transaction_id();
        Builder::new(Class::Indication, Method::Send, id)
            .with(Attribute::XorPeerAddress(peer))
            .with(Attribute::Data(payload.to_vec()))
            .build()
            .map_err(|_| RelayError::TooLong)
    }

    fn on_channel_data(&self, datagram: &[u8]) -> Result<Received, Dropped> {
        let ChannelData { number, range } = ChannelData::parse(datagram)?;
        let peer = self.peers.peer(number).ok_or(Dropped::Unexpected)?;
        Ok(Received::Data { peer, range })
    }

    fn on_data(&self, message: &Message<'_>) -> Result<Received, Dropped> {
        let (Some(peer), Some(range)) = (message.xor_peer_address(), message.data_range()) else {
            return Err(Dropped::Unexpected);
        };
        if !self.peers.expects(peer.ip()) || !message.unknown_required().is_empty() {
            return Err(Dropped::Unexpected);
        }
        Ok(Received::Data { peer, range })
    }

    fn advance_requests(&mut self, now: Instant) {
        let (mut sendings, mut silent) = (Vec::new(), Vec::new());
        self.requests.retain_mut(|request| match request.transaction.advance(now) {
            Due::Nothing => true,
            Due::Sending => {
                sendings.push(request.transaction.request().to_vec());
                true
            }
            Due::GivenUp => {
                silent.push(request.purpose);
                false
            }
        });
        for data in sendings {
            self.transmit(data);
        }
        for purpose in silent {
            self.on_failure(now, purpose, TurnError::Timeout);
        }
    }

    fn advance_allocation(&mut self, now: Instant) {
        let State::Active(allocation) = &mut self.state else { return };
        if allocation.expires <= now {
            self.lose(now, TurnError::Expired);
            return;
        }
        let refresh = allocation.refresh_at.is_some_and(|at| at <= now);
        if refresh {
            allocation.refresh_at = None;
        }
        let keepalive = allocation.keepalive_at <= now;
        if keepalive {
            allocation.keepalive_at = now + self.config.keepalive;
        }
        if refresh {
            self.start(now, Purpose::Refresh, 0);
        }
        if keepalive {
            self.start(now, Purpose::Keepalive, 0);
        }
    }

    fn advance_peers(&mut self, now: Instant) {
        if !matches!(self.state, State::Active(_)) {
            return;
        }
        let (mut asks, mut changes) = (Vec::new(), Vec::new());
        self.peers.advance(now, &mut asks, &mut changes);
        self.tell(changes);
        for ask in asks {
            self.start(now, Purpose::Peer(ask), 0);
        }
    }

    fn tell(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.outputs.extend(changes.into_iter().map(|change| match change {
            Change::Bound(peer, channel) => TurnOutput::ChannelBound { peer, channel },
            Change::Unbound(peer) => TurnOutput::ChannelLost { peer },
        }));
    }

    fn transmit(&mut self, data: Vec<u8>) {
        self.outputs.push_back(TurnOutput::Transmit { to: self.server, data });
    }
}

fn in_channel(channel: ChannelNumber, payload: &[u8]) -> Result<Vec<u8>, RelayError> {
    let length = u16::try_from(payload.len()).map_err(|_| RelayError::TooLong)?;
    let mut data = Vec::with_capacity(CHANNEL_HEADER_LEN + payload.len());
    data.extend_from_slice(&channel.header(length));
    data.extend_from_slice(payload);
    Ok(data)
}

#[cfg(test)]
mod tests;
