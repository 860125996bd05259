//! Interactive Connectivity Establishment (RFC 8445) as a sans-IO machine: one [`Agent`] per peer
//! and session, trickled (RFC 8838), with consent freshness (RFC 7675).
//!
//! The agent learns local candidates from the node's gatherer and remote ones from signalling,
//! pairs them, checks the pairs and says which one to use: [`Output::Selected`]. It sends nothing
//! itself: datagrams come out as [`Output::Transmit`], with the base to send from. For a relayed
//! candidate the base is the relayed address, and wrapping is the caller's.
//!
//! Where it goes beyond the standard, or chooses:
//! - Nomination is never final. The controlling agent nominates a direct pair as soon as it is
//!   valid and the peer was heard on it, others only after [`AgentConfig::relay_patience`], and a
//!   better pair that becomes valid later is nominated over the one in use. Neither agent waits
//!   for the nomination with the first pair that it knows to work; then the controlled agent
//!   follows the latest nomination, which comes again with each consent check.
//! - All valid pairs are kept warm, so that the second best is there when the best one dies.
//! - A check is repeated at short intervals at first, each time as a transaction of its own: both
//!   ends punch at about the same time, and every answer tells a round trip.
//! - Behind routers that reject what comes too early, order decides. `agent/punch.rs` has what we
//!   do about it.
//! - A NAT that maps by destination is met by luck, with a stated number of probes:
//!   `agent/hard.rs`.
//!
//! Nobody who does not know the session's password is ever answered: not with an error either.
//!
//! Left out: gathering, candidates of other transports than UDP, more than one component per agent,
//! ICE-lite on our side (a lite peer works: it only answers).
//!
//! Read [`Agent`] and [`Output`] first; `agent/incoming.rs` and `agent/outgoing.rs` tell the story
//! of a check at either end. What it did and why it tells by [`Trace`] and [`Outcome`].

#![forbid(unsafe_code)]

mod agent;
mod candidate;
mod losses;
mod pair;
mod trace;

pub use agent::{
    Agent, AgentConfig, KNOCK_HOP_LIMIT, OPENERS_MAX, Output, PROBES_MAX, Packet,
    REMOTE_CANDIDATES_MAX, Refused, Selected, State,
};
pub use candidate::{Candidate, CandidateKind, Credentials, foundation, priority};
pub use trace::{CheckFailure, Choice, ChoiceCause, Outcome, Suspicion, Trace, TracedPair};
