//! Relayed addresses: one TURN client per server, with an address of each family as far as the
//! server has them, and what travels through it.

use super::reflexive::refused;
use super::*;
use ipop_stun::turn::{
    Credential, Families, Received, RelayError, TurnClient, TurnConfig, TurnError, TurnOutput,
};
use ipop_stun::{ChannelNumber, Input, KeyError};

/// How questions to a TURN server over UDP are repeated: given up after six seconds and asked anew
/// after a pause, so that gaps grow slower than they would by doubling on. A server that was away
/// is missed for no longer than half the time that it was.
const OVER_UDP: Retransmission =
    Retransmission { first: Duration::from_millis(250), count: 5, last: 8 };

/// How questions on a connection are repeated, which may have had no room for one: once, and given
/// up after 12 s.
const ON_A_STREAM: Retransmission =
    Retransmission { first: Duration::from_secs(3), count: 2, last: 3 };

/// Channels without a user that a relay keeps. A server remembers a binding for ten minutes after
/// its last refresh: until then a peer that comes back is given the same channel, and what is
/// under way to us is understood.
const UNUSED_CHANNELS_MAX: usize = 128;

/// One allocation, or the wish for one.
pub(super) struct Relay {
    server: TurnServer,
    /// Our socket's address that it is asked from.
    host: SocketAddr,
    client: TurnClient,
    /// Our addresses there that were announced last.
    relayed: Vec<SocketAddr>,
    /// Peers whose channels nobody uses any more, the longest unused first.
    unused: VecDeque<SocketAddr>,
    /// When the server said something last.
    heard: Option<Instant>,
    /// Why the connection was lost last; empty since there was an allocation.
    lost_by: String,
    /// A connection was asked for.
    is_connecting: bool,
    is_settled: bool,
    is_closed: bool,
}

impl Relay {
    /// Where our datagrams for it go, and its own come from.
    pub fn server(&self) -> SocketAddr {
        self.client.server()
    }

    /// The server as people know it.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    pub fn is_of_bridge(&self, address: SocketAddr) -> bool {
        matches!(self.server.way, TurnWay::Stream { bridge, .. } if bridge == address)
    }

    /// Whether it relays, and over UDP.
    pub fn is_udp_relay(&self) -> bool {
        self.server.way == TurnWay::Udp && !self.relayed.is_empty()
    }

    /// When the server said something last.
    pub fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// Asks whether the allocation stands.
    pub fn probe(&mut self, now: Instant) {
        self.client.probe(now);
    }

    /// The bridge and the server to connect it to, when that is asked for first.
    pub fn want_connection(&mut self) -> Option<(SocketAddr, SocketAddr)> {
        let TurnWay::Stream { bridge, .. } = self.server.way else { return None };
        if std::mem::replace(&mut self.is_connecting, true) {
            return None;
        }
        self.is_settled = false;
        Some((bridge, self.server.address))
    }

    pub fn connected(&mut self, now: Instant) {
        self.client.connected(now);
    }

    /// Whether the reason is another one than last time.
    pub fn disconnected(&mut self, now: Instant, text: &str) -> bool {
        self.is_settled = true;
        self.client.disconnected(now);
        let is_news = !text.is_empty() && text != self.lost_by;
        text.clone_into(&mut self.lost_by);
        is_news
    }

    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Our socket's address that it is asked from.
    pub fn host(&self) -> SocketAddr {
        self.host
    }

    /// What is asked, who we are there, and our address towards it, if that is over UDP.
    pub fn over_udp(&self) -> Option<(SocketAddr, TurnServer, IpAddr)> {
        let is_udp = self.server.way == TurnWay::Udp;
        is_udp.then(|| (self.server(), self.server.clone(), self.host.ip()))
    }

    /// Whether it is this server that is asked, from this address of ours.
    pub fn is_asked(&self, server: SocketAddr, host: IpAddr) -> bool {
        self.server.address == server && self.host.ip() == host
    }

    /// Our address there that this one is reached from.
    pub fn relayed_to(&self, peer: SocketAddr) -> Option<SocketAddr> {
        self.client.relayed_to(peer)
    }

    /// Our address there and the peer that a channel is between.
    pub fn channel_pair(
        &self,
        server: SocketAddr,
        channel: u16,
    ) -> Option<(SocketAddr, SocketAddr)> {
        let channel = ChannelNumber::new(channel).filter(|_| self.server() == server)?;
        let peer = self.client.peer_of(channel)?;
        Some((self.client.relayed_to(peer)?, peer))
    }

    pub fn poll_output(&mut self) -> Option<TurnOutput> {
        self.client.poll_output()
    }

    /// Gives the allocation back.
    pub fn close(&mut self, now: Instant) {
        self.client.close(now);
    }

    /// Whether this is our address there.
    pub fn is_at(&self, relayed: SocketAddr) -> bool {
        self.client.relayed().contains(&relayed)
    }

    pub fn handle_input(&mut self, now: Instant, input: Datagram<'_>) -> Result<Gathered, Refused> {
        if input.local != self.host {
            return Err(Refused::Stranger);
        }
        let input = Input { remote: input.remote, data: input.data };
        let received = self.client.handle_input(now, input).map_err(refused)?;
        self.heard = Some(now);
        let Received::Data { peer: remote, range } = received else { return Ok(Gathered::Nothing) };
        match self.client.relayed_to(remote) {
            Some(local) => Ok(Gathered::Relayed { local, remote, range }),
            None => Ok(Gathered::Nothing),
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|at| now >= at) {
            self.client.handle_timeout(now);
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.client.poll_timeout()
    }
}

