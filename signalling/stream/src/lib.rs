//! What both ends of an XML stream share: bytes to elements, and the arithmetic of logins.
//!
//! An [`Assembler`] gets bytes as they arrive and gives the stream's opening tag, its elements and
//! its end (RFC 6120 section 4). What it does with a stanza beyond its [`Bounds`] is the owner's
//! choice: a server ends the stream of a client that sends one; a client skips it, because stanzas
//! come from third parties, who must not be able to end the stream for everybody else.
//!
//! [`scram`] computes what both ends of a login compute: salted password, keys, proof, signature.
//!
//! Pure: no clock, no socket, no log; nonces and salts are arguments. What was skipped is counted.
//!
//! Left out on purpose: writing, which is text; what a server or a client says on a stream; streams
//! with elements of other kinds than XMPP's (comments and processing instructions are broken XML
//! there, RFC 6120 section 11.1).
//!
//! Read [`Assembler`] and [`Bounds`] first.

#![forbid(unsafe_code)]

mod assembler;
pub mod scram;

pub use assembler::{Assembler, AssemblyError, Bounds, Excess, Header, Incoming};
