//! Links without signalling, by what both ends remember of the last session between them.
//!
//! While this node is in the room, the room says who is a member and carries words, and nothing
//! here happens. When it is not, each remembered member without a link is tried with the
//! credentials, the role and the addresses of the session that was up last; the other end does the
//! same, so holes open from both sides without a message, and whoever was restarted finds the
//! other end's link still listening. An attempt ends by itself after some 20 s; the first three
//! and then every third one send checks, the others only listen. Members are tried until they are
//! forgotten, 30 days after they were linked. A link that goes silent is not waited for: another
//! member may know where the peer is now.
//!
//! Back in the room, links that are up stay as they are: nobody offers to a member that is linked.
//! Members that the room does not name lose their links after a while. What is still looked for
//! gives way to a usual session.

use std::time::{Duration, Instant};

use ipop_signal::{CandidateKind, Fingerprint, Member};
use ipop_steer::LinkState;

use super::GroupVpn;
use super::sessions::Role;
use crate::bytes::candidate;
use crate::memory::{Known, KnownSession, Memory, REMEMBERED_S};
use crate::peer::{DEPARTURE_GRACE, Peer, Session, Way};

/// How long a node that starts waits for the room.
const START_PATIENCE: Duration = Duration::from_secs(2);
/// After a failed attempt, and as much more for the spread.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the first attempt has before another member is asked to carry words; it doubles.
const CARRIER_PATIENCE: Duration = Duration::from_secs(3);
/// An attempt that neither works nor fails in this time was refused: its credentials are in use.
const ATTEMPT_TIME_MAX: Duration = Duration::from_secs(60);
/// How often it is noted that members are still there.
const KEEP_PAUSE: Duration = Duration::from_secs(3600);
/// Attempts that send checks, before only every so many-th does.
const EAGER_ATTEMPTS: u32 = 3;
/// Candidates of one session that are collected at most.
const COLLECTED_MAX: usize = 32;
/// Priority of an address that the peer was seen at (RFC 8445 section 5.1.2: 110, first lane).
pub(super) const SEEN_PRIORITY: u32 = (110 << 24) | (0xffff << 8) | 0xff;

/// What is known of time and file.
#[derive(Debug, Default)]
pub(super) struct Recall {
    /// One moment by both clocks: the second in seconds since 1970.
    clock: Option<(Instant, u64)>,
    /// The room was tried and could not be reached.
    pub(super) is_away: bool,
    is_changed: bool,
    kept: Option<Instant>,
}

/// From one attempt to the next; `spread` is any number, so that members do not act in step.
pub(super) fn pause(spread: u8) -> Duration {
    PAUSE + PAUSE.mul_f64(f64::from(spread) / 256.0)
}

impl GroupVpn {
    /// Gives the policy what its predecessor remembered; it is `unix_s` seconds after 1970 now.
    #[must_use]
    pub fn remembering(mut self, now: Instant, unix_s: u64, memory: Memory) -> Self {
        self.memory = memory;
        self.recall.clock = Some((now, unix_s));
        self.recall.kept = Some(now);
        self
    }

    /// What is to be kept for a successor, if that is another than when it was asked last. Also
    /// once an hour, because who is linked has been seen.
    pub fn memory_to_keep(&mut self, now: Instant) -> Option<&Memory> {
        let is_old = self.recall.kept.is_some_and(|kept| now >= kept + KEEP_PAUSE);
        if !self.recall.is_changed && !is_old {
            return None;
        }
        let linked: Vec<_> =
            self.peers.values().filter(|p| p.carries()).map(|p| p.fingerprint).collect();
        linked.iter().for_each(|fingerprint| self.remember(now, fingerprint));
        self.recall.is_changed = false;
        self.recall.kept = Some(now);
        Some(&self.memory)
    }

    /// The names of members whose links came up without signalling.
    pub fn regained(&self) -> Vec<&str> {
        let is_regained = |peer: &&Peer| {
            let way = peer.session.as_ref().map(|session| session.way);
            peer.carries() && way.is_some_and(|way| !way.is_by_room())
        };
        let members = self.peers.values().filter(is_regained).filter_map(|p| p.member.as_ref());
        members.map(|member| member.name.as_str()).collect()
    }

    /// The node has just started: the room has a moment.
    pub(super) fn recall_soon(&mut self, now: Instant) {
        if self.own_address.is_none() {
            self.recall(now, START_PATIENCE);
        }
    }

    /// The room is out of reach.
    pub(super) fn recall_now(&mut self, now: Instant) {
        self.recall.is_away = true;
        self.recall(now, Duration::ZERO);
    }

