//! A candidate pair (RFC 8445 section 6.1.2) and the check that is under way on it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_stun::TransactionId;

use crate::candidate::{Candidate, CandidateKind};
use crate::losses::Losses;
use crate::trace::CheckFailure;

/// Intervals between the transmissions of a check, milliseconds. Short at first: the other end's
/// hole opens when it hears of us, which is about now.
const RETRANSMIT_MS: [u64; 8] = [60, 100, 150, 250, 500, 1000, 1600, 1600];

/// On slow paths that are known to be so, the intervals are not stretched beyond this.
const PACE_MAX: Duration = Duration::from_millis(400);

/// A pair that works is asked so often before the intervals grow, where it does not answer: to
/// doubt it takes evidence, and a path that is about to show that it loses checks has to have the
/// chance.
const PROMPT_CHECKS: usize = 16;
/// The pause between these: checks that are closer are lost together.
const PROMPT_PACE: Duration = Duration::from_millis(120);
/// How many there are where they are closer.
const CLOSE_CHECKS: usize = 12;
/// Where no loss is known, the first repetition waits two round trips and at least so long, and
/// further ones no longer than that: whether a path is there is to be known soon.
const PROMPT_PACE_MIN: Duration = Duration::from_millis(60);

/// A pair that was asked so often without an answer may not be expected to give one.
const YOUNG_CHECKS: u32 = 4;

/// Where a pair is in its life (RFC 8445 section 6.1.2.6). Frozen is left out: with one component
/// and trickled candidates, pacing alone spreads the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PairState {
    /// To be checked when its turn comes.
    Waiting,
    /// A check is under way.
    InProgress,
    /// A check was answered: the pair is valid.
    Succeeded,
    /// No check was answered in time.
    Failed,
}

/// One datagram of a check. Each has a transaction of its own, so that an answer says how long it
/// took, and in which role and with what wish it was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sending {
    pub(crate) transaction: TransactionId,
    pub(crate) at: Instant,
    /// The role that it was sent in, for role conflicts.
    pub(crate) controlling: bool,
    /// Whether it carries USE-CANDIDATE.
    pub(crate) nominates: bool,
}

/// A check on its way.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    /// Whether what is sent from now on carries USE-CANDIDATE.
    pub(crate) nominates: bool,
    sendings: Vec<Sending>,
    started: Instant,
    /// No two sendings by the schedule are closer than this.
    pace: Duration,
    /// So many are sent before the schedule, at a pace of their own: they may be lost. From the
    /// first to the second it takes so long, and no longer than the prompt pace from then on.
    ahead: usize,
    ahead_pace: Duration,
    again_at: Instant,
    /// What was sent last was a knock: the peer's check is waited for until then.
    pub(crate) held_until: Option<Instant>,
}

impl Check {
    /// A check that is due now. `rtt`: the round trip, where it is known: before it is over there
    /// is no point in asking again, unless the path loses some.
    pub(crate) fn new(
        now: Instant,
        nominates: bool,
        rtt: Option<Duration>,
        losses: Losses,
    ) -> Self {
        let pace = rtt.map_or(Duration::ZERO, |rtt| (rtt * 2).min(PACE_MAX));
        let patient_pace = pace.max(PROMPT_PACE_MIN);
        let ahead_pace = if losses.are_known() { PROMPT_PACE } else { patient_pace };
        let prompt = if ahead_pace < PROMPT_PACE { CLOSE_CHECKS } else { PROMPT_CHECKS };
        let works = rtt.is_some() || losses.are_known();
        let ahead = if works { losses.expected().max(prompt) - 1 } else { 0 };
        Self {
            nominates,
            sendings: Vec::new(),
            started: now,
            pace,
            ahead,
            ahead_pace,
            again_at: now,
            held_until: None,
        }
    }

    /// Starts it anew; answers to what was sent before still count.
    pub(crate) fn go_on(&mut self, now: Instant, nominates: bool) {
        self.nominates = nominates;
        self.started = now;
        let sent = self.sendings.len();
        self.sendings.drain(..sent.saturating_sub(RETRANSMIT_MS.len() / 2));
    }

    /// When it is to be sent again.
    pub(crate) fn again_at(&self) -> Instant {
        self.held_until.unwrap_or(self.again_at)
    }

    /// Whether nothing of it has been sent.
    pub(crate) fn is_new(&self) -> bool {
        self.sendings.is_empty()
    }

