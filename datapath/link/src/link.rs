//! One link: from ICE over a handshake to confirmed keys, and what keeps them.
//!
//! 1. The ICE agent looks for a path; whoever controls it is the TLS client.
//! 2. With a path, or one that the peer's checks come on, the client shakes hands; datagrams of a
//!    handshake are taken only from where an authenticated check has come, so strangers never get
//!    an answer.
//! 3. The session's lanes are installed, and the first ones carry frames at once; sealed pings and
//!    pongs confirm the keys both ways.
//! 4. Only then the link is up, and new keys replace others. Pings go on; every hour, or when
//!    asked, there are new keys, and the old ones open what is under way for a while.

mod inputs;
mod keying;
mod laning;
mod states;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipop_crypto::{
    Cipher, Fingerprint, HandshakeError, HandshakeId, Identity, Offer, PROTOCOL_VERSION,
    RefusedInput, Role, Session, path_secret,
};
use ipop_ice::{
    Agent, AgentConfig, Candidate, Credentials, Packet, Selected, State as IceState, Suspicion,
};
use ipop_stun::Random;
use ipop_wire::LinkIndex;

use crate::control::{Control, WORDS_LEN_MAX};
use crate::keys::Keys;
use crate::lanes::{LanePorts, Lanes};
use crate::negotiation::{Negotiated, Negotiation, NegotiationConfig};
use crate::path_mtu::{Limits, PathMtu};
use crate::port::{
    ControlInput, Datagram, KeysStatus, LinkState, LinkStatus, PathKind, PathStatus, Refused,
    Traffic,
};
use crate::trace::{Recorder, Trace};

/// From keys to new keys.
pub const REHANDSHAKE_AFTER: Duration = Duration::from_secs(3600);

/// From a path to confirmed keys, before the link is given up.
pub const ESTABLISH_TIME_MAX: Duration = Duration::from_secs(30);

/// How long keys that were replaced still open what is under way.
pub const RETIRED_TIME: Duration = Duration::from_secs(10);

/// From a failed handshake to the next, when there are no keys, and when there are.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_UP: Duration = Duration::from_secs(30);

/// New keys that are not confirmed after this time are dropped.
const CONFIRM_TIME_MAX: Duration = Duration::from_secs(15);

/// Keys younger than this are not replaced at the peer's wish.
const REHANDSHAKE_WISH_AFTER: Duration = Duration::from_secs(5);

/// Unanswered pings on a working path, a second apart, after which keys are replaced, or the link
/// given up. A path that loses a quarter each way loses as many once in a thousand tries, or once
/// in hundreds of millions.
const UNANSWERED_REHANDSHAKE: u32 = 9;
const UNANSWERED_FAILED: u32 = 24;

/// Nothing heard for this long where there was traffic is a reason to look after the path: who
/// sends hears something twice a second, pongs if nothing else.
const QUIET_TIME: Duration = Duration::from_millis(900);

/// Words between controllers that a peer may say at once, and how many a second on average. More
/// are dropped: those who say them say them again.
const WORDS_BURST: f64 = 64.0;
const WORDS_RATE: f64 = 16.0;

/// Sessions that one link has at a time, at most: active, next, under way and retired.
pub const INDICES_PER_LINK: usize = 4;

/// What a link is told once.
pub struct LinkConfig {
    /// Whom to link with; nobody else is accepted.
    pub peer: Fingerprint,
    /// The controller's number of the session.
    pub session: u64,
    /// Whether this end controls ICE; it is the TLS client then. Exactly one end does.
    pub controlling: bool,
    /// See [`ipop_ice::AgentConfig::head_start`].
    pub head_start: Duration,
    /// Our ICE credentials.
    pub local: Credentials,
    /// Who we are.
    pub identity: Arc<Identity>,
    /// What we offer in handshakes: ciphers with their costs in picoseconds per byte.
    pub ciphers: Vec<(Cipher, u32)>,
    /// Our ports of the lanes that we serve besides the first.
    pub lanes: Vec<LanePorts>,
    /// MTU of our tap in bytes.
    pub mtu: u16,
    /// After how long new keys are made by a handshake.
    pub rehandshake_after: Duration,
    /// Indices for this link's sessions, used by no other link.
    pub indices: [LinkIndex; INDICES_PER_LINK],
    /// 32 secret random bytes, used for nothing else.
    pub seed: [u8; 32],
}

