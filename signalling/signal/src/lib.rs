//! Neutral signalling vocabulary: what a controller says to, and hears from, a network of peers.
//!
//! A controller speaks [`Action`]s and hears [`Happening`]s; nothing in either names XMPP, XML or a
//! socket. A signalling network (XMPP is the first) translates them, so that another network is a
//! sibling crate and no controller changes.
//!
//! What travels: who is a member of the group ([`Member`]), and per pair of members one session
//! that carries ICE credentials, the fingerprint that pins the handshake, and candidates as they
//! are found (trickled).
//!
//! Left out on purpose: retries (a [`Happening::DeliveryFailed`] is the controller's to judge),
//! policy (who offers, who gets which address), and any notion of packets.
//!
//! Everything a peer wrote is bounded here by type: names, session ids, ICE strings and foundations
//! have constructors that refuse what is too long or holds control characters, so a translator
//! cannot hand on what a controller would have to check again.
//!
//! Read [`Action`] and [`Happening`] first.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod action;
mod candidate;
mod happening;
mod identity;
mod member;
mod server;

pub use action::{Action, ByeReason};
pub use candidate::{Candidate, CandidateKind, IceCredentials};
pub use happening::{FatalCause, Happening};
pub use identity::{Fingerprint, InvalidFingerprint};
pub use member::{
    Announcement, InvalidText, Invitation, Member, Origin, OverlayAddress, PeerAddress, SessionId,
};
pub use server::{Host, HostPort, IceServers, Transport, TurnServer};

/// Longest node name, in bytes.
pub const NAME_LEN_MAX: usize = 64;
/// Longest session id, in bytes.
pub const SESSION_LEN_MAX: usize = 64;
/// Most overlay addresses that one member may announce.
pub const ADDRESSES_MAX: usize = 16;
/// Most candidates that one message may carry.
pub const CANDIDATES_MAX: usize = 64;
