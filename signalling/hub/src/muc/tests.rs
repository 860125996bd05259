use super::*;
use crate::router::session_id;
use ipop_jingle::room::{OccupantNotice, status};

/// Three who may enter rooms.
struct World {
    muc: Muc,
    jids: [FullJid; 3],
}

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

impl World {
    fn new() -> Self {
        let jid = |text: &str| FullJid::new(text).unwrap();
        Self {
            muc: Muc::new("conference.hub.test"),
            jids: [jid("alice@hub.test/x"), jid("bob@hub.test/y"), jid("carol@hub.test/z")],
        }
    }

    /// What comes of a stanza: the number of each receiver, and what it gets.
    fn say(&mut self, who: usize, xml: &str) -> Vec<(usize, Element)> {
        let (name, rest) = xml.split_at(xml.find([' ', '>', '/']).unwrap());
        let stanza: Element = format!("{name} xmlns='jabber:client'{rest}").parse().unwrap();
        let to = Jid::new(stanza.attr("to").unwrap()).unwrap();
        let mut out = Outputs::new();
        let session = session_id(who as u64);
        let sender = Sender { session, jid: &self.jids[who] };
        self.muc.handle_stanza(&sender, &to, &stanza, &mut out);
        received(out)
    }

    fn enter(&mut self, who: usize, nick: &str) -> Vec<(usize, Element)> {
        self.say(who, &entry(nick, "", ""))
    }

    fn leave_all(&mut self, who: usize) -> Vec<(usize, Element)> {
        let mut out = Outputs::new();
        self.muc.leave_all(session_id(who as u64), &[], &mut out);
        received(out)
    }
}

fn received(out: Outputs) -> Vec<(usize, Element)> {
    let number = |id| (0..3).find(|n| session_id(*n) == id).unwrap() as usize;
    let line = |output| match output {
        Output::Send(id, element) => (number(id), element),
        Output::End(..) => panic!(),
    };
    out.into_iter().map(line).collect()
}

fn entry(nick: &str, password: &str, payload: &str) -> String {
    let password = match password {
        "" => String::new(),
        password => format!("<password>{password}</password>"),
    };
    format!(
        "<presence to='room@conference.hub.test/{nick}' id='e'>\
         <x xmlns='http://jabber.org/protocol/muc'>{password}</x>{payload}</presence>"
    )
}

fn nick_of(element: &Element) -> &str {
    element.attr("from").unwrap().strip_prefix("room@conference.hub.test/").unwrap_or("-")
}

fn statuses(element: &Element) -> Vec<u16> {
    let payloads: Vec<_> = element.children().cloned().collect();
    OccupantNotice::parse(&payloads).statuses
}

fn condition(element: &Element) -> Option<String> {
    let error = element.get_child("error", ns::JABBER_CLIENT)?;
    error.children().next().map(|condition| condition.name().to_owned())
}

/// Receiver, name, nick, and the error's condition or the type.
fn summary(got: &[(usize, Element)]) -> Vec<(usize, &str, &str, String)> {
    let what = |element: &Element| {
        condition(element).unwrap_or_else(|| element.attr("type").unwrap_or("-").to_owned())
    };
    got.iter().map(|(who, e)| (*who, e.name(), nick_of(e), what(e))).collect()
}

fn line(
    who: usize,
    name: &'static str,
    nick: &'static str,
    what: &str,
) -> (usize, &'static str, &'static str, String) {
    (who, name, nick, what.to_owned())
}

