//! All links of a node, and the gatherer they share.
//!
//! The way of a datagram: from a server's address to the gatherer, which may unwrap a relayed one;
//! a check to the link whose user name fragment it carries; an answer to the link that asked; a
//! handshake to the link that the receiver index names, or, while that is unknown, to the one that
//! knows the sender.
//!
//! A peer may have two sessions at a time: when the controller opens a new one, the old one goes
//! on carrying frames until the new one is up.

mod dispatch;
mod lane_paths;
mod paths;
mod slots;
mod turns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipop_crypto::{Cipher, Fingerprint, Identity};
use ipop_ice::{Candidate, Credentials};
use ipop_stun::Random;
use ipop_wire::{Header, Kind, LinkIndex};
use std::net::SocketAddr;

use self::dispatch::Questions;
use self::slots::{Slot, Slots};
use self::turns::Turns;
use crate::gatherer::{Gatherer, GathererOutput, LaneWish, TurnServer};
use crate::lanes::LanePorts;
use crate::link::{Link, LinkConfig, LinkOutput};
use crate::port::{
    CommandError, ControlInput, Datagram, Event, InstallLane, LinkState, LinkStatus, Output, Path,
    PathKind, PathStatus, Refused, Relay, Traffic,
};

pub use self::slots::LINKS_MAX;

/// What a node is told once.
pub struct NodeConfig {
    /// Who we are.
    pub identity: Arc<Identity>,
    /// Ciphers with what they cost this machine, in picoseconds per byte.
    pub ciphers: Vec<(Cipher, u32)>,
    /// The ports of the lanes (workers) that this node serves besides the first.
    pub lanes: Vec<LanePorts>,
    /// MTU of the tap in bytes.
    pub mtu: u16,
    /// After how long a link makes new keys by a handshake, as controlling end; usually
    /// [`REHANDSHAKE_AFTER`](crate::REHANDSHAKE_AFTER).
    pub rehandshake_after: Duration,
    /// 32 secret random bytes, used for nothing else.
    pub seed: [u8; 32],
}

/// The wish for a link.
#[derive(Clone, Debug)]
pub struct OpenLink {
    /// With whom; nobody else is accepted.
    pub peer: Fingerprint,
    /// The controller's number of the session.
    pub session: u64,
    /// Whether this end controls ICE and is the TLS client. Exactly one end is.
    pub controlling: bool,
    /// See [`ipop_ice::AgentConfig::head_start`].
    pub head_start: Duration,
    /// Our ICE credentials of the session.
    pub local: Credentials,
    /// The peer's, if known.
    pub remote: Option<Credentials>,
}

/// All links of a node and its gatherer, behind one set of verbs.
pub struct Node {
    config: NodeConfig,
    random: Random,
    gatherer: Gatherer,
    slots: Slots,
    /// The slots of a peer's sessions.
    peers: BTreeMap<Fingerprint, Sessions>,
    questions: Questions,
    turns: Turns,
    /// Relayed addresses for lanes that links want.
    lane_wishes: Vec<LaneWish>,
    outputs: VecDeque<Output>,
}

/// A peer's sessions, by slot.
#[derive(Clone, Copy, Debug)]
struct Sessions {
    current: usize,
    /// The one before, while it carries frames and the current one is not up.
    retiring: Option<usize>,
}

impl Node {
    /// A node without addresses, servers and links.
    #[must_use]
    pub fn new(config: NodeConfig) -> Self {
        let mut random = Random::new(config.seed);
        Node {
            gatherer: Gatherer::new(random.block()),
            random,
            config,
            slots: Slots::default(),
            peers: BTreeMap::new(),
            questions: Questions::default(),
            turns: Turns::default(),
            lane_wishes: Vec::new(),
            outputs: VecDeque::new(),
        }
    }

