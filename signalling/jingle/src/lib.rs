//! Signalling vocabulary to and from XMPP stanzas.
