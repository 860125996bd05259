//! Offers and answers: one session per attempt at a link.

use std::time::Instant;

use ipop_signal::{
    Action, ByeReason, Candidate, Fingerprint, IceCredentials, PeerAddress, SessionId,
};
use ipop_steer::{Command, LinkState};

use super::events::name_of;
use super::{GroupVpn, Notice};
use crate::convert::{candidate_to_signal, candidate_to_steer, credentials_to_steer, to_steer};
use crate::peer::{ANSWER_PATIENCE, Session, Way};

/// What an offer or an answer says about the other end.
pub(super) type Description = (IceCredentials, Fingerprint, Vec<Candidate>);

/// How long an end that knows the other first waits for it.
pub(super) const HEAD_START_MS: u16 = 1000;

/// What an end does, of [`Command::OpenLink`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Role {
    pub(super) controls: bool,
    pub(super) head_start_ms: u16,
}

impl Role {
    /// The answerer knows the other end first; the offerer hears of that in its answer.
    pub(super) const OFFERER: Self = Self { controls: true, head_start_ms: 0 };
    pub(super) const ANSWERER: Self = Self { controls: false, head_start_ms: HEAD_START_MS };
}

impl GroupVpn {
    /// Opens a session with a member, unless a link is there.
    pub(super) fn offer(&mut self, now: Instant, fingerprint: Fingerprint) {
        let Some(own) = &self.own else { return };
        let own = own.fingerprint;
        let Some(peer) = self.peers.get(&fingerprint) else { return };
        let Some(member) = peer.member.clone().filter(|_| peer.present) else { return };
        let unanswered = peer.session.as_ref().is_some_and(|s| s.offered_by_us && !s.answered);
        if (peer.is_busy() && !unanswered) || self.offer_announced(now, fingerprint) {
            return;
        }
        let drawn = self.random.session();
        let Some(peer) = self.peers.get_mut(&fingerprint) else { return };
        let Some((id, number, credentials)) = drawn else {
            peer.next_offer = Some(now + std::time::Duration::from_millis(10));
            return;
        };
        peer.begin(id.clone(), number, Way::Room, credentials.clone(), None);
        peer.next_offer = Some(now + ANSWER_PATIENCE);
        self.open(fingerprint, number, Role::OFFERER, (&credentials, None));
        self.action(Action::Offer {
            to: member.address,
            session: id,
            credentials,
            fingerprint: own,
            candidates: self.own_candidates(),
        });
        self.settle_addresses();
    }

    pub(super) fn on_offered(
        &mut self,
        now: Instant,
        from: PeerAddress,
        id: SessionId,
        description: Description,
    ) {
        let fingerprint = description.1;
        let Some(own) = self.own.as_ref().map(|own| own.fingerprint) else { return };
        // Only a member may ask, and only in its own name.
        if self.members.get(&from) != Some(&fingerprint) {
            self.action(Action::Bye { to: from, session: id, reason: ByeReason::SecurityError });
            return;
        }
        if self.answer_announced(now, (&from, &id), &description) {
            return;
        }
        let (credentials, _, candidates) = description;
        let regular = self.offers_to(&fingerprint);
        let Some(peer) = self.peers.get_mut(&fingerprint) else { return };
        let crossed = peer.session.as_ref().is_some_and(|s| s.offered_by_us && !s.answered);
        if crossed && regular {
            let reason = ByeReason::AlternativeSession;
            self.action(Action::Bye { to: from, session: id, reason });
            return;
        }
        let early = peer.take_early(&id);
        let Some((_, number, ours)) = self.random.session() else {
            self.action(Action::Bye { to: from, session: id, reason: ByeReason::GeneralError });
            return;
        };
        peer.state = LinkState::Idle;
        peer.next_offer = None;
        peer.session = Some(Session {
            id: id.clone(),
            number,
            address: from.clone(),
            offered_by_us: false,
            answered: true,
            way: Way::Room,
            local: ours.clone(),
            remote: Some(credentials.clone()),
            candidates: Vec::new(),
        });
        self.open(fingerprint, number, Role::ANSWERER, (&ours, Some(&credentials)));
        self.add_candidates(&fingerprint, number, candidates.into_iter().chain(early));
        self.action(Action::Answer {
            to: from,
            session: id,
            credentials: ours,
            fingerprint: own,
            candidates: self.own_candidates(),
        });
        self.settle_addresses();
    }

