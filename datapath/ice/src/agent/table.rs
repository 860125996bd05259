//! The tables of candidates and pairs: what comes in, and what gives way when they are full.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Agent, Early, Output, REMOTE_CANDIDATES_MAX};
use crate::candidate::{Candidate, CandidateKind, foundation, priority};
use crate::pair::{Pair, PairState};
use crate::trace::Trace;

const LOCAL_CANDIDATES_MAX: usize = 64;
/// Remote candidates found by checks, at most. A NAT that maps anew every few minutes makes them
/// without end, as does a peer that forges its source; those without a valid pair give way.
const PEER_REFLEXIVE_MAX: usize = 16;
/// Pairs at most; the worst ones give way (RFC 8445 section 6.1.2.5).
const PAIRS_MAX: usize = 256;

impl Agent {
    /// Adds a candidate of ours; pairs with all remote ones follow.
    pub fn add_local(&mut self, now: Instant, candidate: Candidate) {
        if self.local_candidates.contains(&candidate) {
            let (kind, address) = (candidate.kind, candidate.address);
            self.trace(Trace::LocalCandidate { kind, address });
            // It was gone for a while, perhaps: what was asked meanwhile never left.
            let of_base = self.pairs.iter_mut().filter(|pair| pair.local == candidate.base);
            for pair in of_base.filter(|pair| !pair.is_valid()) {
                pair.check = None;
                pair.wait();
            }
            return self.advance(now);
        }
        if self.local_candidates.len() >= LOCAL_CANDIDATES_MAX {
            // A node that moves from network to network leaves dead ones behind.
            let dead = |c: &Candidate| self.is_dead(|pair| pair.local == c.base);
            let Some(index) = self.local_candidates.iter().position(dead) else { return };
            let base = self.local_candidates.remove(index).base;
            if !self.local_candidates.iter().any(|c| c.base == base) {
                self.pairs.retain(|pair| pair.local != base);
            }
        }
        let (kind, address) = (candidate.kind, candidate.address);
        self.trace(Trace::LocalCandidate { kind, address });
        for index in 0..self.remote_candidates.len() {
            let remote = self.remote_candidates[index].clone();
            self.pair_up(&candidate, &remote);
        }
        if candidate.kind == CandidateKind::ServerReflexive {
            let (base, mapped) = (candidate.base, candidate.address);
            self.hard.observe(base, candidate.foundation.clone(), mapped);
        }
        self.local_candidates.push(candidate);
        self.advance(now);
    }

    /// Adds a candidate of the peer; `false` if it is of no use.
    pub fn add_remote(&mut self, now: Instant, candidate: Candidate) -> bool {
        let (kind, address) = (candidate.kind, candidate.address);
        let is_of_use = self.take_remote(now, candidate);
        if !is_of_use {
            self.trace(Trace::RemoteUseless { kind, address });
        }
        is_of_use
    }

    fn take_remote(&mut self, now: Instant, mut candidate: Candidate) -> bool {
        if !candidate.is_usable() {
            return false;
        }
        if candidate.kind == CandidateKind::PeerReflexive {
            // Here this kind is for what checks find; a named one is as good as a server's.
            candidate.kind = CandidateKind::ServerReflexive;
        }
        let known = self.remote_candidates.iter().position(|c| c.address == candidate.address);
        let found =
            known.filter(|i| self.remote_candidates[*i].kind == CandidateKind::PeerReflexive);
        if known.is_some() && found.is_none() {
            return true;
        }
        if self.named_count() >= REMOTE_CANDIDATES_MAX && !self.drop_dead_remote() {
            return false;
        }
        let (kind, address) = (candidate.kind, candidate.address);
        self.trace(Trace::RemoteCandidate { kind, address });
        if found.is_some() {
            // Signalling says what it really is (RFC 8838 section 11).
            self.remote_candidates.retain(|c| c.address != candidate.address);
            self.rename_remote(&candidate);
        }
        for index in 0..self.local_candidates.len() {
            let local = self.local_candidates[index].clone();
            self.pair_up(&local, &candidate);
        }
        self.remote_candidates.push(candidate);
        self.nominate(now);
        self.advance(now);
        true
    }

    fn named_count(&self) -> usize {
        let named = |c: &&Candidate| c.kind != CandidateKind::PeerReflexive;
        self.remote_candidates.iter().filter(named).count()
    }

    /// Makes room for a candidate that the peer names.
    fn drop_dead_remote(&mut self) -> bool {
        let dead = |c: &Candidate| {
            c.kind != CandidateKind::PeerReflexive && self.is_dead(|pair| pair.remote == c.address)
        };
        let index = self.remote_candidates.iter().position(dead);
        index.is_some_and(|index| {
            let address = self.remote_candidates.remove(index).address;
            self.pairs.retain(|pair| pair.remote != address);
            true
        })
    }

    /// Whether all pairs of a kind have failed, and there are some.
    fn is_dead(&self, of: impl Fn(&Pair) -> bool) -> bool {
        let mut pairs = self.pairs.iter().filter(|pair| of(pair)).peekable();
        pairs.peek().is_some()
            && pairs.all(|pair| pair.state == PairState::Failed && !self.is_selected(pair))
    }

