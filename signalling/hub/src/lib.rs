//! Embedded XMPP server, STUN server and TURN relay.

#![forbid(unsafe_code)]

mod accounts;
mod addresses;
mod assembler;
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
mod stream;
mod ticket;

#[cfg(test)]
mod scratch;

pub use accounts::account_for;
pub use error::HubError;
pub use hub::{Hub, HubConfig};
pub use ticket::{ADDRESSES_MAX, InvalidTicket, Ticket};

/// Where a domain's rooms are.
fn conference_of(domain: &str) -> String {
    format!("conference.{domain}")
}
