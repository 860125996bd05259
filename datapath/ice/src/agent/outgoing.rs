//! Our checks: which pair is next, what is sent, when it is sent again, when it is given up.
//!
//! 1. `advance` starts triggered checks at once and ordinary ones at the pace.
//! 2. `start_check` builds the request and sends it.
//! 3. `retransmit` repeats it, and gives the pair up at last.
//! 4. `refresh` checks valid pairs again: consent on the selected one, warmth on the others.

use std::time::{Duration, Instant};

use ipop_stun::{Attribute, BuildError, Builder, Method};

use super::{Agent, Output, State};
use crate::candidate::{CandidateKind, Credentials, priority};
use crate::pair::{Check, Pair, PairState, Sending};
use crate::trace::{CheckFailure, Trace};

/// Mean pause between consent checks; each is spread over 0.8 to 1.2 of it (RFC 7675 section 5.1).
const CONSENT_PAUSE: Duration = Duration::from_secs(4);
/// The same where some were lost lately: how many a path loses is to be known soon.
const DOUBTED_PAUSE: Duration = Duration::from_secs(1);
/// Mean pause between checks of valid pairs that are not in use (RFC 8445 section 11).
const WARM_PAUSE: Duration = Duration::from_secs(12);
/// An unanswered check of a valid pair counts as missed after this.
const ANSWER_PATIENCE_MIN: Duration = Duration::from_millis(400);
/// Missed checks in a row after which the selected pair counts as silent.
const MISSED_MAX: u32 = 3;
/// Pause before a pair that worked, or that there is no other for, is checked again.
pub(super) const RETRY_PAUSE: Duration = Duration::from_secs(10);

