//! Handshakes and the keys they leave: started, installed, confirmed, replaced, retired.

use super::*;

impl Link {
    /// The client need not wait for the answer to its check where a check of the peer has come: a
    /// handshake's first datagram goes right behind ours.
    pub(super) fn heed_likely_pair(&mut self, now: Instant) {
        let is_early = self.selected.is_none() && self.likely.is_none();
        if self.config.controlling && is_early && self.failure.is_none() {
            self.likely = self.agent.likely_pair();
            self.timers.rehandshake = self.likely.map(|_| now).or(self.timers.rehandshake);
        }
    }

    /// Whether a client can begin a handshake at all.
    pub(super) fn can_start(&self) -> bool {
        self.config.controlling
            && (self.selected.is_some() || self.likely.is_some())
            && self.failure.is_none()
            && self.negotiation.as_ref().is_some_and(|negotiation| !negotiation.is_running())
    }

    /// An index that no session of ours has. Retired sessions give theirs up if they must.
    pub(super) fn free_index(&self) -> Option<LinkIndex> {
        let keys = [&self.active, &self.next].into_iter().flatten().map(|keys| keys.index);
        let taken: Vec<_> = keys.chain(self.retired.iter().map(|(index, _)| *index)).collect();
        self.config.indices.into_iter().find(|index| !taken.contains(index))
    }

    /// Starts the client's handshake if one is due.
    pub(super) fn start_if_due(&mut self, now: Instant) {
        if self.timers.rehandshake.is_none_or(|at| now < at) || !self.can_start() {
            return;
        }
        let Some(index) = self.free_index() else {
            self.timers.rehandshake = Some(now + RETRY_AFTER);
            return;
        };
        let id = HandshakeId(self.random.number());
        let rtt = self.selected.and_then(|selected| selected.rtt);
        self.timers.rehandshake = None;
        self.recorder.record(now, Trace::HandshakeStarted);
        if let Some(negotiation) = &mut self.negotiation {
            negotiation.start(now, id, index, rtt);
        }
    }

    /// Takes what the handshake put out. True if there was something.
    pub(super) fn drain_negotiation(&mut self, now: Instant) -> bool {
        let Some(output) = self.negotiation.as_mut().and_then(Negotiation::poll_output) else {
            return false;
        };
        match output {
            Negotiated::Transmit { on, data } => {
                let selected = self.selected.map(|selected| (selected.local, selected.remote));
                if let Some((local, remote)) = on.or(selected).or(self.likely) {
                    self.outputs.push_back(LinkOutput::Transmit { local, remote, data });
                }
            }
            Negotiated::Established { index, session } => self.install(now, index, session),
            Negotiated::Failed { index, error } => self.on_handshake_failed(now, index, error),
        }
        true
    }

    fn install(&mut self, now: Instant, index: LinkIndex, session: Box<Session>) {
        if let Some(replaced) = self.next.take() {
            self.outputs.push_back(LinkOutput::Remove(replaced.index));
        }
        let (cipher, lanes) = (session.cipher(), session.lane_count());
        self.recorder.record(now, Trace::KeysInstalled { cipher, lanes });
        self.next = Some(Keys::new(index, cipher, lanes, now));
        self.outputs.push_back(LinkOutput::Install { index, session });
        // The handshake has shown that the path carries both ways, and that the peer has the keys
        // or is about to: without others, frames need not wait for a round trip more.
        if self.active.is_none() {
            self.outputs.push_back(LinkOutput::Begin(index));
        }
        self.ping(now);
    }

    fn on_handshake_failed(&mut self, now: Instant, index: LinkIndex, error: HandshakeError) {
        self.recorder.record(now, Trace::HandshakeFailed(error.to_string()));
        // A client may learn only after the end that the server refuses.
        if self.next.as_ref().is_some_and(|next| next.index == index) {
            self.next = None;
            self.outputs.push_back(LinkOutput::Remove(index));
        }
        let may_pass = matches!(error, HandshakeError::TimedOut { .. });
        if self.active.is_some() {
            self.retry_at(now + RETRY_AFTER_UP);
        } else if may_pass {
            self.retry_at(now + RETRY_AFTER);
        } else {
            return self.fail(error.to_string());
        }
        self.last_error = Some(error);
    }

    fn retry_at(&mut self, at: Instant) {
        if self.config.controlling {
            self.timers.rehandshake = Some(at);
        }
    }

