//! One other node: its member, its session, when to try again.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_signal::{
    Candidate, Fingerprint, IceCredentials, Invitation, Member, PeerAddress, SessionId,
};
use ipop_steer::{LinkState, PathInfo, PathKind};

/// First pause before a failed link is tried again; doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Longest pause between tries.
const RETRY_LONGEST: Duration = Duration::from_secs(30);
/// How long an offer may stay without an answer.
pub(crate) const ANSWER_PATIENCE: Duration = Duration::from_secs(8);
/// How long the one who is not to offer waits for the other's offer.
pub(crate) const OFFER_PATIENCE: Duration = Duration::from_secs(4);
/// How long the link of a member that left is kept: it may only have lost its server.
pub(crate) const DEPARTURE_GRACE: Duration = Duration::from_secs(180);
/// Candidates kept for an offer that has yet to come.
const EARLY_CANDIDATES_MAX: usize = 64;

/// A session that this node or the peer opened.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) number: u64,
    pub(crate) address: PeerAddress,
    pub(crate) offered_by_us: bool,
    pub(crate) answered: bool,
    /// How its words travel, or travelled.
    pub(crate) way: Way,
    pub(crate) local: IceCredentials,
    pub(crate) remote: Option<IceCredentials>,
    pub(crate) candidates: Vec<Candidate>,
}

/// Who carries a session's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The signalling network.
    Room,
    /// It, once: both ends began by what the other announced to all.
    Announced,
    /// A member that both ends are linked with; none yet for an offer that several carry.
    Member(Option<Fingerprint>),
    /// Nobody: the words are those of an earlier session.
    Memory,
}

impl Way {
    /// Whether the signalling network knows both ends.
    pub(crate) fn is_by_room(self) -> bool {
        matches!(self, Self::Room | Self::Announced)
    }
}

/// An offer that came through a member while the link still seemed to be up.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) id: SessionId,
    pub(crate) via: Fingerprint,
    pub(crate) credentials: IceCredentials,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) until: Instant,
}

/// What is known of one other node.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) fingerprint: Fingerprint,
    /// What it said last; kept while its link is, even when it is no longer there.
    pub(crate) member: Option<Member>,
    /// What it announced with that.
    pub(crate) invitation: Option<Invitation>,
    /// The fragment of the invitation that a session came of: each is good for one.
    pub(crate) accepted: Option<String>,
    /// Whether it is in the room.
    pub(crate) present: bool,
    pub(crate) session: Option<Session>,
    pub(crate) state: LinkState,
    /// When to offer (again), give up on an answer, or forget a member that left.
    pub(crate) next_offer: Option<Instant>,
    pub(crate) departure: Option<Instant>,
    /// When all candidates are told once more, while the link has no path.
    pub(crate) retell: Option<Instant>,
    /// Candidates that overtook the offer they belong to.
    pub(crate) early: Vec<(SessionId, Candidate)>,
    /// Where the other end of the path is, while that is direct.
    pub(crate) seen_at: Option<SocketAddr>,
    pub(crate) held: Option<Held>,
    /// When other members were asked last to carry an offer to it.
    pub(crate) offered: Option<Instant>,
    /// Attempts without signalling since the link was up.
    pub(crate) attempts: u32,
    failures: u32,
    /// Why there is no link, as people were told; nothing since there was one.
    complaint: String,
}

impl Peer {
    pub(crate) fn new(fingerprint: Fingerprint) -> Self {
        Self {
            fingerprint,
            member: None,
            invitation: None,
            accepted: None,
            present: false,
            session: None,
            state: LinkState::Idle,
            next_offer: None,
            departure: None,
            retell: None,
            early: Vec::new(),
            seen_at: None,
            held: None,
            offered: None,
            attempts: 0,
            failures: 0,
            complaint: String::new(),
        }
    }

    /// Notes why there is no link, and tells whether people do not know that yet.
    pub(crate) fn complain(&mut self, reason: &str) -> bool {
        let is_news = self.complaint != reason;
        reason.clone_into(&mut self.complaint);
        is_news
    }

