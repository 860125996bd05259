//! Entering the room, staying in it, and who else is there.

use super::*;

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
