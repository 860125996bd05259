//! STUN and TURN servers.

use super::*;

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
