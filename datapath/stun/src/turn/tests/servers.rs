//! Other servers, other credentials, and connections that come and go.

use super::*;

const OTHER: &str = "198.18.0.99:3478";

fn elsewhere(bench: &Bench, request: &[u8], server: &str) -> Vec<u8> {
    let message = Message::parse(request).unwrap();
    let answer = Builder::error(&message, 300, "Try Alternate");
    let answer = answer.with(Attribute::AlternateServer(at(server)));
    if message.has_integrity() { answer.integrity(&bench.key()) } else { answer }.build().unwrap()
}

#[test]
fn another_server_is_followed_and_left_when_it_forgets_us() {
    let mut bench = Bench::new();
    let request = bench.request(Method::Allocate);
    bench.answer(&elsewhere(&bench, &request, OTHER));
    assert_eq!(bench.client.server(), at(OTHER));
    let stranger = Input { remote: at(SERVER), data: &[0; 20] };
    assert_eq!(bench.client.handle_input(bench.now, stranger), Err(Dropped::Stranger));
    bench.allocate();
    bench.client.probe(bench.now);
    bench.drain();
    let request = bench.request(Method::Refresh);
    bench.answer(&bench.error(&request, 437));
    assert_eq!(bench.events.pop_front(), Some(TurnOutput::Lost(TurnError::Mismatch)));
    assert_eq!(bench.client.server(), at(SERVER));
}

#[test]
fn servers_that_send_us_round_in_circles_are_left() {
    let mut bench = Bench::new();
    for server in [OTHER, SERVER, OTHER, SERVER] {
        let request = bench.request(Method::Allocate);
        bench.answer(&elsewhere(&bench, &request, server));
    }
    let failed = bench.events.pop_front();
    let Some(TurnOutput::Failed { error, retry_at: Some(_) }) = failed else {
        panic!("{failed:?}")
    };
    assert!(error.to_string().ends_with(SERVER), "{error}");
    assert!(bench.sent.is_empty());
    for server in ["127.0.0.1:3478", "0.0.0.0:3478", "224.0.0.1:3478", "198.18.0.99:0", "[::2]:3"] {
        let mut bench = Bench::new();
        let request = bench.request(Method::Allocate);
        bench.answer(&elsewhere(&bench, &request, server));
        assert!(matches!(bench.events.pop_front(), Some(TurnOutput::Failed { .. })), "{server}");
    }
}

#[test]
fn a_connection_is_what_an_allocation_lives_on() {
    let mut bench = Bench::over(true);
    bench.wait(seconds(600));
    assert!(bench.sent.is_empty() && bench.events.is_empty(), "nothing without a connection");
    bench.client.connected(bench.now);
    bench.drain();
    bench.allocate();
    bench.client.bind(bench.now, at(PEER)).unwrap();
    bench.drain();
    let now = bench.now - bench.start;
    assert!(bench.serve(now).iter().any(|(_, method)| *method == Method::ChannelBind));
    bench.events.clear();
    bench.client.disconnected(bench.now);
    bench.drain();
    let lost = TurnOutput::Lost(TurnError::Disconnected);
    assert_eq!(bench.events, [TurnOutput::ChannelLost { peer: at(PEER) }, lost]);
    assert_eq!(bench.client.relayed(), []);
    bench.wait(now + seconds(600));
    assert!(bench.sent.is_empty());
    bench.events.clear();
    bench.client.connected(bench.now);
    bench.drain();
    bench.allocate();
    let now = bench.now - bench.start;
    assert!(bench.serve(now).iter().any(|(_, method)| *method == Method::ChannelBind));
}

#[test]
fn a_connection_that_goes_ends_what_was_asked_on_it() {
    let mut bench = Bench::over(true);
    bench.client.connected(bench.now);
    bench.drain();
    let request = bench.request(Method::Allocate);
    bench.answer(&elsewhere(&bench, &request, OTHER));
    assert_eq!(bench.events.pop_front(), Some(TurnOutput::Elsewhere(at(OTHER))));
    bench.client.disconnected(bench.now);
    bench.wait(seconds(60));
    assert!(bench.sent.is_empty() && bench.events.is_empty());
    bench.client.connected(bench.now);
    bench.drain();
    bench.allocate();
    bench.client.close(bench.now);
    bench.client.disconnected(bench.now);
    bench.drain();
    assert_eq!(bench.events.pop_front(), Some(TurnOutput::Closed));
}

#[test]
fn a_new_credential_serves_the_next_allocation() {
    let mut bench = Bench::allocated();
    let renewed = Credential::new("later", "q").unwrap();
    bench.client.set_credential(bench.now, renewed);
    bench.drain();
    // What stands is kept up under the old name.
    let asked = bench.serve(seconds(700));
    assert!(asked.iter().any(|(_, method)| *method == Method::Refresh));
    assert!(!bench.client.relayed().is_empty());
    // Until the server does not want it any more.
    bench.client.probe(bench.now);
    bench.drain();
    let request = bench.request(Method::Refresh);
    bench.answer(&bench.error(&request, 441));
    assert_eq!(bench.events.pop_front(), Some(TurnOutput::Lost(TurnError::WrongCredential)));
    let request = bench.request(Method::Allocate);
    bench.answer(&bench.challenge(&request, 401));
    let request = bench.request(Method::Allocate);
    assert_eq!(Message::parse(&request).unwrap().username(), Some("later"));
}

#[test]
fn a_refused_credential_is_replaced_by_a_new_one() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        let request = bench.request(Method::Allocate);
        bench.answer(&bench.challenge(&request, 401));
    }
    assert!(matches!(bench.events.pop_front(), Some(TurnOutput::Failed { retry_at: None, .. })));
    bench.client.set_credential(bench.now, Credential::new("later", "q").unwrap());
    bench.drain();
    let request = bench.request(Method::Allocate);
    bench.answer(&bench.challenge(&request, 401));
    let request = bench.request(Method::Allocate);
    assert_eq!(Message::parse(&request).unwrap().username(), Some("later"));
}
