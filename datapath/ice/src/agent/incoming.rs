//! What comes in: the peer's checks and the answers to ours.
//!
//! 1. `handle_input` tells requests from answers.
//! 2. A request is authenticated, answered, and turned into a triggered check.
//! 3. An answer makes its pair valid; nomination follows.

use std::net::SocketAddr;
use std::time::Instant;

use ipop_stun::{Attribute, Builder, Class, Message, Method};

use super::{Agent, EARLY_MAX, Early, Output, Packet, REMOTE_CANDIDATES_MAX, Refused, State};
use crate::candidate::{Candidate, CandidateKind, foundation, priority};
use crate::pair::PairState;

/// Role conflict (RFC 8445 section 7.3.1.1).
const ROLE_CONFLICT: u16 = 487;

impl Agent {
    /// Takes a STUN message.
    ///
    /// # Errors
    /// [`Refused`]: it was not for this agent, or not authentic; nothing was answered.
    pub fn handle_input(&mut self, now: Instant, packet: Packet<'_>) -> Result<(), Refused> {
        if self.state == State::Failed {
            return Err(Refused::Ended);
        }
        let message = Message::parse(packet.data).map_err(|_| Refused::Malformed)?;
        if message.method() != Method::Binding {
            return Err(Refused::Unexpected);
        }
        let result = match message.class() {
            Class::Request => self.on_request(now, packet, &message),
            Class::Success => self.on_success(now, packet, &message),
            Class::Error => self.on_error(now, packet, &message),
            // A keepalive of an agent without consent checks; nothing to do.
            Class::Indication => Ok(()),
        };
        if self.remote.is_some() {
            self.nominate(now);
            self.advance(now);
        }
        result
    }

    fn on_request(
        &mut self,
        now: Instant,
        packet: Packet<'_>,
        message: &Message<'_>,
    ) -> Result<(), Refused> {
        let key = self.local_key.as_ref().ok_or(Refused::Stranger)?;
        let (ours, theirs) =
            message.username().and_then(|name| name.split_once(':')).ok_or(Refused::Stranger)?;
        let expected = self.remote.as_ref().map(|(credentials, _)| credentials.ufrag.as_str());
        if ours != self.config.local.ufrag || expected.is_some_and(|ufrag| ufrag != theirs) {
            return Err(Refused::Stranger);
        }
        message.verify(key).map_err(|_| Refused::Stranger)?;
        if self.settle_roles(message) {
            self.answer(packet, Builder::error(message, ROLE_CONFLICT, "Role Conflict"));
            return Ok(());
        }
        let mapped = Attribute::XorMappedAddress(packet.remote);
        self.answer(packet, Builder::success(message).with(mapped));
        let early = Early {
            local: packet.local,
            remote: packet.remote,
            priority: message.priority().unwrap_or(0),
            nominates: message.use_candidate(),
        };
        if self.remote.is_some() {
            self.on_authentic_check(now, early);
        } else if self.early.len() < EARLY_MAX {
            self.early.push(early);
        }
        Ok(())
    }

    /// Settles a role conflict (RFC 8445 section 7.3.1.1); `true` if the peer has to yield.
    fn settle_roles(&mut self, message: &Message<'_>) -> bool {
        let theirs =
            if self.controlling { message.ice_controlling() } else { message.ice_controlled() };
        let Some(theirs) = theirs else { return false };
        let we_keep = self.controlling == (self.config.tie_breaker >= theirs);
        if !we_keep {
            self.controlling = !self.controlling;
        }
        we_keep
    }

    fn answer(&mut self, packet: Packet<'_>, answer: Builder) {
        let Some(key) = &self.local_key else { return };
        if let Ok(data) = answer.integrity(key).fingerprint().build() {
            let (local, remote) = (packet.local, packet.remote);
            self.outputs.push_back(Output::Transmit { local, remote, data });
        }
    }

    /// The peer reaches us on this pair: check it from our end too (RFC 8445 section 7.3.1.4).
    pub(super) fn on_authentic_check(&mut self, now: Instant, check: Early) {
        let Some(index) = self.pair_of(&check) else { return };
        let controlling = self.controlling;
        let key = self.key(index);
        let pair = &mut self.pairs[index];
        pair.heard = true;
        if check.nominates && !controlling {
            pair.nominated_by_peer = true;
        }
        match (pair.state, pair.check.as_mut()) {
            (PairState::Succeeded, _) => {}
            // What was sent before the peer's hole was open is lost: send it again, as the same
            // transaction, so that an answer to either counts.
            (PairState::InProgress, Some(check)) => {
                if check.resent(now) {
                    let data = check.request.clone();
                    let (local, remote) = key;
                    self.outputs.push_back(Output::Transmit { local, remote, data });
                }
            }
            _ => {
                pair.state = PairState::Waiting;
                if !self.triggered.contains(&key) {
                    self.triggered.push_back(key);
                }
            }
        }
    }

