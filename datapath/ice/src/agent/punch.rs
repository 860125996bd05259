//! Punching: how both ends' routers are opened before either hears of the other.
//!
//! A router that rejects what comes unasked remembers it, and maps what is sent to that remote
//! afterwards to another port. Then a peer whose NAT filters by port never hears us, however often
//! both try. So whoever is first to know the other must not be heard by the other's router, yet
//! open its own. Who answers an offer is first, and who was in the group when the other came. It
//! *knocks*: its first check of a reflexive address has so small a hop limit that it passes one
//! router and no more. The other end comes to know of it when that is done, and its first check
//! finds the way open. Where it does not, one by way of a relay tells that the other's own router
//! is open: relayed pairs are the last to be checked. If none comes within
//! [`super::AgentConfig::head_start`], we try all the same.
//!
//! Relays are no better: a port that has been moved towards a relay is what Linux gives that socket
//! towards everybody from then on. The peer hears of our relay late, but its own check of it needs
//! no more than a permission; so from a relay both ends knock, and are silent until they are asked.
//!
//! Where that went wrong, two things mend it: silence of both ends until the routers have forgotten
//! (30 s for a flow without answers on Linux), and first datagrams that leave both ends at about
//! the same time. The controlling end waits, tells the peer by a Binding indication over the pair
//! in use, and starts its checks half a round trip later, when the peer, who starts at once, has
//! heard it. To agents that know nothing of this the indication is a keepalive (RFC 8445 section
//! 11).

use std::time::{Duration, Instant};

use ipop_stun::{Attribute, Builder, Class, Method};

use super::outgoing::RETRY_PAUSE;
use super::{Agent, HEAD_START, Output, State};
use crate::candidate::CandidateKind;
use crate::pair::{Check, PairState};
use crate::trace::Trace;

/// Hops that a knock goes: our router passes it on, the next one drops it. Behind two routers of
/// our own it opens only the nearer one, and all is as it were without it.
pub const KNOCK_HOP_LIMIT: u8 = 2;
/// Silence on a pair that never worked; doubles with each failure.
const QUIET: Duration = Duration::from_secs(35);
const QUIET_DOUBLINGS: u32 = 3;
/// The controlled end waits for the other's word so much longer before it tries alone.
const ALONE_AFTER: u32 = 4;
/// The peer's word counts again after this.
const PUNCH_PAUSE: Duration = Duration::from_secs(5);
/// Half a round trip that is not known.
const HALF_RTT: Duration = Duration::from_millis(50);
/// Checks that start at the same time, at most; the others follow at the pace.
const BURST: usize = 8;

/// When to punch.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Punch {
    /// The peer was told; our checks start then.
    launch_at: Option<Instant>,
    /// When the peer told us last.
    told_at: Option<Instant>,
}

impl Punch {
    pub(super) fn launch_at(&self) -> Option<Instant> {
        self.launch_at
    }
}

impl Agent {
    /// Whether the check that is about to be sent is to open our own side alone.
    pub(super) fn knocks(&self, index: usize) -> bool {
        let pair = &self.pairs[index];
        let is_first = pair.check.as_ref().is_some_and(Check::is_new);
        let is_at_relay = pair.local_kind == CandidateKind::Relayed;
        let may_be_first = is_at_relay || (!self.config.head_start.is_zero() && !self.peer_checks);
        let is_behind_router =
            pair.remote_kind == CandidateKind::ServerReflexive && pair.remote.is_ipv4();
        is_first && is_behind_router && may_be_first && pair.heard.is_none()
    }

    /// How long what has knocked waits for the peer.
    pub(super) fn head_start(&self, index: usize) -> Duration {
        match self.pairs[index].local_kind {
            CandidateKind::Relayed => HEAD_START,
            _ => self.config.head_start,
        }
    }

    /// The peer checks: what has waited for that goes on, but for what starts at relays.
    pub(super) fn stop_knocking(&mut self, now: Instant) {
        if std::mem::replace(&mut self.peer_checks, true) {
            return;
        }
        let direct = self.pairs.iter_mut().filter(|pair| pair.is_direct());
        let checks = direct.filter_map(|pair| pair.check.as_mut());
        for check in checks.filter(|check| check.held_until.is_some()) {
            check.held_until = Some(now);
        }
        self.retransmit(now);
    }

    /// How long a pair that is about to be given up rests.
    pub(super) fn pause_after_failure(&self, index: usize) -> Duration {
        let pair = &self.pairs[index];
        let is_lost = pair.answered.is_some() && pair.failures == 0;
        if is_lost || self.selected.is_none() {
            return RETRY_PAUSE;
        }
        let quiet = QUIET * (1 << pair.failures.min(QUIET_DOUBLINGS));
        if self.controlling { quiet } else { quiet * ALONE_AFTER }
    }

    /// Whether there is a way to tell the peer.
    pub(super) fn can_punch(&self) -> bool {
        self.controlling && self.state == State::Connected && self.selected.is_some()
    }

    /// Tells the peer, and launches when it has heard.
    pub(super) fn start_punch(&mut self, now: Instant) {
        let Some(index) = self.selected.and_then(|key| self.find(key)) else { return };
        self.trace(Trace::Punch { is_peers: false });
        let half = self.pairs[index].rtt.map_or(HALF_RTT, |rtt| rtt / 2);
        self.punch.launch_at = Some(now + half);
        for index in 0..self.pairs.len() {
            if self.pairs[index].state == PairState::Failed && self.is_better(index) {
                self.pairs[index].refresh_at = None;
            }
        }
        let transaction = self.random.transaction_id();
        let Some((remote, key)) = &self.remote else { return };
        let told = Builder::new(Class::Indication, Method::Binding, transaction)
            .with(Attribute::Username(self.username(remote)));
        if let Ok(data) = told.integrity(key).fingerprint().build() {
            let (local, remote) = self.key(index);
            self.outputs.push_back(Output::Transmit { local, remote, data });
        }
    }

    /// The peer punches now.
    pub(super) fn on_punch(&mut self, now: Instant) {
        if self.controlling || self.punch.told_at.is_some_and(|at| now < at + PUNCH_PAUSE) {
            return;
        }
        self.punch.told_at = Some(now);
        self.trace(Trace::Punch { is_peers: true });
        self.launch(now);
    }

    pub(super) fn launch_if_due(&mut self, now: Instant) {
        if self.punch.launch_at.is_some_and(|at| at <= now) {
            self.punch.launch_at = None;
            self.launch(now);
        }
    }

    /// Checks all failed pairs that are better than the one in use, the best at once.
    fn launch(&mut self, now: Instant) {
        let controlling = self.controlling;
        let failed = |index: &usize| self.pairs[*index].state == PairState::Failed;
        let mut indexes: Vec<usize> = (0..self.pairs.len()).filter(failed).collect();
        indexes.retain(|index| self.is_better(*index));
        indexes.sort_by_key(|index| std::cmp::Reverse(self.pairs[*index].priority(controlling)));
        for (rank, index) in indexes.into_iter().enumerate() {
            if rank < BURST {
                self.start_check(now, index, false);
            } else {
                self.pairs[index].wait();
            }
        }
    }
}
