//! Which valid pair is used (RFC 8445 section 8), and when it is another one.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Agent, Output, State};
use crate::pair::{Pair, PairState};

impl Agent {
    /// The controlling end nominates its best valid pair; the controlled end follows. Neither waits
    /// for that with the first pair that is known to work: any valid pair may carry data (RFC 8445
    /// section 12.1).
    pub(super) fn nominate(&mut self, now: Instant) {
        if self.controlling {
            self.choose(now);
            let answers = |pair: &Pair| pair.is_valid() && pair.missed == 0;
            let answered = self.best(|pair| answers(pair) && pair.nominated);
            self.use_pair(now, answered);
            if self.selected.is_none() {
                let told = self.best(|pair| is_proven(pair) && pair.is_nominating());
                self.use_pair(now, told);
            }
        } else {
            let wanted = |pair: &Pair| pair.is_valid() && pair.nominated_by_peer;
            let latest = self.pairs.iter().position(wanted);
            if let Some(index) = latest {
                // The nomination is done: a later one of another pair replaces it.
                self.pairs[index].nominated_by_peer = false;
                self.use_pair(now, Some(index));
            } else if self.selected.is_none() {
                let patient = self.is_patient(now);
                let proven = self.best(|pair| is_proven(pair) && (pair.is_direct() || !patient));
                self.use_pair(now, proven);
            } else if self.state == State::Disconnected {
                // The peer may still think that all is well. Consent to send on the silent pair
                // runs out; any valid pair may be used until the peer nominates again.
                let since = self.silent_since;
                let proven = self.best(|pair| pair.is_valid() && pair.answered > since);
                self.use_pair(now, proven);
            }
        }
    }

    /// When another than a direct pair that both see may be used for lack of one.
    pub(super) fn relay_due(&self) -> Option<Instant> {
        let is_waiting = self.controlling
            && self.selected.is_none()
            && self.pairs.iter().any(|pair| pair.is_valid() && pair.missed == 0)
            && !self.pairs.iter().any(|pair| pair.nominated || pair.is_nominating());
        let due = self.started.map(|at| at + self.config.relay_patience);
        due.filter(|_| is_waiting)
    }

    /// Whether a direct pair is still waited for.
    fn is_patient(&self, now: Instant) -> bool {
        self.started.is_some_and(|at| now < at + self.config.relay_patience)
    }

    /// Sends the nomination of the best pair, if it is better than the one in use.
    fn choose(&mut self, now: Instant) {
        let in_use = self.selected.and_then(|key| self.find(key));
        let in_use = in_use.filter(|_| self.state != State::Disconnected);
        let patient = self.is_patient(now);
        // What killed the pair in use may have killed others: one that only was valid before would
        // be waited for in vain.
        let since = self.suspicion(now).filter(|_| in_use.is_none());
        let usable = |pair: &Pair| {
            pair.is_valid()
                && pair.missed == 0
                && since.is_none_or(|since| pair.has_answered(since))
                && (!patient || in_use.is_some() || (pair.is_direct() && pair.heard.is_some()))
        };
        let Some(best) = self.best(usable) else { return };
        let is_better = in_use.is_none_or(|index| self.rank(best) > self.rank(index));
        // The one in use is nominated with every check; only its first nomination is waited for.
        let settled = in_use.filter(|index| self.pairs[*index].nominated);
        let settled = settled.map(|index| self.key(index));
        let mut others =
            self.pairs.iter().filter(|pair| Some((pair.local, pair.remote)) != settled);
        if is_better && !self.pairs[best].nominated && !others.any(Pair::is_nominating) {
            // One at a time, so that both ends end with the same.
            let others = self.pairs.iter_mut().filter(|pair| !pair.nominated);
            others.for_each(Pair::withdraw);
            self.start_check(now, best, true);
            if in_use.is_none() && self.pairs[best].is_direct() && is_proven(&self.pairs[best]) {
                self.use_pair(now, Some(best));
            }
        }
    }

    /// A direct pair that most likely works, though that is not known yet: the peer's authentic
    /// checks come on it, and ours are under way.
    #[must_use]
    pub fn likely_pair(&self) -> Option<(SocketAddr, SocketAddr)> {
        let is_likely = |pair: &Pair| {
            let is_asked = pair.state == PairState::InProgress && pair.check.is_some();
            pair.is_direct() && pair.heard.is_some() && is_asked
        };
        self.best(is_likely).map(|index| self.key(index))
    }

    /// The best pair of those that fit.
    fn best(&self, fits: impl Fn(&Pair) -> bool) -> Option<usize> {
        let indexes = (0..self.pairs.len()).filter(|index| fits(&self.pairs[*index]));
        indexes.max_by_key(|index| self.rank(*index))
    }

    /// Whether a pair would be used instead of the one in use, if it worked.
    pub(super) fn is_better(&self, index: usize) -> bool {
        let in_use = self.selected.and_then(|key| self.find(key));
        in_use.is_none_or(|in_use| self.worth(index) > self.worth(in_use))
    }

    /// What the peer reaches us on before what only we see working: the peer checks back what
    /// reaches it, and does not use what it does not see valid itself. Peers that only answer
    /// (ICE-lite) are not heard on any.
    fn rank(&self, index: usize) -> (bool, (bool, u64)) {
        (self.pairs[index].heard.is_some(), self.worth(index))
    }

    /// Direct before relayed, then by priority.
    fn worth(&self, index: usize) -> (bool, u64) {
        let pair = &self.pairs[index];
        (pair.is_direct(), pair.priority(self.controlling))
    }

    fn use_pair(&mut self, now: Instant, index: Option<usize>) {
        let Some(index) = index else { return };
        let key = self.key(index);
        if self.selected != Some(key) {
            self.note_choice(now, index);
            // What was in use has to be nominated anew to be used again.
            let others = self.pairs.iter_mut().enumerate().filter(|(other, _)| *other != index);
            others.for_each(|(_, pair)| pair.withdraw());
            self.selected = Some(key);
            self.plan_refresh(now, index);
            self.outputs.push_back(Output::Selected(self.describe(index)));
        }
        // A first pair that has just missed an answer may still be the only one there is.
        if self.state == State::Checking || self.pairs[index].missed == 0 {
            self.set_state(State::Connected);
        }
    }
}

/// Whether a pair is known to work in both directions.
fn is_proven(pair: &Pair) -> bool {
    pair.heard.is_some() && pair.is_valid() && pair.missed == 0
}
