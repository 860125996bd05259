//! What is told of the agent's work, see [`Trace`].

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_stun::Message;

use super::{Agent, Early, Packet, State};
use crate::pair::{Pair, PairState};
use crate::trace::{CheckFailure, Choice, ChoiceCause, Outcome, Suspicion, Trace, TracedPair};

/// Steps that wait to be taken, at most: whoever does not ask for them does not pay for them.
const TRACES_MAX: usize = 1024;

impl Agent {
    /// The next step that was taken, in their order; ask until `None`.
    pub fn poll_trace(&mut self) -> Option<Trace> {
        self.traces.pop_front()
    }

    /// Why the pair in use is the one in use.
    pub fn choice(&self) -> Option<Choice> {
        self.choice.filter(|_| self.selected.is_some())
    }

    /// What became of all pairs, by kind, the best kinds first.
    pub fn outcomes(&self) -> Vec<Outcome> {
        let mut outcomes: Vec<Outcome> = Vec::new();
        for pair in &self.pairs {
            let same = |outcome: &&mut Outcome| {
                (outcome.local_kind, outcome.remote_kind, outcome.is_ipv4)
                    == (pair.local_kind, pair.remote_kind, pair.remote.is_ipv4())
            };
            match outcomes.iter_mut().find(same) {
                Some(outcome) => count(outcome, pair),
                None => {
                    let mut outcome = none_of(pair);
                    count(&mut outcome, pair);
                    outcomes.push(outcome);
                }
            }
        }
        outcomes.sort_by_key(|outcome| (outcome.local_kind, outcome.remote_kind, !outcome.is_ipv4));
        outcomes
    }

    pub(super) fn trace(&mut self, trace: Trace) {
        if self.traces.len() < TRACES_MAX {
            self.traces.push_back(trace);
        }
    }

    pub(super) fn traced(&self, index: usize) -> TracedPair {
        traced(&self.pairs[index])
    }

    /// Whether a check of this pair is a step: all but those that keep warm what works.
    fn is_step(&self, now: Instant, index: usize, nominates: bool) -> bool {
        let pair = &self.pairs[index];
        let is_new_nomination = nominates && self.selected != Some(self.key(index));
        !pair.is_valid() || pair.missed > 0 || is_new_nomination || self.suspicion(now).is_some()
    }

    pub(super) fn trace_sent(&mut self, now: Instant, index: usize, nominates: bool) {
        self.pairs[index].checks = self.pairs[index].checks.saturating_add(1);
        if self.is_step(now, index, nominates) {
            let (pair, number) = (self.traced(index), self.pairs[index].checks);
            self.trace(Trace::CheckSent { pair, number, nominates });
        }
    }

    /// A check of the peer; to be told before it is taken.
    pub(super) fn trace_request(&mut self, index: usize, check: &Early) {
        let (pair, traced) = (&self.pairs[index], self.traced(index));
        let is_wish = check.nominates && !self.controlling && !pair.nominated_by_peer;
        let is_news = is_wish && self.selected != Some(self.key(index));
        if pair.heard.is_none() {
            self.trace(Trace::Heard(traced));
        }
        if is_news {
            self.trace(Trace::PeerNominates(traced));
        }
    }

    /// Where an answer says that the peer sees us.
    pub(super) fn trace_mapped(&mut self, index: usize, mapped: Option<SocketAddr>) {
        let Some(address) = mapped else { return };
        if self.pairs[index].seen_as.replace(address) == Some(address) {
            return;
        }
        if !self.local_candidates.iter().any(|candidate| candidate.address == address) {
            let pair = self.traced(index);
            self.trace(Trace::SeenAs { pair, address });
        }
    }

    /// An answer that answers nothing which was asked of its sender. Was another asked?
    pub(super) fn trace_stray(&mut self, packet: Packet<'_>, message: &Message<'_>) {
        let asked = |pair: &Pair| {
            let check = pair.check.as_ref();
            check.is_some_and(|check| check.sending(message.transaction()).is_some())
        };
        let is_authentic = self.remote.as_ref().is_some_and(|(_, key)| message.verify(key).is_ok());
        let index = self.pairs.iter().position(asked).filter(|_| is_authentic);
        if let Some(pair) = index.map(|index| self.traced(index)) {
            self.trace(Trace::StrayAnswer { pair, from: packet.remote });
        }
    }

    /// To be told before the pair's state is changed.
    pub(super) fn trace_answered(&mut self, now: Instant, index: usize, rtt: Duration, n: bool) {
        if self.is_step(now, index, n) {
            let pair = self.traced(index);
            self.trace(Trace::CheckAnswered { pair, rtt });
        }
        if self.selected == Some(self.key(index)) && self.state == State::Disconnected {
            let pair = self.traced(index);
            self.trace(Trace::Recovered(pair));
        }
    }

    pub(super) fn trace_suspicion(&mut self, cause: Suspicion) {
        if let Some(index) = self.selected.and_then(|key| self.find(key)) {
            let pair = self.traced(index);
            self.trace(Trace::Suspected { pair, cause });
        }
    }

    /// Gives a pair up for `pause`.
    pub(super) fn give_up(
        &mut self,
        now: Instant,
        index: usize,
        pause: Duration,
        cause: CheckFailure,
    ) {
        let pair = &mut self.pairs[index];
        pair.give_up(now, pause);
        pair.failure = Some(cause);
        let (checks, pair) = (pair.checks, traced(pair));
        self.trace(Trace::CheckFailed { pair, cause, checks });
    }

    /// Notes why another pair is used from now on; to be told while the one before is in use.
    pub(super) fn note_choice(&mut self, now: Instant, index: usize) {
        let before = self.selected.and_then(|key| self.find(key));
        let is_gone = before.is_some_and(|before| {
            let before = &self.pairs[before];
            !before.is_valid() && before.failure == Some(CheckFailure::AddressGone)
        });
        let cause = match before {
            None if self.selected.is_none() => ChoiceCause::First,
            _ if is_gone => ChoiceCause::AddressGone,
            _ if self.state == State::Disconnected => ChoiceCause::Silence,
            _ if self.is_better(index) => ChoiceCause::Better,
            _ if self.controlling => ChoiceCause::Silence,
            _ => ChoiceCause::PeerWish,
        };
        let is_peers = !self.controlling && self.state != State::Disconnected;
        self.choice = Some(Choice { cause, is_peers, at: now });
        let pair = self.traced(index);
        self.trace(Trace::Selected { pair, cause, is_peers });
    }
}

fn traced(pair: &Pair) -> TracedPair {
    TracedPair {
        local: pair.local,
        local_kind: pair.local_kind,
        remote: pair.remote,
        remote_kind: pair.remote_kind,
    }
}

fn none_of(pair: &Pair) -> Outcome {
    Outcome {
        local_kind: pair.local_kind,
        remote_kind: pair.remote_kind,
        is_ipv4: pair.remote.is_ipv4(),
        pairs: 0,
        working: 0,
        failed: 0,
        checks: 0,
        last_failure: None,
    }
}

fn count(outcome: &mut Outcome, pair: &Pair) {
    outcome.pairs += 1;
    outcome.working += u32::from(pair.is_valid());
    outcome.failed += u32::from(pair.state == PairState::Failed);
    outcome.checks = outcome.checks.saturating_add(pair.checks);
    outcome.last_failure = pair.failure.or(outcome.last_failure);
}
