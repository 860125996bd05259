//! The real binary against real kernels, servers and NATs: what the system tests share.
//!
//! A test builds a [`Stage`]: an [`Internet`](ipop_lab::Internet) with servers from Debian's
//! packages on its public machine ([`Prosody`] or [`Ejabberd`], [`Coturn`]) and nodes behind their
//! routers ([`Node`]), which it then asks what a user would ask. Everything runs in namespaces that
//! the test made and ends with its value. A missing program is a failure that names its package,
//! never a silent skip.
//!
//! Left out: timing. How fast anything is belongs to the benchmarks.

#![forbid(unsafe_code)]
// Tests fail by panicking, and so does what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod beat;
mod certificates;
mod datapath;
mod dice;
mod forbidding;
pub mod headers;
mod hub;
pub mod matrix;
mod names;
mod node;
mod pattern;
mod ping;
mod process;
mod scratch;
mod servers;
pub mod soak;
mod stage;
mod traffic;

pub use beat::Beat;
pub use certificates::Certificates;
pub use datapath::Datapath;
pub use dice::Dice;
pub use forbidding::{IO_URING, without_calls};
pub use hub::Hub;
pub use names::NameServer;
pub use node::{Node, NodeConfig};
pub use ping::{Pinging, assert_all_answer, first_answer};
pub use process::{Ended, Process, binary, ended, ended_within, is_running};
pub use scratch::Scratch;
pub use servers::{Coturn, Ejabberd, Prosody, USERS, XmppServer, turn_credential};
pub use stage::{GROUP_PREFIX, Stage};
pub use traffic::{Flow, Transfer, answers, iperf3, transfer};

use std::time::{Duration, Instant};

/// Waits until `holds` says so; panics with `what` when it does not within `patience`.
pub fn eventually(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