    /// Whether it has been sent often enough.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.sendings.len() >= self.ahead + RETRANSMIT_MS.len()
    }

    /// Notes a sending.
    pub(crate) fn sent(&mut self, sending: Sending) {
        let interval = match self.sendings.len().checked_sub(self.ahead) {
            None if self.is_new() => self.ahead_pace,
            None => self.ahead_pace.min(PROMPT_PACE),
            Some(number) => {
                let interval = RETRANSMIT_MS.get(number).copied().unwrap_or_default();
                Duration::from_millis(interval).max(self.pace)
            }
        };
        self.again_at = sending.at + interval;
        self.sendings.push(sending);
    }

    /// How many are lost, if answers take no longer than `patience`.
    pub(crate) fn lost(&self, now: Instant, patience: Duration) -> usize {
        self.sendings.iter().filter(|sending| now >= sending.at + patience).count()
    }

    /// How many were sent between these times, the first included.
    fn sent_between(&self, from: Instant, to: Instant) -> usize {
        self.sendings.iter().filter(|sending| (from..to).contains(&sending.at)).count()
    }

    /// The sending that had this transaction.
    pub(crate) fn sending(&self, transaction: TransactionId) -> Option<Sending> {
        self.sendings.iter().find(|sending| sending.transaction == transaction).copied()
    }

    /// When it was sent first.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// When it was sent last.
    pub(crate) fn sent_last(&self) -> Instant {
        self.sendings.last().map_or(self.started, |sending| sending.at)
    }
}

/// A local base and a remote address.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) local: SocketAddr,
    pub(crate) local_kind: CandidateKind,
    pub(crate) local_priority: u32,
    pub(crate) remote: SocketAddr,
    pub(crate) remote_kind: CandidateKind,
    pub(crate) remote_priority: u32,
    pub(crate) state: PairState,
    pub(crate) check: Option<Check>,
    /// When to check a valid pair again: consent on the selected one, warmth on others.
    pub(crate) refresh_at: Option<Instant>,
    /// When the latest answered check was sent: consent lasts from there.
    pub(crate) answered: Option<Instant>,
    /// Checks in a row that were not answered in time, since the last answer.
    pub(crate) missed: u32,
    /// Answers since the selected pair was suspected, up to as many as are asked for.
    pub(crate) testimonies: u32,
    /// How often it was given up since it last worked.
    pub(crate) failures: u32,
    pub(crate) rtt: Option<Duration>,
    /// When the peer's first authenticated check came on it.
    pub(crate) heard: Option<Instant>,
    pub(crate) losses: Losses,
    /// The peer wants it used as soon as our own check succeeds.
    pub(crate) nominated_by_peer: bool,
    /// Our nomination was answered.
    pub(crate) nominated: bool,
    /// Checks sent, for diagnosis.
    pub(crate) checks: u32,
    /// Why it was given up last, for diagnosis.
    pub(crate) failure: Option<CheckFailure>,
    /// Where the peer saw us last, for diagnosis.
    pub(crate) seen_as: Option<SocketAddr>,
}

impl Pair {
    /// A pair that waits for its first check.
    pub(crate) fn new(local: &Candidate, remote: &Candidate) -> Self {
        Self {
            // A reflexive candidate is checked through its base.
            local: local.base,
            local_kind: local.kind,
            local_priority: local.priority,
            remote: remote.address,
            remote_kind: remote.kind,
            remote_priority: remote.priority,
            state: PairState::Waiting,
            check: None,
            refresh_at: None,
            answered: None,
            missed: 0,
            testimonies: 0,
            failures: 0,
            rtt: None,
            heard: None,
            losses: Losses::default(),
            nominated_by_peer: false,
            nominated: false,
            checks: 0,
            failure: None,
            seen_as: None,
        }
    }

    /// Neither end is a relay.
    pub(crate) fn is_direct(&self) -> bool {
        self.local_kind != CandidateKind::Relayed && self.remote_kind != CandidateKind::Relayed
    }

    /// Whether it starts at a socket that was opened for it alone, see `agent/hard.rs`: of our own
    /// candidates, none else is found by checks.
    pub(crate) fn is_spare(&self) -> bool {
        self.local_kind == CandidateKind::PeerReflexive
    }

    /// Whether its first answer may still come.
    pub(crate) fn is_young(&self) -> bool {
        matches!(self.state, PairState::Waiting | PairState::InProgress)
            && self.checks < YOUNG_CHECKS
    }

    /// Whether the peer knows that we want it used, or is just being told. A nomination that is not
    /// answered in time does not keep others from theirs.
    pub(crate) fn is_nominating(&self) -> bool {
        self.missed == 0 && self.check.as_ref().is_some_and(|check| check.nominates)
    }

    /// To be checked when its turn comes, whatever was planned before.
    pub(crate) fn wait(&mut self) {
        self.state = PairState::Waiting;
        self.refresh_at = None;
    }

