//! The signalling vocabulary as XMPP stanzas: translation and nothing else.
//!
//! What travels is standard XML that other Jingle tools can read: sessions by XEP-0166 with the
//! ICE-UDP transport of XEP-0176 (candidates trickled) and a fingerprint in the manner of XEP-0320;
//! groups by XEP-0045; STUN and TURN servers by XEP-0215. Two namespaces are ours: the description
//! [`ns::VPN`] says that a session is about a link, the presence payload [`ns::NODE`] says which
//! node an occupant of a room is.
//!
//! Pure: elements in, values out and back. No clock, no socket, no state. What a peer wrote is
//! read leniently (one strange candidate costs itself, not the stanza) and bounded strictly.
//!
//! Left out on purpose: ICE restarts within a session (a new session takes its place), more than
//! one content, TCP candidates.
//!
//! Read [`session::Message`] and [`node::Node`] first.

#![forbid(unsafe_code)]

mod candidate;
pub mod disco;
pub mod node;
pub mod ns;
pub mod room;
pub mod services;
pub mod session;
pub mod stanza;
pub mod transport;
pub mod vocabulary;