impl Gatherer {
    /// Whether this is one of our relayed addresses.
    #[must_use]
    pub fn is_relayed(&self, local: SocketAddr) -> bool {
        self.all_relays().any(|relay| relay.is_at(local))
    }

    /// Sends a datagram from our relayed address to a peer.
    ///
    /// # Errors
    /// [`RelayError`]: it was dropped.
    pub fn relay(
        &mut self,
        now: Instant,
        relayed: SocketAddr,
        peer: SocketAddr,
        data: &[u8],
    ) -> Result<(), RelayError> {
        let result = self.any_relay_of(relayed)?.client.relay(now, peer, data);
        self.settle(now);
        result
    }

    /// Lets a peer send to our relayed address before we have sent to it.
    ///
    /// # Errors
    /// [`RelayError`]: there will be no permission.
    pub fn permit(
        &mut self,
        now: Instant,
        relayed: SocketAddr,
        peer: SocketAddr,
    ) -> Result<(), RelayError> {
        let result = self.any_relay_of(relayed)?.client.permit(now, peer);
        self.settle(now);
        result
    }

    /// Asks for a channel from our relayed address to a peer, and keeps it.
    ///
    /// # Errors
    /// [`RelayError`]: there will be none.
    pub fn bind(
        &mut self,
        now: Instant,
        relayed: SocketAddr,
        peer: SocketAddr,
    ) -> Result<(), RelayError> {
        let relay = self.any_relay_of(relayed)?;
        relay.unused.retain(|unused| *unused != peer);
        let result = relay.client.bind(now, peer);
        self.settle(now);
        result
    }

    /// The channel to a peer has no user any more. It is kept for a while.
    pub fn release(&mut self, now: Instant, relayed: SocketAddr, peer: SocketAddr) {
        let Ok(relay) = self.any_relay_of(relayed) else { return };
        relay.unused.retain(|unused| *unused != peer);
        relay.unused.push_back(peer);
        if relay.unused.len() > UNUSED_CHANNELS_MAX
            && let Some(longest) = relay.unused.pop_front()
        {
            relay.client.forget(now, longest);
            self.settle(now);
        }
    }

    /// How workers reach the peer from our relayed address, once there is a channel.
    #[must_use]
    pub fn relay_path(&self, relayed: SocketAddr, peer: SocketAddr) -> Option<RelayPath> {
        let relay = self.all_relays().find(|relay| relay.is_at(relayed))?;
        let channel = relay.client.channel(peer)?.number();
        Some(RelayPath { local: relay.host, server: relay.server(), channel })
    }

    /// Our relayed address and the peer that a channel of this server is between.
    #[must_use]
    pub fn channel_pair(
        &self,
        server: SocketAddr,
        channel: u16,
    ) -> Option<(SocketAddr, SocketAddr)> {
        self.relays.iter().find_map(|relay| relay.channel_pair(server, channel))
    }