    /// It does not work; it is looked at again after `pause`.
    pub(crate) fn give_up(&mut self, now: Instant, pause: Duration) {
        self.check = None;
        self.nominated = false;
        self.state = PairState::Failed;
        self.failures = self.failures.saturating_add(1);
        self.refresh_at = Some(now + pause);
    }

    /// Whether it worked, and failed once since.
    pub(crate) fn was_just_lost(&self) -> bool {
        self.answered.is_some() && self.failures <= 1
    }

    /// No longer wanted by us.
    pub(crate) fn withdraw(&mut self) {
        self.nominated = false;
        if let Some(check) = &mut self.check {
            check.nominates = false;
        }
    }

    /// Whether it works, and a check that was sent since then was answered.
    pub(crate) fn has_answered(&self, since: Instant) -> bool {
        self.is_valid() && self.answered.is_some_and(|at| at >= since)
    }

    /// Whether of the check that is under way more are lost than by chance.
    pub(crate) fn has_lost_enough(&self, now: Instant) -> bool {
        let patience = self.rtt.unwrap_or_default() * 3 / 2;
        let lost = self.check.as_ref().map_or(0, |check| check.lost(now, patience));
        lost >= self.losses.expected()
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.state == PairState::Succeeded
    }

    /// Pair priority (RFC 8445 section 6.1.2.3). Nobody is kept from naming priorities beyond the
    /// 31 bits of the standard, so it saturates.
    pub(crate) fn priority(&self, controlling: bool) -> u64 {
        let (g, d) = if controlling {
            (self.local_priority, self.remote_priority)
        } else {
            (self.remote_priority, self.local_priority)
        };
        let (g, d) = (u64::from(g), u64::from(d));
        (g.min(d) << 32).saturating_add(2 * g.max(d) + u64::from(g > d))
    }

    /// An answer came to what was sent at `at`. What was sent before the peer was heard was lost
    /// for want of a hole in its router, as was all that was sent after it had been given up.
    pub(crate) fn learn_losses(&mut self, check: &Check, at: Instant) {
        let from = match (self.answered, self.heard) {
            _ if self.failures > 0 => return,
            (None, None) => return,
            (None, Some(heard)) => heard,
            (Some(_), _) => check.started,
        };
        self.losses.learn(check.sent_between(from, at));
    }

    /// Smooths the round trip as RFC 6298 does.
    pub(crate) fn learn_rtt(&mut self, sample: Duration) {
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_sent_a_bounded_number_of_times_and_knows_each() {
        let start = Instant::now();
        let mut check = Check::new(start, false, None, Losses::default());
        let mut times = Vec::new();
        while !check.is_exhausted() {
            let at = check.again_at();
            let number = u8::try_from(times.len()).unwrap();
            let transaction = TransactionId([number; 12]);
            check.sent(Sending { transaction, at, controlling: true, nominates: false });
            assert_eq!(check.sending(transaction).map(|sending| sending.at), Some(at));
            times.push(at);
        }
        assert_eq!(times.len(), RETRANSMIT_MS.len());
        assert_eq!(check.again_at() - start, Duration::from_millis(RETRANSMIT_MS.iter().sum()));
        assert!(check.sending(TransactionId([99; 12])).is_none());
    }

    #[test]
    fn a_known_round_trip_is_waited_for() {
        let start = Instant::now();
        for (rtt, expected) in [(10, 60), (150, 300), (5000, 400)] {
            let rtt = Some(Duration::from_millis(rtt));
            let mut check = Check::new(start, false, rtt, Losses::default());
            let transaction = TransactionId([0; 12]);
            check.sent(Sending { transaction, at: start, controlling: true, nominates: false });
            assert_eq!(check.again_at(), start + Duration::from_millis(expected));
        }
    }

    /// When three answers of a pair that works are missed, so many checks say so.
    #[test]
    fn a_pair_that_works_is_asked_often_before_the_intervals_grow() {
        let start = Instant::now();
        for (rtt_ms, within_ms, expected) in [(20, 1200, 15), (100, 1200, 10), (400, 3600, 19)] {
            let rtt = Some(Duration::from_millis(rtt_ms));
            let mut check = Check::new(start, false, rtt, Losses::default());
            let end = start + Duration::from_millis(within_ms);
            let mut count = 0;
            while check.again_at < end {
                let (transaction, at) = (TransactionId([0; 12]), check.again_at);
                check.sent(Sending { transaction, at, controlling: true, nominates: false });
                count += 1;
            }
            assert_eq!(count, expected, "{rtt_ms} ms");
        }
    }
}
