//! Sessions without an offer: what both ends announce to all is enough to begin.
//!
//! Each node announces ICE credentials and the candidates that it has by then
//! ([`Announcement::invitation`](ipop_signal::Announcement::invitation)). Of two of those each end
//! makes the credentials of their session, its own and the other's, and begins as soon as it hears
//! of the other. That saves the round trip of offer and answer, and a group of many members that
//! start at the same time all of their offers and answers.
//!
//! - Whoever was in the room first hears of the other first, and knocks
//!   ([`OpenLink`](ipop_steer::Command::OpenLink)): the room tells a newcomer who is there before
//!   it lets it in. What the server says to the first may be held up meanwhile (Nagle's algorithm),
//!   so the newcomer gives it a moment.
//! - What a newcomer learns of itself later it announces; what the others have learned since they
//!   announced they tell it at once, and everybody trickles what comes then.
//! - An invitation is good for one session with each member. After it has failed, sessions are
//!   offered as usual.
//! - Where it does not lead to a path within [`OFFER_PATIENCE`], because the other end has not
//!   begun perhaps, it is offered too, as it is: an offer is answered, and repeated. The end that
//!   does not offer waits longer, and then offers another.
//! - A newcomer that was linked with the member in an earlier run offers at once: the other end may
//!   still think that it is linked, and would not begin.

use std::time::{Duration, Instant};

use ipop_signal::{
    Action, Candidate, Fingerprint, IceCredentials, Invitation, PeerAddress, SessionId,
};
use ipop_steer::LinkState;

use super::GroupVpn;
use super::sessions::{Description, HEAD_START_MS, Role};
use crate::convert::candidate_to_signal;
use crate::peer::{ANSWER_PATIENCE, OFFER_PATIENCE, Session, Way};

/// What a newcomer gives the other on top of half a round trip to the server: what is held up waits
/// for a whole one at most, and what the newcomer sends then takes another half, more or less.
const NEWCOMERS_MARGIN: Duration = Duration::from_millis(20);
const NEWCOMERS_HEAD_START_MAX: Duration = Duration::from_millis(200);

/// What a session is made of.
struct Terms {
    id: SessionId,
    local: IceCredentials,
    remote: IceCredentials,
    candidates: Vec<Candidate>,
}

impl GroupVpn {
    /// What this node announces.
    pub(super) fn invitation(&self) -> Option<Invitation> {
        let credentials = self.own.as_ref()?.invitation.clone()?;
        Some(Invitation { credentials, candidates: self.own_candidates() })
    }

    /// Announces what has been learned of this node, where it is announced at all: to nobody yet
    /// while it is out of the room, and else once it is complete.
    pub(super) fn announce_candidates(&mut self, is_complete: bool) {
        let is_due = self.own_address.is_none() || is_complete;
        if is_due && self.unannounced().next().is_some() {
            self.announce();
        }
    }

    /// Begins a session with a member by what both have announced; whether there is one.
    pub(super) fn accept_invitation(&mut self, now: Instant, fingerprint: Fingerprint) -> bool {
        let Some(peer) = self.peers.get(&fingerprint) else { return false };
        let theirs = peer.invitation.as_ref().map(|theirs| &theirs.credentials.ufrag);
        if peer.accepted.as_ref() == theirs {
            return false;
        }
        let Some(terms) = self.terms(&fingerprint) else { return false };
        self.begin_announced(now, fingerprint, terms)
    }

    fn begin_announced(&mut self, now: Instant, fingerprint: Fingerprint, terms: Terms) -> bool {
        let regular = self.offers_to(&fingerprint);
        let Some(number) = self.random.number() else { return false };
        let knows_first = self.own_address.is_some();
        let Some(peer) = self.peers.get_mut(&fingerprint) else { return false };
        peer.accepted = peer.invitation.as_ref().map(|theirs| theirs.credentials.ufrag.clone());
        let early = peer.take_early(&terms.id);
        let (local, remote) = (terms.local.clone(), terms.remote.clone());
        let session = peer.begin(terms.id.clone(), number, Way::Announced, local, Some(remote));
        session.offered_by_us = regular;
        let address = session.address.clone();
        // The one who does not offer gives the other's offer as long again.
        peer.next_offer = Some(now + OFFER_PATIENCE * if regular { 1 } else { 2 });
        let ends = (&terms.local, Some(&terms.remote));
        let head_start_ms = self.head_start_ms(knows_first);
        self.open(fingerprint, number, Role { controls: regular, head_start_ms }, ends);
        self.add_candidates(&fingerprint, number, terms.candidates.into_iter().chain(early));
        let candidates: Vec<_> = self.unannounced().map(candidate_to_signal).collect();
        if knows_first && !candidates.is_empty() {
            let (to, session) = (address, terms.id);
            self.action(Action::Candidates { to, session, candidates, end: false });
        }
        self.settle_addresses();
        true
    }