    /// The addresses of the node's interfaces with the socket's port, see
    /// [`Gatherer::set_hosts`].
    ///
    /// Links leave an address that is gone at once, if they have another.
    pub fn set_hosts(&mut self, now: Instant, hosts: &[SocketAddr]) {
        let bases = |gatherer: &Gatherer| -> BTreeSet<SocketAddr> {
            gatherer.candidates().iter().map(|candidate| candidate.base).collect()
        };
        let before = bases(&self.gatherer);
        self.gatherer.set_hosts(now, hosts);
        let after = bases(&self.gatherer);
        // With a host's address go the relays that are reached from there.
        for gone in before.difference(&after).copied() {
            for at in self.slots.range() {
                if let Some(slot) = self.slots.touch(at) {
                    slot.link.remove_local(now, gone);
                }
            }
        }
        self.settle(now);
    }

    /// The servers to use, see [`Gatherer::set_servers`].
    pub fn set_servers(&mut self, now: Instant, stun: &[SocketAddr], turn: &[TurnServer]) {
        self.gatherer.set_servers(now, stun, turn);
        self.settle(now);
    }

    /// What the router maps to our socket, see [`Gatherer::set_mapping`].
    pub fn set_mapping(&mut self, now: Instant, mapping: Option<(SocketAddr, SocketAddr)>) {
        self.gatherer.set_mapping(mapping);
        self.settle(now);
    }

    /// The bridge to a TURN server has its connection.
    pub fn stream_connected(&mut self, now: Instant, bridge: SocketAddr) {
        self.gatherer.stream_connected(now, bridge);
        self.settle(now);
    }

    /// The bridge to a TURN server has no connection, or none any more, and why; it goes on trying.
    pub fn stream_lost(&mut self, now: Instant, bridge: SocketAddr, text: String) {
        self.gatherer.stream_lost(now, bridge, text);
        self.settle(now);
    }

    /// Opens a link. The same session again is no news; a new session replaces the one there is,
    /// which goes on carrying frames until the new one is up. Credentials may be used again for
    /// the same peer once the session that had them carries nothing any more.
    ///
    /// # Errors
    /// [`CommandError::TooManyLinks`], [`CommandError::UfragInUse`].
    pub fn open_link(&mut self, now: Instant, wish: OpenLink) -> Result<(), CommandError> {
        let before = self.peers.get(&wish.peer).copied();
        if let Some(sessions) = before
            && self.slots.get(sessions.current).is_some_and(|slot| slot.session == wish.session)
        {
            return Ok(());
        }
        if let Some(slot) = self.slots.by_ufrag(&wish.local.ufrag).and_then(|at| self.slots.get(at))
            && (slot.peer != wish.peer || carries(slot))
        {
            return Err(CommandError::UfragInUse);
        }
        let at = self.slots.reserve().ok_or(CommandError::TooManyLinks)?;
        let mut link = Link::new(self.link_config(at, &wish), now);
        for candidate in self.gatherer.candidates() {
            link.add_local(now, candidate.clone());
        }
        self.gatherer.witnesses().iter().for_each(|candidate| link.add_witness(candidate));
        if let Some(remote) = wish.remote {
            link.set_remote(now, remote);
        }
        let retiring = before.and_then(|sessions| self.retire(now, sessions));
        self.slots.fill(at, Slot::new(wish.peer, wish.session, link));
        self.peers.insert(wish.peer, Sessions { current: at, retiring });
        self.report(at);
        self.settle(now);
        Ok(())
    }

    /// The peer's ICE credentials of a session.
    ///
    /// # Errors
    /// [`CommandError::UnknownLink`], [`CommandError::StaleSession`].
    pub fn set_remote(
        &mut self,
        now: Instant,
        peer: Fingerprint,
        session: u64,
        remote: Credentials,
    ) -> Result<(), CommandError> {
        self.find(peer, session)?.link.set_remote(now, remote);
        self.settle(now);
        Ok(())
    }

    /// An address of the peer.
    ///
    /// # Errors
    /// [`CommandError::UnknownLink`], [`CommandError::StaleSession`],
    /// [`CommandError::UselessCandidate`].
    pub fn add_remote_candidate(
        &mut self,
        now: Instant,
        peer: Fingerprint,
        session: u64,
        candidate: Candidate,
    ) -> Result<(), CommandError> {
        let is_used = self.find(peer, session)?.link.add_remote(now, candidate);
        self.settle(now);
        if is_used { Ok(()) } else { Err(CommandError::UselessCandidate) }
    }

