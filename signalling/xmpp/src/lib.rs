//! XMPP client: signalling over any standard server.
