//! Conversations in virtual time, stanza by stanza.

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
fn members_are_reported_before_online() {
    let mut table = Table::new();
    table.come_in(&[2, 3]);
    assert_eq!(
        table.heard(),
        [
            Happening::MemberAppeared(member(2)),
            Happening::MemberAppeared(member(3)),
            Happening::Online { address: address(1) },
        ]
    );
    assert!(table.others.contains(&Output::Settled));
}

#[test]
fn a_new_room_is_unlocked_once() {
    let mut table = Table::new();
    table.input(Input::Connected);
    table.own_presence("", "<status code='110'/><status code='201'/>");
    assert_eq!(table.count_sent("query"), 1);
    assert_eq!(table.last_sent("query").attr("to"), Some(ROOM));
    // The next stream may find it gone.
    table.input(Input::Disconnected { reason: String::new() });
    table.input(Input::Connected);
    assert_eq!(table.count_sent("query"), 2);
}

/// A password is for a room that is ours to make: whoever owns one keeps the one it has.
#[test]
fn a_password_is_set_only_in_a_room_just_made() {
    let mut table = Table::new();
    let settings = Settings { room_password: Some("s".to_owned()), ..settings(table.now) };
    table.conversation = Conversation::new(settings, table.now);
    table.act(Action::Announce(announcement(1)));
    table.input(Input::Connected);
    assert_eq!(table.count_sent("query"), 0);
    table.own_presence("", "<status code='110'/><status code='201'/>");
    assert_eq!(table.count_sent("query"), 1);
}

#[test]
fn a_member_that_leaves_is_reported_after_a_moment() {
    let mut table = Table::inside(&[2]);
    table.leave(2, "");
    assert_eq!(table.heard(), []);
    table.wait(LEFT_HOLD);
    assert_eq!(table.heard(), [Happening::MemberLeft(address(2))]);
}

#[test]
fn a_member_that_is_back_at_once_left_only_if_it_is_another_run() {
    let mut table = Table::inside(&[2, 3]);
    table.leave(2, "");
    table.presence(2, "", "i");
    table.leave(3, "");
    table.presence(3, "", "another");
    table.wait(RETURN_GRACE * 2);
    assert_eq!(
        table.heard(),
        [Happening::MemberLeft(address(3)), Happening::MemberAppeared(member(3))]
    );
}

#[test]
fn an_occupant_that_is_no_node_is_no_member() {
    let mut table = Table::inside(&[]);
    table.stanza(&format!("<presence from='{ROOM}/human'><show>away</show></presence>"));
    assert_eq!(table.heard(), []);
}

/// A server that stops takes the others out of the room before it closes our stream.
#[test]
fn a_server_that_stops_takes_no_member_away() {
    let mut table = Table::inside(&[2, 3, 4]);
    table.leave(2, "");
    table.leave(3, "<status code='332'/>");
    table.input(Input::Disconnected { reason: "gone".to_owned() });
    assert_eq!(table.heard(), [Happening::Offline { reason: "gone".to_owned() }]);
    table.wait(Duration::from_secs(3600));
    assert_eq!(table.heard(), []);
    table.come_in(&[2]);
    assert_eq!(table.heard(), [Happening::Online { address: address(1) }]);
    table.wait(Duration::from_secs(10));
    table.presence(3, "", "i");
    assert_eq!(table.heard(), []);
    table.wait(RETURN_GRACE);
    assert_eq!(table.heard(), [Happening::MemberLeft(address(4))]);
}

#[test]
fn a_member_that_restarted_while_we_were_away_is_new() {
    let mut table = Table::inside(&[2]);
    table.input(Input::Disconnected { reason: "gone".to_owned() });
    table.clear();
    table.input(Input::Connected);
    table.presence(2, "", "another");
    let expected = [Happening::MemberLeft(address(2)), Happening::MemberAppeared(member(2))];
    assert_eq!(table.heard(), expected);
}

#[test]
fn a_renamed_member_is_another_one() {
    let mut table = Table::inside(&[2]);
    table.leave(2, "<status code='303'/>");
    assert_eq!(table.heard(), [Happening::MemberLeft(address(2))]);
}

#[test]
fn offline_is_said_once_per_reason() {
    let mut table = Table::new();
    for reason in ["a", "a", "b"] {
        table.input(Input::Disconnected { reason: reason.to_owned() });
    }
    let said = |reason: &str| Happening::Offline { reason: reason.to_owned() };
    assert_eq!(table.heard(), [said("a"), said("b")]);
}

#[test]
fn a_taken_nick_is_followed_by_the_next_one() {
    let mut table = Table::new();
    table.input(Input::Connected);
    table.refuse("conflict");
    let to = table.sent.last().unwrap().attr("to").unwrap().to_owned();
    assert_eq!(to, format!("{}-2", address(1).0));
}

#[test]
fn a_locked_room_is_tried_again_soon_and_silently() {
    let mut table = Table::new();
    table.input(Input::Connected);
    for pause_ms in [10, 20, 40, 80] {
        table.refuse("item-not-found");
        table.clear();
        table.wait(Duration::from_millis(pause_ms));
        assert_eq!(table.count_sent("node"), 1, "{pause_ms}");
        assert_eq!(table.heard(), []);
    }
}

#[test]
fn a_room_that_does_not_want_us_is_fatal() {
    for condition in
        ["not-authorized", "forbidden", "registration-required", "not-allowed", "not-acceptable"]
    {
        let mut table = Table::new();
        table.input(Input::Connected);
        table.refuse(condition);
        let fatal =
            |output: &Output| matches!(output, Output::Fatal { cause: FatalCause::Room, .. });
        assert!(table.others.iter().any(fatal), "{condition}");
    }
    for status in [301, 321, 322] {
        let mut table = Table::inside(&[]);
        table.own_presence(
            " type='unavailable'",
            &format!("<status code='110'/><status code='{status}'/>"),
        );
        assert!(matches!(table.others[..], [Output::Fatal { .. }]), "{status}");
    }
}

