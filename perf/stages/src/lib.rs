//! The stages of the packet path, each alone and without a kernel: pieces of work that a worker
//! does with a batch of frames again and again.
//!
//! What it leaves out: measuring. `ipop-perf` does that, with time, with the processor's counters,
//! and with valgrind. It is a crate of its own so that its code, which is the pipeline's for the
//! most part, is compiled the same however the measuring tool changes.
//!
//! Read first: [`Work`] and [`Case`].

#![forbid(unsafe_code)]

mod aead;
mod cases;
mod packets;
mod ring;

use ipop_crypto::Cipher;

pub use cases::Case;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkKind {
    /// The whole way from tap frames to sealed datagrams.
    Egress,
    /// Sealing alone, of the datagrams that egress makes of the same frames.
    Seal,
    /// The whole way from received datagrams to frames for the tap.
    Ingress,
    /// Opening alone, of the same datagrams.
    Open,
    /// A frame's way to its link, among 64; there it ends, for the link has no path.
    Route,
    /// One record of 64 bytes through the control ring, pushed and popped.
    Ring,
}

impl WorkKind {
    /// All of them.
    pub const ALL: [WorkKind; 6] = [
        WorkKind::Egress,
        WorkKind::Seal,
        WorkKind::Ingress,
        WorkKind::Open,
        WorkKind::Route,
        WorkKind::Ring,
    ];

    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            WorkKind::Egress => "egress",
            WorkKind::Seal => "seal",
            WorkKind::Ingress => "ingress",
            WorkKind::Open => "open",
            WorkKind::Route => "route",
            WorkKind::Ring => "ring",
        }
    }
}

/// The control ring's file could not be made.
#[derive(Debug, thiserror::Error)]
#[error("no control ring: {0}")]
pub struct RingError(String);

/// Something prepared, done, and prepared again.
pub trait Work {
    /// Makes ready for the next time.
    fn prepare(&mut self);

    /// What is measured.
    fn work(&mut self);

    /// Panics if what was done so far was not what was meant to be measured.
    fn verify(&self);
}

/// Sets up a piece of work for a case.
///
/// # Errors
/// When the control ring's file cannot be made.
pub fn set_up(kind: WorkKind, case: Case, cipher: Cipher) -> Result<Box<dyn Work>, RingError> {
    Ok(match kind {
        WorkKind::Egress => Box::new(packets::Egress::new(case, cipher)),
        WorkKind::Ingress => Box::new(packets::Ingress::new(case, cipher)),
        WorkKind::Route => Box::new(packets::Route::new(case, cipher)),
        WorkKind::Seal => Box::new(aead::Seal::new(case, cipher)),
        WorkKind::Open => Box::new(aead::Open::new(case, cipher)),
        WorkKind::Ring => Box::new(ring::Turn::new(case)?),
    })
}
