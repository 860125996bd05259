//! Words of sessions that members carry for each other while they have no signalling.
//!
//! A node that has one link left says its offer through it: the member at the other end carries it
//! to the one it is for, if it has a link to that one, and adds where it sees the sender, which
//! without a STUN server nobody else could tell. Nobody is learned this way: an offer counts only
//! from a member that is known, and the link's handshake is pinned to the key that is known.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_signal::{Candidate, CandidateKind, Fingerprint, IceCredentials, SessionId};
use ipop_steer::{Command, LinkState};

use super::recall::SEEN_PRIORITY;
use super::sessions::Role;
use super::{GroupVpn, recall};
use crate::bytes::candidate;
use crate::convert::{candidate_to_signal, credentials_to_steer, to_steer};
use crate::peer::{ANSWER_PATIENCE, Held, Peer, Session, Way};
use crate::words::{CANDIDATES_PER_WORD, Word, Words};

/// Members that are asked to carry one offer.
const CARRIERS_MAX: usize = 3;
/// How long an offer waits for the link that seems to be up to turn out dead.
const HELD_TIME: Duration = Duration::from_secs(10);
/// So soon after one another, both ends' offers are on their way at the same time.
const CROSSING_TIME: Duration = Duration::from_secs(2);

impl GroupVpn {
    pub(super) fn on_said(&mut self, now: Instant, by: Fingerprint, words: &[u8]) {
        // What cannot be read is another version's.
        match Words::decode(words) {
            Ok(Words::Carry { to, word }) => self.carry(by, to, word),
            Ok(Words::Carried { from, seen_at, word }) => {
                self.on_carried(now, by, from, seen_at, word);
            }
            Err(_) => {}
        }
    }

    /// Carries a word from one linked member to another.
    fn carry(&mut self, from: Fingerprint, to: Fingerprint, word: Word) {
        let is_up = |of: &Fingerprint| self.peers.get(of).is_some_and(|p| p.state == LinkState::Up);
        if from == to || !is_up(&from) || !is_up(&to) {
            return;
        }
        let seen_at = self.peers.get(&from).and_then(|peer| peer.seen_at);
        self.say(&to, &Words::Carried { from, seen_at, word });
    }

    fn on_carried(
        &mut self,
        now: Instant,
        via: Fingerprint,
        from: Fingerprint,
        seen_at: Option<SocketAddr>,
        word: Word,
    ) {
        let is_known = self.peers.get(&from).is_some_and(|peer| peer.member.is_some());
        if !is_known || via == from {
            return;
        }
        let seen = seen_at.map(|at| candidate(CandidateKind::ServerReflexive, at, SEEN_PRIORITY));
        match word {
            Word::Offer { session: id, credentials, mut candidates } => {
                candidates.extend(seen);
                let until = now + HELD_TIME;
                let offer = Held { id, via, credentials, candidates, until };
                self.on_carried_offer(now, from, offer);
            }
            Word::Answer { session, credentials, mut candidates } => {
                candidates.extend(seen);
                self.on_carried_answer(via, from, &session, credentials, candidates);
            }
            Word::Candidates { session, candidates } => {
                let Some(peer) = self.peers.get_mut(&from) else { return };
                let Some(number) = peer.session_called(&session).map(|session| session.number)
                else {
                    return peer.keep_early(&session, candidates);
                };
                self.add_candidates(&from, number, candidates.into_iter());
            }
        }
    }

    fn on_carried_offer(&mut self, now: Instant, from: Fingerprint, offer: Held) {
        let regular = self.offers_to(&from);
        let Some(peer) = self.peers.get_mut(&from) else { return };
        // Several members may carry the same one.
        if peer.session_called(&offer.id).is_some() {
            return;
        }
        let is_ours = |s: &Session| s.offered_by_us && !s.answered && s.way != Way::Memory;
        // One that is older was for somebody who was not there yet.
        let is_recent = peer.offered.is_some_and(|at| now < at + CROSSING_TIME);
        let has_crossed = regular && is_recent && peer.session.as_ref().is_some_and(is_ours);
        match peer.state {
            // A carrier must not be able to end a link that works.
            LinkState::Up => peer.held = Some(offer),
            LinkState::Handshaking => {}
            _ if has_crossed => {}
            _ => self.accept(from, offer),
        }
    }

    /// The link that seemed to be up is silent: an offer that came meanwhile was right.
    pub(super) fn take_held(&mut self, now: Instant, fingerprint: &Fingerprint) {
        let held = self.peers.get_mut(fingerprint).and_then(|peer| peer.held.take());
        if let Some(offer) = held.filter(|held| now < held.until) {
            self.accept(*fingerprint, offer);
        }
    }

