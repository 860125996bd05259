//! Signalling over any standard XMPP server: the client.
//!
//! One account, one room (XEP-0045): the members of the room are the members of the group, and they
//! talk to each other through their addresses in it. That works in rooms that hide real addresses,
//! on unmodified servers, and nobody outside the room reaches us.
//!
//! [`Client::start`] spawns one task that owns everything: it finds the server, encrypts, logs in,
//! enters the room, translates (by `ipop-jingle`), keeps the connection alive, and comes back with
//! growing pauses when it breaks. What only a person can mend ends it with a
//! [`Fatal`](ipop_signal::Happening::Fatal) that says what to do.
//!
//! Inside, what is said on a stream is a machine without clock or socket (`conversation`); around
//! it stand the way to the stream (`dial`, `tls`, `login`) and the stream itself (`stream`), which
//! reads XML with our own limits: a stanza comes from whoever is in the room, and must not be able
//! to end the stream for the rest of it. The stream is not that of `tokio-xmpp` because that one
//! lets nothing be sent before each header is answered, which costs two round trips of nine, and
//! breaks on an attribute longer than 8 KiB.
//!
//! Left out on purpose: message archives, rosters, stream resumption (a room has to be entered anew
//! anyway), SASL mechanisms that show the password, unless configured.
//!
//! Read [`Client`] and [`Config`] first.

#![forbid(unsafe_code)]

mod backoff;
mod client;
mod config;
mod conversation;
mod dial;
mod failure;
mod login;
mod mechanism;
mod offer;
mod prompt;
mod scram;
mod stream;
mod stream_error;
mod tls;

pub use client::{ActionSender, Client, HappeningReceiver, SendError};
pub use config::{Config, InvalidPem, InvalidServerAddress, Security, ServerAddress, Trust};
pub use offer::Offer;
