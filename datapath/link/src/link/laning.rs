//! The lanes besides the first: pinged under their own keys, on paths of their own.

use super::*;
use crate::lanes::{LaneOutput, Lead};
use ipop_ice::CandidateKind;

impl Link {
    /// Takes what came in on a lane other than the first, under that lane's keys, from the peer's
    /// address as it is seen from our end of the lane.
    pub(super) fn on_lane_control(
        &mut self,
        now: Instant,
        (index, lane): (LinkIndex, u8),
        remote: SocketAddr,
        control: &Control,
    ) {
        let keys = [&self.active, &self.next].into_iter().flatten().map(|keys| keys.index);
        let mut known = keys.chain(self.retired.iter().map(|(index, _)| *index));
        if !known.any(|known| known == index) {
            return;
        }
        match control {
            Control::Ping(nonce) => {
                if let Some(local) = self.lanes.local(lane) {
                    let data = Control::Pong(*nonce).emit();
                    let answer = LinkOutput::SendOnLane { index, lane, local, remote, data };
                    self.outputs.push_back(answer);
                }
                self.lanes.on_ping(now, lane, remote);
            }
            Control::Pong(nonce) => self.lanes.on_pong(now, lane, *nonce),
            Control::Bye(_)
            | Control::Rehandshake
            | Control::Lanes(_)
            | Control::Relays(_)
            | Control::Words(_) => {}
        }
    }

    /// Whether there are keys, and a path that the lanes follow.
    pub(super) fn can_ping_lanes(&self) -> bool {
        self.active.is_some() && self.agent.state() == IceState::Connected
    }

    /// Pings of lanes that are due.
    pub(super) fn advance_lanes(&mut self, now: Instant) {
        if self.can_ping_lanes() {
            let random = &mut self.random;
            self.lanes.handle_timeout(now, || random.number());
        }
    }

    /// The lanes follow the pair of the first one, if that is no matter of luck: a socket of its
    /// own has no siblings.
    pub(super) fn lead_lanes(&mut self, now: Instant) {
        let has_siblings = |pair: &Selected| pair.local_kind != CandidateKind::PeerReflexive;
        let lead = self.selected.filter(has_siblings).map(|pair| Lead {
            local: pair.local,
            remote: pair.remote,
            is_relayed: pair.local_kind == CandidateKind::Relayed,
            is_peer_relayed: pair.remote_kind == CandidateKind::Relayed,
        });
        self.lanes.follow(now, lead);
    }

    /// Our address at the relay in use, if the other lanes want addresses there, and how many
    /// lanes those are.
    pub fn lane_relays_wanted(&self) -> Option<(SocketAddr, usize)> {
        let relayed = self.lanes.wish().filter(|_| self.failure.is_none())?;
        Some((relayed, self.lanes.count()))
    }

    /// The addresses that there are of those that [`Link::lane_relays_wanted`] asks for, from
    /// lane 1 on.
    pub fn set_lane_relays(&mut self, now: Instant, relays: Vec<Option<SocketAddr>>) {
        self.lanes.set_our_relays(now, relays);
        self.settle(now);
    }

    /// Something sealed came to our relayed address of a lane from where no channel leads. Whether
    /// a channel between the two is worth a try.
    pub fn note_lane_hint(&mut self, now: Instant, lane: u8, on: (SocketAddr, SocketAddr)) -> bool {
        let is_new = self.lanes.on_hint(now, lane, on);
        self.settle(now);
        is_new
    }

    /// A channel from our relayed address of a lane has been bound.
    pub fn note_lane_channel(&mut self, now: Instant, local: SocketAddr) {
        self.lanes.hurry(now, local);
        self.settle(now);
    }

    /// Takes what the lanes put out. True if there was something.
    pub(super) fn drain_lanes(&mut self, now: Instant) -> bool {
        let Some(output) = self.lanes.poll_output() else { return false };
        let index = self.active.as_ref().map(|active| active.index);
        match (output, index) {
            (LaneOutput::Path { lane, path }, _) => {
                self.recorder.record(now, Trace::Lane { lane, path });
                self.outputs.push_back(LinkOutput::LanePath { lane, path });
            }
            (LaneOutput::Ping { lane, local, remote, nonce }, Some(index)) => {
                let data = Control::Ping(nonce).emit();
                let ping = LinkOutput::SendOnLane { index, lane, local, remote, data };
                self.outputs.push_back(ping);
            }
            (LaneOutput::Tell, Some(index)) => {
                let data = Control::Lanes(self.lanes.ports().to_vec()).emit();
                self.outputs.push_back(LinkOutput::SendControl { index, data });
            }
            (LaneOutput::TellRelays, Some(index)) => {
                let data = Control::Relays(self.lanes.our_relays().to_vec()).emit();
                self.outputs.push_back(LinkOutput::SendControl { index, data });
            }
            (LaneOutput::Wish, _) => self.outputs.push_back(LinkOutput::LaneRelays),
            (_, None) => {}
        }
        true
    }
}
