//! The life of links: how a node finds its addresses, and how each link goes from ICE over a
//! handshake to keys, and stays up.
//!
//! A [`Node`] is all of it behind one set of verbs: it owns the [`Gatherer`], which asks STUN and
//! TURN servers for the node's addresses, and one [`Link`] per peer, and it finds the right one
//! for what comes in. Datagrams, keys and paths come out as [`Output`], which is plain data: the
//! engine moves it to sockets, workers and the controller.
//!
//! What it leaves out: frames, lanes' counters and ratchets (a worker's), signalling (the
//! controller's), sockets and clocks (the engine's). It never sends anything to an address from
//! which no authenticated check has come, checks and questions to servers apart.
//!
//! Read first: [`Node`] and [`Output`]; `link.rs` tells the story of one link.
#![forbid(unsafe_code)]

mod control;
mod gatherer;
mod keys;
mod lanes;
mod link;
mod negotiation;
mod node;
mod path_mtu;
mod port;
mod trace;

pub use control::{Control, REASON_LEN_MAX, WORDS_LEN_MAX};
pub use gatherer::{
    GATHERING_TIME_MAX, Gathered, Gatherer, GathererOutput, HOSTS_MAX, RelayPath, STUN_SERVERS_MAX,
    TURN_SERVERS_MAX, TurnServer, TurnWay,
};
pub use ipop_ice::{Candidate, CandidateKind, Credentials};
pub use ipop_ice::{
    CheckFailure, Choice, ChoiceCause, Outcome, Suspicion, Trace as IceTrace, TracedPair,
};
pub use keys::KEEPALIVE;
pub use lanes::{LANE_KEEPALIVE, LanePorts};
pub use link::{
    ESTABLISH_TIME_MAX, INDICES_PER_LINK, Link, LinkConfig, LinkOutput, REHANDSHAKE_AFTER,
    RETIRED_TIME,
};
pub use node::{LINKS_MAX, Node, NodeConfig, OpenLink};
pub use path_mtu::{CHECK_AFTER, RAISE_AFTER};
pub use port::{
    CommandError, ControlInput, Datagram, Event, InstallLane, KeysStatus, LinkState, LinkStatus,
    Output, Path, PathKind, PathStatus, Refused, Relay, Traffic,
};
pub use trace::Trace;
