//! The real binary against real kernels, servers and NATs: what the system tests share.
//!
//! A test builds an [`Internet`](ipop_lab::Internet), starts servers from Debian's packages on its
//! public machine ([`Prosody`], [`Ejabberd`], [`Coturn`]), starts nodes at its sites ([`Node`]) and
//! asks them what a user would ask. Everything runs in namespaces that the test made and ends with
//! its value. A missing program is a failure that names its package, never a silent skip.

#![forbid(unsafe_code)]
// Tests fail by panicking, and so does what they share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod certificates;
mod datapath;
mod node;
mod process;
mod scratch;
mod servers;
mod traffic;

pub use certificates::Certificates;
pub use datapath::Datapath;
pub use node::{Node, NodeConfig};
pub use process::{Process, binary};
pub use scratch::Scratch;
pub use servers::{Coturn, Ejabberd, Prosody, USERS, XmppServer};
pub use traffic::{Transfer, ping, transfer};

use std::time::{Duration, Instant};

/// Waits until `holds` says so; panics with `what` when it does not within `patience`.
pub fn eventually(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