    /// The peer has told all its addresses.
    ///
    /// # Errors
    /// [`CommandError::UnknownLink`], [`CommandError::StaleSession`].
    pub fn end_of_candidates(
        &mut self,
        now: Instant,
        peer: Fingerprint,
        session: u64,
    ) -> Result<(), CommandError> {
        self.find(peer, session)?.link.end_of_remote_candidates(now);
        self.settle(now);
        Ok(())
    }

    /// Closes a link, all its sessions, and tells the peer why.
    ///
    /// # Errors
    /// [`CommandError::UnknownLink`].
    pub fn close_link(
        &mut self,
        now: Instant,
        peer: Fingerprint,
        reason: &str,
    ) -> Result<(), CommandError> {
        let sessions = self.peers.remove(&peer).ok_or(CommandError::UnknownLink)?;
        for at in [Some(sessions.current), sessions.retiring].into_iter().flatten() {
            self.remove(now, at, Some(reason));
        }
        self.settle(now);
        Ok(())
    }

    /// New keys for a link as soon as possible.
    ///
    /// # Errors
    /// [`CommandError::UnknownLink`].
    pub fn rehandshake(&mut self, now: Instant, peer: Fingerprint) -> Result<(), CommandError> {
        let sessions = self.peers.get(&peer).ok_or(CommandError::UnknownLink)?;
        let slot = self.slots.touch(sessions.current).ok_or(CommandError::UnknownLink)?;
        slot.link.rehandshake(now);
        self.settle(now);
        Ok(())
    }

    /// Tells a peer's controller something, which may be lost.
    ///
    /// # Errors
    /// [`CommandError::UnknownLink`], [`CommandError::CannotSay`].
    pub fn say(
        &mut self,
        now: Instant,
        peer: Fingerprint,
        words: Vec<u8>,
    ) -> Result<(), CommandError> {
        let sessions = self.peers.get(&peer).copied().ok_or(CommandError::UnknownLink)?;
        let all = [Some(sessions.current), sessions.retiring];
        let carrying =
            all.into_iter().flatten().find(|at| self.slots.get(*at).is_some_and(carries));
        let slot = carrying.and_then(|at| self.slots.touch(at));
        let is_said = slot.is_some_and(|slot| slot.link.say(now, words));
        self.settle(now);
        if is_said { Ok(()) } else { Err(CommandError::CannotSay) }
    }

    /// Takes a datagram that is not sealed: STUN, ChannelData, handshake.
    ///
    /// # Errors
    /// [`Refused`]: count and drop; nothing was answered.
    pub fn handle_input(&mut self, now: Instant, input: Datagram<'_>) -> Result<(), Refused> {
        let result = self.dispatch(now, input);
        self.settle(now);
        result
    }

    /// Takes the plaintext of a control datagram that a worker opened.
    ///
    /// # Errors
    /// [`Refused::Unexpected`]: the session is over.
    pub fn handle_control(&mut self, now: Instant, input: ControlInput<'_>) -> Result<(), Refused> {
        let at = Slots::of_index(input.index).ok_or(Refused::Unexpected)?;
        let pair = match input.channel {
            None => input.local.map(|local| (local, input.remote)),
            Some(channel) if input.lane == 0 => self.gatherer.channel_pair(input.remote, channel),
            Some(channel) => self.gatherer.lane_channel_pair(input.lane, input.remote, channel),
        };
        let slot = self.slots.touch(at).ok_or(Refused::Unexpected)?;
        slot.link.handle_control(now, input, pair);
        self.settle(now);
        Ok(())
    }

    /// Our interface refused a datagram of this length (UDP payload) for the session of `index`.
    pub fn handle_too_big(&mut self, now: Instant, index: LinkIndex, datagram_len: u16) {
        if let Some(slot) = Slots::of_index(index).and_then(|at| self.slots.touch(at)) {
            slot.link.handle_too_big(now, datagram_len);
        }
        self.settle(now);
    }

