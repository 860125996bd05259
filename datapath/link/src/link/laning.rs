//! The lanes besides the first: pinged under their own keys, on paths of their own.

use super::*;
use crate::lanes::LaneOutput;
use ipop_ice::CandidateKind;

impl Link {
    /// Takes what came in on a lane other than the first, under that lane's keys.
    pub(super) fn on_lane_control(
        &mut self,
        now: Instant,
        input: ControlInput<'_>,
        control: &Control,
    ) {
        let ControlInput { index, lane, remote, .. } = input;
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
            Control::Bye(_) | Control::Rehandshake | Control::Lanes(_) | Control::Words(_) => {}
        }
    }

    /// Pings of lanes that are due.
    pub(super) fn advance_lanes(&mut self, now: Instant) {
        if self.active.is_some() && self.agent.state() == IceState::Connected {
            let random = &mut self.random;
            self.lanes.handle_timeout(now, || random.number());
        }
    }

    /// The lanes follow the pair of the first one, if that is direct and no matter of luck: a
    /// socket of its own has no siblings.
    pub(super) fn lead_lanes(&mut self, now: Instant) {
        let has_siblings = |pair: &Selected| pair.local_kind != CandidateKind::PeerReflexive;
        let pair = self.selected.filter(Selected::is_direct).filter(has_siblings);
        self.lanes.follow(now, pair.map(|pair| (pair.local, pair.remote)));
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
            (_, None) => {}
        }
        true
    }
}
