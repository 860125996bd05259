//! What the datapath says, and what is due by time.

use std::time::Instant;

use ipop_signal::Action;
use ipop_steer::{Candidate, CandidateKind, Command, Event, LinkState, PathInfo, PathKind};

use super::{GroupVpn, Notice, Own};
use crate::convert::{candidate_to_signal, to_signal, to_steer};
use crate::peer::Peer;

/// Candidates kept at most; the oldest gives way. A machine whose addresses change for months
/// would offer stale ones otherwise.
const CANDIDATES_MAX: usize = 32;

impl GroupVpn {
    pub(super) fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Ready { fingerprint, .. } => self.on_ready(to_signal(&fingerprint)),
            Event::LocalCandidate { candidate } => self.on_candidate(candidate),
            Event::GatheringDone => self.on_gathered(),
            Event::IceServerFailed { address, text } => {
                self.notice(Notice::ServerFailed { address, text });
            }
            Event::LinkState { peer, session, state, path, reason } => {
                self.on_link_state(now, to_signal(&peer), session, state, path, reason);
            }
            // What was missed cannot be known: hear it all again.
            Event::Lost { .. } => self.command(Command::Snapshot),
            // All members are linked already, so there is nobody to ask for another address.
            // Answers to requests are the controller's to log.
            Event::NoRoute { .. } | Event::Done { .. } | Event::Refused { .. } => {}
        }
    }

    fn on_ready(&mut self, fingerprint: ipop_signal::Fingerprint) {
        if self.own.as_ref().is_some_and(|own| own.fingerprint == fingerprint) {
            return;
        }
        let addresses = self.config.plan.claims(&fingerprint);
        self.own = Some(Own { fingerprint, addresses });
        self.routes.clear();
        self.configure();
        self.announce();
    }

    /// A candidate holds for all links: they share the node's sockets.
    fn on_candidate(&mut self, candidate: Candidate) {
        if self.candidates.contains(&candidate) {
            return;
        }
        // The outside of a NAT replaces what it was before, as far as the same server sees it: a
        // port that the router maps by its own word is another.
        self.candidates.retain(|known| {
            known.kind != CandidateKind::ServerReflexive
                || (known.kind, known.related, &known.foundation)
                    != (candidate.kind, candidate.related, &candidate.foundation)
        });
        if self.candidates.len() >= CANDIDATES_MAX {
            self.candidates.remove(0);
        }
        self.candidates.push(candidate.clone());
        self.tell_candidates(&[candidate], false);
    }

    fn on_gathered(&mut self) {
        self.gathered = true;
        self.tell_candidates(&[], true);
    }

    /// Trickles to all sessions that live.
    fn tell_candidates(&mut self, candidates: &[Candidate], end: bool) {
        // A link that is up may find a better path by a new candidate.
        let living = |peer: &&Peer| peer.state != LinkState::Failed;
        let sessions = self.peers.values().filter(living).filter_map(|peer| peer.session.as_ref());
        let actions: Vec<_> = sessions
            .map(|session| Action::Candidates {
                to: session.address.clone(),
                session: session.id.clone(),
                candidates: candidates.iter().map(candidate_to_signal).collect(),
                end,
            })
            .collect();
        actions.into_iter().for_each(|action| self.action(action));
    }

    fn on_link_state(
        &mut self,
        now: Instant,
        fingerprint: ipop_signal::Fingerprint,
        number: u64,
        state: LinkState,
        path: Option<PathInfo>,
        reason: String,
    ) {
        let regular = self.offers_to(&fingerprint);
        let spread = self.random.number().unwrap_or(128) as u8;
        let peer = self.peers.entry(fingerprint).or_insert_with(|| Peer::new(fingerprint));
        if peer.session.as_ref().is_some_and(|session| session.number != number) {
            return;
        }
        let before = std::mem::replace(&mut peer.state, state);
        let name = name_of(peer);
        match state {
            LinkState::Up => {
                peer.succeeded();
                if before != LinkState::Up {
                    self.notice(Notice::LinkUp { name, path: path_text(path) });
                }
            }
            LinkState::Failed => {
                peer.session = None;
                if peer.present {
                    peer.failed(now, regular, spread);
                }
                let is_gone = !peer.present;
                if before != LinkState::Failed {
                    self.notice(Notice::LinkDown { name, reason });
                }
                // Nothing is left to keep: the member is gone, and so is the link to it.
                if is_gone {
                    self.close(fingerprint);
                }
            }
            // A session that this policy did not open (its predecessor did) and that is not up
            // cannot be carried on: nobody knows its name in signalling.
            _ if peer.session.is_none() && state != LinkState::Disconnected => {
                peer.state = LinkState::Failed;
                peer.next_offer = peer.present.then_some(now);
            }
            _ => {}
        }
    }

    pub(super) fn on_peer_timeout(&mut self, now: Instant, fingerprint: ipop_signal::Fingerprint) {
        let Some(peer) = self.peers.get_mut(&fingerprint) else { return };
        if peer.departure.is_some_and(|at| at <= now) {
            peer.departure = None;
            if self.own_address.is_some() {
                self.close(fingerprint);
                return;
            }
        }
        let Some(peer) = self.peers.get_mut(&fingerprint) else { return };
        if peer.next_offer.is_some_and(|at| at <= now) {
            peer.next_offer = None;
            self.offer(now, fingerprint);
        }
    }

    /// Forgets a peer, its link and its addresses.
    pub(super) fn close(&mut self, fingerprint: ipop_signal::Fingerprint) {
        if self.peers.remove(&fingerprint).is_some() {
            self.routes.forget(&fingerprint);
            self.command(Command::CloseLink { peer: to_steer(&fingerprint) });
            // Its addresses may be somebody else's now.
            self.settle_addresses();
        }
    }
}

pub(super) fn name_of(peer: &Peer) -> String {
    peer.member
        .as_ref()
        .map_or_else(|| peer.fingerprint.uid_hex()[..8].to_owned(), |member| member.name.clone())
}

fn path_text(path: Option<PathInfo>) -> String {
    match path {
        Some(path) if path.kind == PathKind::Direct => format!("direct to {}", path.remote),
        Some(path) => format!("relayed to {}", path.remote),
        None => "path unknown".to_owned(),
    }
}
