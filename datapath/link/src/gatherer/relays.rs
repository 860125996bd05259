//! Relayed addresses: one TURN client per server, and what travels through it.

use super::reflexive::refused;
use super::*;
use ipop_stun::turn::{
    Credential, Received, RelayError, TurnClient, TurnConfig, TurnError, TurnOutput,
};
use ipop_stun::{ChannelNumber, Input};

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
    /// Our address there that was announced last.
    relayed: Option<SocketAddr>,
    /// Peers whose channels nobody uses any more, the longest unused first.
    unused: VecDeque<SocketAddr>,
    is_settled: bool,
    is_closed: bool,
}

impl Relay {
    pub fn server(&self) -> SocketAddr {
        self.server.address
    }

    pub fn is_settled(&self) -> bool {
        self.is_settled
    }

    pub fn handle_input(&mut self, now: Instant, input: Datagram<'_>) -> Result<Gathered, Refused> {
        if input.local != self.host {
            return Err(Refused::Stranger);
        }
        let relayed = self.client.relayed();
        let input = Input { remote: input.remote, data: input.data };
        match (self.client.handle_input(now, input).map_err(refused)?, relayed) {
            (Received::Data { peer, range }, Some(local)) => {
                Ok(Gathered::Relayed { local, remote: peer, range })
            }
            _ => Ok(Gathered::Nothing),
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
        self.relays.iter().any(|relay| relay.client.relayed() == Some(local))
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
        let result = self.relay_of(relayed)?.client.relay(now, peer, data);
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
        let relay = self.relay_of(relayed)?;
        relay.unused.retain(|unused| *unused != peer);
        let result = relay.client.bind(now, peer);
        self.settle(now);
        result
    }

    /// The channel to a peer has no user any more. It is kept for a while.
    pub fn release(&mut self, now: Instant, relayed: SocketAddr, peer: SocketAddr) {
        let Ok(relay) = self.relay_of(relayed) else { return };
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
        let relay = self.relays.iter().find(|relay| relay.client.relayed() == Some(relayed))?;
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
        let channel = ChannelNumber::new(channel)?;
        let mut relays = self.relays.iter().filter(|relay| relay.server() == server);
        relays.find_map(|relay| Some((relay.client.relayed()?, relay.client.peer_of(channel)?)))
    }

    fn relay_of(&mut self, relayed: SocketAddr) -> Result<&mut Relay, RelayError> {
        let mut relays = self.relays.iter_mut();
        relays.find(|relay| relay.client.relayed() == Some(relayed)).ok_or(RelayError::NotAllocated)
    }

    pub(super) fn restart_relays(&mut self, now: Instant) {
        let (kept, gone): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.relays).into_iter().partition(|relay| {
                self.turn.contains(&relay.server) && self.hosts.contains(&relay.host)
            });
        self.relays = kept;
        for mut relay in gone {
            if let Some(relayed) = relay.client.relayed() {
                self.candidates.retain(|candidate| candidate.address != relayed);
            }
            // From an address that is gone nothing can be given back.
            if self.hosts.contains(&relay.host) {
                relay.client.close(now);
                self.closing.push(relay);
            }
        }
        for server in self.turn.clone() {
            let mut hosts = self.hosts.iter();
            let host = hosts.find(|host| host.is_ipv4() == server.address.is_ipv4()).copied();
            let exists = self.relays.iter().any(|relay| relay.server == server);
            if let (Some(host), false) = (host, exists) {
                let relay = self.new_relay(now, server, host);
                self.relays.extend(relay);
            }
        }
    }

    fn new_relay(&mut self, now: Instant, server: TurnServer, host: SocketAddr) -> Option<Relay> {
        match Credential::new(&server.username, &server.password) {
            Ok(credential) => {
                let retransmission = RETRANSMISSION;
                let config =
                    TurnConfig { retransmission, ..TurnConfig::new(server.address, credential) };
                let client = TurnClient::new(config, self.random.block(), now);
                Some(Relay {
                    server,
                    host,
                    client,
                    relayed: None,
                    unused: VecDeque::new(),
                    is_settled: false,
                    is_closed: false,
                })
            }
            Err(error) => {
                let text = format!("TURN: the user name or password cannot be used: {error}");
                let address = server.address;
                self.outputs.push_back(GathererOutput::ServerFailed { address, text });
                None
            }
        }
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
        let (host, server) = (relay.host, relay.server());
        match output {
            TurnOutput::Transmit { to: remote, data } => {
                self.outputs.push_back(GathererOutput::Transmit { local: host, remote, data });
            }
            TurnOutput::Allocated { relayed, mapped } => {
                self.withdraw(at);
                self.on_allocated(at, relayed, mapped);
            }
            TurnOutput::ChannelBound { peer, .. } | TurnOutput::ChannelLost { peer } => {
                if let Some(relayed) = relay.client.relayed() {
                    self.outputs.push_back(GathererOutput::ChannelChanged { relayed, peer });
                }
            }
            TurnOutput::Lost(error) => {
                self.withdraw(at);
                self.report(server, &error);
            }
            TurnOutput::Failed { error, .. } => self.on_failed(now, at, error),
            // A pair that the server refuses fails by itself.
            TurnOutput::Refused { .. } | TurnOutput::Closed => {}
        }
    }

    fn on_allocated(&mut self, at: usize, relayed: SocketAddr, mapped: Option<SocketAddr>) {
        let relay = &mut self.relays[at];
        relay.is_settled = true;
        relay.relayed = Some(relayed);
        let (host, server) = (relay.host, relay.server());
        // A TURN server is a STUN server too, where no other was named.
        if let Some(mapped) = mapped
            && !self.probes.iter().any(|probe| probe.server().is_ipv4() == server.is_ipv4())
        {
            self.announce_reflexive(host, mapped, server);
        }
        let kind = CandidateKind::Relayed;
        let related = mapped.or(Some(host));
        self.announce(self.candidate(kind, relayed, host, related, Some(server.ip())));
    }

    /// The relayed address is not ours any more.
    fn withdraw(&mut self, at: usize) {
        if let Some(relayed) = self.relays[at].relayed.take() {
            self.candidates.retain(|candidate| candidate.base != relayed);
        }
    }

    fn on_failed(&mut self, now: Instant, at: usize, error: TurnError) {
        let relay = &mut self.relays[at];
        let was_settled = std::mem::replace(&mut relay.is_settled, true);
        let server = relay.server();
        // Silence may be the fault of the interface: try the next one of the family, once around.
        if error == TurnError::Timeout && !was_settled {
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
    }

    fn report(&mut self, address: SocketAddr, error: &TurnError) {
        let text = match error {
            TurnError::Timeout => "no answer to TURN: unreachable, or UDP is blocked".to_owned(),
            other => format!("TURN: {other}"),
        };
        self.outputs.push_back(GathererOutput::ServerFailed { address, text });
    }
}