    fn accept(&mut self, from: Fingerprint, offer: Held) {
        let Held { id, via, credentials, candidates, .. } = offer;
        let Some((_, number, ours)) = self.random.session() else { return };
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let early = peer.take_early(&id);
        let way = Way::Member(Some(via));
        peer.begin(id.clone(), number, way, ours.clone(), Some(credentials.clone()));
        self.open(from, number, Role::ANSWERER, (&ours, Some(&credentials)));
        self.add_candidates(&from, number, candidates.into_iter().chain(early));
        let (first, rest) = self.candidates_in_words();
        let answer = Word::Answer { session: id.clone(), credentials: ours, candidates: first };
        self.say_through(&via, &from, answer);
        for candidates in rest {
            self.say_through(&via, &from, Word::Candidates { session: id.clone(), candidates });
        }
        self.settle_addresses();
    }

    fn on_carried_answer(
        &mut self,
        via: Fingerprint,
        from: Fingerprint,
        id: &SessionId,
        credentials: IceCredentials,
        candidates: Vec<Candidate>,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let early = peer.take_early(id);
        let is_asked =
            |s: &&mut Session| s.offered_by_us && !s.answered && matches!(s.way, Way::Member(_));
        let Some(session) = peer.session_called(id).filter(is_asked) else { return };
        session.answered = true;
        session.way = Way::Member(Some(via));
        session.remote = Some(credentials.clone());
        let number = session.number;
        peer.next_offer = None;
        self.command(Command::SetRemote {
            peer: to_steer(&from),
            session: number,
            credentials: credentials_to_steer(&credentials),
        });
        self.add_candidates(&from, number, candidates.into_iter().chain(early));
    }

    /// Offers to a member through others.
    pub(super) fn offer_through_members(&mut self, now: Instant, to: Fingerprint) {
        let carriers = self.carriers(&to);
        let spread = self.spread();
        let Some((id, number, ours)) = self.random.session() else { return };
        let Some(peer) = self.peers.get_mut(&to) else { return };
        peer.begin(id.clone(), number, Way::Member(None), ours.clone(), None);
        peer.offered = Some(now);
        peer.next_offer = Some(now + ANSWER_PATIENCE + recall::pause(spread));
        self.open(to, number, Role::OFFERER, (&ours, None));
        let (first, rest) = self.candidates_in_words();
        let start = usize::from(spread) % carriers.len().max(1);
        for via in carriers.iter().cycle().skip(start).take(carriers.len().min(CARRIERS_MAX)) {
            let (session, credentials) = (id.clone(), ours.clone());
            let offer = Word::Offer { session, credentials, candidates: first.clone() };
            self.say_through(via, &to, offer);
            for candidates in rest.clone() {
                self.say_through(via, &to, Word::Candidates { session: id.clone(), candidates });
            }
        }
        self.settle_addresses();
    }

    /// New candidates of ours, for the sessions whose words members carry.
    pub(super) fn carry_candidates(&mut self, candidates: &[ipop_steer::Candidate]) {
        if self.own_address.is_some() || candidates.is_empty() {
            return;
        }
        let session_of = |peer: &Peer| match peer.session.as_ref() {
            Some(Session { way: Way::Member(Some(via)), id, .. }) => {
                Some((*via, peer.fingerprint, id.clone()))
            }
            _ => None,
        };
        let sessions: Vec<_> = self.peers.values().filter_map(session_of).collect();
        let candidates: Vec<_> = candidates.iter().map(candidate_to_signal).collect();
        for (via, to, session) in sessions {
            for chunk in candidates.chunks(CANDIDATES_PER_WORD) {
                let word =
                    Word::Candidates { session: session.clone(), candidates: chunk.to_vec() };
                self.say_through(&via, &to, word);
            }
        }
    }

    /// Members with a link that could carry a word to `to`.
    pub(super) fn carriers(&self, to: &Fingerprint) -> Vec<Fingerprint> {
        let is_carrier = |peer: &&Peer| peer.state == LinkState::Up && peer.fingerprint != *to;
        self.peers.values().filter(is_carrier).map(|peer| peer.fingerprint).collect()
    }

    /// This node's candidates, as many at a time as a word holds.
    fn candidates_in_words(&self) -> (Vec<Candidate>, Vec<Vec<Candidate>>) {
        let all = self.own_candidates();
        let mut words = all.chunks(CANDIDATES_PER_WORD).map(<[Candidate]>::to_vec);
        (words.next().unwrap_or_default(), words.collect())
    }

    fn say_through(&mut self, via: &Fingerprint, to: &Fingerprint, word: Word) {
        self.say(via, &Words::Carry { to: *to, word });
    }

    fn say(&mut self, to: &Fingerprint, words: &Words) {
        self.command(Command::Say { peer: to_steer(to), words: words.encode() });
    }
}