    /// A link is there or being made, so that no offer is due. A link that is looked for without
    /// an offer gives way to one until it has a path.
    pub(crate) fn is_busy(&self) -> bool {
        let of = |session: &Session| match session.way {
            Way::Room => self.state != LinkState::Failed,
            Way::Announced | Way::Member(_) | Way::Memory => self.state == LinkState::Handshaking,
        };
        self.carries() || self.session.as_ref().is_some_and(of)
    }

    /// The link has keys.
    pub(crate) fn carries(&self) -> bool {
        matches!(self.state, LinkState::Up | LinkState::Disconnected)
    }

    /// A session is open and has not failed.
    pub(crate) fn is_trying(&self) -> bool {
        self.carries() || (self.session.is_some() && self.state != LinkState::Failed)
    }

    /// The session called `id`, if it is the current one.
    pub(crate) fn session_called(&mut self, id: &SessionId) -> Option<&mut Session> {
        self.session.as_mut().filter(|session| session.id == *id)
    }

    /// Begins a session; it is offered by us when the peer's credentials are not known yet.
    pub(crate) fn begin(
        &mut self,
        id: SessionId,
        number: u64,
        way: Way,
        local: IceCredentials,
        remote: Option<IceCredentials>,
    ) -> &mut Session {
        let address = self.member.as_ref().map(|member| member.address.clone());
        self.state = LinkState::Idle;
        self.next_offer = None;
        self.session.insert(Session {
            id,
            number,
            address: address.unwrap_or_else(|| PeerAddress(String::new())),
            offered_by_us: remote.is_none(),
            answered: remote.is_some(),
            way,
            local,
            remote,
            candidates: Vec::new(),
        })
    }

    /// Notes where the other end of the path is.
    pub(crate) fn note_path(&mut self, path: Option<PathInfo>) {
        let direct = path.filter(|path| path.kind == PathKind::Direct);
        self.seen_at = direct.map(|path| path.remote);
    }

    /// The link came up: the next failure starts with the shortest pause again.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.complaint.clear();
        self.attempts = 0;
        self.next_offer = None;
        self.held = None;
    }

    /// The link failed: the pause until the next try, from half to the whole of the step so that
    /// members do not retry in step (`spread` is any number).
    pub(crate) fn failed(&mut self, now: Instant, regular: bool, spread: u8) {
        let step = RETRY_FIRST.saturating_mul(1 << self.failures.min(8)).min(RETRY_LONGEST);
        self.failures = self.failures.saturating_add(1);
        let pause = step / 2 + step.mul_f64(f64::from(spread) / 512.0);
        let pause = if regular { pause } else { pause + OFFER_PATIENCE };
        self.next_offer = Some(now + pause);
    }

    /// Keeps a candidate whose offer has not come yet; beyond the bound it is let go: the offer
    /// itself lists all candidates known by then.
    pub(crate) fn keep_early(&mut self, session: &SessionId, candidates: Vec<Candidate>) {
        let room = EARLY_CANDIDATES_MAX.saturating_sub(self.early.len());
        self.early.extend(candidates.into_iter().take(room).map(|c| (session.clone(), c)));
    }

    /// The kept candidates of `session`; those of other sessions are forgotten.
    pub(crate) fn take_early(&mut self, session: &SessionId) -> Vec<Candidate> {
        let kept = std::mem::take(&mut self.early);
        kept.into_iter().filter(|(of, _)| of == session).map(|(_, c)| c).collect()
    }

    /// The earliest of its timers.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        [self.next_offer, self.departure, self.retell].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_news_once_until_there_was_a_link() {
        let mut peer = Peer::new(Fingerprint([1; 32]));
        assert!(peer.complain("nobody answers"));
        peer.failed(Instant::now(), true, 0);
        assert!(!peer.complain("nobody answers"));
        assert!(peer.complain("the key is another"));
        peer.succeeded();
        assert!(peer.complain("the key is another"));
    }
}
