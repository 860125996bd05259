//! STUN messages over the `stun-rs` codec, and the machines that speak them: who am I to a server
//! ([`client`]), relay for me ([`turn`]), what does my NAT do ([`behaviour`]), and the one answer
//! that a server gives without remembering anybody ([`server`]).
//!
//! Everything is sans-IO: time comes in as `now`, randomness as a 32-byte seed, datagrams as
//! [`Input`]; what shall be done comes out of `poll_output`. Nothing waits for anything, so a
//! server that never answers costs its own timer and nobody else's time.
//!
//! TURN over TCP and TLS is the same machine in front of a connection that somebody else keeps;
//! [`stream`] cuts the connection's bytes into messages.
//!
//! Left out: the connections themselves, relaying TCP (RFC 6062), reserved ports, the server side
//! of TURN, the text forms of addresses and URIs, realms that are not ASCII (the codec refuses
//! most). ICE's checks are built from [`Message`] and [`Builder`] one crate up.
//!
//! Read [`Message`] and [`turn::TurnClient`] first.
#![forbid(unsafe_code)]

pub mod behaviour;
pub mod channel;
pub mod client;
pub mod message;
pub mod random;
pub mod server;
pub mod stream;
mod transaction;
pub mod turn;

use std::net::SocketAddr;

use thiserror::Error;

pub use channel::{CHANNEL_HEADER_LEN, ChannelData, ChannelError, ChannelNumber};
pub use client::{BindingClient, BindingConfig, BindingError, BindingOutput};
pub use message::{
    Algorithm, Attribute, BuildError, Builder, Class, ErrorCode, Family, Integrity, IntegrityError,
    Key, KeyError, Message, Method, ParseError, PasswordAlgorithms, TransactionId,
};
pub use random::Random;
pub use stream::{StreamError, StreamReader};
pub use transaction::Retransmission;
pub use turn::{
    Credential, Families, Received, RelayError, TurnClient, TurnConfig, TurnError, TurnOutput,
};

/// A datagram that came in on a machine's socket.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Who sent it, with IPv4 addresses as such, never mapped into IPv6.
    pub remote: SocketAddr,
    /// All of it.
    pub data: &'a [u8],
}

/// Why a machine did not take a datagram. The caller offers it to the next one, or counts it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Dropped {
    /// It did not come from the machine's server.
    #[error("not from the server")]
    Stranger,
    /// It answers nothing that was asked, or is of a kind that nobody should send us.
    #[error("not an answer to anything asked")]
    Unexpected,
    /// It is malformed.
    #[error(transparent)]
    Malformed(#[from] ParseError),
    /// It begins like ChannelData and is none.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// It claims to come from our server and lacks the proof.
    #[error(transparent)]
    Forged(#[from] IntegrityError),
}