    fn head_start_ms(&self, knows_first: bool) -> u16 {
        if knows_first {
            return HEAD_START_MS;
        }
        let time = (self.server_rtt / 2 + NEWCOMERS_MARGIN).min(NEWCOMERS_HEAD_START_MAX);
        time.as_millis() as u16
    }

    /// Offers a session that was begun by what both ends announced, as it is; whether there is one
    /// that is ours to offer.
    pub(super) fn offer_announced(&mut self, now: Instant, to: Fingerprint) -> bool {
        let Some(own) = self.own.as_ref().map(|own| own.fingerprint) else { return false };
        let regular = self.offers_to(&to);
        let Some(peer) = self.peers.get_mut(&to).filter(|peer| peer.is_trying()) else {
            return false;
        };
        let of_ours = |session: &&mut Session| session.way == Way::Announced && regular;
        let Some(session) = peer.session.as_mut().filter(of_ours) else { return false };
        (session.way, session.answered) = (Way::Room, false);
        peer.next_offer = Some(now + ANSWER_PATIENCE);
        let action = Action::Offer {
            to: session.address.clone(),
            session: session.id.clone(),
            credentials: session.local.clone(),
            fingerprint: own,
            candidates: self.own_candidates(),
        };
        self.action(action);
        true
    }

    /// Answers the offer of a session that was announced, begun here or not; whether it is one.
    pub(super) fn answer_announced(
        &mut self,
        now: Instant,
        (from, id): (&PeerAddress, &SessionId),
        (credentials, fingerprint, candidates): &Description,
    ) -> bool {
        let Some(own) = self.own.as_ref().map(|own| own.fingerprint) else { return false };
        let Some(terms) = self.terms(fingerprint) else { return false };
        if (&terms.id, &terms.remote) != (id, credentials) {
            return false;
        }
        let local = terms.local.clone();
        let Some(peer) = self.peers.get_mut(fingerprint) else { return false };
        if peer.session_called(id).is_none() && !self.begin_announced(now, *fingerprint, terms) {
            return false;
        }
        let Some(peer) = self.peers.get_mut(fingerprint) else { return false };
        peer.next_offer = None;
        let Some(number) = peer.session_called(id).map(|session| session.number) else {
            return false;
        };
        self.add_candidates(fingerprint, number, candidates.iter().cloned());
        self.action(Action::Answer {
            to: from.clone(),
            session: id.clone(),
            credentials: local,
            fingerprint: own,
            candidates: self.own_candidates(),
        });
        true
    }

    /// A member has announced more than before: its session takes what is new.
    pub(super) fn hear_invitation(&mut self, fingerprint: &Fingerprint, before: &[Candidate]) {
        let Some(peer) = self.peers.get(fingerprint) else { return };
        let (Some(session), Some(theirs)) = (&peer.session, &peer.invitation) else { return };
        if session.way != Way::Announced || peer.state == LinkState::Failed {
            return;
        }
        let number = session.number;
        let news = theirs.candidates.iter().filter(|candidate| !before.contains(candidate));
        let news: Vec<_> = news.cloned().collect();
        self.add_candidates(fingerprint, number, news.into_iter());
    }

    /// Candidates of this node that its announcement does not have yet.
    fn unannounced(&self) -> impl Iterator<Item = &ipop_steer::Candidate> {
        self.candidates.iter().filter(|candidate| !self.announced.contains(candidate))
    }

    /// None where one of the two has announced nothing.
    fn terms(&self, fingerprint: &Fingerprint) -> Option<Terms> {
        let ours = self.own.as_ref()?.invitation.as_ref()?;
        let invitation = self.peers.get(fingerprint)?.invitation.as_ref()?;
        let theirs = &invitation.credentials;
        let regular = self.offers_to(fingerprint);
        let [first, second] = if regular { [ours, theirs] } else { [theirs, ours] };
        let id = first.ufrag.clone() + &second.ufrag;
        Some(Terms {
            id: SessionId::new(&id).ok()?,
            local: ours.joined(theirs)?,
            remote: theirs.joined(ours)?,
            candidates: invitation.candidates.clone(),
        })
    }
}