/// What a [`Link`] wants done. Addresses are candidates': a local one may be relayed.
#[derive(Debug)]
pub enum LinkOutput {
    /// Send a datagram.
    Transmit {
        /// Base to send from.
        local: SocketAddr,
        /// Where to.
        remote: SocketAddr,
        /// The datagram.
        data: Vec<u8>,
    },
    /// Open our own side alone, see `ipop_ice::Output::Knock`.
    Knock {
        /// Base to send from.
        local: SocketAddr,
        /// Where to.
        remote: SocketAddr,
        /// The datagram.
        data: Vec<u8>,
    },
    /// Send a datagram from a new socket at this base's address, see `ipop_ice::Output::Open`.
    Open {
        /// Whose address to take.
        base: SocketAddr,
        /// Where to.
        remote: SocketAddr,
        /// The datagram.
        data: Vec<u8>,
    },
    /// A turn at opening and probing ports is wanted: see [`Link::grant_turn`].
    WantsTurn,
    /// It is over, or no longer wanted.
    TurnIsOver,
    /// Give this session's lanes to the workers.
    Install {
        /// Our index.
        index: LinkIndex,
        /// Its keys.
        session: Box<Session>,
    },
    /// All sessions of the link are to use this pair.
    Selected(Selected),
    /// Frames may be sealed with this session already, if no other carries them.
    Begin(LinkIndex),
    /// Frames are to be sealed with this session from now on.
    Activate(LinkIndex),
    /// Seal and send a control frame.
    SendControl {
        /// With which session.
        index: LinkIndex,
        /// The plaintext.
        data: Vec<u8>,
    },
    /// Seal and send a control frame on a lane other than the first.
    SendOnLane {
        /// With which session.
        index: LinkIndex,
        /// On which lane.
        lane: u8,
        /// Our end of the path.
        local: SocketAddr,
        /// The other end.
        remote: SocketAddr,
        /// The plaintext.
        data: Vec<u8>,
    },
    /// [`Link::lane_relays_wanted`] has another answer.
    LaneRelays,
    /// A lane other than the first takes this path in all sessions, from our end to the other.
    LanePath {
        /// Which lane.
        lane: u8,
        /// Its path, if it has one.
        path: Option<(SocketAddr, SocketAddr)>,
    },
    /// Seal and send a ping, padded so that its datagram is `datagram_len` bytes long.
    Probe {
        /// With which session.
        index: LinkIndex,
        /// The ping's.
        nonce: u64,
        /// A relay's header included.
        datagram_len: u16,
    },
    /// The path is known to carry datagrams of another length, whether that is all it carries has
    /// changed, or whether it loses much.
    PathChanged,
    /// The peer's controller says this to ours.
    Words(Vec<u8>),
    /// Forget this session's lanes.
    Remove(LinkIndex),
    /// The status is another one.
    Changed,
}

/// One session with one peer, from ICE credentials to confirmed keys and on.
pub struct Link {
    config: LinkConfig,
    random: Random,
    agent: Agent,
    /// From when the peer's credentials are known.
    negotiation: Option<Negotiation>,
    selected: Option<Selected>,
    /// Where a client shakes hands before a pair is selected.
    likely: Option<(SocketAddr, SocketAddr)>,
    /// What the selected pair carries.
    path_mtu: Option<PathMtu>,
    /// The peer has sent data, and not gone quiet since.
    is_flowing: bool,
    /// For the reason, should no path be found.
    remote_candidate_count: usize,
    remote_is_complete: bool,
    /// The keys in use.
    active: Option<Keys>,
    /// Keys that wait for their confirmation.
    next: Option<Keys>,
    /// Keys that were replaced, and until when they stay.
    retired: Vec<(LinkIndex, Instant)>,
    /// The lanes besides the first.
    lanes: Lanes,
    timers: Timers,
    /// How many words the peer may say at once, and since when.
    words_credit: f64,
    words_at: Instant,
    last_error: Option<HandshakeError>,
    failure: Option<String>,
    reported: (LinkState, Option<PathStatus>),
    /// Of the path: the length of datagrams, whether it is settled, whether much is lost.
    reported_path: Option<(u16, bool, bool)>,
    outputs: VecDeque<LinkOutput>,
    recorder: Recorder,
}

/// Besides those of the agent, the handshake and the keys.
#[derive(Default)]
struct Timers {
    /// The client's next handshake.
    rehandshake: Option<Instant>,
    /// The link is given up if it is not up by then.
    establish: Option<Instant>,
}

impl Link {
    /// A link that waits for the peer's credentials.
    #[must_use]
    pub fn new(config: LinkConfig, now: Instant) -> Self {
        let mut random = Random::new(config.seed);
        let agent = AgentConfig {
            head_start: config.head_start,
            ..AgentConfig::new(
                config.local.clone(),
                config.controlling,
                random.number(),
                random.block(),
            )
        };
        let mut recorder = Recorder::new(now);
        recorder.record(now, Trace::Opened { is_controlling: config.controlling });
        Link {
            agent: Agent::new(agent, now),
            random,
            lanes: Lanes::new(config.lanes.clone()),
            config,
            negotiation: None,
            selected: None,
            likely: None,
            path_mtu: None,
            is_flowing: false,
            remote_candidate_count: 0,
            remote_is_complete: false,
            active: None,
            next: None,
            retired: Vec::new(),
            timers: Timers::default(),
            words_credit: WORDS_BURST,
            words_at: now,
            last_error: None,
            failure: None,
            reported: (LinkState::Idle, None),
            reported_path: None,
            outputs: VecDeque::new(),
            recorder,
        }
    }