    fn recall(&mut self, now: Instant, patience: Duration) {
        let Some(own) = self.own.as_ref().map(|own| own.fingerprint) else { return };
        let unix_s = self.unix_s(now);
        self.memory.retain(|known| known.seen.saturating_add(REMEMBERED_S) > unix_s);
        let members: Vec<_> = self.memory.members().map(|known| known.member.clone()).collect();
        for member in members.into_iter().filter(|member| member.fingerprint != own) {
            let spread = self.spread();
            let fingerprint = member.fingerprint;
            let peer = self.peers.entry(fingerprint).or_insert_with(|| Peer::new(fingerprint));
            peer.member.get_or_insert(member);
            if !peer.is_trying() {
                let next = now + patience + pause(spread) - PAUSE;
                peer.next_offer = Some(peer.next_offer.map_or(next, |planned| planned.min(next)));
            }
        }
    }

    /// The room has us: it says who is a member.
    pub(super) fn on_online(&mut self, now: Instant) {
        self.recall.is_away = false;
        let all: Vec<_> = self.peers.keys().copied().collect();
        for fingerprint in all {
            let regular = self.offers_to(&fingerprint);
            let Some(peer) = self.peers.get_mut(&fingerprint) else { continue };
            if peer.present {
                if peer.session.as_ref().is_some_and(|session| !session.way.is_by_room()) {
                    peer.next_offer = None;
                }
                if peer.next_offer.is_none() {
                    self.link_up(now, fingerprint, regular);
                }
            } else if peer.carries() {
                peer.next_offer = None;
                peer.departure.get_or_insert(now + DEPARTURE_GRACE);
            } else {
                self.close(fingerprint);
            }
        }
    }

    /// Tries a member without signalling: by what is remembered, or through another member.
    pub(super) fn reopen(&mut self, now: Instant, fingerprint: Fingerprint) {
        let can_be_carried = !self.carriers(&fingerprint).is_empty();
        let Some(peer) = self.peers.get_mut(&fingerprint) else { return };
        match peer.state {
            LinkState::Up | LinkState::Handshaking => return,
            // It has keys, and perhaps another address, which a third member sees. The session goes
            // on until the new one is up.
            LinkState::Disconnected if can_be_carried => {
                return self.offer_through_members(now, fingerprint);
            }
            LinkState::Disconnected => {
                peer.next_offer = Some(now + CARRIER_PATIENCE);
                return;
            }
            LinkState::Idle | LinkState::Checking | LinkState::Failed => {}
        }
        let way = peer.session.as_ref().map(|session| session.way);
        let is_due = way == Some(Way::Memory) || (way.is_none() && peer.attempts % 2 == 1);
        peer.attempts = peer.attempts.saturating_add(1);
        match can_be_carried && is_due {
            true => self.offer_through_members(now, fingerprint),
            false => self.reopen_remembered(now, fingerprint, can_be_carried),
        }
    }

    fn reopen_remembered(&mut self, now: Instant, fingerprint: Fingerprint, can_be_carried: bool) {
        let Some(known) = self.memory.get(&fingerprint).cloned() else { return };
        let Some(number) = self.random.number() else { return };
        let Some(peer) = self.peers.get_mut(&fingerprint) else { return };
        let session = Session::of_memory(&known, number, Way::Memory);
        let (local, remote) = (session.local.clone(), known.session.remote);
        let role = if session.offered_by_us { Role::OFFERER } else { Role::ANSWERER };
        let tries = peer.attempts.saturating_sub(1);
        let patience = CARRIER_PATIENCE * (1 << (tries / 2).min(4));
        peer.state = LinkState::Idle;
        peer.session = Some(session);
        peer.next_offer = Some(now + if can_be_carried { patience } else { ATTEMPT_TIME_MAX });
        self.open(fingerprint, number, role, (&local, Some(&remote)));
        if tries < EAGER_ATTEMPTS || tries % EAGER_ATTEMPTS == 0 {
            let candidates = known.session.candidates.into_iter();
            self.add_candidates(&fingerprint, number, candidates);
        }
        self.settle_addresses();
    }

    /// A link that an earlier controller made goes on under the name that it had.
    pub(super) fn adopt(&mut self, fingerprint: &Fingerprint, number: u64, state: LinkState) {
        let carries = matches!(state, LinkState::Up | LinkState::Disconnected);
        let known = self.memory.get(fingerprint).filter(|known| known.session.number == number);
        let peer = self.peers.get_mut(fingerprint).filter(|peer| peer.session.is_none());
        if let (true, Some(known), Some(peer)) = (carries, known, peer) {
            peer.session = Some(Session::of_memory(known, number, Way::Room));
        }
    }

