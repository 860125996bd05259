//! `ipop bench`: how fast the link to a peer is, beside the network below it.
//!
//! The peer has to agree: it runs `ipop bench --serve` for as long as it likes, and serves members
//! of the group only, one at a time. A request is taken from the overlay interface alone, where the
//! datapath lets no packet pass with an address that is not its sender's; all that follows carries
//! a secret of the session. For the figures of the underlay the answering end opens one TCP and one
//! UDP port for the length of a session, which serve that peer's address and nobody without the
//! secret. What a peer may ask for is bounded in `words`.
//!
//! `measure` asks, by the figures in `steps`; `serve` lets in, and `session` answers. All share
//! `words` (what they tell each other), `streams` (TCP) and `packets` (UDP). Neither datapath knows
//! of any of this: it carries packets as always.

mod batches;
mod cpu;
mod measure;
mod packets;
mod report;
mod serve;
mod session;
mod steps;
mod streams;
mod words;

use std::process::ExitCode;

use crate::args::Bench;
use crate::failure::Failure;
use crate::instance::RunDir;

/// Runs `ipop bench`.
///
/// # Errors
/// When there is no such peer, it does not answer, or a port cannot be opened.
pub fn run(flags: &Bench) -> Result<ExitCode, Failure> {
    let instance = RunDir::running(flags.instance.name.as_deref())?;
    match &flags.peer {
        Some(peer) => measure::run(&instance, peer, flags),
        None => serve::run(&instance, flags),
    }
}
