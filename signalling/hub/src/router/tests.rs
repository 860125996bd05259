use super::*;
use crate::services::RelayKey;
use std::net::Ipv4Addr;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const NOW: u64 = 1_700_000_000;

fn router() -> Router {
    let services = Services::new(RelayKey::new(&[1; 32]), Vec::new(), 3478, 5222);
    Router::new("hub.test", services)
}

fn open(router: &mut Router, user: &str, resource: &str) -> SessionId {
    router.open(user, resource, HERE).unwrap().0
}

fn say(router: &mut Router, id: SessionId, xml: &str) -> Vec<Output> {
    let (name, rest) = xml.split_at(xml.find([' ', '>', '/']).unwrap());
    let stanza = format!("{name} xmlns='jabber:client'{rest}").parse().unwrap();
    router.handle_stanza(NOW, id, stanza);
    std::iter::from_fn(|| router.poll_output()).collect()
}

/// Who gets what from whom, and the error's condition if it is one.
fn summary(outputs: &[Output]) -> Vec<(u64, String, String, String)> {
    let text = |element: &Element, name: &str| element.attr(name).unwrap_or("-").to_owned();
    let line = |output: &Output| match output {
        Output::End(id, condition) => (id.0, "end".into(), (*condition).into(), "-".into()),
        Output::Send(id, element) => {
            let error = element.get_child("error", ns::JABBER_CLIENT);
            let condition = error.and_then(|error| error.children().next()).map(Element::name);
            let what = condition.map_or_else(|| text(element, "type"), str::to_owned);
            (id.0, element.name().to_owned(), text(element, "from"), what)
        }
    };
    outputs.iter().map(line).collect()
}

fn line(id: SessionId, name: &str, from: &str, what: &str) -> (u64, String, String, String) {
    (id.0, name.into(), from.into(), what.into())
}

#[test]
fn stanzas_reach_the_resource_they_are_for() {
    let mut router = router();
    let (a, b) = (open(&mut router, "alice", "x"), open(&mut router, "bob", "y"));
    let got =
        say(&mut router, a, "<iq to='bob@hub.test/y' type='get' id='1'><q xmlns='urn:q'/></iq>");
    assert_eq!(summary(&got), [line(b, "iq", "alice@hub.test/x", "get")]);
    let Output::Send(_, iq) = &got[0] else { panic!() };
    assert_eq!((iq.attr("to"), iq.attr("id")), (Some("bob@hub.test/y"), Some("1")));
    assert!(iq.has_child("q", "urn:q"));
    let got = say(&mut router, a, "<message to='BOB@HUB.test/y'><body>hi</body></message>");
    assert_eq!(summary(&got), [line(b, "message", "alice@hub.test/x", "-")]);
}

#[test]
fn who_is_away_is_said_to_be() {
    let mut router = router();
    let a = open(&mut router, "alice", "x");
    let mut answer = |xml: &str| summary(&say(&mut router, a, xml));
    let unavailable = |from: &str, name: &str| vec![line(a, name, from, "service-unavailable")];
    let iq = "<iq to='bob@hub.test/y' type='get' id='1'><q xmlns='urn:q'/></iq>";
    assert_eq!(answer(iq), unavailable("bob@hub.test/y", "iq"));
    let message = "<message to='bob@hub.test' type='chat'><body>hi</body></message>";
    assert_eq!(answer(message), unavailable("bob@hub.test", "message"));
    assert_eq!(answer("<message to='bob@hub.test' type='headline'/>"), []);
    assert_eq!(answer("<message to='bob@hub.test' type='error'/>"), []);
    assert_eq!(answer("<iq to='bob@hub.test/y' type='result' id='1'/>"), []);
    let elsewhere = "<message to='bob@elsewhere.test'><body>hi</body></message>";
    let expected = line(a, "message", "bob@elsewhere.test", "remote-server-not-found");
    assert_eq!(answer(elsewhere), [expected]);
}

#[test]
fn messages_to_an_account_reach_its_best_resources() {
    let mut router = router();
    let a = open(&mut router, "alice", "x");
    let low = open(&mut router, "bob", "low");
    let high = open(&mut router, "bob", "high");
    let shy = open(&mut router, "bob", "shy");
    open(&mut router, "bob", "unavailable");
    say(&mut router, low, "<presence><priority>1</priority></presence>");
    say(&mut router, high, "<presence><priority>5</priority></presence>");
    say(&mut router, shy, "<presence><priority>-1</priority></presence>");
    let chat = "<message to='bob@hub.test' type='chat'><body>hi</body></message>";
    let got = say(&mut router, a, chat);
    assert_eq!(summary(&got), [line(high, "message", "alice@hub.test/x", "chat")]);
    let got = say(&mut router, a, "<message to='bob@hub.test' type='headline'/>");
    assert_eq!(got.len(), 2);
}

#[test]
fn sessions_of_an_account_see_each_other() {
    let mut router = router();
    let (a, b) = (open(&mut router, "alice", "a"), open(&mut router, "alice", "b"));
    let got = say(&mut router, a, "<presence/>");
    assert_eq!(summary(&got), [line(a, "presence", "alice@hub.test/a", "-")]);
    let got = say(&mut router, b, "<presence/>");
    assert_eq!(got.len(), 3);
    router.close(a);
    let got: Vec<_> = std::iter::from_fn(|| router.poll_output()).collect();
    assert_eq!(summary(&got), [line(b, "presence", "alice@hub.test/a", "unavailable")]);
}