    /// The session that was to be replaced because it was silent carries again: the attempt at
    /// another is over.
    pub(super) fn take_back(&mut self, fingerprint: &Fingerprint, number: u64, state: LinkState) {
        let known = self.memory.get(fingerprint).filter(|known| known.session.number == number);
        let Some(peer) = self.peers.get_mut(fingerprint).filter(|peer| !peer.carries()) else {
            return;
        };
        let is_other = peer.session.as_ref().is_some_and(|session| session.number != number);
        if let (LinkState::Up, true, Some(known)) = (state, is_other, known) {
            peer.session = Some(Session::of_memory(known, number, Way::Memory));
        }
    }

    /// A link is up: it may carry words for those that are still looked for, and whoever is linked
    /// takes part in who has which address.
    pub(super) fn on_regained(&mut self, now: Instant, fingerprint: &Fingerprint) {
        if self.own_address.is_some() {
            return;
        }
        if self.peers.get(fingerprint).is_some_and(|peer| !peer.present) {
            self.settle_addresses();
        }
        let is_waiting = |peer: &&mut Peer| {
            let way = peer.session.as_ref().map(|session| session.way);
            way == Some(Way::Memory) && !peer.carries()
        };
        let next = now + CARRIER_PATIENCE;
        for peer in self.peers.values_mut().filter(is_waiting) {
            peer.next_offer = Some(peer.next_offer.map_or(next, |planned| planned.min(next)));
        }
    }

    /// Notes a link that is up.
    pub(super) fn remember(&mut self, now: Instant, fingerprint: &Fingerprint) {
        let seen = self.unix_s(now);
        let Some(peer) = self.peers.get(fingerprint) else { return };
        let (Some(member), Some(session)) = (&peer.member, &peer.session) else { return };
        let Some(remote) = session.remote.clone() else { return };
        let seen_at =
            peer.seen_at.map(|at| candidate(CandidateKind::PeerReflexive, at, SEEN_PRIORITY));
        let mut candidates: Vec<_> = seen_at.into_iter().collect();
        for other in &session.candidates {
            if !candidates.iter().any(|known| known.address == other.address) {
                candidates.push(candidate(other.kind, other.address, other.priority));
            }
        }
        candidates.truncate(crate::memory::CANDIDATES_MAX);
        let session = KnownSession {
            id: session.id.clone(),
            number: session.number,
            offered_by_us: session.offered_by_us,
            local: session.local.clone(),
            remote,
            candidates,
        };
        let known = Known { member: member.clone(), seen, session };
        let before = self.memory.get(fingerprint);
        self.recall.is_changed |=
            before.is_none_or(|b| (&b.member, &b.session) != (&known.member, &known.session));
        self.memory.insert(known);
    }

    /// Where the peer of a session may be, for later.
    pub(super) fn note_candidate(
        &mut self,
        fingerprint: &Fingerprint,
        candidate: &ipop_signal::Candidate,
    ) {
        let Some(peer) = self.peers.get_mut(fingerprint) else { return };
        self.recall.is_changed |= peer.carries();
        let Some(session) = &mut peer.session else { return };
        session.candidates.retain(|known| known.address != candidate.address);
        if session.candidates.len() < COLLECTED_MAX {
            session.candidates.push(candidate.clone());
        }
    }

    /// A member is in the room: what is remembered of it follows what it says, and whoever had one
    /// of its addresses before is not there any more.
    pub(super) fn replace_in_memory(&mut self, member: &Member) {
        if let Some(known) = self.memory.get_mut(&member.fingerprint)
            && known.member != *member
        {
            known.member = member.clone();
            self.recall.is_changed = true;
        }
        let peers = &self.peers;
        let is_there = |known: &Known| {
            let fingerprint = &known.member.fingerprint;
            *fingerprint == member.fingerprint
                || peers.get(fingerprint).is_some_and(|peer| peer.present)
        };
        let clashes = |known: &Known| {
            let of_member = |at: std::net::IpAddr| member.addresses.iter().any(|a| a.address == at);
            known.member.addresses.iter().any(|address| of_member(address.address))
        };
        self.recall.is_changed |= self.memory.retain(|known| is_there(known) || !clashes(known));
    }

    pub(super) fn spread(&mut self) -> u8 {
        self.random.number().unwrap_or(128) as u8
    }

    fn unix_s(&self, now: Instant) -> u64 {
        let clock = self.recall.clock;
        clock.map_or(0, |(at, unix_s)| unix_s + now.saturating_duration_since(at).as_secs())
    }
}

impl Session {
    fn of_memory(known: &Known, number: u64, way: Way) -> Self {
        let Known { member, session, .. } = known;
        Self {
            id: session.id.clone(),
            number,
            address: member.address.clone(),
            offered_by_us: session.offered_by_us,
            answered: true,
            way,
            local: session.local.clone(),
            remote: Some(session.remote.clone()),
            candidates: session.candidates.clone(),
        }
    }
}