    /// The pair that a check came on; an unknown remote address is a new candidate.
    pub(super) fn pair_of(&mut self, check: &Early) -> Option<usize> {
        let key = (check.local, check.remote);
        if let Some(index) = self.find(key) {
            return Some(index);
        }
        let known = self.remote_candidates.iter().find(|c| c.address == check.remote).cloned();
        let remote = match known {
            Some(remote) => remote,
            None => {
                self.make_room_for_reflexive()?;
                let candidate = peer_reflexive(check);
                let (kind, address) = (candidate.kind, candidate.address);
                self.trace(Trace::RemoteCandidate { kind, address });
                self.remote_candidates.push(candidate.clone());
                candidate
            }
        };
        let of_base = self.local_candidates.iter().filter(|c| c.base == check.local);
        let local = of_base.max_by_key(|c| c.priority).cloned();
        let local = local.unwrap_or_else(|| self.unlisted(check.local));
        self.pair_up(&local, &remote);
        self.find(key)
    }

    /// A base that was not gathered: another socket at an address that was, or an address that came
    /// up since.
    fn unlisted(&self, base: SocketAddr) -> Candidate {
        let is_spare = self.local_candidates.iter().any(|c| c.base.ip() == base.ip());
        let kind = if is_spare { CandidateKind::PeerReflexive } else { CandidateKind::Host };
        Candidate {
            component: 1,
            kind,
            address: base,
            base,
            related: None,
            priority: priority(kind, 0, 1),
            foundation: foundation(kind, base.ip(), None),
        }
    }

    /// The oldest found candidate without a valid pair gives way to a new one, unless its answer
    /// may still be under way: where many sockets of a peer are heard at once, the first would be
    /// forgotten before they can answer, and with them the one that stays.
    fn make_room_for_reflexive(&mut self) -> Option<()> {
        let found = |c: &&Candidate| c.kind == CandidateKind::PeerReflexive;
        if self.remote_candidates.iter().filter(found).count() < PEER_REFLEXIVE_MAX {
            return Some(());
        }
        let idle = |c: &Candidate| {
            let lives = |pair: &Pair| pair.is_valid() || pair.is_young() || self.is_selected(pair);
            found(&c) && !self.pairs.iter().any(|pair| pair.remote == c.address && lives(pair))
        };
        let index = self.remote_candidates.iter().position(idle)?;
        let address = self.remote_candidates.remove(index).address;
        self.pairs.retain(|pair| pair.remote != address);
        Some(())
    }

    pub(super) fn is_selected(&self, pair: &Pair) -> bool {
        self.selected == Some((pair.local, pair.remote))
    }

    /// The pair of `local` and `remote`, unless they do not fit. Of candidates that share a base,
    /// the better one names the pair (RFC 8445 section 6.1.2.4).
    fn pair_up(&mut self, local: &Candidate, remote: &Candidate) {
        let fits = local.base.is_ipv4() == remote.address.is_ipv4()
            && local.component == remote.component
            && is_link_local(&local.base) == is_link_local(&remote.address);
        if !fits {
            return;
        }
        if let Some(index) = self.find((local.base, remote.address)) {
            let pair = &mut self.pairs[index];
            if local.priority > pair.local_priority {
                pair.local_kind = local.kind;
                pair.local_priority = local.priority;
            }
            return;
        }
        let pair = Pair::new(local, remote);
        if self.pairs.len() >= PAIRS_MAX && !self.drop_worst() {
            return;
        }
        self.pairs.push(pair);
        let pair = self.traced(self.pairs.len() - 1);
        self.trace(Trace::PairFormed(pair));
    }

    /// Failed ones go first, then direct ones of low priority: relayed ones have the lowest, and
    /// are the few that work when nothing else does.
    fn drop_worst(&mut self) -> bool {
        let controlling = self.controlling;
        let idle = self.pairs.iter().enumerate().filter(|(_, pair)| {
            matches!(pair.state, PairState::Waiting | PairState::Failed)
                && pair.heard.is_none()
                && !self.is_selected(pair)
        });
        let worst = idle.min_by_key(|(_, pair)| {
            (pair.state != PairState::Failed, !pair.is_direct(), pair.priority(controlling))
        });
        let worst = worst.map(|(index, _)| index);
        worst.map(|index| self.pairs.swap_remove(index)).is_some()
    }

    fn rename_remote(&mut self, candidate: &Candidate) {
        for pair in self.pairs.iter_mut().filter(|pair| pair.remote == candidate.address) {
            pair.remote_kind = candidate.kind;
            pair.remote_priority = candidate.priority;
        }
        let in_use = self.selected.filter(|(_, remote)| *remote == candidate.address);
        if let Some(index) = in_use.and_then(|key| self.find(key)) {
            // What looked direct may be the peer's relay.
            self.outputs.push_back(Output::Selected(self.describe(index)));
        }
    }
}

fn is_link_local(address: &SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local())
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
