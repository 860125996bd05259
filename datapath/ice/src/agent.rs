//! The agent: candidates in, checks out, a selected pair.

mod hard;
mod incoming;
mod moves;
mod nomination;
mod outgoing;
mod punch;
mod table;
mod tracing;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_stun::{Key, Random};

use crate::candidate::{Candidate, CandidateKind, Credentials};
use crate::pair::Pair;
use crate::trace::{Choice, Trace};

pub use hard::{OPENERS_MAX, PROBES_MAX};
pub use punch::KNOCK_HOP_LIMIT;

/// Candidates that the peer names, at most. Those found by its checks are counted apart: whoever
/// can make them up without end must not keep the named ones out.
pub const REMOTE_CANDIDATES_MAX: usize = 64;
/// Checks of the peer that came before its credentials, kept at most.
const EARLY_MAX: usize = 16;

/// Of the end that answers, and of relays: by then the other end knows as much.
const HEAD_START: Duration = Duration::from_millis(1000);
/// Tie-breakers of the peer that are remembered.
const TIE_BREAKERS_MAX: usize = 8;

/// How an agent starts.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// What our end is addressed by.
    pub local: Credentials,
    /// Whether this end nominates. Role conflicts are settled by the tie-breaker.
    pub controlling: bool,
    /// A random number.
    pub tie_breaker: u64,
    /// 32 random bytes, used for nothing else.
    pub seed: [u8; 32],
    /// Pause between new checks (Ta).
    pub pace: Duration,
    /// How long this end waits for a check of the peer when it has knocked, see
    /// [`Output::Knock`]; zero: it does not. Whoever knows the other first does.
    pub head_start: Duration,
    /// How long a direct pair may take to become valid before a relayed one is used.
    pub relay_patience: Duration,
    /// How long the first valid pair may take, from when both ends know each other.
    pub connect_patience: Duration,
    /// The same once the peer has named all its candidates and no pair of them works.
    pub hopeless_patience: Duration,
    /// How long consent lasts without an answered check (RFC 7675 section 5.1).
    pub consent_lifetime: Duration,
    /// How often a hard pair is tried (see `agent/hard.rs`); 0: never.
    pub hard_tries: u32,
}

impl AgentConfig {
    /// The usual timing.
    pub fn new(local: Credentials, controlling: bool, tie_breaker: u64, seed: [u8; 32]) -> Self {
        Self {
            local,
            controlling,
            tie_breaker,
            seed,
            pace: Duration::from_millis(10),
            head_start: if controlling { Duration::ZERO } else { HEAD_START },
            relay_patience: Duration::from_millis(200),
            connect_patience: Duration::from_secs(20),
            hopeless_patience: Duration::from_secs(8),
            consent_lifetime: Duration::from_secs(30),
            hard_tries: 4,
        }
    }
}

/// What the agent is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The peer's credentials are not known yet.
    New,
    /// Looking for a pair that works.
    Checking,
    /// A pair is selected and answers.
    Connected,
    /// The selected pair has gone silent; looking for another.
    Disconnected,
    /// No pair works, or consent is over. Final.
    Failed,
}

/// The pair to use from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Base to send from: a socket's address, or a relayed address.
    pub local: SocketAddr,
    /// How the local candidate was learned.
    pub local_kind: CandidateKind,
    /// Where to send to.
    pub remote: SocketAddr,
    /// How the remote candidate was learned.
    pub remote_kind: CandidateKind,
    /// Round trip, once known.
    pub rtt: Option<Duration>,
}

impl Selected {
    /// Whether no relay is in between.
    pub fn is_direct(&self) -> bool {
        self.local_kind != CandidateKind::Relayed && self.remote_kind != CandidateKind::Relayed
    }
}

/// What the agent wants done or known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram.
    Transmit {
        /// Base to send from.
        local: SocketAddr,
        /// Where to.
        remote: SocketAddr,
        /// A STUN message.
        data: Vec<u8>,
    },
    /// Open our own side for the peer and send nothing that gets as far as its router: from a host,
    /// a datagram with [`KNOCK_HOP_LIMIT`] as its hop limit (TTL); at a relay, a permission.
    Knock {
        /// Base to send from.
        local: SocketAddr,
        /// Where to.
        remote: SocketAddr,
        /// A STUN message.
        data: Vec<u8>,
    },
    /// Send a datagram from a new socket at the address of this base, and take what comes to it as
    /// what comes to the base, with its own port. It is needed until [`Output::TurnIsOver`], and as
    /// long as [`Agent::uses_local`] says so.
    Open {
        /// Whose address to take.
        base: SocketAddr,
        /// Where to.
        remote: SocketAddr,
        /// A STUN message.
        data: Vec<u8>,
    },
    /// Some hundred checks are wanted for a pair that takes luck: call [`Agent::grant_turn`] when
    /// nobody else has a turn.
    WantsTurn,
    /// No turn is wanted any more.
    TurnIsOver,
    /// Use this pair from now on.
    Selected(Selected),
    /// The state is another one.
    StateChanged(State),
    /// The peer's agent is another one than before, under the same credentials: it has forgotten
    /// what it had agreed on with this one.
    PeerRestarted,
}

/// A STUN message that came in.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The base it came to: the socket's address, or the relayed address.
    pub local: SocketAddr,
    /// Who sent it.
    pub remote: SocketAddr,
    /// The message.
    pub data: &'a [u8],
}