    /// Takes the peer's ICE credentials. Others than the first are ignored.
    pub fn set_remote(&mut self, now: Instant, remote: Credentials) {
        if self.negotiation.is_some() || self.failure.is_some() {
            return;
        }
        let config = &self.config;
        let (role, client, server) = match config.controlling {
            true => (Role::Client, &config.local, &remote),
            false => (Role::Server, &remote, &config.local),
        };
        let parts = [&client.ufrag, &client.pwd, &server.ufrag, &server.pwd];
        let offer = Offer {
            version: PROTOCOL_VERSION,
            link_index: LinkIndex(0),
            lanes: u8::try_from(config.lanes.len() + 1).unwrap_or(u8::MAX),
            mtu: config.mtu,
            ciphers: config.ciphers.clone(),
        };
        self.negotiation = Some(Negotiation::new(NegotiationConfig {
            role,
            identity: config.identity.clone(),
            peer: config.peer,
            path_secret: path_secret(&parts.map(String::as_bytes)),
            offer,
        }));
        self.agent.set_remote(now, remote);
        self.settle(now);
    }

    /// Adds one of the node's candidates.
    pub fn add_local(&mut self, now: Instant, candidate: Candidate) {
        self.agent.add_local(now, candidate);
        self.settle(now);
    }

    /// A further server sees a known address of the node's too.
    pub fn add_witness(&mut self, candidate: &Candidate) {
        self.agent.add_witness(candidate);
    }

    /// Adds one of the peer's candidates; false if it is of no use.
    pub fn add_remote(&mut self, now: Instant, candidate: Candidate) -> bool {
        let is_used = self.agent.add_remote(now, candidate);
        self.remote_candidate_count += usize::from(is_used);
        self.settle(now);
        is_used
    }

    /// The peer has no more candidates: what there is has to do.
    pub fn end_of_remote_candidates(&mut self, now: Instant) {
        self.remote_is_complete = true;
        self.agent.end_of_remote_candidates(now);
        self.settle(now);
    }

    /// New keys as soon as possible: for a lane whose counter runs out, or at the user's wish.
    pub fn rehandshake(&mut self, now: Instant) {
        if self.config.controlling {
            self.timers.rehandshake = Some(now);
        } else if let Some(active) = &self.active {
            let (index, data) = (active.index, Control::Rehandshake.emit());
            self.outputs.push_back(LinkOutput::SendControl { index, data });
        }
        self.settle(now);
    }

    /// Tells the peer's controller something, at most [`WORDS_LEN_MAX`](crate::WORDS_LEN_MAX)
    /// bytes, which may be lost. False if there is no session to say it under, or it is too long.
    pub fn say(&mut self, now: Instant, words: Vec<u8>) -> bool {
        let Some(active) = &self.active else { return false };
        if words.len() > WORDS_LEN_MAX {
            return false;
        }
        let (index, data) = (active.index, Control::Words(words).emit());
        self.outputs.push_back(LinkOutput::SendControl { index, data });
        self.settle(now);
        true
    }

    /// Removes all sessions; with a reason, the peer is told. Drop the link afterwards.
    pub fn close(&mut self, now: Instant, reason: Option<&str>) {
        if let (Some(active), Some(reason)) = (&self.active, reason) {
            let (index, data) = (active.index, Control::Bye(reason.to_owned()).emit());
            self.outputs.push_back(LinkOutput::SendControl { index, data });
        }
        self.fail("closed".into());
        self.settle(now);
    }

    /// Takes a STUN message of the session, or a handshake datagram.
    ///
    /// # Errors
    /// [`Refused`]: count and drop.
    pub fn handle_input(&mut self, now: Instant, input: Datagram<'_>) -> Result<(), Refused> {
        let result = match input.data.first() {
            Some(0..=3) => self.on_stun(now, input),
            Some(128..=191) => self.on_handshake(now, input),
            _ => Err(Refused::Malformed),
        };
        self.settle(now);
        result
    }

