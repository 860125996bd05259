//! Embedded XMPP server, STUN server and TURN relay.
