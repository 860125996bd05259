//! What the parts amount to: the link's state, and its end.

use super::*;

const BOTH_SYMMETRIC: &str =
    "no direct path: the NATs of both ends give every destination another port";

impl Link {
    /// Takes what agent and handshake put out until both are quiet, then tells what changed.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            while let Some(step) = self.agent.poll_trace() {
                self.recorder.record(now, Trace::Ice(step));
            }
            self.heed_likely_pair(now);
            self.start_if_due(now);
            if !(self.drain_agent(now) || self.drain_negotiation(now) || self.drain_lanes(now)) {
                break;
            }
        }
        self.report_path(now);
        let reported = (self.state(), self.path());
        if reported != self.reported {
            self.record_state(now, reported.0);
            self.reported = reported;
            self.outputs.push_back(LinkOutput::Changed);
        }
    }

    fn report_path(&mut self, now: Instant) {
        let Some(len) = self.datagram_len() else { return };
        let before = self.reported_path.replace((len, self.is_len_settled(), self.is_lossy()));
        if before == self.reported_path {
            return;
        }
        self.outputs.push_back(LinkOutput::PathChanged);
        if before.is_none_or(|(before, ..)| before != len) {
            self.recorder.record(now, Trace::DatagramLen(len));
        }
    }

    fn record_state(&mut self, now: Instant, state: LinkState) {
        match &self.failure {
            _ if state == self.reported.0 => {}
            Some(reason) => self.recorder.record(now, Trace::Closed(reason.clone())),
            None => self.recorder.record(now, Trace::State(state)),
        }
    }

    fn drain_agent(&mut self, now: Instant) -> bool {
        let Some(output) = self.agent.poll_output() else { return false };
        match output {
            ipop_ice::Output::Transmit { local, remote, data } => {
                self.outputs.push_back(LinkOutput::Transmit { local, remote, data });
            }
            ipop_ice::Output::Knock { local, remote, data } => {
                self.outputs.push_back(LinkOutput::Knock { local, remote, data });
            }
            ipop_ice::Output::Open { base, remote, data } => {
                self.outputs.push_back(LinkOutput::Open { base, remote, data });
            }
            ipop_ice::Output::WantsTurn => self.outputs.push_back(LinkOutput::WantsTurn),
            ipop_ice::Output::TurnIsOver => self.outputs.push_back(LinkOutput::TurnIsOver),
            ipop_ice::Output::Selected(selected) => self.on_selected(now, selected),
            ipop_ice::Output::StateChanged(state) => self.on_ice_state(now, state),
            ipop_ice::Output::PeerRestarted => self.on_peer_restarted(now),
        }
        true
    }

    fn on_selected(&mut self, now: Instant, selected: Selected) {
        if self.failure.is_some() {
            return;
        }
        let is_first = self.selected.replace(selected).is_none();
        let limits = Limits::of(selected.remote, selected.is_direct());
        let is_lossy = self.is_lossy();
        let path_mtu = self.path_mtu.insert(PathMtu::new(now, limits));
        self.reported_path = Some((path_mtu.datagram_len(), path_mtu.is_settled(), is_lossy));
        self.outputs.push_back(LinkOutput::Selected(selected));
        self.lead_lanes(now);
        // The handshake may be over by now, on the pair that was likely.
        if is_first && self.active.is_none() {
            self.timers.establish = Some(now + ESTABLISH_TIME_MAX);
            let has_begun = self.negotiation.as_ref().is_some_and(Negotiation::is_running);
            if self.config.controlling && !has_begun && self.newest_keys().is_none() {
                self.timers.rehandshake = Some(now);
            }
        }
        self.hurry(now);
    }

    fn on_ice_state(&mut self, now: Instant, state: IceState) {
        match state {
            IceState::Connected => self.hurry(now),
            IceState::Failed => {
                self.fail(self.why_no_path().into());
            }
            IceState::New | IceState::Checking | IceState::Disconnected => {}
        }
    }

    /// A path has changed for the better: do not wait for the next ping.
    pub(super) fn hurry(&mut self, now: Instant) {
        for keys in [&mut self.active, &mut self.next].into_iter().flatten() {
            keys.hurry(now);
        }
    }

    /// Ends the link; only the first reason counts.
    pub(super) fn fail(&mut self, reason: String) {
        if self.failure.is_some() {
            return;
        }
        self.failure = Some(reason);
        self.timers = Timers::default();
        let keys = [self.active.take(), self.next.take()].into_iter().flatten();
        let retired = std::mem::take(&mut self.retired).into_iter().map(|(index, _)| index);
        let indices = keys.map(|keys| keys.index).chain(retired);
        self.outputs.extend(indices.map(LinkOutput::Remove));
    }

    fn why_no_path(&self) -> &'static str {
        match (self.selected, self.remote_candidate_count, self.remote_is_complete) {
            (Some(_), _, _) => "the path to the peer went silent and no other works",
            (None, 0, true) => "the peer has no address that packets can be sent to",
            (None, 0, false) => "the peer has not told any address",
            (None, _, _) => "no pair of addresses lets packets through to the peer",
        }
    }

    /// What the link can do.
    #[must_use]
    pub fn state(&self) -> LinkState {
        if self.failure.is_some() {
            LinkState::Failed
        } else if self.negotiation.is_none() {
            LinkState::Idle
        } else if self.selected.is_none() {
            LinkState::Checking
        } else if self.active.is_none() {
            LinkState::Handshaking
        } else {
            match self.agent.state() {
                IceState::Connected => LinkState::Up,
                _ => LinkState::Disconnected,
            }
        }
    }

    /// Everything there is to know.
    #[must_use]
    pub fn status(&self) -> LinkStatus {
        let keys = self.active.as_ref();
        LinkStatus {
            peer: self.config.peer,
            session: self.config.session,
            state: self.state(),
            path: self.path(),
            reason: self.reason(),
            keys: keys.map(|keys| KeysStatus {
                index: keys.index,
                cipher: keys.cipher,
                lanes: u8::try_from(1 + self.lanes.proven_count()).unwrap_or(u8::MAX),
                established: keys.established,
            }),
            rtt: keys
                .and_then(Keys::rtt)
                .or_else(|| self.agent.selected().and_then(|selected| selected.rtt)),
            datagram_len: self.datagram_len(),
            is_len_settled: self.is_len_settled(),
            is_lossy: self.is_lossy(),
            relay: None,
            choice: self.agent.choice(),
            outcomes: self.agent.outcomes(),
        }
    }

    /// Why it failed, or why its path is the one that it is, where that is known.
    fn reason(&self) -> String {
        match &self.failure {
            Some(failure) => failure.clone(),
            None if self.selected.is_some_and(|selected| !selected.is_direct())
                && self.agent.needs_relay() =>
            {
                BOTH_SYMMETRIC.to_owned()
            }
            None => String::new(),
        }
    }

    /// Longest datagram that the path in use is known to carry.
    #[must_use]
    pub fn datagram_len(&self) -> Option<u16> {
        self.path_mtu.as_ref().map(PathMtu::datagram_len)
    }

    /// Whether [`datagram_len`](Self::datagram_len) is all that the path carries.
    #[must_use]
    pub fn is_len_settled(&self) -> bool {
        self.path_mtu.as_ref().is_some_and(PathMtu::is_settled)
    }

    /// Whether the path in use loses much, as far as its checks tell.
    #[must_use]
    pub fn is_lossy(&self) -> bool {
        self.agent.is_lossy()
    }

    fn path(&self) -> Option<PathStatus> {
        let selected = self.selected.filter(|_| self.failure.is_none())?;
        Some(PathStatus {
            kind: if selected.is_direct() { PathKind::Direct } else { PathKind::Relayed },
            local: selected.local,
            local_kind: selected.local_kind,
            remote: selected.remote,
            remote_kind: selected.remote_kind,
        })
    }

    /// Our ICE user name fragment: what checks to this link begin with.
    #[must_use]
    pub fn local_ufrag(&self) -> &str {
        self.agent.local_ufrag()
    }

    /// Whether a handshake datagram from there would be looked at.
    #[must_use]
    pub fn is_validated(&self, remote: SocketAddr) -> bool {
        self.failure.is_none() && self.agent.validated(remote)
    }
}
