//! Moves: what is known of the network from elsewhere, before checks would show it.
//!
//! A selected pair that dies is noticed by its own checks within six seconds. Whoever carries data
//! knows sooner: nothing comes any more, or it comes from another address, or the address that we
//! send from is gone. Each makes the pair *suspect*: it is checked at once, with all others that
//! work, and where another pair answers time after time and this one never, it counts as silent.
//! Both may lose checks: if they were alike, either would be first to answer as likely as the
//! other, so each answer is a toss of a coin. A few tosses do where nothing is known to be lost,
//! and a loss among them is known; then there are to be many, and the pair in use is to have lost
//! more checks than it would by chance.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::incoming::REPEAT_PAUSE;
use super::{Agent, Early, State};
use crate::candidate::{CandidateKind, priority};
use crate::pair::Pair;
use crate::trace::{CheckFailure, Suspicion, Trace};

/// A suspect pair has this long, or two round trips, to answer while another one does.
const ANSWER_TIME_MIN: Duration = Duration::from_millis(150);
/// A suspicion ends when the pair answers, or after this if nothing comes of it; then it may come
/// again.
const SUSPICION_TIME: Duration = Duration::from_secs(4);
/// Answers of another pair that say that the suspect one is silent, and where losses are known.
const TESTIMONIES: u32 = 3;
const TESTIMONIES_LOSSY: u32 = 12;
/// From such an answer to the next question.
const TESTIMONY_PAUSE: Duration = Duration::from_millis(10);

impl Agent {
    /// An address of ours is gone: no pair works from there. It may come back by
    /// [`add_local`](Agent::add_local).
    pub fn remove_local(&mut self, now: Instant, base: SocketAddr) {
        if matches!(self.state, State::New | State::Failed) {
            self.local_candidates.retain(|candidate| candidate.base != base);
            return;
        }
        self.trace(Trace::LocalGone(base));
        for index in 0..self.pairs.len() {
            let pair = &self.pairs[index];
            if pair.local == base || (pair.is_spare() && pair.local.ip() == base.ip()) {
                let pause = self.pause_after_failure(index);
                self.give_up(now, index, pause, CheckFailure::AddressGone);
            }
        }
        self.notice_silence(now);
        self.refresh(now);
        self.nominate(now);
        self.advance(now);
    }

    /// The peer sent something authentic on this pair, by other means than a check. If that is not
    /// the one in use, the peer may have moved.
    pub fn on_authentic(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr) {
        let is_known = self.selected == Some((local, remote)) || self.remote.is_none();
        if is_known || self.state == State::Failed {
            return;
        }
        let priority = priority(CandidateKind::PeerReflexive, 0, 1);
        self.on_authentic_check(now, Early { local, remote, priority, nominates: false });
        self.suspect(now, Suspicion::PeerElsewhere);
    }

    /// Whoever carries data thinks that the selected pair may be dead.
    pub fn suspect(&mut self, now: Instant, cause: Suspicion) {
        if self.is_suspicious(now) || self.state != State::Connected {
            return;
        }
        self.suspect_since = Some(now);
        self.trace_suspicion(cause);
        self.pairs.iter_mut().for_each(|pair| pair.testimonies = 0);
        let resting = |pair: &&mut Pair| pair.is_valid() && pair.check.is_none();
        self.pairs.iter_mut().filter(resting).for_each(|pair| pair.refresh_at = Some(now));
        self.refresh(now);
        self.advance(now);
    }

    /// Whether the selected pair is being asked, and has not answered.
    fn is_suspicious(&self, now: Instant) -> bool {
        let Some(since) = self.suspicion(now) else { return false };
        let selected = self.selected.and_then(|pair| self.find(pair));
        !selected.is_some_and(|index| self.pairs[index].has_answered(since))
    }

    /// When the latest suspicion arose, unless that is long ago.
    pub(super) fn suspicion(&self, now: Instant) -> Option<Instant> {
        self.suspect_since.filter(|since| now < *since + SUSPICION_TIME)
    }

    /// Something about this machine's addresses or routes is another. What is being asked is asked
    /// again at once, for the last time it may have had no way out.
    pub fn on_network_changed(&mut self, now: Instant) {
        if matches!(self.state, State::New | State::Failed) {
            return;
        }
        for index in 0..self.pairs.len() {
            let check = self.pairs[index].check.as_ref();
            let check = check.filter(|check| now >= check.sent_last() + REPEAT_PAUSE);
            if let Some(nominates) = check.map(|check| check.nominates) {
                self.start_check(now, index, nominates);
            }
        }
        self.suspect(now, Suspicion::NetworkChanged);
    }

    /// Whether the selected pair is silent by what is known of others. It is no longer one that
    /// answers then.
    pub(super) fn confirm_suspicion(&mut self, now: Instant, selected: usize) -> bool {
        let is_true = self.is_suspicion_true(now, selected);
        if is_true {
            self.pairs[selected].missed = self.pairs[selected].missed.max(1);
        }
        is_true
    }

    /// Whether another pair has answered often enough since the suspicion, and the selected one
    /// had its time.
    fn is_suspicion_true(&self, now: Instant, selected: usize) -> bool {
        let Some(since) = self.suspicion(now) else { return false };
        let pair = &self.pairs[selected];
        let rtt = pair.rtt.unwrap_or_default();
        !pair.has_answered(since)
            && now >= since + (rtt * 2).max(ANSWER_TIME_MIN)
            && pair.has_lost_enough(now)
            && self.pairs.iter().any(|other| {
                other.has_answered(since) && other.testimonies >= testimonies(pair, other)
            })
    }

    /// A pair has answered. While the selected one does not, it is asked again soon, as often as it
    /// takes to be sure.
    pub(super) fn testify(&mut self, now: Instant, index: usize) {
        let Some(since) = self.suspicion(now) else { return };
        let Some(selected) = self.selected.and_then(|pair| self.find(pair)) else { return };
        let [pair, other] = [selected, index].map(|index| &self.pairs[index]);
        if selected == index || pair.has_answered(since) || !other.has_answered(since) {
            return;
        }
        let is_enough = other.testimonies + 1 >= testimonies(pair, other);
        let other = &mut self.pairs[index];
        other.testimonies += 1;
        if !is_enough {
            other.refresh_at = Some(now + TESTIMONY_PAUSE);
        }
    }
}

/// How many answers of `other` say that `pair` is silent, which gives none.
fn testimonies(pair: &Pair, other: &Pair) -> u32 {
    let is_lossy = pair.losses.are_known() || other.losses.are_known();
    if is_lossy { TESTIMONIES_LOSSY } else { TESTIMONIES }
}
