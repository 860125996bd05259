//! Group policies: who links to whom, who has which overlay address, when to try again.
//!
//! [`GroupVpn`] is the policy of a cluster: all members of a room are linked all-to-all. It is a
//! machine without clock, socket or randomness of its own: it hears what the datapath and the
//! signalling network say ([`Input`]) and answers with commands for the one and actions for the
//! other ([`Output`]). The controller carries both.
//!
//! For each pair the member with the greater fingerprint offers, so that two members never offer
//! to each other at once; the other one offers only when no offer came in time (it may have been
//! restarted without the first noticing). When two offers do cross, the regular one wins.
//!
//! A restarted policy asks the datapath for a snapshot and the room for its members, and finds the
//! links that are up as they were. While the room is away, what it remembers of members stands in
//! for it ([`Memory`], which the controller keeps in a file): see `policy/recall.rs`, and
//! `policy/carried.rs` for words that members carry for each other.
//!
//! Left out on purpose: packets, XML, shared memory, name resolution, files.
//!
//! Read [`GroupVpn`] and [`Output`] first; `address` says how overlay addresses are chosen and how
//! conflicts end the same way at both ends.

#![forbid(unsafe_code)]

mod address;
mod bytes;
mod convert;
mod memory;
mod peer;
mod policy;
mod random;
mod routes;
mod words;

pub use address::{AddressPlan, PlanError, group_prefix6};
pub use bytes::Damaged;
pub use memory::{Known, KnownSession, MEMBERS_MAX, Memory};
pub use policy::{GroupConfig, GroupVpn, Input, Notice, Output};
