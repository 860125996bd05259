//! What the datapath says, and what is due by time.

use std::time::{Duration, Instant};

use ipop_signal::Action;
use ipop_steer::{Candidate, CandidateKind, Command, Event, LinkState, PathInfo, PathKind};

use super::{GroupVpn, Notice, Own, recall};
use crate::convert::{candidate_to_signal, to_signal, to_steer};
use crate::peer::{Peer, Way};

/// Candidates kept at most; the oldest gives way. A machine whose addresses change for months
/// would offer stale ones otherwise.
const CANDIDATES_MAX: usize = 32;

/// From one telling of all candidates to the next, while a link has no path.
const RETELL_PAUSE: Duration = Duration::from_secs(1);

impl GroupVpn {
    pub(super) fn on_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Ready { fingerprint, .. } => self.on_ready(now, to_signal(&fingerprint)),
            Event::LocalCandidate { candidate } => self.on_candidate(candidate),
            Event::GatheringDone => self.on_gathered(),
            Event::IceServerFailed { address, text } => {
                self.notice(Notice::ServerFailed { address, text });
            }
            Event::LinkState { peer, session, state, path, reason } => {
                self.on_link_state(now, to_signal(&peer), session, state, path, reason);
            }
            Event::Said { peer, words } => self.on_said(now, to_signal(&peer), &words),
            // What was missed cannot be known: hear it all again.
            Event::Lost { .. } => self.command(Command::Snapshot),
            // All members are linked already, so there is nobody to ask for another address.
            // Answers to requests are the controller's to log; links follow moves by themselves.
            Event::NoRoute { .. }
            | Event::Done { .. }
            | Event::Refused { .. }
            | Event::NetworkMoved => {}
        }
    }

    fn on_ready(&mut self, now: Instant, fingerprint: ipop_signal::Fingerprint) {
        if self.own.as_ref().is_some_and(|own| own.fingerprint == fingerprint) {
            return;
        }
        let addresses = self.config.plan.claims(&fingerprint);
        let invitation = self.random.credentials();
        self.own = Some(Own { fingerprint, addresses, invitation });
        self.routes.clear();
        self.configure();
        self.announce();
        self.recall_soon(now);
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
        self.announce_candidates(false);
        self.tell_candidates(&[candidate], false);
    }

    fn on_gathered(&mut self) {
        self.gathered = true;
        self.announce_candidates(true);
        self.tell_candidates(&[], true);
    }

    /// Trickles to all sessions that live.
    fn tell_candidates(&mut self, candidates: &[Candidate], end: bool) {
        // A link that is up may find a better path by a new candidate.
        let living = |peer: &&Peer| peer.state != LinkState::Failed;
        let sessions = self.peers.values().filter(living).filter_map(|peer| peer.session.as_ref());
        let actions: Vec<_> = sessions
            .filter(|session| session.way.is_by_room() || self.own_address.is_some())
            .map(|session| Action::Candidates {
                to: session.address.clone(),
                session: session.id.clone(),
                candidates: candidates.iter().map(candidate_to_signal).collect(),
                end,
            })
            .collect();
        actions.into_iter().for_each(|action| self.action(action));
        self.carry_candidates(candidates);
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
        self.adopt(&fingerprint, number, state);
        self.take_back(&fingerprint, number, state);
        let is_away = self.own_address.is_none();
        let peer = self.peers.entry(fingerprint).or_insert_with(|| Peer::new(fingerprint));
        if peer.session.as_ref().is_some_and(|session| session.number != number) {
            return;
        }
        peer.note_path(path);
        let is_lost = state == LinkState::Disconnected;
        peer.retell = is_lost.then(|| peer.retell.unwrap_or(now + RETELL_PAUSE));
        let before = std::mem::replace(&mut peer.state, state);
        let name = name_of(peer);
        match state {
            LinkState::Up => {
                peer.succeeded();
                let how = how_text(peer);
                if before != LinkState::Up {
                    self.notice(Notice::LinkUp { name, path: path_text(path) + how });
                }
                self.remember(now, &fingerprint);
                self.on_regained(now, &fingerprint);
            }
            LinkState::Disconnected => {
                if is_away {
                    peer.next_offer = Some(now + recall::pause(spread));
                }
                self.take_held(now, &fingerprint);
            }
            LinkState::Failed => {
                peer.session = None;
                let is_remembered = is_away && self.memory.get(&fingerprint).is_some();
                if is_remembered {
                    peer.next_offer = Some(now + recall::pause(spread));
                } else if peer.present {
                    peer.failed(now, regular, spread);
                }
                let is_gone = !peer.present && !is_remembered;
                // That a member is still not there is no news.
                let is_news = !is_remembered || peer.attempts <= 1;
                let is_news = is_news && before != LinkState::Failed && peer.complain(&reason);
                if is_news {
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
                peer.next_offer = peer.present.then_some(now).or(peer.next_offer);
            }
            _ => {}
        }
    }

    /// A link that lost its path is told all addresses again and again: where the servers were
    /// away, those of new relays may have been found before anybody could hear of them.
    fn retell(&mut self, now: Instant, fingerprint: &ipop_signal::Fingerprint) {
        let Some(peer) = self.peers.get_mut(fingerprint) else { return };
        if peer.retell.is_none_or(|at| now < at) {
            return;
        }
        peer.retell = Some(now + RETELL_PAUSE);
        let session = peer.session.as_ref().filter(|session| session.way.is_by_room());
        if let (Some(session), Some(_)) = (session, &self.own_address) {
            let action = Action::Candidates {
                to: session.address.clone(),
                session: session.id.clone(),
                candidates: self.own_candidates(),
                end: false,
            };
            self.action(action);
        }
    }

    pub(super) fn on_peer_timeout(&mut self, now: Instant, fingerprint: ipop_signal::Fingerprint) {
        self.retell(now, &fingerprint);
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
            match self.own_address {
                None if self.memory.get(&fingerprint).is_some() => self.reopen(now, fingerprint),
                // Nobody would carry an offer; back in the room it is made.
                None if self.recall.is_away => {}
                _ => self.offer(now, fingerprint),
            }
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

/// What is special about how a link came up.
fn how_text(peer: &Peer) -> &'static str {
    match peer.session.as_ref().map(|session| session.way) {
        Some(Way::Memory) => ", found by what was remembered",
        Some(Way::Member(_)) => ", found through another member",
        _ => "",
    }
}

fn path_text(path: Option<PathInfo>) -> String {
    match path {
        Some(path) if path.kind == PathKind::Direct => format!("direct to {}", path.remote),
        Some(path) => format!("relayed to {}", path.remote),
        None => "path unknown".to_owned(),
    }
}
