//! A small internet on one machine: network namespaces joined by cables, with NAT routers between.
//!
//! `ipop lab` shows the product on it and the system tests run on it, so both exercise the same
//! routers. A [`Site`] is a machine behind a router of a given [`Nat`] kind; an [`Internet`] joins
//! sites and public servers in the middle. Cables are veth pairs (as fast as the machine) or
//! [`Wire`]s: user-space links that delay, lose, repeat, reorder and corrupt frames as told,
//! because the kernel's own network emulator is a module that many machines lack.
//!
//! Left out: anything of IPOP itself. Whoever uses the lab starts the programs, by
//! [`Namespace::command`].
//!
//! Everything made here is removed again when its value is dropped: processes are the caller's,
//! namespaces, cables and wires are ours. Read [`Internet`] and [`Site`] first.

#![deny(unsafe_code)]

mod error;
mod internet;
mod nat;
mod netns;
mod packets;
mod rng;
mod run;
mod sys;
mod tools;
mod wire;

pub use error::LabError;
pub use internet::{Internet, InternetConfig, SITES_MAX, Site};
pub use nat::Nat;
pub use netns::{Namespace, inside, remove_stale};
pub use packets::{PacketSocket, RawFrame, VNET_LEN};
pub use run::run;
pub use tools::{Tool, install, missing, missing_text};
pub use wire::{Faults, Impairment, Wire};