    /// The peer has proven the new keys in both directions: they take over.
    pub(super) fn activate_next(&mut self, now: Instant) {
        let Some(next) = self.next.take() else { return };
        self.outputs.push_back(LinkOutput::Activate(next.index));
        let took = now.saturating_duration_since(next.established);
        self.recorder.record(now, Trace::KeysConfirmed(took));
        self.lanes.set_count(now, next.lanes);
        self.timers.establish = None;
        self.last_error = None;
        self.retry_at(now + self.config.rehandshake_after);
        if let Some(replaced) = self.active.replace(next) {
            self.retired.push((replaced.index, now + RETIRED_TIME));
        }
    }

    /// The peer's end began anew, with the session's credentials and without its keys. The client
    /// has to shake hands, unless it just did.
    pub(super) fn on_peer_restarted(&mut self, now: Instant) {
        let Some(newest) = self.newest_keys() else { return };
        let due = now.max(newest + REHANDSHAKE_WISH_AFTER);
        if self.config.controlling {
            self.timers.rehandshake = Some(self.timers.rehandshake.map_or(due, |at| at.min(due)));
        }
        // Its lanes may be at other ports, and have to be proven under new keys anyway.
        self.lanes.follow(now, None);
        self.lead_lanes(now);
    }

    /// When the newest keys were made.
    pub(super) fn newest_keys(&self) -> Option<Instant> {
        [&self.active, &self.next].into_iter().flatten().map(|keys| keys.established).max()
    }

    /// Pings that are due, and what their silence means.
    pub(super) fn advance_keys(&mut self, now: Instant) {
        if self.next.as_ref().is_some_and(|next| now >= next.established + CONFIRM_TIME_MAX)
            && let Some(next) = self.next.take()
        {
            self.outputs.push_back(LinkOutput::Remove(next.index));
            self.retry_at(now);
        }
        self.ping(now);
        let Some(active) = &mut self.active else { return };
        if self.agent.state() != IceState::Connected {
            // Without a path silence says nothing about the keys.
            active.forgive();
        } else if active.unanswered() >= UNANSWERED_FAILED {
            self.fail("the peer no longer answers under the session's keys".into());
        } else if active.unanswered() == UNANSWERED_REHANDSHAKE && self.config.controlling {
            self.timers.rehandshake = self.timers.rehandshake.map(|at| at.min(now));
        }
    }

    fn ping(&mut self, now: Instant) {
        let random = &mut self.random;
        for keys in [&mut self.active, &mut self.next].into_iter().flatten() {
            if let Some(nonce) = keys.handle_timeout(now, || random.number()) {
                let (index, data) = (keys.index, Control::Ping(nonce).emit());
                self.outputs.push_back(LinkOutput::SendControl { index, data });
            }
        }
    }

    /// When [`probe`](Self::probe) has something to do. Without keys nobody could prove anything,
    /// and without a path nothing would arrive.
    pub(super) fn probe_due(&self) -> Option<Instant> {
        let can_probe = self.active.is_some() && self.agent.state() == IceState::Connected;
        self.path_mtu.as_ref().filter(|_| can_probe).and_then(PathMtu::poll_timeout)
    }

    /// Asks what the path carries.
    pub(super) fn probe(&mut self, now: Instant) {
        if self.probe_due().is_none_or(|at| now < at) {
            return;
        }
        let (Some(active), Some(path_mtu)) = (&self.active, &mut self.path_mtu) else { return };
        let rtt = active.rtt().or(self.selected.and_then(|selected| selected.rtt));
        let (index, random) = (active.index, &mut self.random);
        let probes = path_mtu.handle_timeout(now, rtt, || random.number());
        self.outputs.extend(probes.into_iter().map(|probe| LinkOutput::Probe {
            index,
            nonce: probe.nonce,
            datagram_len: probe.len,
        }));
    }

    pub(super) fn advance_retired(&mut self, now: Instant) {
        let outputs = &mut self.outputs;
        self.retired.retain(|(index, until)| {
            let stays = now < *until;
            if !stays {
                outputs.push_back(LinkOutput::Remove(*index));
            }
            stays
        });
    }

    pub(super) fn why_not_established(&self) -> String {
        match (&self.last_error, &self.next, self.config.controlling) {
            (_, Some(_), _) => "the new keys were not confirmed by the peer".into(),
            (Some(error), None, _) => error.to_string(),
            (None, None, true) => "the handshake did not finish in time".into(),
            (None, None, false) => "the peer did not start a handshake".into(),
        }
    }
}