impl Agent {
    /// Call when [`Agent::poll_timeout`] says so.
    pub fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.state, State::New | State::Failed) {
            return;
        }
        if self.deadline().is_some_and(|at| at <= now) {
            return self.fail();
        }
        self.retransmit(now);
        self.notice_silence(now);
        self.refresh(now);
        self.launch_if_due(now);
        self.nominate(now);
        self.advance(now);
        self.drop_spent();
        self.advance_hard(now);
    }

    /// When [`Agent::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if matches!(self.state, State::New | State::Failed) {
            return None;
        }
        let checks = self.pairs.iter().filter_map(|pair| pair.check.as_ref().map(Check::again_at));
        let refreshes = self.pairs.iter().filter_map(|pair| pair.refresh_at);
        let waiting = self.pairs.iter().any(|pair| pair.state == PairState::Waiting);
        let paced = (waiting || !self.triggered.is_empty()).then_some(self.next_check);
        let sole = [
            paced,
            self.deadline(),
            self.relay_due(),
            self.punch.launch_at(),
            self.hard.poll_timeout(),
        ];
        checks.chain(refreshes).chain(sole.into_iter().flatten()).min()
    }

    /// When the agent fails if nothing happens.
    fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Checking => {
                // A check of the peer may still show a pair that nobody named.
                let all_failed = self.pairs.iter().all(|pair| pair.state == PairState::Failed);
                let patience = if self.remote_is_complete && all_failed {
                    self.config.hopeless_patience
                } else {
                    self.config.connect_patience
                };
                self.started.map(|at| at + patience)
            }
            _ => {
                let answered = self.pairs.iter().filter_map(|pair| pair.answered).max();
                answered.map(|at| at + self.config.consent_lifetime)
            }
        }
    }

    /// Starts what may be started now.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.remote.is_none() || self.state == State::Failed {
            return;
        }
        while let Some(key) = self.triggered.pop_front() {
            // A triggered check does not wait for its turn: the peer's hole is open now.
            if let Some(index) = self.find(key).filter(|i| self.pairs[*i].check.is_none()) {
                self.start_check(now, index, false);
            }
        }
        while now >= self.next_check {
            let controlling = self.controlling;
            let waiting = self.pairs.iter().enumerate();
            let best = waiting
                .filter(|(_, pair)| pair.state == PairState::Waiting)
                .max_by_key(|(_, pair)| pair.priority(controlling))
                .map(|(index, _)| index);
            let Some(index) = best else { return };
            self.start_check(now, index, false);
            self.next_check = now + self.config.pace;
        }
    }

    /// Begins a check; one that is under way goes on, with the nomination if that is asked.
    pub(super) fn start_check(&mut self, now: Instant, index: usize, nominates: bool) {
        let pair = &mut self.pairs[index];
        if pair.state != PairState::Succeeded {
            pair.state = PairState::InProgress;
        }
        pair.refresh_at = None;
        let rtt = pair.rtt.filter(|_| pair.state == PairState::Succeeded);
        match &mut pair.check {
            Some(check) => check.go_on(now, nominates),
            none => *none = Some(Check::new(now, nominates, rtt, pair.losses)),
        }
        self.send_check(now, index);
    }

    /// Sends the check of a pair, once more or for the first time.
    pub(super) fn send_check(&mut self, now: Instant, index: usize) {
        let nominates = self.pairs[index].check.as_ref().is_some_and(|check| check.nominates);
        let transaction = self.random.transaction_id();
        let controlling = self.controlling;
        let pair = &self.pairs[index];
        let priority = reflexive_priority(pair.local_kind, pair.local_priority);
        let Some(Ok(request)) = self.request(priority, transaction, nominates) else {
            return self.give_up(now, index, RETRY_PAUSE, CheckFailure::Unsendable);
        };
        self.trace_sent(now, index, nominates);
        let (knocks, head_start) = (self.knocks(index), self.head_start(index));
        let pair = &mut self.pairs[index];
        if let Some(check) = &mut pair.check {
            check.sent(Sending { transaction, at: now, controlling, nominates });
            check.held_until = knocks.then_some(now + head_start);
        }
        let (local, remote, data) = (pair.local, pair.remote, request);
        self.outputs.push_back(match knocks {
            true => Output::Knock { local, remote, data },
            false => Output::Transmit { local, remote, data },
        });
    }

    /// A check from a base to wherever the peer may be.
    pub(super) fn blind_check(&mut self, base: std::net::SocketAddr) -> Option<Vec<u8>> {
        let local = self.local_candidates.iter().find(|candidate| candidate.base == base)?;
        let priority = reflexive_priority(local.kind, local.priority);
        let transaction = self.random.transaction_id();
        self.request(priority, transaction, false)?.ok()
    }

    /// A connectivity check (RFC 8445 section 7.2.2).
    fn request(
        &self,
        priority: u32,
        transaction: ipop_stun::TransactionId,
        nominates: bool,
    ) -> Option<Result<Vec<u8>, BuildError>> {
        let (remote, key) = self.remote.as_ref()?;
        let role = if self.controlling {
            Attribute::IceControlling(self.config.tie_breaker)
        } else {
            Attribute::IceControlled(self.config.tie_breaker)
        };
        let mut request = Builder::request(Method::Binding, transaction)
            .with(Attribute::Username(self.username(remote)))
            .with(Attribute::Priority(priority))
            .with(role);
        if nominates {
            request = request.with(Attribute::UseCandidate);
        }
        Some(request.integrity(key).fingerprint().build())
    }

    /// What the peer knows us by.
    pub(super) fn username(&self, remote: &Credentials) -> String {
        format!("{}:{}", remote.ufrag, self.config.local.ufrag)
    }

    pub(super) fn retransmit(&mut self, now: Instant) {
        for index in 0..self.pairs.len() {
            let pair = &mut self.pairs[index];
            let Some(check) = pair.check.as_ref().filter(|check| check.again_at() <= now) else {
                continue;
            };
            if check.is_exhausted() {
                let pause = self.pause_after_failure(index);
                self.give_up(now, index, pause, CheckFailure::Timeout);
                continue;
            }
            if pair.state == PairState::Succeeded {
                let patience = (pair.rtt.unwrap_or_default() * 3).max(ANSWER_PATIENCE_MIN);
                let late = now.saturating_duration_since(check.started());
                let steps = late.as_millis() / patience.as_millis();
                pair.missed = pair.missed.max(u32::try_from(steps).unwrap_or(u32::MAX));
            }
            self.send_check(now, index);
        }
    }

    /// Looks for another pair when the selected one does not answer.
    pub(super) fn notice_silence(&mut self, now: Instant) {
        let Some(index) = self.selected.and_then(|key| self.find(key)) else { return };
        let is_dead = self.confirm_suspicion(now, index);
        let pair = &self.pairs[index];
        let is_missed = pair.missed >= MISSED_MAX && pair.has_lost_enough(now);
        let silent = is_dead || is_missed || !pair.is_valid();
        if silent && self.state == State::Connected {
            let pair = self.traced(index);
            self.trace(Trace::Silent(pair));
            self.set_state(State::Disconnected);
            self.silent_since = Some(now);
            // Whatever may work now is looked at again at once.
            for pair in self.pairs.iter_mut().filter(|pair| pair.check.is_none()) {
                match pair.state {
                    PairState::Succeeded => pair.refresh_at = Some(now),
                    _ => pair.wait(),
                }
            }
        } else if self.state == State::Disconnected {
            for pair in self.pairs.iter_mut().filter(|pair| pair.state == PairState::Failed) {
                pair.wait();
            }
        }
    }

    pub(super) fn refresh(&mut self, now: Instant) {
        for index in 0..self.pairs.len() {
            let pair = &self.pairs[index];
            if pair.check.is_some() || pair.refresh_at.is_none_or(|at| at > now) {
                continue;
            }
            if pair.is_valid() {
                // The nomination is said again with each consent check: the peer may have missed
                // it, or see us at another address since. Not while it is told of a better pair.
                let is_in_use = self.selected == Some(self.key(index));
                let nominates = self.controlling && is_in_use && !self.is_changing();
                self.start_check(now, index, nominates);
            } else if !self.is_better(index) {
                self.pairs[index].refresh_at = Some(now + RETRY_PAUSE);
            } else if !pair.was_just_lost() && self.can_punch() {
                self.start_punch(now);
            } else {
                self.start_check(now, index, false);
            }
        }
    }

    /// Whether the peer is being told of another pair than the one in use.
    fn is_changing(&self) -> bool {
        let mut others = self.pairs.iter().filter(|pair| !self.is_selected(pair));
        others.any(Pair::is_nominating)
    }

    /// When a valid pair is checked next; a check under way plans the next one at its end.
    pub(super) fn plan_refresh(&mut self, now: Instant, index: usize) {
        if self.pairs[index].check.is_some() {
            return;
        }
        let mean = match self.selected == Some(self.key(index)) {
            true if self.pairs[index].losses.are_known() => DOUBTED_PAUSE,
            true => CONSENT_PAUSE,
            false => WARM_PAUSE,
        };
        let spread = 0.8 + 0.4 * (self.random.number() >> 11) as f64 / (1u64 << 53) as f64;
        self.pairs[index].refresh_at = Some(now + mean.mul_f64(spread));
    }

    pub(super) fn key(&self, index: usize) -> (std::net::SocketAddr, std::net::SocketAddr) {
        (self.pairs[index].local, self.pairs[index].remote)
    }
}

/// What a reflexive candidate found by a check of this local one would have.
fn reflexive_priority(kind: CandidateKind, local: u32) -> u32 {
    let preference = (local >> 8 & 0xffff) as u16;
    match kind {
        CandidateKind::Relayed => local,
        _ => priority(CandidateKind::PeerReflexive, preference, 1),
    }
}
