//! Allocations for the lanes besides the first: at the server of a relayed address of ours, each
//! from the lane's own socket, so that the server knows them apart.
//!
//! They are no candidates: peers hear of them under the keys of a link that uses the first one.

use super::*;
use crate::lanes::LanePorts;
use ipop_stun::turn::{Families, RelayError, TurnOutput};
use ipop_stun::{Family, Retransmission};

/// How long an allocation that nobody wants any more stands: what is under way arrives, and peers
/// find out.
const LINGER: Duration = Duration::from_secs(15);

/// How questions are repeated. Nobody waits for the answers.
const PATIENT: Retransmission = Retransmission::STANDARD;

/// The wish for relayed addresses beside this one of ours, for so many further lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LaneWish {
    pub relayed: SocketAddr,
    pub lanes: usize,
}

/// One lane's allocation.
pub(super) struct LaneRelay {
    relay: Relay,
    /// The first lane's address at the same server.
    beside: SocketAddr,
    lane: u8,
    /// When it is given back, because nobody wants it any more.
    ends_at: Option<Instant>,
}

impl LaneRelay {
    fn address(&self) -> Option<SocketAddr> {
        self.relay.relayed_to(self.beside)
    }

    pub fn relay(&self) -> &Relay {
        &self.relay
    }

    pub fn relay_mut(&mut self) -> &mut Relay {
        &mut self.relay
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.relay.poll_timeout().into_iter().chain(self.ends_at).min()
    }
}

impl Gatherer {
    /// What links wish for now, all of them. `ports`: of lane 1 and those behind it.
    pub(crate) fn set_lane_wishes(
        &mut self,
        now: Instant,
        wishes: &[LaneWish],
        ports: &[LanePorts],
    ) {
        for lane in &mut self.lane_relays {
            let is_it = |wish: &&LaneWish| {
                wish.relayed == lane.beside && usize::from(lane.lane) <= wish.lanes
            };
            let is_wanted = wishes.iter().any(|wish| is_it(&wish));
            lane.ends_at = (!is_wanted).then(|| lane.ends_at.unwrap_or(now + LINGER));
        }
        for wish in wishes {
            for (ports, lane) in ports.iter().take(wish.lanes).zip(1..) {
                self.add_lane_relay(now, wish.relayed, lane, ports);
            }
        }
        self.settle(now);
    }

    /// The relayed addresses beside this one of ours, from lane 1 on.
    pub(crate) fn lane_relays(&self, wish: LaneWish) -> Vec<Option<SocketAddr>> {
        let address = |lane: usize| {
            let mut all = self.lane_relays.iter().filter(|known| known.ends_at.is_none());
            let is_it = |known: &&LaneRelay| {
                known.beside == wish.relayed && usize::from(known.lane) == lane
            };
            all.find(is_it)?.address()
        };
        (1..=wish.lanes).map(address).collect()
    }

    /// The lane that this relayed address of ours is for, if not the first.
    pub(crate) fn lane_at(&self, relayed: SocketAddr) -> Option<u8> {
        self.lane_relays.iter().find(|lane| lane.relay.is_at(relayed)).map(|lane| lane.lane)
    }

    /// Our relayed address and the peer that a channel of this server to a lane's socket is
    /// between.
    pub(crate) fn lane_channel_pair(
        &self,
        lane: u8,
        server: SocketAddr,
        channel: u16,
    ) -> Option<(SocketAddr, SocketAddr)> {
        let of_lane = self.lane_relays.iter().filter(|known| known.lane == lane);
        of_lane.map(|known| &known.relay).find_map(|relay| relay.channel_pair(server, channel))
    }

    /// A server knows one allocation of a socket: the first wish for one counts. Connections are
    /// not made for lanes, which would share what a stream is slow by.
    fn add_lane_relay(&mut self, now: Instant, beside: SocketAddr, lane: u8, ports: &LanePorts) {
        let Some(first) = self.relays.iter().find(|relay| relay.is_at(beside)) else { return };
        let Some((endpoint, mut server, ip)) = first.over_udp() else { return };
        let is_same = |known: &LaneRelay| known.lane == lane && known.relay.is_asked(endpoint, ip);
        if self.lane_relays.iter().any(is_same) {
            return;
        }
        let Some(port) = ports.of_family(&endpoint) else { return };
        server.address = endpoint;
        let family =
            if beside.is_ipv4() { Families::Unspecified } else { Families::Only(Family::V6) };
        let host = SocketAddr::new(ip, port);
        if let Some(relay) = self.make_relay(now, server, host, family, PATIENT) {
            self.lane_relays.push(LaneRelay { relay, beside, lane, ends_at: None });
        }
    }

    /// Closes what nobody wants any more, and what lost its first lane.
    pub(super) fn advance_lane_relays(&mut self, now: Instant) {
        let Self { relays, lane_relays, .. } = self;
        let has_ended = |lane: &LaneRelay| {
            lane.ends_at.is_some_and(|at| at <= now)
                || !relays.iter().any(|relay| relay.is_at(lane.beside))
        };
        let ended: Vec<_> = lane_relays.extract_if(.., |lane| has_ended(lane)).collect();
        for LaneRelay { mut relay, beside, .. } in ended {
            self.outputs.push_back(GathererOutput::LaneRelays { beside });
            if self.is_host_ip(relay.host().ip()) {
                relay.close(now);
                self.closing.push(relay);
            }
        }
    }

    pub(super) fn drain_lane_relays(&mut self) {
        for LaneRelay { relay, beside, .. } in &mut self.lane_relays {
            while let Some(output) = relay.poll_output() {
                let output = match output {
                    TurnOutput::Transmit { to: remote, data } => {
                        GathererOutput::Transmit { local: relay.host(), remote, data }
                    }
                    // A lane less is no failure.
                    TurnOutput::Allocated { .. } | TurnOutput::Lost(_) => {
                        GathererOutput::LaneRelays { beside: *beside }
                    }
                    TurnOutput::ChannelBound { peer, .. } | TurnOutput::ChannelLost { peer } => {
                        let Some(relayed) = relay.relayed_to(peer) else { continue };
                        GathererOutput::ChannelChanged { relayed, peer }
                    }
                    TurnOutput::Failed { .. }
                    | TurnOutput::Refused { .. }
                    | TurnOutput::Elsewhere(_)
                    | TurnOutput::Closed => continue,
                };
                self.outputs.push_back(output);
            }
        }
    }

    /// The allocation that an address of ours belongs to, of whichever lane.
    pub(super) fn any_relay_of(&mut self, relayed: SocketAddr) -> Result<&mut Relay, RelayError> {
        let lanes = self.lane_relays.iter_mut().map(LaneRelay::relay_mut);
        let mut all = self.relays.iter_mut().chain(lanes);
        all.find(|relay| relay.is_at(relayed)).ok_or(RelayError::NotAllocated)
    }
}
