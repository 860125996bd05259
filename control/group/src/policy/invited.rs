//! Sessions without an offer: what both ends announce to all is enough to begin.
//!
//! Each node announces ICE credentials and the candidates that it has by then
//! ([`Announcement::invitation`](ipop_signal::Announcement::invitation)). Of two of those each end
//! makes the credentials of their session, its own and the other's, and begins as soon as it hears
//! of the other. That saves the round trip of offer and answer, and a group of many members that
//! start at the same time all of their offers and answers.
//!
//! - Whoever was in the room first hears of the other first, and knocks ([`Command::OpenLink`]):
//!   the room tells a newcomer who is there before it lets it in.
//! - What a newcomer learns of itself later it announces; what the others have learned since they
//!   announced they tell it at once, and everybody trickles what comes then.
//! - An invitation is good for one session with each member. Where that one does not lead to a
//!   path within [`OFFER_PATIENCE`], because the other end has not begun perhaps, and after each
//!   failure, sessions are offered as usual.
//! - A newcomer that was linked with the member in an earlier run offers at once: the other end may
//!   still think that it is linked, and would not begin.

use std::time::Instant;

use ipop_signal::{Action, Candidate, Fingerprint, IceCredentials, Invitation, SessionId};
use ipop_steer::LinkState;

use super::GroupVpn;
use super::sessions::Role;
use crate::convert::candidate_to_signal;
use crate::peer::{OFFER_PATIENCE, Session, Way};

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
        let candidates = self.candidates.iter().map(candidate_to_signal).collect();
        Some(Invitation { credentials, candidates })
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
        let regular = self.offers_to(&fingerprint);
        let Some(terms) = self.terms(&fingerprint, regular) else { return false };
        let Some(number) = self.random.number() else { return false };
        let knows_first = self.own_address.is_some();
        let Some(peer) = self.peers.get_mut(&fingerprint) else { return false };
        let Some(member) = &peer.member else { return false };
        let address = member.address.clone();
        peer.accepted = peer.invitation.as_ref().map(|theirs| theirs.credentials.ufrag.clone());
        peer.state = LinkState::Idle;
        // The one who does not offer gives the other's offer as long again.
        peer.next_offer = Some(now + OFFER_PATIENCE * if regular { 1 } else { 2 });
        let early = peer.take_early(&terms.id);
        peer.session = Some(Session {
            id: terms.id.clone(),
            number,
            address: address.clone(),
            offered_by_us: regular,
            answered: true,
            way: Way::Announced,
            local: terms.local.clone(),
            remote: Some(terms.remote.clone()),
            candidates: Vec::new(),
        });
        let ends = (&terms.local, Some(&terms.remote));
        self.open(fingerprint, number, Role { controls: regular, knocks: knows_first }, ends);
        self.add_candidates(&fingerprint, number, terms.candidates.into_iter().chain(early));
        let candidates: Vec<_> = self.unannounced().map(candidate_to_signal).collect();
        if knows_first && !candidates.is_empty() {
            let (to, session) = (address, terms.id);
            self.action(Action::Candidates { to, session, candidates, end: false });
        }
        self.settle_addresses();
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

    /// None where one of the two has announced nothing, or what it has has served.
    fn terms(&self, fingerprint: &Fingerprint, regular: bool) -> Option<Terms> {
        let (ours, peer) = (self.invitation()?, self.peers.get(fingerprint)?);
        let theirs = peer.invitation.as_ref()?;
        if peer.accepted.as_ref() == Some(&theirs.credentials.ufrag) {
            return None;
        }
        let [first, second] = if regular { [&ours, theirs] } else { [theirs, &ours] };
        let id = first.credentials.ufrag.clone() + &second.credentials.ufrag;
        Some(Terms {
            id: SessionId::new(&id).ok()?,
            local: ours.credentials_towards(theirs)?,
            remote: theirs.credentials_towards(&ours)?,
            candidates: theirs.candidates.clone(),
        })
    }
}