/// Why a message was not taken. Nothing was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not a STUN message that we can use.
    #[error("malformed")]
    Malformed,
    /// Not for this session, or not authentic.
    #[error("not authentic")]
    Stranger,
    /// Answers nothing that was asked, or came from elsewhere.
    #[error("not an answer to anything asked")]
    Unexpected,
    /// The agent has failed.
    #[error("the agent has failed")]
    Ended,
}

/// An authentic check that came before the peer's credentials.
#[derive(Clone, Copy, Debug)]
struct Early {
    local: SocketAddr,
    remote: SocketAddr,
    priority: u32,
    nominates: bool,
}

/// One end of one ICE session.
pub struct Agent {
    config: AgentConfig,
    local_key: Option<Key>,
    remote: Option<(Credentials, Key)>,
    controlling: bool,
    random: Random,
    local_candidates: Vec<Candidate>,
    remote_candidates: Vec<Candidate>,
    pairs: Vec<Pair>,
    triggered: VecDeque<(SocketAddr, SocketAddr)>,
    early: Vec<Early>,
    selected: Option<(SocketAddr, SocketAddr)>,
    /// Of the peer's agents: each draws one (RFC 8445 section 16.1). One that was seen before is no
    /// news, so a replayed check is none.
    tie_breakers: VecDeque<u64>,
    state: State,
    /// When the selected pair was found silent.
    silent_since: Option<Instant>,
    /// When there was last a reason to doubt the selected pair, see `moves.rs`.
    suspect_since: Option<Instant>,
    punch: punch::Punch,
    /// Some check of the peer has come: it knows of us, and has sent to us.
    peer_checks: bool,
    hard: hard::Hard,
    /// When both ends knew each other.
    started: Option<Instant>,
    /// When the next new check may be sent.
    next_check: Instant,
    remote_is_complete: bool,
    outputs: VecDeque<Output>,
    /// Why the selected pair is.
    choice: Option<Choice>,
    traces: VecDeque<Trace>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("ufrag", &self.config.local.ufrag)
            .field("controlling", &self.controlling)
            .field("state", &self.state)
            .field("pairs", &self.pairs.len())
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// An agent that waits for the peer's credentials.
    pub fn new(config: AgentConfig, now: Instant) -> Self {
        Self {
            // A password that STUN cannot carry authenticates nobody.
            local_key: Key::short_term(&config.local.pwd).ok(),
            remote: None,
            controlling: config.controlling,
            random: Random::new(config.seed),
            local_candidates: Vec::new(),
            remote_candidates: Vec::new(),
            pairs: Vec::new(),
            triggered: VecDeque::new(),
            early: Vec::new(),
            selected: None,
            tie_breakers: VecDeque::with_capacity(TIE_BREAKERS_MAX),
            state: State::New,
            silent_since: None,
            suspect_since: None,
            punch: punch::Punch::default(),
            peer_checks: false,
            hard: hard::Hard::default(),
            started: None,
            next_check: now,
            remote_is_complete: false,
            outputs: VecDeque::new(),
            choice: None,
            traces: VecDeque::new(),
            config,
        }
    }

    /// The user name fragment that checks to this agent begin with.
    pub fn local_ufrag(&self) -> &str {
        &self.config.local.ufrag
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether this end nominates now.
    pub fn is_controlling(&self) -> bool {
        self.controlling
    }

    /// The pair in use.
    pub fn selected(&self) -> Option<Selected> {
        self.selected.and_then(|key| self.find(key)).map(|index| self.describe(index))
    }

    /// Whether the pair in use loses many checks, there or back.
    pub fn is_lossy(&self) -> bool {
        let index = self.selected.and_then(|key| self.find(key));
        index.is_some_and(|index| self.pairs[index].losses.are_heavy())
    }

    /// Whether the peer has proven from this address that it knows the session's passwords, by a
    /// check of its own or by an answer to ours.
    pub fn validated(&self, remote: SocketAddr) -> bool {
        self.pairs
            .iter()
            .any(|pair| pair.remote == remote && (pair.heard.is_some() || pair.is_valid()))
    }

    /// Takes the peer's credentials: checks begin. A second call with others is ignored: that
    /// would be another session.
    pub fn set_remote(&mut self, now: Instant, credentials: Credentials) {
        if self.remote.is_some() || self.state == State::Failed {
            return;
        }
        let Ok(key) = Key::short_term(&credentials.pwd) else { return self.fail() };
        self.remote = Some((credentials, key));
        self.started = Some(now);
        self.next_check = now;
        self.set_state(State::Checking);
        for early in std::mem::take(&mut self.early) {
            self.on_authentic_check(now, early);
        }
        self.advance(now);
        self.advance_hard(now);
    }

    /// The peer has no more candidates: when all pairs fail, there is less to wait for.
    pub fn end_of_remote_candidates(&mut self, now: Instant) {
        self.remote_is_complete = true;
        self.advance(now);
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn find(&self, (local, remote): (SocketAddr, SocketAddr)) -> Option<usize> {
        self.pairs.iter().position(|pair| pair.local == local && pair.remote == remote)
    }

    fn describe(&self, index: usize) -> Selected {
        let pair = &self.pairs[index];
        Selected {
            local: pair.local,
            local_kind: pair.local_kind,
            remote: pair.remote,
            remote_kind: pair.remote_kind,
            rtt: pair.rtt,
        }
    }

    fn set_state(&mut self, state: State) {
        if self.state != state {
            self.state = state;
            self.outputs.push_back(Output::StateChanged(state));
        }
    }

    fn fail(&mut self) {
        self.selected = None;
        self.pairs.clear();
        self.triggered.clear();
        self.set_state(State::Failed);
    }
}
