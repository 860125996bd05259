//! Conversations in virtual time, stanza by stanza.

mod room;
mod services;
mod sessions;

use super::requests::ANSWER_TIMEOUT;
use super::room::{LEFT_HOLD, RETURN_GRACE, SELF_PING_PERIOD};
use super::*;
use ipop_jingle::node::Node;
use ipop_signal::{Announcement, ByeReason, Fingerprint, IceCredentials, Member};
use proptest::prelude::*;

const ROOM: &str = "net@conf.test";

struct Table {
    conversation: Conversation,
    now: Instant,
    happenings: Vec<Happening>,
    sent: Vec<Element>,
    others: Vec<Output>,
}

fn announcement(byte: u8) -> Announcement {
    Announcement {
        fingerprint: Fingerprint([byte; 32]),
        name: format!("n{byte}"),
        addresses: Vec::new(),
        invitation: None,
    }
}

fn address(byte: u8) -> PeerAddress {
    PeerAddress(format!("{ROOM}/{}", announcement(byte).nickname()))
}

fn member(byte: u8) -> Member {
    announcement(byte).at(address(byte))
}

fn settings(now: Instant) -> Settings {
    Settings {
        domain: "test".to_owned(),
        account: "me@test".to_owned(),
        room: ROOM.parse().unwrap(),
        room_password: None,
        instance: "here".to_owned(),
        clock: Clock { at: now, unix_s: 1_800_000_000 },
        seed: 7,
    }
}

impl Table {
    /// Not connected yet.
    fn new() -> Self {
        let now = Instant::now();
        let conversation = Conversation::new(settings(now), now);
        let mut table = Self {
            conversation,
            now,
            happenings: Vec::new(),
            sent: Vec::new(),
            others: Vec::new(),
        };
        table.act(Action::Announce(announcement(1)));
        table
    }

    /// In the room, with these members there before.
    fn inside(members: &[u8]) -> Self {
        let mut table = Self::new();
        table.come_in(members);
        let query = table.last_sent("services");
        table.fail(&query, "service-unavailable");
        table.clear();
        table
    }

    fn come_in(&mut self, members: &[u8]) {
        self.input(Input::Connected);
        members.iter().for_each(|byte| self.presence(*byte, "", "i"));
        self.own_presence("", "<status code='110'/>");
    }

    fn input(&mut self, input: Input) {
        self.conversation.handle_input(self.now, input);
        self.drain();
    }

    fn act(&mut self, action: Action) {
        self.input(Input::Action(action));
    }

    fn stanza(&mut self, text: &str) {
        let text = text.replacen(' ', " xmlns='jabber:client' ", 1);
        self.input(Input::Stanza(text.parse().unwrap()));
    }

    fn presence(&mut self, byte: u8, kind: &str, instance: &str) {
        self.presence_with(byte, kind, instance, "");
    }

    fn presence_with(&mut self, byte: u8, kind: &str, instance: &str, statuses: &str) {
        let node = Node { announcement: announcement(byte), instance: instance.to_owned() };
        self.stanza(&format!(
            "<presence from='{}'{kind}><x xmlns='http://jabber.org/protocol/muc#user'>{statuses}\
             <item affiliation='none' role='none'/></x>{}</presence>",
            address(byte).0,
            String::from(&node.emit())
        ));
    }

    fn leave(&mut self, byte: u8, statuses: &str) {
        self.presence_with(byte, " type='unavailable'", "i", statuses);
    }

    fn own_presence(&mut self, kind: &str, statuses: &str) {
        self.presence_with(1, kind, "here", statuses);
    }

    fn refuse(&mut self, condition: &str) {
        self.stanza(&format!(
            "<presence from='{}' type='error'><error type='cancel'>\
             <{condition} xmlns='{}'/></error></presence>",
            address(1).0,
            ns::XMPP_STANZAS
        ));
    }

    /// Lets time pass, timer by timer.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, _)) = self.conversation.poll_timeout().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.conversation.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        while let Some(output) = self.conversation.poll_output() {
            match output {
                Output::Happen(happening) => self.happenings.push(happening),
                Output::Send(element) | Output::SendAlong(element) => self.sent.push(element),
                other => self.others.push(other),
            }
        }
    }

    fn clear(&mut self) {
        self.happenings.clear();
        self.sent.clear();
        self.others.clear();
    }

    fn heard(&mut self) -> Vec<Happening> {
        std::mem::take(&mut self.happenings)
    }

    /// The last stanza sent whose payload has this name.
    fn last_sent(&self, payload: &str) -> Element {
        let has = |element: &&Element| element.children().any(|child| child.name() == payload);
        self.sent.iter().rev().find(has).cloned().unwrap_or_else(|| panic!("no {payload} sent"))
    }

    fn count_sent(&self, payload: &str) -> usize {
        let has = |element: &&Element| element.children().any(|child| child.name() == payload);
        self.sent.iter().filter(has).count()
    }

    fn answer(&mut self, request: &Element, inside: &str) {
        let (to, id) = (request.attr("to").unwrap_or_default(), request.attr("id").unwrap());
        self.stanza(&format!("<iq from='{to}' id='{id}' type='result'>{inside}</iq>"));
    }

    fn fail(&mut self, request: &Element, condition: &str) {
        let (to, id) = (request.attr("to").unwrap_or_default(), request.attr("id").unwrap());
        self.stanza(&format!(
            "<iq from='{to}' id='{id}' type='error'><error type='cancel'>\
             <{condition} xmlns='{}'/></error></iq>",
            ns::XMPP_STANZAS
        ));
    }
}