#[test]
fn the_first_makes_the_room_and_everybody_sees_everybody() {
    let mut world = World::new();
    let got = world.enter(A, "a");
    let subject = |who| line(who, "message", "-", "groupchat");
    assert_eq!(summary(&got), [line(A, "presence", "a", "-"), subject(A)]);
    assert_eq!(statuses(&got[0].1), [status::CREATED, status::SELF]);
    assert_eq!(got[0].1.attr("id"), Some("e"));
    let got = world.enter(B, "b");
    let expected = [
        line(B, "presence", "a", "-"),
        line(A, "presence", "b", "-"),
        line(B, "presence", "b", "-"),
        subject(B),
    ];
    assert_eq!(summary(&got), expected);
    let all: Vec<_> = got[..3].iter().map(|(_, e)| statuses(e)).collect();
    assert_eq!(all, [vec![], vec![], vec![status::SELF]]);
    assert!(got.iter().all(|(who, e)| e.attr("to") == Some(world.jids[*who].as_str())));
    assert!(got.iter().all(|(_, e)| !stanza::write(e).windows(5).any(|w| w == b"alice")
        || e.attr("to").unwrap().starts_with("alice")));
}

#[test]
fn words_are_passed_on_as_they_are_and_only_rooms_speak_for_rooms() {
    let mut world = World::new();
    world.enter(A, "a");
    let forged = "<x xmlns='http://jabber.org/protocol/muc#user'><status code='332'/></x>";
    let node =
        "<node xmlns='urn:ipop:node:0' name='n'><fingerprint hash='h'>f</fingerprint></node>";
    let got = world.say(B, &entry("b", "", &format!("<show>away</show>{node}{forged}")));
    let (_, seen) = got.iter().find(|(who, e)| *who == A && nick_of(e) == "b").unwrap();
    let node: Element = node.parse().unwrap();
    assert_eq!(seen.get_child("node", ns::NODE), Some(&node));
    assert_eq!(seen.get_child("show", ns::JABBER_CLIENT).unwrap().text(), "away");
    assert!(statuses(seen).is_empty());
    assert!(!seen.has_child("x", ns::MUC));
    let got = world.say(B, "<presence to='room@conference.hub.test/b'><show>dnd</show></presence>");
    assert_eq!(summary(&got), [line(A, "presence", "b", "-"), line(B, "presence", "b", "-")]);
    let later = world.enter(C, "c");
    let (_, seen) = later.iter().find(|(_, e)| nick_of(e) == "b").unwrap();
    assert_eq!(seen.get_child("show", ns::JABBER_CLIENT).unwrap().text(), "dnd");
}

#[test]
fn a_nick_is_had_once_and_can_be_changed() {
    let mut world = World::new();
    world.enter(A, "a");
    let got = world.enter(B, "a");
    assert_eq!(summary(&got), [line(B, "presence", "a", "conflict")]);
    assert!(got[0].1.has_child("x", ns::MUC));
    world.enter(B, "b");
    let change = "<presence to='room@conference.hub.test/bee'/>";
    let got = world.say(B, change);
    let expected = [
        line(A, "presence", "b", "unavailable"),
        line(B, "presence", "b", "unavailable"),
        line(A, "presence", "bee", "-"),
        line(B, "presence", "bee", "-"),
    ];
    assert_eq!(summary(&got), expected);
    assert_eq!(statuses(&got[0].1), [status::RENAMED]);
    assert_eq!(statuses(&got[1].1), [status::RENAMED, status::SELF]);
    let got = world.say(B, "<presence to='room@conference.hub.test/a'/>");
    assert_eq!(summary(&got), [line(B, "presence", "a", "conflict")]);
}

#[test]
fn who_leaves_is_seen_to_leave_and_the_last_takes_the_room_along() {
    let mut world = World::new();
    world.enter(A, "a");
    world.enter(B, "b");
    let leave = "<presence to='room@conference.hub.test/b' type='unavailable'/>";
    let got = world.say(B, leave);
    let gone = |who| line(who, "presence", "b", "unavailable");
    assert_eq!(summary(&got), [gone(A), gone(B)]);
    assert_eq!(statuses(&got[1].1), [status::SELF]);
    assert_eq!(world.say(B, leave), []);
    world.enter(B, "b");
    assert_eq!(summary(&world.leave_all(B)), [gone(A)]);
    assert_eq!(world.leave_all(A), []);
    assert!(world.muc.rooms.is_empty() && world.muc.memberships.is_empty());
    assert!(statuses(&world.enter(C, "c")[0].1).contains(&status::CREATED));
}

