//! The paths of lanes besides the first: as the workers are told them, and through relays.

use super::*;
use crate::gatherer::LaneWish;

impl Node {
    /// The path of a lane as the workers are told it. All lanes carry what the first one does.
    pub(super) fn lane_path(&self, at: usize, lane: u8) -> Option<Path> {
        let slot = self.slots.get(at)?;
        let first = slot.path;
        if lane == 0 {
            return first;
        }
        let (local, remote) = slot.lane_pair(lane)?;
        if !self.gatherer.is_relayed(local) {
            return Some(Path { local, remote, channel: None, ..first? });
        }
        let relay = self.gatherer.relay_path(local, remote)?;
        let channel = Some(relay.channel);
        Some(Path { local: relay.local, remote: relay.server, channel, ..first? })
    }

    /// A lane besides the first takes another path, in all sessions.
    pub(super) fn set_lane_path(
        &mut self,
        now: Instant,
        at: usize,
        lane: u8,
        pair: Option<(SocketAddr, SocketAddr)>,
    ) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let Some(place) = usize::from(lane).checked_sub(1) else { return };
        if slot.lane_pairs.len() <= place {
            slot.lane_pairs.resize(place + 1, None);
        }
        let before = std::mem::replace(&mut slot.lane_pairs[place], pair);
        if let Some((local, remote)) = before.filter(|_| before != pair) {
            self.gatherer.release(now, local, remote);
        }
        if let Some((local, remote)) = pair
            && self.gatherer.is_relayed(local)
        {
            // A lane without a channel has no path.
            let _ = self.gatherer.bind(now, local, remote);
        }
        self.publish_lane_path(at, lane);
    }

    pub(super) fn publish_lane_path(&mut self, at: usize, lane: u8) {
        let path = self.lane_path(at, lane);
        let Some(slot) = self.slots.get(at) else { return };
        for index in slot.installed.iter().copied() {
            self.outputs.push_back(Output::SetPath { index, lane, path });
        }
    }

    /// Through a relay only what is in a channel: a lane that has none yet gets one.
    pub(super) fn send_on_lane(
        &mut self,
        now: Instant,
        (index, lane): (LinkIndex, u8),
        (local, remote): (SocketAddr, SocketAddr),
        data: Vec<u8>,
    ) {
        let (local, remote, channel) = match self.gatherer.is_relayed(local) {
            false => (local, remote, None),
            true => match self.gatherer.relay_path(local, remote) {
                Some(path) => (path.local, path.server, Some(path.channel)),
                None => return self.open_lane_channel(now, local, remote),
            },
        };
        self.outputs.push_back(Output::SendOnLane { index, lane, local, remote, channel, data });
    }

    /// A channel for a lane to be tried in. One that proves the lane is kept.
    fn open_lane_channel(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) {
        if self.gatherer.bind(now, local, remote).is_ok() {
            self.gatherer.release(now, local, remote);
        }
    }

    pub(super) fn on_lane_channel_changed(
        &mut self,
        now: Instant,
        relayed: SocketAddr,
        peer: SocketAddr,
    ) {
        let Some(lane) = self.gatherer.lane_at(relayed) else { return };
        for at in self.slots.range() {
            if self.slots.get(at).and_then(|slot| slot.lane_pair(lane)) == Some((relayed, peer)) {
                self.publish_lane_path(at, lane);
            }
            if let Some(slot) = self.slots.get(at)
                && slot.link.lane_relays_wanted().is_some()
                && let Some(slot) = self.slots.touch(at)
            {
                slot.link.note_lane_channel(now, relayed);
            }
        }
    }

    /// Links want relayed addresses for their lanes, or do not any more.
    pub(super) fn wish_for_lanes(&mut self, now: Instant) {
        let mut wishes: Vec<_> = self.slots.iter().filter_map(wish_of).collect();
        wishes.sort();
        wishes.dedup();
        if wishes == self.lane_wishes {
            return;
        }
        self.gatherer.set_lane_wishes(now, &wishes, &self.config.lanes);
        for wish in std::mem::replace(&mut self.lane_wishes, wishes) {
            self.tell_lane_relays(now, wish.relayed);
        }
        for wish in self.lane_wishes.clone() {
            self.tell_lane_relays(now, wish.relayed);
        }
    }

    /// Tells links what relayed addresses there are for their lanes.
    pub(super) fn tell_lane_relays(&mut self, now: Instant, beside: SocketAddr) {
        for at in self.slots.range() {
            let Some(slot) = self.slots.get(at) else { continue };
            if slot.pair.is_none_or(|(local, ..)| local != beside) {
                continue;
            }
            let relays = wish_of(slot).map(|wish| self.gatherer.lane_relays(wish));
            if let Some(slot) = self.slots.touch(at) {
                slot.link.set_lane_relays(now, relays.unwrap_or_default());
            }
        }
    }

    /// A sealed datagram came to a lane's relayed address, but in no channel: the peer may be
    /// there.
    pub(super) fn heed_lane_hint(
        &mut self,
        now: Instant,
        lane: u8,
        pair: (SocketAddr, SocketAddr),
        data: &[u8],
    ) -> Result<(), Refused> {
        let header = Header::parse(data).map_err(|_| Refused::Malformed)?;
        let is_sealed = header.kind != Kind::Handshake && header.lane == lane;
        let at = Slots::of_index(header.receiver).filter(|_| is_sealed);
        let slot = at.and_then(|at| self.slots.touch(at)).ok_or(Refused::Unexpected)?;
        if slot.link.note_lane_hint(now, lane, pair) {
            self.open_lane_channel(now, pair.0, pair.1);
        }
        Ok(())
    }
}

fn wish_of(slot: &Slot) -> Option<LaneWish> {
    let (relayed, lanes) = slot.link.lane_relays_wanted()?;
    Some(LaneWish { relayed, lanes })
}