fn offer(to: PeerAddress, session: &str) -> Action {
    Action::Offer {
        to,
        session: SessionId::new(session).unwrap(),
        credentials: IceCredentials::new("abcd", "0123456789abcdefABCDEF").unwrap(),
        fingerprint: Fingerprint([1; 32]),
        candidates: Vec::new(),
    }
}

#[test]
fn presence_join_unlocking_and_services_go_out_without_waiting() {
    let mut table = Table::new();
    assert!(table.sent.is_empty());
    table.input(Input::Connected);
    let names: Vec<_> = table.sent.iter().map(Element::name).collect();
    assert_eq!(names, ["presence", "presence", "iq", "iq"]);
    assert_eq!(table.sent[1].attr("to"), Some(address(1).0.as_str()));
    assert!(table.sent[1].get_child("node", ns::NODE).is_some());
    assert_eq!(table.sent[2].attr("to"), Some(ROOM));
}

#[test]
fn a_silent_server_is_noticed_within_a_minute() {
    let mut table = Table::inside(&[]);
    table.wait(SILENCE_MAX);
    assert_eq!(table.last_sent("ping").attr("to"), Some("test"));
    assert!(table.others.is_empty());
    table.wait(ANSWER_TIMEOUT);
    assert_eq!(table.others, [Output::Dead]);
    assert!(SILENCE_MAX + ANSWER_TIMEOUT < Duration::from_secs(60));
}

#[test]
fn a_move_of_the_network_asks_the_server_at_once() {
    let mut table = Table::inside(&[]);
    table.wait(Duration::from_secs(3));
    table.input(Input::NetworkMoved);
    let ping = table.last_sent("ping");
    table.answer(&ping, "");
    table.wait(ANSWER_AFTER_MOVE);
    assert!(table.others.is_empty());
    table.input(Input::NetworkMoved);
    table.wait(ANSWER_AFTER_MOVE);
    assert_eq!(table.others, [Output::Dead]);
    // Without a stream there is nobody to ask.
    table.input(Input::Disconnected { reason: "moved".into() });
    table.clear();
    table.input(Input::NetworkMoved);
    assert_eq!(table.count_sent("ping"), 0);
}

#[test]
fn a_server_that_answers_is_left_alone() {
    let mut table = Table::inside(&[]);
    for _ in 0..20 {
        table.wait(SILENCE_MAX);
        let ping = table.last_sent("ping");
        table.answer(&ping, "");
    }
    assert!(table.others.is_empty());
}

fn word() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "net@conf.test/n2-02020202",
        "net@conf.test/n1-01010101",
        "net@conf.test",
        "test",
        "",
        "/",
        "unavailable",
        "error",
        "set",
        "get",
        "result",
        "0000000000000007-1",
        "0000000000000007-2",
        "110",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn arbitrary_stanzas_never_panic(
        stanzas in proptest::collection::vec(
            (
                proptest::sample::select(vec!["iq", "presence", "message", "x"]),
                word(), word(), word(),
                proptest::sample::select(vec![
                    "",
                    "<x xmlns='http://jabber.org/protocol/muc#user'><status code='110'/></x>",
                    "<x xmlns='http://jabber.org/protocol/muc#user'><status code='303'/>\
                     <item nick='\u{fffd}'/><status code='110'/></x>",
                    "<jingle xmlns='urn:xmpp:jingle:1' action='session-terminate' sid='s'/>",
                    "<services xmlns='urn:xmpp:extdisco:2'/>",
                    "<error type='cancel'><conflict \
                     xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
                ]),
                0..100u64,
            ),
            0..30,
        )
    ) {
        let mut table = Table::inside(&[2]);
        for (name, from, kind, id, payload, pause) in stanzas {
            let head = format!("<{name} from='{from}' type='{kind}' id='{id}'>");
            table.stanza(&format!("{head}{payload}</{name}>"));
            table.wait(Duration::from_secs(pause));
        }
    }
}