#[test]
fn strangers_get_nothing_out_of_a_room() {
    let mut world = World::new();
    world.enter(A, "a");
    let mut refused = |xml: &str| condition(&world.say(B, xml)[0].1).unwrap();
    let to = "room@conference.hub.test";
    let all = format!("<message to='{to}' type='groupchat'><body>hi</body></message>");
    assert_eq!(refused(&all), "not-acceptable");
    let one = format!("<message to='{to}/a' type='chat'><body>hi</body></message>");
    assert_eq!(refused(&one), "not-acceptable");
    let ping =
        |to: &str| format!("<iq to='{to}' type='get' id='1'><ping xmlns='{}'/></iq>", ns::PING);
    assert_eq!(refused(&ping(&format!("{to}/a"))), "not-acceptable");
    assert_eq!(refused(&ping("elsewhere@conference.hub.test/a")), "not-acceptable");
    assert_eq!(refused(&format!("<presence to='{to}/b'/>")), "not-acceptable");
    assert_eq!(refused(&format!("<presence to='{to}'/>")), "jid-malformed");
}

#[test]
fn messages_reach_all_or_one() {
    let mut world = World::new();
    world.enter(A, "a");
    world.enter(B, "b");
    world.enter(C, "c");
    let all =
        "<message to='room@conference.hub.test' type='groupchat' id='7'><body>hi</body></message>";
    let got = world.say(B, all);
    assert_eq!(summary(&got), [A, B, C].map(|who| line(who, "message", "b", "groupchat")));
    assert!(got.iter().all(|(_, e)| e.attr("id") == Some("7")));
    let one = "<message to='room@conference.hub.test/c' type='chat'><body>hi</body></message>";
    let got = world.say(B, one);
    assert_eq!(summary(&got), [line(C, "message", "b", "chat")]);
    assert!(got[0].1.has_child("x", ns::MUC_USER));
    let large = format!(
        "<message to='room@conference.hub.test' type='groupchat'><body>{}</body></message>",
        "x".repeat(20_000)
    );
    assert_eq!(summary(&world.say(B, &large)), [line(B, "message", "-", "policy-violation")]);
}

#[test]
fn only_the_owner_sets_the_subject() {
    let mut world = World::new();
    world.enter(A, "a");
    world.enter(B, "b");
    let set =
        "<message to='room@conference.hub.test' type='groupchat'><subject>s</subject></message>";
    assert_eq!(summary(&world.say(B, set)), [line(B, "message", "-", "forbidden")]);
    assert_eq!(world.say(A, set).len(), 2);
    let got = world.enter(C, "c");
    let subject = got.last().unwrap().1.get_child("subject", ns::JABBER_CLIENT).unwrap();
    assert_eq!((subject.text().as_str(), nick_of(&got.last().unwrap().1)), ("s", "a"));
}

#[test]
fn answers_reach_exactly_who_asked() {
    let mut world = World::new();
    world.enter(A, "a");
    world.enter(B, "b");
    let ask = "<iq to='room@conference.hub.test/b' type='set' id='1'><j xmlns='urn:j'/></iq>";
    let got = world.say(A, ask);
    assert_eq!(summary(&got), [line(B, "iq", "a", "set")]);
    assert_eq!(got[0].1.attr("id"), Some("1"));
    let answer = "<iq to='room@conference.hub.test/a' type='result' id='1'/>";
    assert_eq!(world.say(C, answer).len(), 0, "C is not in the room");
    assert_eq!(summary(&world.say(B, answer)), [line(A, "iq", "b", "result")]);
    assert_eq!(world.say(B, answer), [], "an answer counts once");
    // A goes, and C takes its nick before B has answered.
    world.say(A, ask);
    world.leave_all(A);
    world.enter(C, "a");
    assert_eq!(world.say(B, answer), []);
    // B goes without an answer.
    world.say(C, ask);
    let got = world.leave_all(B);
    let expected =
        [line(C, "presence", "b", "unavailable"), line(C, "iq", "b", "recipient-unavailable")];
    assert_eq!(summary(&got), expected);
    assert_eq!(got[1].1.attr("id"), Some("1"));
}

