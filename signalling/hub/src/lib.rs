//! The hub: signalling, STUN and TURN for a group that wants no other server, in one process.
//!
//! For labs, tests, short-lived jobs and small groups. Beyond some hundred members take ejabberd or
//! Prosody, and coturn: nodes talk to those in the same words.
//!
//! | port | protocol | what |
//! |---|---|---|
//! | TCP 5222 | XMPP | STARTTLS, or TLS from the first byte; SCRAM-SHA-256 and SCRAM-SHA-1 |
//! | TCP 5222 | STUN, TURN | the same over plain TCP, told apart by the first byte |
//! | UDP 3478 | STUN, TURN | Binding for everybody, relaying for members; both IP families |
//! | UDP, any | relayed data | one socket per relay address that is lent |
//!
//! [`Hub::bind`] makes keys on the first start, keeps them in a directory, and gives out a
//! [`Ticket`]: addresses, the certificate's hash, the room, and a secret from which every node
//! computes an account of its own ([`account_for`]). Standard clients get named accounts
//! ([`Hub::add_account`]) and the certificate `ca.crt` of the state directory.
//!
//! Inside: [`router`] and [`muc`] say where stanzas go, [`relay`] where datagrams go; both are
//! machines without clock or socket. Around them stand [`login`], [`connection`] and
//! [`hub`](mod@hub). The streams are not those of `tokio-xmpp`, which limit attributes instead of
//! stanzas and answer nobody who says two things at once.
//!
//! Bounds: 8192 connections, 1024 of them (512 of one address) without login, for 30 seconds;
//! stanzas of 64 KiB; 256 KiB per second and client beyond a burst, what goes to whole rooms
//! counted too; 4 MiB waiting for a slow reader and 256 MiB for all; rooms of 1024; 32 relay
//! addresses per user. Who exceeds what hurts others is let go with a stream error. A TURN client
//! over TCP is one without login until it has a relay address; 256 KiB wait for it, and 128 MiB for
//! all of them.
//!
//! The relay never sends to loopback, link-local, multicast, broadcast, unspecified or reserved
//! addresses, nor to the hub's own ports. It does send to private addresses unless
//! [`HubConfig::allow_private_peers`] is off, because labs and data centres consist of them.
//! Credentials for it end after a day; what they have opened may be refreshed on.
//!
//! Left out on purpose: federation, storage of any kind (rosters, archives, offline messages, rooms
//! that outlive their occupants), SASL mechanisms that show the password, TURN over TLS.
//!
//! Read [`Hub`] and [`Ticket`] first.

#![forbid(unsafe_code)]
#![allow(rustdoc::private_intra_doc_links, reason = "the header explains the inside")]

mod accounts;
mod addresses;
mod connection;
mod disco;
mod error;
mod files;
mod hub;
mod listen;
mod login;
mod muc;
mod outbox;
mod pace;
mod relay;
mod router;
mod scram;
mod services;
mod stanza;
mod state;
mod strangers;
mod stream;
mod ticket;

#[cfg(test)]
mod scratch;

pub use accounts::account_for;
pub use error::HubError;
pub use hub::{Hub, HubConfig};
pub use ticket::{ADDRESSES_MAX, InvalidTicket, Ticket};

/// The SASL mechanisms that every hub has offered, for those who need not ask (XEP-0305).
pub const MECHANISMS: [&str; 2] = ["SCRAM-SHA-256", "SCRAM-SHA-1"];

/// UDP port at which hubs serve STUN and TURN unless they are told otherwise.
const STUN_PORT: u16 = 3478;

/// Where a domain's rooms are.
fn conference_of(domain: &str) -> String {
    format!("conference.{domain}")
}
