//! What makes a link private: who a node is, how two nodes agree on keys, and how datagrams are
//! sealed and opened under keys that keep moving.
//!
//! The way of a key: [`Identity`] signs a TLS 1.3 handshake ([`Handshake`], rustls inside) in
//! which both ends present raw public keys and each accepts exactly one [`Fingerprint`]. A
//! finished handshake leaves a [`Session`]: per lane and direction a chain secret from the TLS
//! exporter. From it come a [`Sealer`] and an [`Opener`], which belong to one worker each and
//! ratchet forward by themselves; TLS is gone by then.
//!
//! What it deliberately leaves out: sockets, clocks, retries after a failure, and *when* to shake
//! hands again (the link decides). It is pure but for one thing: rustls' provider draws its own
//! randomness. No session is ever resumed: a resumed one would bypass the pinned key.
//!
//! Read first: [`Sealer::seal`] and [`Handshake`]. The layout of a handshake datagram is in
//! `fragment.rs`, that of the offer in `offer.rs`, the key schedule in `chain.rs`.
#![forbid(unsafe_code)]

mod carrier;
mod chain;
mod cipher;
mod fragment;
mod handshake;
mod identity;
mod lane_key;
mod offer;
mod open;
mod replay;
mod seal;
mod session;
mod stream;
mod tls;

pub use chain::{CHAIN_SECRET_LEN, ChainSecret};
pub use cipher::{Cipher, choose};
pub use fragment::{HANDSHAKE_DATAGRAM_LEN_MAX, HandshakeId, RefusedInput, path_secret};
pub use handshake::{HANDSHAKE_TIME_MAX, Handshake, HandshakeConfig, HandshakeError, Output};
pub use identity::{Fingerprint, Identity, IdentityError};
pub use offer::{Offer, OfferError, PROTOCOL_VERSION};
pub use open::{EPOCH_GRACE, EPOCHS_AHEAD_MAX, OpenError, Opener};
pub use replay::{REPLAY_WINDOW_PACKETS, ReplayWindow};
pub use seal::{EPOCH_BLOCKS_MAX, EPOCH_PACKETS_MAX, EPOCH_TIME_MAX, KeyLife, SealError, Sealer};
pub use session::Session;
pub use tls::Role;

use ipop_wire::{HEADER_LEN, TAG_LEN};

/// Draws once from the library's generator, whose first seed takes some 20 ms in each process: a
/// thread that has nothing else to do may wait for it, before a handshake has to.
pub fn seed_generator() {
    let _ = aws_lc_rs::rand::fill(&mut [0]);
}

/// Bytes that sealing adds to payload and extra: header in front, tag behind.
pub const OVERHEAD_LEN: usize = HEADER_LEN + TAG_LEN;