#[test]
fn who_is_kicked_comes_back() {
    let mut table = Table::inside(&[2]);
    table.own_presence(" type='unavailable'", "<status code='110'/><status code='307'/>");
    assert!(matches!(table.heard()[..], [Happening::Offline { .. }]));
    table.act(offer(address(2), "s"));
    assert!(matches!(table.heard()[..], [Happening::DeliveryFailed { .. }]));
    table.wait(Duration::from_secs(1));
    assert!(table.count_sent("node") >= 1);
    table.presence(2, "", "i");
    table.own_presence("", "<status code='110'/>");
    assert_eq!(table.heard(), [Happening::Online { address: address(1) }]);
}

#[test]
fn who_is_kicked_again_and_again_comes_back_ever_later() {
    let mut table = Table::inside(&[]);
    let mut pauses = Vec::new();
    for _ in 0..14 {
        table.own_presence(" type='unavailable'", "<status code='110'/><status code='307'/>");
        let (at, _) = table.conversation.poll_timeout().unwrap();
        let until = table.conversation.room.deadline().unwrap();
        assert!(at <= until);
        pauses.push(until - table.now);
        table.wait(until - table.now);
        table.own_presence("", "<status code='110'/>");
    }
    assert!(pauses[0] < Duration::from_millis(200) && pauses[13] > Duration::from_secs(40));
}

#[test]
fn a_room_that_forgot_us_is_entered_again() {
    let mut table = Table::inside(&[]);
    let mut awake = Duration::ZERO;
    while table.count_sent("ping") == 0 || table.last_sent("ping").attr("to") == Some("test") {
        table.stanza("<message from='test'/>");
        table.wait(Duration::from_secs(10));
        awake += Duration::from_secs(10);
        assert!(awake <= SELF_PING_PERIOD * 2);
    }
    let ping = table.last_sent("ping");
    assert_eq!(ping.attr("to"), Some(address(1).0.as_str()));
    table.clear();
    table.fail(&ping, "not-acceptable");
    assert!(matches!(table.heard()[..], [Happening::Offline { .. }]));
    table.wait(Duration::from_secs(1));
    assert_eq!(table.count_sent("node"), 1);
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

fn services(inside: &str) -> String {
    format!("<services xmlns='{}'>{inside}</services>", ns::EXT_DISCO)
}

#[test]
fn services_are_asked_for_again_before_they_run_out() {
    let mut table = Table::new();
    table.input(Input::Connected);
    let query = table.last_sent("services");
    // Two hours after the table's clock.
    let turn = "<service type='turn' host='192.0.2.1' username='u' password='p' \
                expires='2027-01-15T10:00:00Z'/>";
    table.answer(&query, &services(turn));
    assert!(matches!(&table.heard()[..], [Happening::IceServers(s)] if s.turn.len() == 1));
    table.own_presence("", "<status code='110'/>");
    table.clear();
    let mut passed = Duration::ZERO;
    while table.count_sent("services") == 0 {
        table.stanza("<message from='test'/>");
        table.wait(Duration::from_secs(10));
        passed += Duration::from_secs(10);
    }
    assert_eq!(passed, Duration::from_secs(3600));
    let query = table.last_sent("services");
    table.heard();
    table.answer(&query, &services(turn));
    assert_eq!(table.heard(), [], "nothing has changed");
}

#[test]
fn credentials_that_are_kept_apart_are_asked_for() {
    let mut table = Table::new();
    table.input(Input::Connected);
    let query = table.last_sent("services");
    table.answer(&query, &services("<service type='turn' host='192.0.2.1' restricted='1'/>"));
    assert!(matches!(&table.heard()[..], [Happening::IceServers(s)] if s.turn.is_empty()));
    let query = table.last_sent("credentials");
    let answer = format!(
        "<credentials xmlns='{}'><service type='turn' host='192.0.2.1' username='u' \
         password='p'/></credentials>",
        ns::EXT_DISCO
    );
    table.answer(&query, &answer);
    let heard = table.heard();
    let [Happening::IceServers(servers)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((servers.turn[0].username.as_str(), servers.turn[0].at.port), ("u", 3478));
    // Asked for again, the relay stays with what is known until other credentials come.
    table.input(Input::Connected);
    let query = table.last_sent("services");
    table.answer(&query, &services("<service type='turn' host='192.0.2.1' restricted='1'/>"));
    assert_eq!(table.heard(), []);
    let query = table.last_sent("credentials");
    table.answer(&query, &answer.replace("'p'", "'q'"));
    let heard = table.heard();
    let [Happening::IceServers(servers)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((servers.turn.len(), servers.turn[0].password.as_str()), (1, "q"));
}

#[test]
fn a_server_without_services_is_said_to_have_none() {
    let mut table = Table::new();
    table.input(Input::Connected);
    let query = table.last_sent("services");
    table.fail(&query, "service-unavailable");
    assert_eq!(table.heard(), [Happening::IceServers(ipop_signal::IceServers::default())]);
}

#[test]
fn a_changed_announcement_reaches_the_room_once() {
    let mut table = Table::inside(&[]);
    table.act(Action::Announce(announcement(1)));
    assert_eq!(table.count_sent("node"), 0);
    let mut other = announcement(1);
    other.name = "other".to_owned();
    table.act(Action::Announce(other));
    assert_eq!(table.count_sent("node"), 1);
    assert_eq!(table.last_sent("node").attr("to"), Some(address(1).0.as_str()));
    assert_eq!(table.count_sent("x"), 0, "an announcement is no second request to enter");
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