    /// What the session of `index` carried since this was said last: to be said every half second
    /// while there is traffic, and for two seconds afterwards. Paths are looked after while they
    /// are used.
    pub fn note_traffic(&mut self, now: Instant, index: LinkIndex, traffic: Traffic) {
        if let Some(slot) = Slots::of_index(index).and_then(|at| self.slots.touch(at)) {
            slot.link.note_traffic(now, traffic);
        }
        self.settle(now);
    }

    /// Something about this machine's addresses or routes is another: paths may be dead, or work
    /// again.
    pub fn note_routes_changed(&mut self, now: Instant) {
        for at in self.slots.range() {
            if let Some(slot) = self.slots.touch(at) {
                slot.link.note_routes_changed(now);
            }
        }
        self.settle(now);
    }

    /// Something about this machine's interfaces or routes is another: paths may carry more or
    /// less than before.
    pub fn note_network_changed(&mut self, now: Instant) {
        for at in self.slots.range() {
            if let Some(slot) = self.slots.touch(at) {
                slot.link.note_network_changed(now);
            }
        }
        self.settle(now);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.gatherer.poll_timeout().is_some_and(|at| now >= at) {
            self.gatherer.handle_timeout(now);
        }
        for at in self.slots.due(now) {
            if let Some(slot) = self.slots.touch(at) {
                slot.link.handle_timeout(now);
            }
            self.remove_if_replaced(now, at);
        }
        self.settle(now);
    }

    /// What is to be done next; ask until `None`, and keep the order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.slots.poll_timeout().into_iter().chain(self.gatherer.poll_timeout()).min()
    }

    /// Whether a datagram from there may be a server's answer, on whichever lane's socket.
    #[must_use]
    pub fn is_server(&self, remote: SocketAddr) -> bool {
        self.gatherer.is_server(remote)
    }

    /// The addresses at which the node may be reached now: for a controller that has just come.
    #[must_use]
    pub fn local_candidates(&self) -> &[Candidate] {
        self.gatherer.candidates()
    }

    /// Whether gathering is done, see [`Event::GatheringDone`].
    #[must_use]
    pub fn is_gathering_done(&self) -> bool {
        self.gatherer.is_done()
    }

    /// All links: for a controller that has just come, and for the link table.
    pub fn links(&self) -> impl Iterator<Item = LinkStatus> {
        self.peers.values().filter_map(|sessions| self.status(sessions.current))
    }

    fn find(&mut self, peer: Fingerprint, session: u64) -> Result<&mut Slot, CommandError> {
        let sessions = self.peers.get(&peer).ok_or(CommandError::UnknownLink)?;
        let slot = self.slots.touch(sessions.current).ok_or(CommandError::UnknownLink)?;
        if slot.session == session { Ok(slot) } else { Err(CommandError::StaleSession) }
    }

    fn link_config(&mut self, at: usize, wish: &OpenLink) -> LinkConfig {
        LinkConfig {
            peer: wish.peer,
            session: wish.session,
            controlling: wish.controlling,
            head_start: wish.head_start,
            local: wish.local.clone(),
            identity: self.config.identity.clone(),
            ciphers: self.config.ciphers.clone(),
            lanes: self.config.lanes.clone(),
            mtu: self.config.mtu,
            rehandshake_after: self.config.rehandshake_after,
            indices: Slots::indices(at),
            seed: self.random.block(),
        }
    }

    /// Makes room for a new session: which of the old ones goes on carrying frames.
    fn retire(&mut self, now: Instant, sessions: Sessions) -> Option<usize> {
        let all = [Some(sessions.current), sessions.retiring].into_iter().flatten();
        let kept = all.clone().find(|at| self.slots.get(*at).is_some_and(carries));
        for at in all.filter(|at| Some(*at) != kept) {
            self.remove(now, at, None);
        }
        kept
    }
}

/// Whether a session carries frames.
fn carries(slot: &Slot) -> bool {
    matches!(slot.link.state(), LinkState::Up | LinkState::Disconnected)
}
