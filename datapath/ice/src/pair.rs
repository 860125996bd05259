//! A candidate pair (RFC 8445 section 6.1.2) and the check that is under way on it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_stun::TransactionId;

use crate::candidate::CandidateKind;

/// Intervals between the transmissions of a check, milliseconds. Short at first: the other end's
/// hole opens when it hears of us, which is about now.
const RETRANSMIT_MS: [u64; 8] = [60, 100, 150, 250, 500, 1000, 1600, 1600];

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

/// A check on its way.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) transaction: TransactionId,
    /// The request's bytes: a retransmission is the same request.
    pub(crate) request: Vec<u8>,
    /// Whether it carries USE-CANDIDATE.
    pub(crate) nominates: bool,
    /// The role that it was sent in, for role conflicts.
    pub(crate) controlling: bool,
    sent_first: Instant,
    sent: usize,
    pub(crate) again_at: Instant,
}

impl Check {
    pub(crate) fn new(
        now: Instant,
        transaction: TransactionId,
        request: Vec<u8>,
        nominates: bool,
        controlling: bool,
    ) -> Self {
        let again_at = now + Duration::from_millis(RETRANSMIT_MS[0]);
        Self { transaction, request, nominates, controlling, sent_first: now, sent: 1, again_at }
    }

    /// Notes a retransmission; `false` when the check has been sent often enough.
    pub(crate) fn resent(&mut self, now: Instant) -> bool {
        let Some(interval) = RETRANSMIT_MS.get(self.sent) else { return false };
        self.sent += 1;
        self.again_at = now + Duration::from_millis(*interval);
        true
    }

    /// The round trip that an answer at `now` shows; of a request that was sent once only, because
    /// the answer to a repeated one may be to any of them.
    pub(crate) fn rtt(&self, now: Instant) -> Option<Duration> {
        (self.sent == 1).then(|| now.saturating_duration_since(self.sent_first))
    }

    /// When it was sent first.
    pub(crate) fn started(&self) -> Instant {
        self.sent_first
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
    /// How often it was given up since it last worked.
    pub(crate) failures: u32,
    pub(crate) rtt: Option<Duration>,
    /// The peer has sent an authenticated check on it.
    pub(crate) heard: bool,
    /// The peer wants it used as soon as our own check succeeds.
    pub(crate) nominated_by_peer: bool,
    /// Our nomination was answered.
    pub(crate) nominated: bool,
}

impl Pair {
    /// Neither end is a relay.
    pub(crate) fn is_direct(&self) -> bool {
        self.local_kind != CandidateKind::Relayed && self.remote_kind != CandidateKind::Relayed
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.state == PairState::Succeeded
    }

    /// Pair priority (RFC 8445 section 6.1.2.3).
    pub(crate) fn priority(&self, controlling: bool) -> u64 {
        let (g, d) = if controlling {
            (self.local_priority, self.remote_priority)
        } else {
            (self.remote_priority, self.local_priority)
        };
        let (g, d) = (u64::from(g), u64::from(d));
        (g.min(d) << 32) + 2 * g.max(d) + u64::from(g > d)
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
    fn a_check_is_sent_a_bounded_number_of_times() {
        let now = Instant::now();
        let mut check = Check::new(now, TransactionId([0; 12]), vec![], false, true);
        assert_eq!(check.rtt(now + Duration::from_millis(7)), Some(Duration::from_millis(7)));
        let repeats = std::iter::from_fn(|| check.resent(now).then_some(())).take(100).count();
        assert_eq!(repeats, RETRANSMIT_MS.len() - 1);
        assert_eq!(check.rtt(now), None);
    }
}