    /// The pair that a check came on; an unknown remote address is a new candidate.
    fn pair_of(&mut self, check: &Early) -> Option<usize> {
        let key = (check.local, check.remote);
        if let Some(index) = self.find(key) {
            return Some(index);
        }
        let known = self.remote_candidates.iter().find(|c| c.address == check.remote).cloned();
        let remote = match known {
            Some(remote) => remote,
            None if self.remote_candidates.len() >= REMOTE_CANDIDATES_MAX => return None,
            None => {
                let candidate = peer_reflexive(check);
                self.remote_candidates.push(candidate.clone());
                candidate
            }
        };
        let local = self.local_candidates.iter().find(|c| c.base == check.local).cloned();
        let local = local.unwrap_or_else(|| unlisted_host(check.local));
        self.pair_up(&local, &remote);
        self.find(key)
    }

    fn on_success(
        &mut self,
        now: Instant,
        packet: Packet<'_>,
        message: &Message<'_>,
    ) -> Result<(), Refused> {
        let index = self.answered_pair(packet, message)?;
        let pair = &mut self.pairs[index];
        let Some(check) = pair.check.take() else { return Err(Refused::Unexpected) };
        if let Some(rtt) = check.rtt(now) {
            pair.learn_rtt(rtt);
        }
        pair.state = PairState::Succeeded;
        pair.answered = Some(check.started());
        pair.missed = 0;
        pair.failures = 0;
        pair.nominated |= check.nominates;
        self.plan_refresh(now, index);
        if self.selected == Some(self.key(index)) && self.state == State::Disconnected {
            self.set_state(State::Connected);
        }
        Ok(())
    }

    fn on_error(
        &mut self,
        now: Instant,
        packet: Packet<'_>,
        message: &Message<'_>,
    ) -> Result<(), Refused> {
        let index = self.answered_pair(packet, message)?;
        let pair = &mut self.pairs[index];
        let Some(check) = pair.check.take() else { return Err(Refused::Unexpected) };
        if message.error().is_some_and(|error| error.code == ROLE_CONFLICT) {
            // Change roles unless that has happened already since the check was sent.
            if self.controlling == check.controlling {
                self.controlling = !self.controlling;
            }
            pair.state = PairState::Waiting;
            self.triggered.push_back((packet.local, packet.remote));
        } else {
            pair.state = PairState::Failed;
            pair.nominated = false;
        }
        self.next_check = self.next_check.min(now);
        Ok(())
    }

    /// The pair whose check this answers: authentic, and both addresses the other way round
    /// (RFC 8445 section 7.2.5.2.1).
    fn answered_pair(&self, packet: Packet<'_>, message: &Message<'_>) -> Result<usize, Refused> {
        let (_, key) = self.remote.as_ref().ok_or(Refused::Unexpected)?;
        let index = self.find((packet.local, packet.remote)).ok_or(Refused::Unexpected)?;
        let check = self.pairs[index].check.as_ref().ok_or(Refused::Unexpected)?;
        if check.transaction != message.transaction() {
            return Err(Refused::Unexpected);
        }
        message.verify(key).map_err(|_| Refused::Stranger)?;
        Ok(index)
    }
}

fn peer_reflexive(check: &Early) -> Candidate {
    Candidate {
        component: 1,
        kind: CandidateKind::PeerReflexive,
        address: check.remote,
        base: check.remote,
        related: None,
        priority: check.priority,
        foundation: foundation(CandidateKind::PeerReflexive, check.remote.ip(), None),
    }
}

/// A base that was not gathered, an address that came up since, say.
fn unlisted_host(base: SocketAddr) -> Candidate {
    Candidate {
        component: 1,
        kind: CandidateKind::Host,
        address: base,
        base,
        related: None,
        priority: priority(CandidateKind::Host, 0, 1),
        foundation: foundation(CandidateKind::Host, base.ip(), None),
    }
}