#[test]
fn directed_presence_is_taken_back_at_the_end() {
    let mut router = router();
    let (a, b) = (open(&mut router, "alice", "x"), open(&mut router, "bob", "y"));
    let got = say(&mut router, a, "<presence to='bob@hub.test/y'/>");
    assert_eq!(summary(&got), [line(b, "presence", "alice@hub.test/x", "-")]);
    router.close(a);
    let got: Vec<_> = std::iter::from_fn(|| router.poll_output()).collect();
    assert_eq!(summary(&got), [line(b, "presence", "alice@hub.test/x", "unavailable")]);
}

#[test]
fn a_newcomer_takes_the_resource_over() {
    let mut router = router();
    let old = open(&mut router, "alice", "x");
    let new = open(&mut router, "alice", "x");
    let got: Vec<_> = std::iter::from_fn(|| router.poll_output()).collect();
    assert_eq!(got, [Output::End(old, "conflict")]);
    assert_ne!(old, new);
    assert_eq!(router.sessions(), 1);
    assert_eq!(say(&mut router, old, "<presence/>"), []);
    assert_eq!(router.open("alice", "", HERE), Err(BindError::Malformed));
    for number in 1..RESOURCES_MAX {
        open(&mut router, "alice", &number.to_string());
    }
    assert_eq!(router.open("alice", "more", HERE), Err(BindError::TooMany));
}

#[test]
fn impostors_and_strange_stanzas_end_the_stream() {
    for (xml, condition) in [
        ("<message from='bob@hub.test' to='hub.test'/>", "invalid-from"),
        ("<greeting/>", "unsupported-stanza-type"),
    ] {
        let mut router = router();
        let a = open(&mut router, "alice", "x");
        assert_eq!(say(&mut router, a, xml), [Output::End(a, condition)]);
        assert_eq!(router.sessions(), 0);
    }
    let mut router = router();
    let a = open(&mut router, "alice", "x");
    let own = "<iq from='alice@hub.test' to='hub.test' type='get' id='1'>\
               <ping xmlns='urn:xmpp:ping'/></iq>";
    assert_eq!(summary(&say(&mut router, a, own)), [line(a, "iq", "hub.test", "result")]);
}

#[test]
fn the_server_answers_what_it_knows_and_refuses_the_rest() {
    let mut router = router();
    let a = open(&mut router, "alice", "x");
    let account = "alice@hub.test";
    for (to, kind, payload, from, answer) in [
        ("hub.test", "get", "<ping xmlns='urn:xmpp:ping'/>", "hub.test", "result"),
        ("", "get", "<query xmlns='jabber:iq:roster'/>", account, "result"),
        (account, "get", "<query xmlns='jabber:iq:roster'/>", account, "result"),
        ("", "set", "<query xmlns='jabber:iq:roster'/>", account, "not-allowed"),
        ("hub.test", "get", "<services xmlns='urn:xmpp:extdisco:2'/>", "hub.test", "result"),
        ("hub.test", "get", "<nonsense xmlns='urn:x'/>", "hub.test", "service-unavailable"),
        ("hub.test", "get", "", "hub.test", "bad-request"),
        ("@", "get", "<ping xmlns='urn:xmpp:ping'/>", "@", "jid-malformed"),
    ] {
        let to = if to.is_empty() { String::new() } else { format!("to='{to}'") };
        let xml = format!("<iq {to} type='{kind}' id='1'>{payload}</iq>");
        let got = say(&mut router, a, &xml);
        assert_eq!(summary(&got), [line(a, "iq", from, answer)], "{xml}");
    }
}

#[test]
fn credentials_can_be_asked_for_apart() {
    let mut router = router();
    let a = open(&mut router, "alice", "x");
    let ask = "<iq to='hub.test' type='get' id='1'><credentials xmlns='urn:xmpp:extdisco:2'>\
               <service host='192.0.2.1' type='turn'/></credentials></iq>";
    let got = say(&mut router, a, ask);
    let Output::Send(_, answer) = &got[0] else { panic!() };
    let servers = ipop_jingle::services::parse(answer.children().next().unwrap()).unwrap();
    let turn = &servers.servers.turn[0];
    assert!(turn.username.ends_with(":alice") && turn.expires_unix_s > Some(NOW));
    let other = ask.replace("192.0.2.1", "192.0.2.2");
    let got = say(&mut router, a, &other);
    assert_eq!(summary(&got), [line(a, "iq", "hub.test", "item-not-found")]);
}

#[test]
fn the_end_is_said_to_everybody() {
    let mut router = router();
    let (a, b) = (open(&mut router, "alice", "x"), open(&mut router, "bob", "y"));
    router.shutdown();
    let got: Vec<_> = std::iter::from_fn(|| router.poll_output()).collect();
    assert_eq!(got, [Output::End(a, "system-shutdown"), Output::End(b, "system-shutdown")]);
}
