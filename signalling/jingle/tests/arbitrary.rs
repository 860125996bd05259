//! Whatever a peer or a server writes, reading it ends, and without a panic.

#![allow(clippy::unwrap_used)]

mod common;

use ipop_jingle::node::Node;
use ipop_jingle::session::Message;
use ipop_jingle::stanza::{Iq, Presence, StanzaError};
use ipop_jingle::{disco, ns, room, services, vocabulary};
use ipop_signal::PeerAddress;
use minidom::Element;
use proptest::prelude::*;
use proptest::sample::select;

const NAMES: &[&str] = &[
    "jingle",
    "content",
    "description",
    "transport",
    "candidate",
    "fingerprint",
    "reason",
    "node",
    "address",
    "gathering-complete",
    "remote-candidate",
    "services",
    "service",
    "credentials",
    "x",
    "status",
    "item",
    "destroy",
    "password",
    "history",
    "iq",
    "presence",
    "error",
    "text",
    "query",
    "identity",
    "feature",
    "success",
    "general-error",
    "unknown-session",
    "ping",
    "strange",
];

const NAMESPACES: &[&str] = &[
    ns::JINGLE,
    ns::JINGLE_ICE_UDP,
    ns::JINGLE_DTLS,
    ns::VPN,
    ns::NODE,
    ns::EXT_DISCO,
    ns::MUC,
    ns::MUC_USER,
    ns::JABBER_CLIENT,
    ns::XMPP_STANZAS,
    ns::DISCO_INFO,
    ns::JINGLE_ERRORS,
    "urn:x",
];

const ATTRIBUTES: &[&str] = &[
    "action",
    "sid",
    "initiator",
    "responder",
    "creator",
    "name",
    "ufrag",
    "pwd",
    "hash",
    "setup",
    "component",
    "foundation",
    "generation",
    "id",
    "ip",
    "port",
    "priority",
    "protocol",
    "rel-addr",
    "rel-port",
    "type",
    "prefix",
    "origin",
    "attempt",
    "host",
    "transport",
    "username",
    "expires",
    "restricted",
    "code",
    "nick",
    "from",
    "to",
    "node",
    "var",
    "instance",
];

const VALUES: &[&str] = &[
    "session-initiate",
    "session-accept",
    "transport-info",
    "session-terminate",
    "session-info",
    "sha-256",
    "1",
    "0",
    "256",
    "65536",
    "-1",
    "99999999999999999999",
    "10.0.0.1",
    "::1",
    "[::1]",
    "host.local",
    "udp",
    "tcp",
    "host",
    "srflx",
    "fixed",
    "derived",
    "turn",
    "stun",
    "turns",
    "true",
    "2026-11-23T03:40:00Z",
    "+300000-01-01T00:00:00Z",
    "get",
    "set",
    "result",
    "error",
    "unavailable",
    "110",
    "",
    "abcdefghijklmnopqrstuvwxyz",
    "\u{10ffff}",
];

fn value() -> impl Strategy<Value = String> {
    prop_oneof![3 => select(VALUES).prop_map(str::to_owned), 1 => "[ -~]{0,12}"]
}

fn text(name: &str, ns: &str, attributes: &[(&str, String)], children: &str) -> String {
    let mut seen = std::collections::BTreeSet::new();
    let attributes: String = attributes
        .iter()
        .filter(|(name, _)| seen.insert(*name))
        .map(|(name, value)| format!(" {name}='{}'", escaped(value)))
        .collect();
    format!("<{name} xmlns='{ns}'{attributes}>{children}</{name}>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

fn xml() -> impl Strategy<Value = String> {
    let attributes = || proptest::collection::vec((select(ATTRIBUTES), value()), 0..10);
    let leaf = (select(NAMES), select(NAMESPACES), attributes(), value())
        .prop_map(|(name, ns, attributes, value)| text(name, ns, &attributes, &escaped(&value)));
    leaf.prop_recursive(5, 40, 6, move |inner| {
        let children = proptest::collection::vec(inner, 0..6);
        (select(NAMES), select(NAMESPACES), attributes(), children).prop_map(
            |(name, ns, attributes, children)| text(name, ns, &attributes, &children.concat()),
        )
    })
}

fn read_everything(element: &Element) {
    let payloads: Vec<Element> = element.children().cloned().collect();
    if let Ok(message) = Message::parse(element) {
        vocabulary::happenings(PeerAddress("a@b/c".to_owned()), message);
    }
    let _ = Node::parse(element);
    let _ = services::parse(element);
    let _ = disco::emit_info(element);
    let _ = disco::features_of(element);
    let _ = Iq::parse(element);
    let _ = Presence::parse(element);
    let _ = StanzaError::of(&payloads);
    let _ = room::OccupantNotice::parse(&payloads);
    let _ = room::node_of(&payloads);
    let _ = room::parse_join(element);
    payloads.iter().for_each(read_everything);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn strange_elements_do_no_harm(xml in xml()) {
        read_everything(&xml.parse().unwrap());
    }

    #[test]
    fn damaged_sessions_do_no_harm(
        message in common::message(),
        at in any::<proptest::sample::Index>(),
        byte in select(b" <>/='x09:".to_vec()),
    ) {
        let mut text = String::from(&message.emit("a@b/c")).into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        if let Ok(Ok(element)) = String::from_utf8(text).map(|text| text.parse::<Element>()) {
            read_everything(&element);
        }
    }
}
