//! What is written is read back as it was, through text.

#![allow(clippy::unwrap_used)]

mod common;

use ipop_jingle::node::Node;
use ipop_jingle::session::Message;
use ipop_jingle::stanza::{Iq, IqBody, Presence, PresenceKind, StanzaError};
use ipop_jingle::{disco, room, services};
use minidom::Element;
use proptest::prelude::*;

fn through_text(element: &Element) -> Element {
    String::from(element).parse().unwrap()
}

proptest! {
    #[test]
    fn sessions(message in common::message()) {
        let element = through_text(&message.emit("room@muc.example/nick"));
        prop_assert_eq!(Message::parse(&element), Ok(message));
    }

    #[test]
    fn nodes(node in common::node()) {
        prop_assert_eq!(Node::parse(&through_text(&node.emit())), Some(node));
    }

    #[test]
    fn ice_servers(servers in common::ice_servers()) {
        let services = services::parse(&through_text(&services::emit(&servers))).unwrap();
        prop_assert_eq!(services.servers, servers);
        prop_assert_eq!(services.locked, Vec::new());
    }

    #[test]
    fn requests_and_answers(
        to in "[ -~]{1,20}",
        id in "[ -~]{1,20}",
        message in common::message(),
    ) {
        let iq = Iq::set(to, id, message.emit("a@b/c"));
        let read = Iq::parse(&through_text(&iq.clone().emit())).unwrap();
        prop_assert_eq!(&read, &iq);
        let mut error = StanzaError::new("wait", "resource-constraint");
        error.text = Some("later & <gladly>".to_owned());
        error.application = Some("unknown-session".to_owned());
        let answer = iq.answer(IqBody::Error(error));
        prop_assert_eq!(Iq::parse(&through_text(&answer.clone().emit())), Some(answer));
    }

    #[test]
    fn presence(node in common::node(), to in "[ -~]{1,20}", password in "[ -~]{0,20}") {
        let payloads = vec![room::emit_join(Some(&password)), node.emit()];
        let presence = Presence::to(to, PresenceKind::Available, payloads);
        let read = Presence::parse(&through_text(&presence.emit())).unwrap();
        prop_assert_eq!(room::node_of(&read.payloads), Some(node));
        let join = read.payloads.iter().find_map(room::parse_join).unwrap();
        prop_assert_eq!(join.password, Some(password));
    }
}

#[test]
fn features() {
    let answer = disco::emit_info(
        &"<query xmlns='http://jabber.org/protocol/disco#info' node='n'/>".parse().unwrap(),
    );
    assert_eq!(answer.attr("node"), Some("n"));
    assert_eq!(disco::features_of(&through_text(&answer)), disco::FEATURES);
}
