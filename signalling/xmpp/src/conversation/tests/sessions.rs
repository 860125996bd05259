//! What members say to each other.

use super::*;

#[test]
fn candidates_name_the_credentials_of_their_session() {
    let mut table = Table::inside(&[2]);
    table.act(offer(address(2), "s"));
    let session = SessionId::new("s").unwrap();
    let more = Action::Candidates { to: address(2), session, candidates: Vec::new(), end: true };
    table.act(more);
    assert_eq!(table.count_sent("jingle"), 2);
    assert!(String::from(&table.last_sent("jingle")).contains("ufrag='abcd'"));
}

#[test]
fn what_is_not_delivered_is_said() {
    let mut table = Table::inside(&[2]);
    table.act(offer(address(2), "refused"));
    let refused = table.last_sent("jingle");
    table.act(offer(address(2), "forged"));
    let forged = table.last_sent("jingle");
    table.act(offer(address(2), "unanswered"));
    table.act(offer(address(3), "nobody"));
    let failed = |session: &str, to: u8, text: &str| Happening::DeliveryFailed {
        to: address(to),
        session: SessionId::new(session).unwrap(),
        text: text.to_owned(),
    };
    assert_eq!(table.heard(), [failed("nobody", 3, "no such member")]);
    table.fail(&refused, "service-unavailable");
    assert_eq!(table.heard(), [failed("refused", 2, "service-unavailable")]);
    let id = forged.attr("id").unwrap();
    table.stanza(&format!("<iq from='{ROOM}/liar' id='{id}' type='error'/>"));
    assert_eq!(table.heard(), []);
    table.answer(&forged, "");
    table.wait(ANSWER_TIMEOUT);
    assert_eq!(table.heard(), [failed("unanswered", 2, "no answer")]);
    table.act(offer(address(2), "cut-off"));
    table.input(Input::Disconnected { reason: "gone".to_owned() });
    let offline = Happening::Offline { reason: "gone".to_owned() };
    assert_eq!(table.heard(), [failed("cut-off", 2, "gone"), offline]);
}

fn jingle(from: &str, inside: &str) -> String {
    format!(
        "<iq from='{from}' id='1' type='set'><jingle xmlns='{}' sid='s' {inside}</iq>",
        ns::JINGLE
    )
}

#[test]
fn strangers_are_not_heard_and_learn_nothing() {
    let mut table = Table::inside(&[2]);
    let terminate = "action='session-terminate'/>";
    for from in ["stranger@test/x", "net@conf.test/human"] {
        table.stanza(&jingle(from, terminate));
        assert_eq!(table.sent.pop().unwrap().attr("type"), Some("error"));
    }
    assert_eq!(table.heard(), []);
    let asks = |table: &mut Table, from: &str, payload: &str| {
        table.stanza(&format!("<iq from='{from}' id='1' type='get'>{payload}</iq>"));
        table.sent.pop().unwrap().attr("type").unwrap().to_owned()
    };
    let info = format!("<query xmlns='{}'/>", ns::DISCO_INFO);
    let ping = format!("<ping xmlns='{}'/>", ns::PING);
    assert_eq!(asks(&mut table, "stranger@test/x", &info), "error");
    assert_eq!(asks(&mut table, "stranger@test/x", &ping), "error");
    for from in ["net@conf.test/human", "me@test/other", "test"] {
        assert_eq!(asks(&mut table, from, &info), "result");
        assert_eq!(asks(&mut table, from, &ping), "result");
        assert_eq!(asks(&mut table, from, "<query xmlns='urn:x'/>"), "error");
    }
}

#[test]
fn a_session_about_something_else_is_ended_politely() {
    let mut table = Table::inside(&[2]);
    let audio = "action='session-initiate'><content creator='initiator' name='a'>\
                 <description xmlns='urn:xmpp:jingle:apps:rtp:1'/></content></jingle>";
    table.stanza(&jingle(&address(2).0, audio));
    assert_eq!(table.sent[0].attr("type"), Some("result"));
    assert!(String::from(&table.sent[1]).contains("unsupported-applications"));
    table.stanza(&jingle(&address(2).0, "action='session-initiate'/>"));
    assert!(String::from(table.sent.last().unwrap()).contains("bad-request"));
    assert_eq!(table.heard(), []);
}

#[test]
fn the_acknowledgement_of_an_offer_waits_for_the_answer_to_it() {
    let mut table = Table::inside(&[2]);
    let offered = vocabulary::outgoing(offer(address(1), "s")).unwrap().message;
    let payload = offered.emit(&address(2).0);
    let iq = Iq::set(&address(1).0, "1".to_owned(), payload);
    let stanza = Iq { from: Some(address(2).0), ..iq }.emit();
    table.conversation.handle_input(table.now, Input::Stanza(stanza));
    let outputs: Vec<_> = std::iter::from_fn(|| table.conversation.poll_output()).collect();
    let [Output::SendAlong(answer), Output::Happen(Happening::Offered { .. }), ..] = &outputs[..]
    else {
        panic!("{outputs:?}");
    };
    assert_eq!(answer.attr("type"), Some("result"));
}

#[test]
fn a_request_is_acknowledged_and_then_heard() {
    let mut table = Table::inside(&[2]);
    table.stanza(&jingle(
        &address(2).0,
        "action='session-terminate'><reason><timeout/></reason></jingle>",
    ));
    assert_eq!(table.sent[0].attr("type"), Some("result"));
    let session = SessionId::new("s").unwrap();
    let bye = Happening::ByeReceived { from: address(2), session, reason: ByeReason::Timeout };
    assert_eq!(table.heard(), [bye]);
}