    pub(super) fn on_answered(
        &mut self,
        now: Instant,
        from: &PeerAddress,
        id: &SessionId,
        (credentials, fingerprint, candidates): Description,
    ) {
        let Some((expected, number)) = self.session_with(from, id) else {
            let (to, session) = (from.clone(), id.clone());
            self.action(Action::Bye { to, session, reason: ByeReason::UnknownSession });
            return;
        };
        if expected != fingerprint {
            let (to, session) = (from.clone(), id.clone());
            self.action(Action::Bye { to, session, reason: ByeReason::SecurityError });
            self.give_up(now, expected, "the answer came with another key than announced");
            return;
        }
        let Some(peer) = self.peers.get_mut(&fingerprint) else { return };
        let expected = peer.session.as_ref().and_then(|session| session.remote.as_ref());
        if expected.is_some_and(|expected| *expected != credentials) {
            self.give_up(now, fingerprint, "the answer came with other credentials than announced");
            return;
        }
        peer.next_offer = None;
        if let Some(session) = &mut peer.session {
            session.answered = true;
            session.remote = Some(credentials.clone());
        }
        let early = peer.take_early(id);
        self.command(Command::SetRemote {
            peer: to_steer(&fingerprint),
            session: number,
            credentials: credentials_to_steer(&credentials),
        });
        self.add_candidates(&fingerprint, number, candidates.into_iter().chain(early));
    }

    pub(super) fn on_candidates(
        &mut self,
        from: &PeerAddress,
        id: &SessionId,
        candidates: Vec<Candidate>,
        end: bool,
    ) {
        let Some(fingerprint) = self.members.get(from).copied() else { return };
        let Some(peer) = self.peers.get_mut(&fingerprint) else { return };
        let Some(session) = peer.session_called(id) else {
            peer.keep_early(id, candidates);
            return;
        };
        let number = session.number;
        self.add_candidates(&fingerprint, number, candidates.into_iter());
        if end {
            let peer = to_steer(&fingerprint);
            self.command(Command::EndOfCandidates { peer, session: number });
        }
    }

    pub(super) fn on_bye(
        &mut self,
        now: Instant,
        from: &PeerAddress,
        id: &SessionId,
        reason: ByeReason,
    ) {
        let Some((fingerprint, _)) = self.session_with(from, id) else { return };
        match reason {
            ByeReason::Gone | ByeReason::Success => {
                let name = self.peers.get(&fingerprint).map(name_of).unwrap_or_default();
                self.notice(Notice::LinkDown { name, reason: "the peer left".to_owned() });
                self.close(fingerprint);
            }
            _ => self.give_up(now, fingerprint, &format!("the peer ended the session: {reason:?}")),
        }
    }

    pub(super) fn on_delivery_failed(&mut self, now: Instant, to: &PeerAddress, id: &SessionId) {
        let Some((fingerprint, _)) = self.session_with(to, id) else { return };
        let unanswered = |peer: &&mut crate::peer::Peer| {
            peer.session.as_ref().is_some_and(|session| !session.answered)
        };
        if self.peers.get_mut(&fingerprint).as_ref().is_some_and(unanswered) {
            self.give_up(now, fingerprint, "signalling could not reach the peer");
        }
    }

    /// Ends an attempt and plans the next one; a link that carries is left alone.
    fn give_up(&mut self, now: Instant, fingerprint: Fingerprint, reason: &str) {
        let regular = self.offers_to(&fingerprint);
        let spread = self.random.number().unwrap_or(128) as u8;
        let Some(peer) = self.peers.get_mut(&fingerprint) else { return };
        if matches!(peer.state, LinkState::Up | LinkState::Disconnected) {
            return;
        }
        peer.session = None;
        peer.state = LinkState::Failed;
        peer.failed(now, regular, spread);
        let name = name_of(peer);
        if peer.complain(reason) {
            self.notice(Notice::LinkDown { name, reason: reason.to_owned() });
        }
    }

    /// The peer and session number of the session called `id` with the member at `address`.
    fn session_with(
        &mut self,
        address: &PeerAddress,
        id: &SessionId,
    ) -> Option<(Fingerprint, u64)> {
        let fingerprint = *self.members.get(address)?;
        let session = self.peers.get_mut(&fingerprint)?.session_called(id)?;
        Some((fingerprint, session.number))
    }

    pub(super) fn open(
        &mut self,
        fingerprint: Fingerprint,
        session: u64,
        role: Role,
        (local, remote): (&IceCredentials, Option<&IceCredentials>),
    ) {
        let name = self.peers.get(&fingerprint).map(name_of).unwrap_or_default();
        self.command(Command::OpenLink {
            peer: to_steer(&fingerprint),
            name,
            controlling: role.controls,
            head_start_ms: role.head_start_ms,
            session,
            local: credentials_to_steer(local),
            remote: remote.map(credentials_to_steer),
        });
    }

    /// All that is known of where this node may be reached.
    pub(super) fn own_candidates(&self) -> Vec<Candidate> {
        self.candidates.iter().map(candidate_to_signal).collect()
    }

    pub(super) fn add_candidates(
        &mut self,
        fingerprint: &Fingerprint,
        session: u64,
        candidates: impl Iterator<Item = Candidate>,
    ) {
        for candidate in candidates {
            self.note_candidate(fingerprint, &candidate);
            self.command(Command::AddRemoteCandidate {
                peer: to_steer(fingerprint),
                session,
                candidate: candidate_to_steer(&candidate),
            });
        }
    }
}