    /// Takes the plaintext of a control datagram that was opened with this session's keys, and the
    /// pair that it came on, if that is known.
    pub fn handle_control(
        &mut self,
        now: Instant,
        input: ControlInput<'_>,
        pair: Option<(SocketAddr, SocketAddr)>,
    ) {
        if let (0, Some((local, remote))) = (input.lane, pair)
            && self.failure.is_none()
        {
            self.agent.on_authentic(now, local, remote);
        }
        if let Some(control) = Control::parse(input.data)
            && self.failure.is_none()
        {
            match input.lane {
                0 => self.on_control(now, input.index, control),
                lane => {
                    let seen = match input.channel {
                        Some(_) => pair.map(|(_, remote)| remote),
                        None => Some(input.remote),
                    };
                    if let Some(remote) = seen {
                        self.on_lane_control(now, (input.index, lane), remote, &control);
                    }
                }
            }
        }
        self.settle(now);
    }

    /// Our interface refused a datagram of this length.
    pub fn handle_too_big(&mut self, now: Instant, datagram_len: u16) {
        if let Some(path_mtu) = &mut self.path_mtu {
            path_mtu.on_too_big(now, datagram_len);
        }
        self.settle(now);
    }

    /// What the link carried lately.
    pub fn note_traffic(&mut self, now: Instant, traffic: Traffic) {
        if let Some(path_mtu) = self.path_mtu.as_mut().filter(|_| traffic.is_sending) {
            path_mtu.on_traffic(now);
        }
        self.lanes.note_load(now, traffic.bytes);
        self.is_flowing |= traffic.is_receiving;
        let is_quiet = traffic.heard.is_some_and(|at| now >= at + QUIET_TIME);
        if is_quiet && (traffic.is_sending || std::mem::take(&mut self.is_flowing)) {
            self.agent.suspect(now, Suspicion::Traffic);
        }
        self.settle(now);
    }

    /// An address of ours is gone.
    pub fn remove_local(&mut self, now: Instant, base: SocketAddr) {
        self.agent.remove_local(now, base);
        self.settle(now);
    }

    /// Leave for [`LinkOutput::WantsTurn`]: no other link has one.
    pub fn grant_turn(&mut self, now: Instant) {
        self.agent.grant_turn(now);
        self.settle(now);
    }

    /// Whether a socket that was opened for the link is needed.
    #[must_use]
    pub fn uses_local(&self, local: SocketAddr) -> bool {
        self.failure.is_none() && self.agent.uses_local(local)
    }

    /// The peer seems to use another pair than we do: ours may be dead.
    pub fn suspect_path(&mut self, now: Instant) {
        self.agent.suspect(now, Suspicion::PeerElsewhere);
        self.settle(now);
    }

    /// The relayed pair in use has a channel now, or lost it. What was sent before it is lost.
    pub fn note_channel_changed(&mut self, now: Instant) {
        self.hurry(now);
        self.settle(now);
    }

    /// Paths may be dead, or work again.
    pub fn note_routes_changed(&mut self, now: Instant) {
        self.agent.on_network_changed(now);
        self.settle(now);
    }

    /// Something about this machine's network is another.
    pub fn note_network_changed(&mut self, now: Instant) {
        if let Some(path_mtu) = &mut self.path_mtu {
            path_mtu.on_network_changed(now);
        }
        self.settle(now);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.agent.poll_timeout().is_some_and(|at| now >= at) {
            self.agent.handle_timeout(now);
        }
        if let Some(negotiation) = &mut self.negotiation {
            negotiation.handle_timeout(now);
        }
        self.settle(now);
        if self.failure.is_none() {
            self.advance_keys(now);
            self.advance_lanes(now);
            self.advance_retired(now);
            self.probe(now);
            if self.timers.establish.is_some_and(|at| now >= at) {
                self.fail(self.why_not_established());
            }
        }
        self.settle(now);
    }

    /// What is to be done next; ask until `None`.
    pub fn poll_output(&mut self) -> Option<LinkOutput> {
        self.outputs.pop_front()
    }

    /// The next step of the link's life that was not told yet; ask until `None`.
    pub fn poll_trace(&mut self) -> Option<Trace> {
        self.recorder.take()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.failure.is_some() {
            return None;
        }
        let keys = [&self.active, &self.next].into_iter().flatten().map(Keys::poll_timeout);
        let confirm = self.next.as_ref().map(|next| next.established + CONFIRM_TIME_MAX);
        let retired = self.retired.iter().map(|(_, until)| *until);
        let negotiation = self.negotiation.as_ref().and_then(Negotiation::poll_timeout);
        [
            self.agent.poll_timeout(),
            negotiation,
            confirm,
            self.timers.establish,
            self.timers.rehandshake.filter(|_| self.can_start()),
            self.lanes.poll_timeout().filter(|_| self.can_ping_lanes()),
            self.probe_due(),
        ]
        .into_iter()
        .flatten()
        .chain(keys)
        .chain(retired)
        .min()
    }
}
