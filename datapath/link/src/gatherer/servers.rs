//! TURN servers, and when those are connected to that take a connection.

use super::*;

/// How long a relay over UDP may take before connections are made.
const STREAMS_AFTER: Duration = Duration::from_millis(500);
/// The same where a relay is asked whether it is still there.
const DOUBT_TIME: Duration = Duration::from_secs(1);

/// A TURN server and who we are there.
#[derive(Clone, PartialEq, Eq)]
pub struct TurnServer {
    /// Where it is.
    pub address: SocketAddr,
    /// How datagrams get there.
    pub way: TurnWay,
    /// User name of the long-term credential.
    pub username: String,
    /// Its password.
    pub password: String,
}

/// How datagrams get to a TURN server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnWay {
    /// As they are, from one of our hosts' addresses.
    Udp,
    /// On a connection that somebody else keeps, the bridge: whatever comes to it from us goes to
    /// the server, and the other way round.
    Stream {
        /// The bridge's UDP address on this machine, of which no other server makes use.
        bridge: SocketAddr,
        /// Our address towards it.
        local: SocketAddr,
        /// TLS, not plain TCP.
        is_tls: bool,
    },
}

impl TurnServer {
    /// Whether it is the same server, whoever we are there.
    pub(super) fn is_same_place(&self, other: &Self) -> bool {
        (self.address, self.way) == (other.address, other.way)
    }

    /// What the local preference of a candidate relayed at this address is divided by, as a power
    /// of two: a relay over TCP delays what follows a loss, and TLS costs more (RFC 8445 section
    /// 5.1.2.2). An address of the other family than the server's is for peers of that family
    /// alone: where both ends have the one that we have, the usual address takes one relay, and
    /// two such addresses would take two.
    pub(super) fn handicap(&self, relayed: SocketAddr) -> u32 {
        let by_way = match self.way {
            TurnWay::Udp => 0,
            TurnWay::Stream { is_tls: false, .. } => 2,
            TurnWay::Stream { is_tls: true, .. } => 3,
        };
        // IPv6 begins with twice the preference of IPv4, and has to come behind it here.
        match (self.address.is_ipv4(), relayed.is_ipv4()) {
            (true, false) => by_way + 2,
            (false, true) => by_way + 1,
            _ => by_way,
        }
    }
}

/// Leaves the password out.
impl std::fmt::Debug for TurnServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TurnServer")
            .field("address", &self.address)
            .field("way", &self.way)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Whether servers over TCP and TLS are used.
pub(super) enum Streams {
    /// Not as long as UDP works.
    Standby,
    /// From then on, unless a relay over UDP has been heard of.
    After { at: Instant, since: Instant },
    /// Yes.
    Wanted,
}

impl Streams {
    pub fn due(&self) -> Option<Instant> {
        match self {
            Self::After { at, .. } => Some(*at),
            Self::Standby | Self::Wanted => None,
        }
    }
}

impl Gatherer {
    /// A link has gone silent: relays are asked whether they are still there. Where those over UDP
    /// do not answer, the others are connected to; a dead connection shows by what is sent on it.
    pub fn doubt_relays(&mut self, now: Instant) {
        if self.has_streams() && matches!(self.streams, Streams::Standby) {
            self.streams = Streams::After { at: now + DOUBT_TIME, since: now };
        }
        let lanes = self.lane_relays.iter_mut().map(LaneRelay::relay_mut);
        self.relays.iter_mut().chain(lanes).for_each(|relay| relay.probe(now));
        self.settle(now);
    }

    /// The connection of a bridge stands.
    pub fn stream_connected(&mut self, now: Instant, bridge: SocketAddr) {
        if let Some(relay) = self.relays.iter_mut().find(|relay| relay.is_of_bridge(bridge)) {
            relay.connected(now);
            self.settle(now);
        }
    }

    /// A bridge has no connection, or none any more; it tries again by itself. `text` says why, for
    /// a person, unless that was wanted.
    pub fn stream_lost(&mut self, now: Instant, bridge: SocketAddr, text: String) {
        if let Some(relay) = self.relays.iter_mut().find(|relay| relay.is_of_bridge(bridge)) {
            let is_news = relay.disconnected(now, &text);
            let address = relay.address();
            if is_news {
                self.outputs.push_back(GathererOutput::ServerFailed { address, text });
            }
            self.settle(now);
        }
    }

    pub(super) fn restart_streams(&mut self, now: Instant) {
        let over_udp = |server: &TurnServer| server.way == TurnWay::Udp;
        match self.streams {
            Streams::Wanted => self.connect_streams(),
            _ if !self.turn.iter().any(over_udp) && !self.turn.is_empty() => {
                self.connect_streams();
            }
            Streams::Standby if self.has_streams() && !self.has_udp_relay() => {
                self.streams = Streams::After { at: now + STREAMS_AFTER, since: now };
            }
            Streams::Standby | Streams::After { .. } => {}
        }
    }

    pub(super) fn advance_streams(&mut self, now: Instant) {
        if let Streams::After { at, since } = self.streams
            && at <= now
        {
            let is_there = |relay: &Relay| relay.is_udp_relay() && relay.heard() >= Some(since);
            self.streams = Streams::Standby;
            if !self.relays.iter().any(is_there) {
                self.connect_streams();
            }
        }
    }

    /// Without a relay over UDP there have to be others.
    pub(super) fn miss_udp_relays(&mut self) {
        if matches!(self.streams, Streams::Standby) && !self.has_udp_relay() {
            self.connect_streams();
        }
    }

    fn has_streams(&self) -> bool {
        self.turn.iter().any(|server| server.way != TurnWay::Udp)
    }

    fn has_udp_relay(&self) -> bool {
        self.relays.iter().any(Relay::is_udp_relay)
    }

    fn connect_streams(&mut self) {
        self.streams = Streams::Wanted;
        for relay in &mut self.relays {
            if let Some((bridge, to)) = relay.want_connection() {
                self.outputs.push_back(GathererOutput::Connect { bridge, to });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str, way: TurnWay) -> TurnServer {
        let (username, password) = ("u".to_owned(), "p".to_owned());
        TurnServer { address: address.parse().unwrap(), way, username, password }
    }

    /// The local preference of an address that a server lends.
    fn preference(server: &TurnServer, relayed: &str) -> u16 {
        let relayed: SocketAddr = relayed.parse().unwrap();
        let best = if relayed.is_ipv6() { u16::MAX } else { u16::MAX >> 1 };
        best >> server.handicap(relayed)
    }

    #[test]
    fn an_address_of_the_other_family_comes_behind_the_usual_one() {
        let (v4, v6) = ("198.51.100.1:50000", "[2001:db8::1]:50000");
        let local = "127.0.0.1:9".parse().unwrap();
        let stream = |is_tls| TurnWay::Stream { bridge: local, local, is_tls };
        for way in [TurnWay::Udp, stream(false), stream(true)] {
            let over_v4 = server("198.51.100.1:3478", way);
            assert!(preference(&over_v4, v4) > preference(&over_v4, v6), "{way:?}");
            let over_v6 = server("[2001:db8::1]:3478", way);
            assert!(preference(&over_v6, v6) > preference(&over_v6, v4), "{way:?}");
            assert_eq!(preference(&over_v4, v6), preference(&over_v6, v4), "{way:?}");
            // However the address is had, a connection's comes behind a datagram's.
            let by_udp = server("198.51.100.1:3478", TurnWay::Udp);
            assert!(way == TurnWay::Udp || preference(&by_udp, v6) > preference(&over_v4, v4));
        }
    }
}
