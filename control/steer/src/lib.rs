//! The words between controller and datapath: commands, events, rows, counters.
//!
//! A controller decides who may talk to whom; the datapath carries frames. They share no memory
//! layout but the bytes of these words, and no code but this crate. It is the whole vocabulary:
//! what cannot be said here, a controller cannot ask for.
//!
//! - [`Request`] is a numbered [`Command`], controller to datapath. Each is answered by exactly one
//!   [`Event::Done`] or [`Event::Refused`] with the same number.
//! - [`Event`] is what the datapath says, asked or unasked.
//! - [`LinkRow`] is one link as the link table shows it, 768 bytes of fixed layout.
//! - [`TraceRecord`] is a step of a link's life, as the journal shows it.
//! - [`Counter`] and [`DropReason`] are the lists of counters; their order is the counters' order.
//!
//! Read [`Request`] and [`Event`] first.
//!
//! Left out on purpose: how the bytes travel (`ipop-shm` knows that and no word of this crate), any
//! clock, any packet, and any word of a signalling network.
//!
//! # Bytes
//! All integers are little endian. A record is a tag and its fields in the order in which the type
//! declares them, nothing between or behind:
//!
//! | type | bytes |
//! | --- | --- |
//! | `u8` `u16` `u32` `u64` | 1, 2, 4, 8 |
//! | `bool` | 1: 0 or 1 |
//! | enumeration | 1: its code |
//! | words | length `u16`, then bytes |
//! | text | length `u16`, then UTF-8 |
//! | `Option` | 1: 0 or 1, then the value if 1 |
//! | list | count `u8`, then the values |
//! | `Fingerprint` | 32 |
//! | `IpAddr` | family 4 or 6, then 4 or 16 bytes in network order |
//! | `SocketAddr` | `IpAddr`, port `u16`; for IPv6 also scope id `u32` |
//!
//! An IPv6 socket address loses its flow label. A record has one encoding only: what decodes,
//! encodes to the same bytes. Decoding never panics, and its memory is bounded by the record's
//! length. Whoever changes a layout raises [`WORDS_VERSION`], so that two programs of different age
//! refuse each other at attach time instead of misreading each other later.

#![forbid(unsafe_code)]

mod candidate;
mod choice;
mod codec;
mod command;
mod counter;
mod event;
mod identity;
mod link_row;
mod trace;

pub use candidate::{Candidate, CandidateKind, IceCredentials};
pub use choice::{Choice, Outcome};
pub use codec::{DecodeError, EncodeError};
pub use command::{Command, Request, TurnServer, TurnTransport};
pub use counter::{Counter, DropReason, counter_slots};
pub use event::{Event, LinkState, PathInfo, PathKind, RefusalReason};
pub use identity::{Fingerprint, FingerprintError};
pub use link_row::{Cipher, LinkRow};
pub use trace::{Cause, Step, TraceRecord, TracedEnd};

/// Version of the words: raised with each change of a layout, compared when a controller attaches.
pub const WORDS_VERSION: u32 = 6;

/// No encoded [`Request`] or [`Event`] is longer than this, bytes.
pub const RECORD_LEN_MAX: usize = 12 * 1024;

/// Longest texts and lists that the codec carries. Texts that only people read (`reason`, `text`)
/// are cut to fit; anything else that is too long is an [`EncodeError`].
pub mod limits {
    /// Bytes in the name of a peer or of an interface.
    pub const NAME_LEN_MAX: usize = 64;
    /// Bytes in an ICE user name fragment.
    pub const UFRAG_LEN_MAX: usize = 32;
    /// Bytes in an ICE password.
    pub const PWD_LEN_MAX: usize = 64;
    /// Bytes in a candidate's foundation (RFC 8839, section 5.1).
    pub const FOUNDATION_LEN_MAX: usize = 32;
    /// Bytes in a TURN user name (RFC 8489, section 14.3: less than 509).
    pub const TURN_USERNAME_LEN_MAX: usize = 508;
    /// Bytes in a TURN password.
    pub const TURN_PASSWORD_LEN_MAX: usize = 256;
    /// Bytes in the name of a server (RFC 1035, section 2.3.4).
    pub const SERVER_NAME_LEN_MAX: usize = 255;
    /// Bytes in the path of a file with root certificates.
    pub const CA_FILE_LEN_MAX: usize = 1024;
    /// Bytes of a text that only people read.
    pub const TEXT_LEN_MAX: usize = 256;
    /// Bytes that one controller says to another at once.
    pub const WORDS_LEN_MAX: usize = 480;
    /// STUN servers in one command.
    pub const STUN_SERVERS_MAX: usize = 16;
    /// TURN servers in one command.
    pub const TURN_SERVERS_MAX: usize = 8;
    /// Addresses of the interface.
    pub const INTERFACE_ADDRESSES_MAX: usize = 16;
    /// Overlay addresses in a [`LinkRow`](crate::LinkRow).
    pub const ROW_ADDRESSES_MAX: usize = 4;
    /// Bytes of the reason in a [`LinkRow`](crate::LinkRow).
    pub const ROW_REASON_LEN_MAX: usize = 160;
    /// Kinds of pairs in a [`LinkRow`](crate::LinkRow).
    pub const ROW_OUTCOMES_MAX: usize = 14;
    /// Bytes of the text in a [`TraceRecord`](crate::TraceRecord).
    pub const TRACE_TEXT_LEN_MAX: usize = 64;
}
