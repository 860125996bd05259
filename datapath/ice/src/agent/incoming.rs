//! What comes in: the peer's checks and the answers to ours.
//!
//! 1. `handle_input` tells requests from answers.
//! 2. A request is authenticated, answered, and turned into a triggered check.
//! 3. An answer makes its pair valid; nomination follows.

use std::time::{Duration, Instant};

use ipop_stun::{Attribute, Builder, Class, Message, Method};

use super::outgoing::RETRY_PAUSE;
use super::{Agent, EARLY_MAX, Early, Output, Packet, Refused, State, TIE_BREAKERS_MAX};
use crate::candidate::{Candidate, CandidateKind};
use crate::pair::{Pair, PairState, Sending};
use crate::trace::{CheckFailure, Suspicion, Trace};

/// Role conflict (RFC 8445 section 7.3.1.1).
const ROLE_CONFLICT: u16 = 487;
/// An attribute that must be understood and is not (RFC 8489 section 6.3.1).
const UNKNOWN_ATTRIBUTE: u16 = 420;
/// A check of the peer makes us repeat ours, but not more often than this.
pub(super) const REPEAT_PAUSE: Duration = Duration::from_millis(20);

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
        let class = message.class();
        let result = match class {
            Class::Request => self.on_request(now, packet, &message),
            Class::Success => self.on_success(now, packet, &message),
            Class::Error => self.on_error(now, packet, &message),
            Class::Indication => self.on_indication(now, packet, &message),
        };
        if result == Err(Refused::Unexpected) && matches!(class, Class::Success | Class::Error) {
            self.trace_stray(packet, &message);
        }
        if self.remote.is_some() {
            self.nominate(now);
            self.advance(now);
            self.advance_hard(now);
        }
        result
    }

    fn on_request(
        &mut self,
        now: Instant,
        packet: Packet<'_>,
        message: &Message<'_>,
    ) -> Result<(), Refused> {
        self.authenticate(message)?;
        let unknown = message.unknown_required();
        if !unknown.is_empty() {
            let answer = Builder::error(message, UNKNOWN_ATTRIBUTE, "Unknown Attribute");
            self.answer(packet, answer.with(Attribute::UnknownAttributes(unknown)));
            return Ok(());
        }
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
        } else {
            self.remember(early);
        }
        self.note_agent(now, message);
        Ok(())
    }

    /// A keepalive of an agent without consent checks, or the peer's word that it is about to
    /// punch: then so do we.
    fn on_indication(
        &mut self,
        now: Instant,
        packet: Packet<'_>,
        message: &Message<'_>,
    ) -> Result<(), Refused> {
        self.authenticate(message)?;
        if self.selected == Some((packet.local, packet.remote)) {
            self.on_punch(now);
        }
        Ok(())
    }

    /// Whether the sender knows our password, and means this session.
    fn authenticate(&self, message: &Message<'_>) -> Result<(), Refused> {
        let key = self.local_key.as_ref().ok_or(Refused::Stranger)?;
        let (ours, theirs) =
            message.username().and_then(|name| name.split_once(':')).ok_or(Refused::Stranger)?;
        let expected = self.remote.as_ref().map(|(credentials, _)| credentials.ufrag.as_str());
        if ours != self.config.local.ufrag || expected.is_some_and(|ufrag| ufrag != theirs) {
            return Err(Refused::Stranger);
        }
        message.verify(key).map(|_| ()).map_err(|_| Refused::Stranger)
    }

    /// Tells the peer's agents apart: one that is new began without what the one before knew.
    fn note_agent(&mut self, now: Instant, message: &Message<'_>) {
        let drawn = message.ice_controlling().or(message.ice_controlled());
        let Some(drawn) = drawn.filter(|drawn| !self.tie_breakers.contains(drawn)) else { return };
        if !self.tie_breakers.is_empty() {
            self.outputs.push_back(Output::PeerRestarted);
            // It waits for checks of ours, and for the nomination.
            let resting = |pair: &&mut Pair| pair.is_valid() && pair.check.is_none();
            let pairs = self.pairs.iter_mut().filter(resting);
            pairs.for_each(|pair| pair.refresh_at = Some(now));
            self.refresh(now);
        }
        if self.tie_breakers.len() == TIE_BREAKERS_MAX {
            self.tie_breakers.pop_front();
        }
        self.tie_breakers.push_back(drawn);
    }

    /// Keeps a check for when the peer's credentials are known; repetitions count once.
    fn remember(&mut self, check: Early) {
        let same = |e: &&mut Early| (e.local, e.remote) == (check.local, check.remote);
        if let Some(known) = self.early.iter_mut().find(same) {
            known.nominates |= check.nominates;
        } else if self.early.len() < EARLY_MAX {
            self.early.push(check);
        }
    }

    /// Settles a role conflict (RFC 8445 section 7.3.1.1); `true` if the peer has to yield.
    fn settle_roles(&mut self, message: &Message<'_>) -> bool {
        let theirs =
            if self.controlling { message.ice_controlling() } else { message.ice_controlled() };
        let Some(theirs) = theirs else { return false };
        let we_keep = self.controlling == (self.config.tie_breaker >= theirs);
        if !we_keep {
            self.switch_role();
        }
        we_keep
    }

    /// Takes the other role. Nominations of the old one are void: only a controlling end says
    /// USE-CANDIDATE, and only a controlled one follows it.
    fn switch_role(&mut self) {
        self.controlling = !self.controlling;
        self.trace(Trace::RoleChanged { is_controlling: self.controlling });
        for pair in &mut self.pairs {
            pair.withdraw();
            pair.nominated_by_peer = false;
        }
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
        let is_new = self.find((check.local, check.remote)).is_none();
        let Some(index) = self.pair_of(&check) else { return };
        let key = self.key(index);
        self.trace_request(index, &check);
        self.stop_knocking(now);
        if check.nominates && !self.controlling {
            // The latest nomination counts; one that still waits for its pair is void.
            for (other, pair) in self.pairs.iter_mut().enumerate() {
                pair.nominated_by_peer = other == index;
            }
        }
        let pair = &mut self.pairs[index];
        pair.heard.get_or_insert(now);
        match (pair.state, pair.check.as_ref()) {
            (PairState::Succeeded, None) => {}
            // It worked, was asked in vain, and may work again.
            (PairState::Succeeded, Some(check)) if check.is_exhausted() => {
                let nominates = check.nominates;
                self.start_check(now, index, nominates);
            }
            // What was sent before the peer's hole was open, or the peer was there, is lost: send
            // it again.
            (PairState::InProgress | PairState::Succeeded, Some(check)) => {
                let may_repeat =
                    check.held_until.is_some() || now >= check.sent_last() + REPEAT_PAUSE;
                if may_repeat && !check.is_exhausted() {
                    self.send_check(now, index);
                }
            }
            _ => {
                pair.wait();
                if !self.triggered.contains(&key) {
                    self.triggered.push_back(key);
                }
            }
        }
        if is_new {
            // A peer that turns up elsewhere may have left where it was.
            self.suspect(now, Suspicion::PeerElsewhere);
        }
    }

    fn on_success(
        &mut self,
        now: Instant,
        packet: Packet<'_>,
        message: &Message<'_>,
    ) -> Result<(), Refused> {
        let (index, sending) = self.answered(packet, message)?;
        self.learn_mapping(packet, message);
        let Some(check) = self.pairs[index].check.take() else { return Err(Refused::Unexpected) };
        if !message.unknown_required().is_empty() {
            // As if the check had failed (RFC 8489 section 6.3.3).
            self.give_up(now, index, RETRY_PAUSE, CheckFailure::Incomprehensible);
            return Ok(());
        }
        let rtt = now.saturating_duration_since(sending.at);
        self.trace_answered(now, index, rtt, sending.nominates);
        self.trace_mapped(index, message.mapped_address());
        let pair = &mut self.pairs[index];
        pair.learn_rtt(rtt);
        pair.learn_losses(&check, sending.at);
        pair.state = PairState::Succeeded;
        pair.answered = Some(sending.at);
        pair.missed = 0;
        pair.failures = 0;
        // Both: the peer was told so, and it has not been withdrawn since.
        pair.nominated |= sending.nominates && check.nominates;
        self.plan_refresh(now, index);
        if self.suspicion(now).is_some_and(|since| sending.at < since) {
            // It was asked before the suspicion: the answer says nothing about now.
            self.pairs[index].refresh_at = Some(now);
        }
        self.testify(now, index);
        if self.selected == Some(self.key(index)) && self.state == State::Disconnected {
            self.recover(now, index);
        }
        Ok(())
    }

    /// The selected pair answers again. The peer may have been told of another meanwhile.
    fn recover(&mut self, now: Instant, index: usize) {
        self.set_state(State::Connected);
        let others = self.pairs.iter_mut().enumerate().filter(|(other, _)| *other != index);
        let mut is_told = false;
        for (_, pair) in others {
            is_told |= pair.nominated || pair.is_nominating();
            pair.withdraw();
        }
        if is_told && self.controlling {
            self.pairs[index].refresh_at = Some(now);
        }
    }

    /// The peer sees a base of ours there.
    fn learn_mapping(&mut self, packet: Packet<'_>, message: &Message<'_>) {
        let is_host = |c: &Candidate| c.kind == CandidateKind::Host && c.base == packet.local;
        if let Some(mapped) = message.mapped_address()
            && self.local_candidates.iter().any(is_host)
        {
            self.hard.peer_observes(packet.local, packet.remote, mapped);
        }
    }

    fn on_error(
        &mut self,
        now: Instant,
        packet: Packet<'_>,
        message: &Message<'_>,
    ) -> Result<(), Refused> {
        let (index, sending) = self.answered(packet, message)?;
        let code = message.error().map_or(0, |error| error.code);
        let pair = &mut self.pairs[index];
        pair.check = None;
        pair.nominated = false;
        if code == ROLE_CONFLICT {
            // Change roles unless that has happened already since the check was sent.
            pair.wait();
            if self.controlling == sending.controlling {
                self.switch_role();
            }
            self.triggered.push_back((packet.local, packet.remote));
        } else {
            self.give_up(now, index, RETRY_PAUSE, CheckFailure::Error(code));
        }
        self.next_check = self.next_check.min(now);
        Ok(())
    }

    /// The pair and the sending that this answers: authentic, and both addresses the other way
    /// round (RFC 8445 section 7.2.5.2.1).
    fn answered(
        &self,
        packet: Packet<'_>,
        message: &Message<'_>,
    ) -> Result<(usize, Sending), Refused> {
        let (_, key) = self.remote.as_ref().ok_or(Refused::Unexpected)?;
        let index = self.find((packet.local, packet.remote)).ok_or(Refused::Unexpected)?;
        let check = self.pairs[index].check.as_ref().ok_or(Refused::Unexpected)?;
        let sending = check.sending(message.transaction()).ok_or(Refused::Unexpected)?;
        message.verify(key).map_err(|_| Refused::Stranger)?;
        Ok((index, sending))
    }
}