#[test]
fn am_i_in_the_room() {
    let mut world = World::new();
    let ping =
        "<iq to='room@conference.hub.test/a' type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>";
    assert_eq!(summary(&world.say(A, ping)), [line(A, "iq", "a", "not-acceptable")]);
    world.enter(A, "a");
    assert_eq!(summary(&world.say(A, ping)), [line(A, "iq", "a", "result")]);
    world.enter(B, "b");
    assert_eq!(summary(&world.say(B, ping)), [line(A, "iq", "b", "get")]);
    let nobody = ping.replace("/a'", "/nobody'");
    assert_eq!(summary(&world.say(B, &nobody)), [line(B, "iq", "nobody", "item-not-found")]);
}

#[test]
fn the_makers_password_is_the_rooms() {
    let mut world = World::new();
    world.say(A, &entry("a", "sesame", ""));
    for password in ["", "wrong"] {
        let got = world.say(B, &entry("b", password, ""));
        assert_eq!(summary(&got), [line(B, "presence", "b", "not-authorized")]);
    }
    assert_eq!(world.say(B, &entry("b", "sesame", "")).len(), 4);
    let configure = |password: Option<&str>| {
        let form = String::from_utf8(stanza::write(&muc::emit_configuration(password))).unwrap();
        format!("<iq to='room@conference.hub.test' type='set' id='1'>{form}</iq>")
    };
    assert_eq!(summary(&world.say(B, &configure(Some("x")))), [line(B, "iq", "-", "forbidden")]);
    assert_eq!(summary(&world.say(A, &configure(Some("open")))), [line(A, "iq", "-", "result")]);
    assert_eq!(condition(&world.say(C, &entry("c", "sesame", ""))[0].1).unwrap(), "not-authorized");
    assert_eq!(world.say(C, &entry("c", "open", "")).len(), 6);
}

#[test]
fn rooms_and_presences_are_bounded() {
    let mut world = World::new();
    world.enter(A, "a");
    let large = format!("<status>{}</status>", "x".repeat(20_000));
    let got = world.say(B, &entry("b", "", &large));
    assert_eq!(summary(&got), [line(B, "presence", "b", "policy-violation")]);
    let long = "n".repeat(200);
    assert_eq!(condition(&world.enter(B, &long)[0].1).unwrap(), "not-acceptable");
    assert!(!world.muc.memberships.contains_key(&session_id(B as u64)));
    for number in 1..ROOMS_PER_SESSION_MAX {
        let entry = entry("a", "", "").replace("room@", &format!("room{number}@"));
        assert_eq!(world.say(A, &entry).len(), 2);
    }
    let one_more = entry("a", "", "").replace("room@", "other@");
    assert_eq!(condition(&world.say(A, &one_more)[0].1).unwrap(), "resource-constraint");
    assert!(!world.muc.rooms.contains_key("other"));
}

#[test]
fn the_service_says_when_it_goes() {
    let mut world = World::new();
    world.enter(A, "a");
    world.enter(B, "b");
    let mut out = Outputs::new();
    world.muc.shutdown(&mut out);
    let got = received(out);
    let gone = |who, nick| line(who, "presence", nick, "unavailable");
    assert_eq!(summary(&got), [gone(A, "a"), gone(B, "b")]);
    assert!(got.iter().all(|(_, e)| statuses(e) == [status::SHUTDOWN, status::SELF]));
}