    pub(super) fn restart_relays(&mut self, now: Instant) {
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.relays).into_iter().partition(|relay| {
                let is_wanted = self.turn.iter().any(|server| server.is_same_place(&relay.server));
                is_wanted && (relay.server.way != TurnWay::Udp || self.hosts.contains(&relay.host))
            });
        self.relays = kept;
        self.renew_credentials(now);
        for mut relay in gone {
            let is_gone = |known: &Candidate| relay.client.relayed().contains(&known.address);
            self.candidates.retain(|candidate| !is_gone(candidate));
            // From an address that is gone nothing can be given back; a connection takes it along.
            if self.hosts.contains(&relay.host) {
                relay.client.close(now);
                self.closing.push(relay);
            }
        }
        for server in self.turn.clone() {
            let mut hosts = self.hosts.iter();
            let host = match server.way {
                TurnWay::Stream { local, .. } => Some(local),
                TurnWay::Udp => {
                    hosts.find(|host| host.is_ipv4() == server.address.is_ipv4()).copied()
                }
            };
            let exists = self.relays.iter().any(|relay| relay.server.is_same_place(&server));
            if let (Some(host), false) = (host, exists) {
                let relay = self.new_relay(now, server, host);
                self.relays.extend(relay);
            }
        }
    }

    /// Servers that were named once more, with another user name or password.
    fn renew_credentials(&mut self, now: Instant) {
        for relay in &mut self.relays {
            let mut named = self.turn.iter().filter(|server| server.is_same_place(&relay.server));
            let Some(server) = named.next().filter(|server| **server != relay.server) else {
                continue;
            };
            match Credential::new(&server.username, &server.password) {
                Ok(credential) => {
                    relay.client.set_credential(now, credential);
                    relay.server = server.clone();
                }
                Err(error) => self.outputs.push_back(unusable(relay.server.address, &error)),
            }
        }
    }

    fn new_relay(&mut self, now: Instant, server: TurnServer, host: SocketAddr) -> Option<Relay> {
        let retransmission = if server.way == TurnWay::Udp { OVER_UDP } else { ON_A_STREAM };
        self.make_relay(now, server, host, Families::Both, retransmission)
    }

    pub(super) fn make_relay(
        &mut self,
        now: Instant,
        server: TurnServer,
        host: SocketAddr,
        families: Families,
        retransmission: Retransmission,
    ) -> Option<Relay> {
        let credential = match Credential::new(&server.username, &server.password) {
            Ok(credential) => credential,
            Err(error) => {
                self.outputs.push_back(unusable(server.address, &error));
                return None;
            }
        };
        let (endpoint, is_stream) = match server.way {
            TurnWay::Udp => (server.address, false),
            TurnWay::Stream { bridge, .. } => (bridge, true),
        };
        let config = TurnConfig {
            is_stream,
            families,
            retransmission,
            ..TurnConfig::new(endpoint, credential)
        };
        let client = TurnClient::new(config, self.random.block(), now);
        Some(Relay {
            server,
            host,
            client,
            relayed: Vec::new(),
            unused: VecDeque::new(),
            heard: None,
            lost_by: String::new(),
            is_connecting: false,
            // Nothing is awaited of a connection that nobody wants yet.
            is_settled: is_stream,
            is_closed: false,
        })
    }

    pub(super) fn drain_relays(&mut self, now: Instant) {
        for at in 0..self.relays.len() {
            while let Some(output) = self.relays[at].client.poll_output() {
                self.on_relay(now, at, output);
            }
        }
        for relay in &mut self.closing {
            while let Some(output) = relay.client.poll_output() {
                match output {
                    TurnOutput::Transmit { to: remote, data } => {
                        let local = relay.host;
                        self.outputs.push_back(GathererOutput::Transmit { local, remote, data });
                    }
                    TurnOutput::Closed => relay.is_closed = true,
                    _ => {}
                }
            }
        }
        self.closing.retain(|relay| !relay.is_closed);
    }

    fn on_relay(&mut self, now: Instant, at: usize, output: TurnOutput) {
        let relay = &mut self.relays[at];
        let (host, server) = (relay.host, relay.address());
        match output {
            TurnOutput::Transmit { to: remote, data } => {
                self.outputs.push_back(GathererOutput::Transmit { local: host, remote, data });
            }
            TurnOutput::Allocated { relayed, mapped } => {
                self.withdraw(at);
                self.on_allocated(at, relayed, mapped);
            }
            TurnOutput::ChannelBound { peer, .. } | TurnOutput::ChannelLost { peer } => {
                if let Some(relayed) = relay.client.relayed_to(peer) {
                    self.outputs.push_back(GathererOutput::ChannelChanged { relayed, peer });
                }
            }
            TurnOutput::Lost(error) => {
                self.withdraw(at);
                // Who keeps the connection says why it is gone.
                if error != TurnError::Disconnected {
                    self.report(server, &error);
                }
                self.miss_udp_relays();
            }
            TurnOutput::Elsewhere(to) => {
                if let TurnWay::Stream { bridge, .. } = relay.server.way {
                    self.outputs.push_back(GathererOutput::Connect { bridge, to });
                }
            }
            TurnOutput::Failed { error, .. } => self.on_failed(now, at, error),
            // A pair that the server refuses fails by itself.
            TurnOutput::Refused { .. } | TurnOutput::Closed => {}
        }
    }

    fn on_allocated(&mut self, at: usize, relayed: Vec<SocketAddr>, mapped: Option<SocketAddr>) {
        let relay = &mut self.relays[at];
        relay.is_settled = true;
        relay.lost_by.clear();
        relay.relayed.clone_from(&relayed);
        let (host, server) = (relay.host, relay.address());
        let is_udp = relay.server.way == TurnWay::Udp;
        // A TURN server is a STUN server too, where no other was named.
        if let Some(mapped) = mapped.filter(|_| is_udp)
            && !self.probes.iter().any(|probe| probe.server().is_ipv4() == server.is_ipv4())
        {
            self.announce_reflexive(host, mapped, server);
        }
        let related = mapped.or(is_udp.then_some(host));
        for address in relayed {
            self.announce_relayed(at, address, related);
        }
    }

    fn announce_relayed(&mut self, at: usize, address: SocketAddr, related: Option<SocketAddr>) {
        let (host, server) = (self.relays[at].host, &self.relays[at].server);
        let handicap = server.handicap(address);
        // What we reach by one family and peers by the other is not frozen by the usual address.
        let crosses = address.is_ipv4() != server.address.is_ipv4();
        let base = if crosses { address.ip() } else { host.ip() };
        let kind = CandidateKind::Relayed;
        let ip = server.address.ip();
        let mut candidate = self.candidate(kind, address, host, related, Some(ip));
        candidate.foundation = foundation(kind, base, Some(ip));
        let preference = ((candidate.priority >> 8) & u32::from(u16::MAX)) as u16;
        candidate.priority = priority(kind, preference >> handicap, candidate.component);
        self.announce(candidate);
    }

    /// The relayed addresses are not ours any more.
    fn withdraw(&mut self, at: usize) {
        let relayed = std::mem::take(&mut self.relays[at].relayed);
        self.candidates.retain(|candidate| !relayed.contains(&candidate.base));
    }

    fn on_failed(&mut self, now: Instant, at: usize, error: TurnError) {
        let relay = &mut self.relays[at];
        let was_settled = std::mem::replace(&mut relay.is_settled, true);
        let server = relay.address();
        let is_udp = relay.server.way == TurnWay::Udp;
        // Silence may be the fault of the interface: try the next one of the family, once around.
        if error == TurnError::Timeout && !was_settled && is_udp {
            let host = relay.host;
            let mut later = self.hosts.iter().skip_while(|known| **known != host).skip(1);
            if let Some(next) = later.find(|next| next.is_ipv4() == host.is_ipv4()).copied() {
                let server = self.relays[at].server.clone();
                if let Some(relay) = self.new_relay(now, server, next) {
                    self.relays[at] = relay;
                }
                return;
            }
        }
        self.report(server, &error);
        self.miss_udp_relays();
    }

    fn report(&mut self, address: SocketAddr, error: &TurnError) {
        let text = match error {
            TurnError::Timeout => "no answer to TURN: unreachable, or UDP is blocked".to_owned(),
            other => format!("TURN: {other}"),
        };
        self.outputs.push_back(GathererOutput::ServerFailed { address, text });
    }
}

fn unusable(address: SocketAddr, error: &KeyError) -> GathererOutput {
    let text = format!("TURN: the user name or password cannot be used: {error}");
    GathererOutput::ServerFailed { address, text }
}
