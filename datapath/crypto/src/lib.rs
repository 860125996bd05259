//! Identity, TLS 1.3 handshake machine, seal and open, replay window, epochs.
#![forbid(unsafe_code)]

mod chain;
mod cipher;
mod identity;
mod open;
mod replay;
mod seal;

pub use chain::{CHAIN_SECRET_LEN, ChainSecret};
pub use cipher::{Cipher, choose};
pub use identity::{Fingerprint, Identity, IdentityError};
pub use open::{EPOCH_GRACE, EPOCHS_AHEAD_MAX, OpenError, Opener};
pub use replay::{REPLAY_WINDOW_PACKETS, ReplayWindow};
pub use seal::{EPOCH_BLOCKS_MAX, EPOCH_PACKETS_MAX, EPOCH_TIME_MAX, SealError, Sealer};

use ipop_wire::{HEADER_LEN, TAG_LEN};

/// Bytes that sealing adds to payload and extra: header in front, tag behind.
pub const OVERHEAD_LEN: usize = HEADER_LEN + TAG_LEN;
