//! What links and gatherer put out becomes the node's outputs: relayed datagrams are wrapped,
//! pairs of candidates become paths of sockets.

use super::*;
use crate::control::Control;
use crate::link::RETIRED_TIME;
use ipop_crypto::Session;
use ipop_wire::SEAL_OVERHEAD;
use ipop_wire::channel::CHANNEL_PREFIX_LEN;

impl Node {
    /// Takes everything that gatherer and links have put out.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            let mut is_quiet = true;
            while let Some(output) = self.gatherer.poll_output() {
                is_quiet = false;
                self.on_gatherer(now, output);
            }
            while let Some(at) = self.slots.take_touched() {
                is_quiet = false;
                self.drain(now, at);
                self.slots.schedule(at);
            }
            if is_quiet {
                return;
            }
        }
    }

    fn drain(&mut self, now: Instant, at: usize) {
        while let Some(output) = self.slots.get_mut(at).and_then(|slot| slot.link.poll_output()) {
            self.on_link(now, at, output);
        }
        let Some(slot) = self.slots.get_mut(at) else { return };
        let (peer, session) = (slot.peer, slot.session);
        while let Some(trace) = slot.link.poll_trace() {
            self.outputs.push_back(Output::Trace { peer, session, trace });
        }
    }

    fn on_gatherer(&mut self, now: Instant, output: GathererOutput) {
        match output {
            GathererOutput::Transmit { local, remote, data } => {
                self.outputs.push_back(Output::Transmit { local, remote, data });
            }
            GathererOutput::Candidate(candidate) => {
                for at in self.slots.range() {
                    if let Some(slot) = self.slots.touch(at) {
                        slot.link.add_local(now, candidate.clone());
                    }
                }
                self.outputs.push_back(Output::Event(Event::LocalCandidate(candidate)));
            }
            GathererOutput::Witness(candidate) => {
                for at in self.slots.range() {
                    if let Some(slot) = self.slots.touch(at) {
                        slot.link.add_witness(&candidate);
                    }
                }
            }
            GathererOutput::Connect { bridge, to } => {
                self.outputs.push_back(Output::ConnectServer { bridge, to });
            }
            GathererOutput::Done => self.outputs.push_back(Output::Event(Event::GatheringDone)),
            GathererOutput::ServerFailed { address, text } => {
                self.outputs.push_back(Output::Event(Event::ServerFailed { address, text }));
            }
            GathererOutput::ChannelChanged { relayed, peer } => {
                self.on_channel_changed(now, relayed, peer);
            }
            GathererOutput::LaneRelays { beside } => self.tell_lane_relays(now, beside),
        }
    }

    fn on_channel_changed(&mut self, now: Instant, relayed: SocketAddr, peer: SocketAddr) {
        if self.gatherer.lane_at(relayed).is_some() {
            return self.on_lane_channel_changed(now, relayed, peer);
        }
        for at in self.slots.range() {
            let pair = self.slots.get(at).and_then(|slot| slot.pair);
            if pair.is_some_and(|(local, remote, _)| (local, remote) == (relayed, peer)) {
                self.publish_path(at);
                if let Some(slot) = self.slots.touch(at) {
                    slot.link.note_channel_changed(now);
                }
            }
        }
    }

    fn on_link(&mut self, now: Instant, at: usize, output: LinkOutput) {
        match output {
            LinkOutput::Transmit { local, remote, data } => {
                self.questions.note(at, &data);
                self.transmit(now, local, remote, data);
            }
            LinkOutput::Knock { local, remote, .. } if self.gatherer.is_relayed(local) => {
                // A relay without room for it refuses checks too.
                let _ = self.gatherer.permit(now, local, remote);
            }
            LinkOutput::Knock { local, remote, data } if self.gatherer.is_host(local) => {
                self.questions.note(at, &data);
                self.outputs.push_back(Output::Knock { local, remote, data });
            }
            LinkOutput::Open { base, remote, data } if self.gatherer.is_host(base) => {
                self.questions.note(at, &data);
                self.outputs.push_back(Output::Open { base, remote, data });
            }
            LinkOutput::Knock { .. } | LinkOutput::Open { .. } => {}
            LinkOutput::WantsTurn => self.queue_for_turn(now, at),
            LinkOutput::TurnIsOver => self.end_turn(now, at),
            LinkOutput::Install { index, session } => self.install(now, at, index, *session),
            LinkOutput::Selected(selected) => {
                let kind = if selected.is_direct() { PathKind::Direct } else { PathKind::Relayed };
                self.select(now, at, Some((selected.local, selected.remote, kind)));
            }
            LinkOutput::Begin(index) => self.begin(at, index),
            LinkOutput::Activate(index) => self.activate(now, at, index),
            LinkOutput::SendControl { index, data } => {
                self.outputs.push_back(Output::SendControl { index, data });
            }
            LinkOutput::Probe { index, nonce, datagram_len } => {
                self.probe(at, index, nonce, datagram_len);
            }
            LinkOutput::PathChanged => self.publish_path(at),
            LinkOutput::Remove(index) => {
                if let Some(slot) = self.slots.get_mut(at) {
                    slot.installed.retain(|installed| *installed != index);
                }
                self.outputs.push_back(Output::RemoveSession { index });
            }
            LinkOutput::SendOnLane { index, lane, local, remote, data } => {
                self.send_on_lane(now, (index, lane), (local, remote), data);
            }
            LinkOutput::LanePath { lane, path } => self.set_lane_path(now, at, lane, path),
            LinkOutput::LaneRelays => self.wish_for_lanes(now),
            LinkOutput::Words(words) => {
                if let Some(peer) = self.slots.get(at).map(|slot| slot.peer) {
                    self.outputs.push_back(Output::Event(Event::Words { peer, words }));
                }
            }
            LinkOutput::Changed => self.on_changed(now, at),
        }
    }

    /// A ping whose datagram has exactly this length on the path in use; without one none is sent.
    fn probe(&mut self, at: usize, index: LinkIndex, nonce: u64, datagram_len: u16) {
        let Some(path) = self.slots.get(at).and_then(|slot| slot.path) else { return };
        let prefix = if path.channel.is_some() { CHANNEL_PREFIX_LEN } else { 0 };
        let len = usize::from(datagram_len).saturating_sub(prefix + SEAL_OVERHEAD);
        let data = Control::emit_probe(nonce, len);
        self.outputs.push_back(Output::SendProbe { index, data });
    }

    /// What a relay refuses is lost, as on any network: checks and handshakes come again. So is
    /// what would have to leave from an address that is gone, of a host or a relay.
    fn transmit(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, data: Vec<u8>) {
        if self.gatherer.is_relayed(local) {
            let _ = self.gatherer.relay(now, local, remote, &data);
        } else if self.gatherer.is_host_ip(local.ip()) {
            self.outputs.push_back(Output::Transmit { local, remote, data });
        }
    }

    fn install(&mut self, now: Instant, at: usize, index: LinkIndex, mut session: Session) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.installed.push(index);
        let peer = slot.peer;
        let (peer_index, peer_mtu) = (session.peer_link_index(), session.peer_mtu());
        for lane in 0..session.lane_count() {
            let Some((sealer, opener)) = session.take_lane(lane, now) else { continue };
            let path = self.lane_path(at, lane);
            let lane =
                InstallLane { peer, index, peer_index, lane, sealer, opener, path, peer_mtu };
            self.outputs.push_back(Output::InstallLane(Box::new(lane)));
        }
    }

    /// Notes what ICE selected; a channel of a relay is asked for, the one before is given up.
    fn select(
        &mut self,
        now: Instant,
        at: usize,
        pair: Option<(SocketAddr, SocketAddr, PathKind)>,
    ) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let before = std::mem::replace(&mut slot.pair, pair);
        if let Some((local, remote, _)) = before {
            let is_used =
                |slot: &Slot| slot.pair.is_some_and(|(l, r, _)| (l, r) == (local, remote));
            if self.gatherer.is_relayed(local) && !self.slots.iter().any(is_used) {
                self.gatherer.release(now, local, remote);
            }
        }
        if let Some((local, remote, _)) = pair
            && self.gatherer.is_relayed(local)
        {
            // Until the channel is there the path before carries on, if there was one.
            let _ = self.gatherer.bind(now, local, remote);
        }
        self.publish_path(at);
        self.wish_for_lanes(now);
    }

    /// Tells the workers where to send, if that changed. A relayed pair has to have its channel
    /// first; until then, what there was carries on, unless it is another relay's channel that is
    /// gone.
    fn publish_path(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let has_channel = |(local, remote, _)| {
            !self.gatherer.is_relayed(local) || self.gatherer.relay_path(local, remote).is_some()
        };
        let stands = |path: Path| {
            path.channel.is_none_or(|n| self.gatherer.channel_pair(path.remote, n).is_some())
        };
        if slot.path.is_some_and(stands) && !slot.pair.is_none_or(has_channel) {
            return;
        }
        let path = slot.pair.and_then(|(local, remote, kind)| {
            let (local, remote, channel) = match self.gatherer.is_relayed(local) {
                false => (local, remote, None),
                true => {
                    let relay = self.gatherer.relay_path(local, remote)?;
                    (relay.local, relay.server, Some(relay.channel))
                }
            };
            let datagram_len = slot.link.datagram_len()?;
            let is_len_settled = slot.link.is_len_settled();
            let is_lossy = slot.link.is_lossy();
            Some(Path { local, remote, channel, kind, datagram_len, is_len_settled, is_lossy })
        });
        let before = std::mem::replace(&mut slot.path, path);
        if before == path {
            return;
        }
        let of_all = |path: Option<Path>| {
            path.map(|path| (path.datagram_len, path.is_len_settled, path.is_lossy))
        };
        let others = if of_all(before) == of_all(path) { 0 } else { slot.lane_pairs.len() };
        for lane in 0..=others {
            self.publish_lane_path(at, lane as u8);
        }
    }

    /// Keys that are still to be confirmed carry the peer's frames where nothing else does.
    fn begin(&mut self, at: usize, index: LinkIndex) {
        let Some(peer) = self.slots.get(at).map(|slot| slot.peer) else { return };
        let sessions = self.peers.get(&peer);
        if sessions.is_some_and(|sessions| sessions.current == at && sessions.retiring.is_none()) {
            self.outputs.push_back(Output::Activate { peer, index });
        }
    }

    /// Keys are confirmed: they carry the peer's frames, if their session is the one to do so. A
    /// session that this one replaces opens for a while what is under way.
    fn activate(&mut self, now: Instant, at: usize, index: LinkIndex) {
        let Some(peer) = self.slots.get(at).map(|slot| slot.peer) else { return };
        let Some(sessions) = self.peers.get(&peer).copied() else { return };
        let retiring = sessions.retiring.and_then(|at| self.slots.touch(at));
        if sessions.current == at {
            if let Some(slot) = retiring {
                slot.remove_at.get_or_insert(now + RETIRED_TIME);
            }
        } else if retiring.is_none_or(|slot| slot.remove_at.is_some()) {
            return;
        }
        self.outputs.push_back(Output::Activate { peer, index });
    }

    fn on_changed(&mut self, now: Instant, at: usize) {
        let Some(slot) = self.slots.get(at) else { return };
        let (peer, slot_state) = (slot.peer, slot.link.state());
        let has_failed = slot_state == LinkState::Failed;
        let told = slot.reported.map(|(state, _)| state);
        let is_back = (told, slot_state) == (Some(LinkState::Disconnected), LinkState::Up);
        if has_failed {
            self.end_turn(now, at);
            self.select(now, at, None);
        }
        if has_failed || slot_state == LinkState::Disconnected {
            self.gatherer.doubt_relays(now);
        }
        match self.peers.get_mut(&peer) {
            Some(sessions) if sessions.current == at => self.report(at),
            Some(sessions) if is_back && sessions.retiring == Some(at) => {
                self.take_back(now, peer);
            }
            Some(sessions) if has_failed && sessions.retiring == Some(at) => {
                sessions.retiring = None;
                self.slots.clear(at);
            }
            _ => {}
        }
    }

    /// A session that was to be replaced because it was silent carries again: unless another one
    /// does by now, it stays, and the attempt at another is over.
    fn take_back(&mut self, now: Instant, peer: Fingerprint) {
        let Some(sessions) = self.peers.get_mut(&peer) else { return };
        let Some(at) = sessions.retiring else { return };
        let attempt = sessions.current;
        if self.slots.get(attempt).is_some_and(carries) {
            return;
        }
        *sessions = Sessions { current: at, retiring: None };
        self.remove(now, attempt, None);
        self.report(at);
    }

    /// Tells the controller of a link's status, if it does not know.
    pub(super) fn report(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let status = slot.status();
        let told = Some((status.state, status.path));
        if std::mem::replace(&mut slot.reported, told) != told {
            self.outputs.push_back(Output::Event(Event::Link(status)));
        }
    }

    pub(super) fn status(&self, at: usize) -> Option<LinkStatus> {
        Some(self.slots.get(at)?.status())
    }

    /// Removes a session whose replacement has been up for long enough.
    pub(super) fn remove_if_replaced(&mut self, now: Instant, at: usize) {
        let Some(slot) = self.slots.get(at) else { return };
        if slot.remove_at.is_none_or(|until| now < until) {
            return;
        }
        if let Some(sessions) = self.peers.get_mut(&slot.peer) {
            sessions.retiring = sessions.retiring.filter(|retiring| *retiring != at);
        }
        self.remove(now, at, None);
    }

    /// Ends a session whose peer's entry no longer names it; with a reason, the peer is told.
    pub(super) fn remove(&mut self, now: Instant, at: usize, reason: Option<&str>) {
        if let Some(slot) = self.slots.touch(at) {
            slot.link.close(now, reason);
        }
        self.drain(now, at);
        self.end_turn(now, at);
        self.select(now, at, None);
        self.slots.clear(at);
    }
}
