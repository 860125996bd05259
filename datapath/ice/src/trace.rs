//! What an agent tells of its work: for people who ask why a path was taken, and others were not.
//!
//! Two answers: [`Trace`], a step each, in their order; and [`Outcome`], what became of all pairs
//! of one kind by now. Checks of pairs that work and are only kept warm are no steps.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::candidate::CandidateKind;

/// Both ends of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedPair {
    /// Base to send from: a socket's address, or a relayed address.
    pub local: SocketAddr,
    /// How the local candidate was learned.
    pub local_kind: CandidateKind,
    /// Where to send to.
    pub remote: SocketAddr,
    /// How the remote candidate was learned.
    pub remote_kind: CandidateKind,
}

/// Why a pair was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CheckFailure {
    /// No check was answered in time.
    Timeout,
    /// The peer answered with this STUN error (RFC 8489 section 14.8).
    Error(u16),
    /// The answer has attributes that must be understood and are not (RFC 8489 section 6.3.3).
    Incomprehensible,
    /// Our end's address is gone.
    AddressGone,
    /// The check cannot be made: a credential is none that STUN can carry.
    Unsendable,
}

/// Why the pair in use is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChoiceCause {
    /// There was none before.
    First,
    /// It is better than the one before: direct before relayed, then by priority.
    Better,
    /// The one before no longer answers.
    Silence,
    /// Our end's address of the one before is gone.
    AddressGone,
    /// The peer wants it so, for a reason of its own.
    PeerWish,
}

/// The latest choice of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Why.
    pub cause: ChoiceCause,
    /// Whether the peer nominated it; we did otherwise.
    pub is_peers: bool,
    /// When.
    pub at: Instant,
}

/// Why the pair in use is doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suspicion {
    /// Whoever carries data hears nothing, or hears it on another path.
    Traffic,
    /// The peer sent something authentic on another pair.
    PeerElsewhere,
    /// Addresses or routes of this machine changed.
    NetworkChanged,
}

/// A step of the agent's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// We may be reached at one more address.
    LocalCandidate {
        /// How it was learned.
        kind: CandidateKind,
        /// What the peer is told.
        address: SocketAddr,
    },
    /// An address of ours is gone.
    LocalGone(SocketAddr),
    /// The peer may be reached at one more address.
    RemoteCandidate {
        /// How it was learned; by a check of the peer if it is peer-reflexive.
        kind: CandidateKind,
        /// Where to send to.
        address: SocketAddr,
    },
    /// The peer named an address that is of no use, or one more than we keep.
    RemoteUseless {
        /// How it was learned, says the peer.
        kind: CandidateKind,
        /// The address.
        address: SocketAddr,
    },
    /// Two candidates that fit.
    PairFormed(TracedPair),
    /// A check left.
    CheckSent {
        /// On which pair.
        pair: TracedPair,
        /// Counted from 1, all checks of the pair.
        number: u32,
        /// Whether it says that the pair is to be used.
        nominates: bool,
    },
    /// A check was answered, and the pair works now, or again, or is nominated by it.
    CheckAnswered {
        /// Which pair.
        pair: TracedPair,
        /// How long the answer took.
        rtt: Duration,
    },
    /// The peer sees us at an address that nobody told it: a NAT maps anew for this pair.
    SeenAs {
        /// On which pair.
        pair: TracedPair,
        /// Where it sees us.
        address: SocketAddr,
    },
    /// An authentic answer came from elsewhere than was asked, and does not count (RFC 8445
    /// section 7.2.5.2.1).
    StrayAnswer {
        /// What was asked.
        pair: TracedPair,
        /// Who answered.
        from: SocketAddr,
    },
    /// A pair was given up, for a while at least.
    CheckFailed {
        /// Which pair.
        pair: TracedPair,
        /// Why.
        cause: CheckFailure,
        /// Checks sent on it so far.
        checks: u32,
    },
    /// The peer's first authentic check on a pair.
    Heard(TracedPair),
    /// The peer wants a pair used.
    PeerNominates(TracedPair),
    /// A role conflict was settled against us (RFC 8445 section 7.3.1.1).
    RoleChanged {
        /// Whether we nominate from now on.
        is_controlling: bool,
    },
    /// Both ends are about to check at the same time what never worked, see `agent/punch.rs`.
    Punch {
        /// Whether the peer said so; we did otherwise.
        is_peers: bool,
    },
    /// This pair is used from now on.
    Selected {
        /// Which.
        pair: TracedPair,
        /// Why.
        cause: ChoiceCause,
        /// Whether the peer nominated it.
        is_peers: bool,
    },
    /// The pair in use is doubted, and asked at once.
    Suspected {
        /// Which.
        pair: TracedPair,
        /// Why.
        cause: Suspicion,
    },
    /// The pair in use does not answer; another one is looked for.
    Silent(TracedPair),
    /// The pair that was silent answers again.
    Recovered(TracedPair),
}

/// What became of all pairs between two kinds of candidates, in one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How our end was learned.
    pub local_kind: CandidateKind,
    /// How the peer's end was learned.
    pub remote_kind: CandidateKind,
    /// IPv4, or IPv6.
    pub is_ipv4: bool,
    /// How many there are.
    pub pairs: u32,
    /// How many of them work.
    pub working: u32,
    /// How many of them were given up, for a while at least.
    pub failed: u32,
    /// Checks sent on them.
    pub checks: u32,
    /// Why one was given up last.
    pub last_failure: Option<CheckFailure>,
}
