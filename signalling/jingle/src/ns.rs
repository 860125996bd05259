//! XML namespaces: ours and those of the standards.

/// Ours: a Jingle content that is a link between two nodes (XEP-0166 section 7.3: description).
pub const VPN: &str = "urn:ipop:vpn:0";
/// Ours: what a node says about itself in its group presence.
pub const NODE: &str = "urn:ipop:node:0";

pub use xmpp_parsers::ns::{
    BIND, DISCO_INFO, EXT_DISCO, JABBER_CLIENT, JINGLE, JINGLE_DTLS, JINGLE_ICE_UDP, MUC, MUC_USER,
    PING, SASL, SASL_CB, STREAM, TLS, VERSION, XMPP_STANZAS,
};

/// Why a Jingle request cannot be met (XEP-0166 section 10).
pub const JINGLE_ERRORS: &str = "urn:xmpp:jingle:errors:1";
/// Configuring a room (XEP-0045 section 10).
pub const MUC_OWNER: &str = "http://jabber.org/protocol/muc#owner";
/// Fields of a room's configuration form (XEP-0045 section 15.5.3).
pub const MUC_ROOMCONFIG: &str = "http://jabber.org/protocol/muc#roomconfig";
/// Data forms (XEP-0004).
pub const DATA_FORMS: &str = "jabber:x:data";
/// Errors of a stream (RFC 6120 section 4.9).
pub const XMPP_STREAMS: &str = "urn:ietf:params:xml:ns:xmpp-streams";
