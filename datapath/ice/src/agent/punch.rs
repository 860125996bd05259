//! Punching together: what to do about direct pairs that never worked while a relay does.
//!
//! A router that rejects what comes unasked remembers it, and maps what we send to that remote
//! afterwards to another port. Then a peer whose NAT filters by port never hears us, however often
//! both try. Two things mend that: silence of both ends until the routers have forgotten (30 s for
//! a flow without answers on Linux), and first datagrams that leave both ends at about the same
//! time, so that each has passed its own router before the other's comes.
//!
//! So the controlling end waits, tells the peer by a Binding indication over the pair in use, and
//! starts its checks half a round trip later, when the peer, who starts at once, has heard it. To
//! agents that know nothing of this the indication is a keepalive (RFC 8445 section 11).

use std::time::{Duration, Instant};

use ipop_stun::{Attribute, Builder, Class, Method};

use super::outgoing::RETRY_PAUSE;
use super::{Agent, Output, State};
use crate::pair::PairState;
use crate::trace::Trace;

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
