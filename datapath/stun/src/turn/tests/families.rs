//! Relayed addresses of both families, and servers that have less.

use super::*;
use crate::message::Family;

const RELAYED_V6: &str = "[2001:db8::20]:50001";
const PEER_V6: &str = "[2001:db8:7::7]:6000";

/// What a request for an allocation asks for.
fn asked(request: &[u8]) -> (Option<Family>, Option<Family>) {
    let message = Message::parse(request).unwrap();
    (message.requested_address_family(), message.additional_address_family())
}

fn granted(bench: &Bench, request: &[u8], relayed: &[&str]) -> Vec<u8> {
    let message = Message::parse(request).unwrap();
    let response = Builder::success(&message).with(Attribute::XorMappedAddress(bench.mapped));
    let with = |response: Builder, address: &&str| {
        response.with(Attribute::XorRelayedAddress(at(address)))
    };
    let response = relayed.iter().fold(response, with);
    response.with(Attribute::LifetimeSeconds(600)).integrity(&bench.key()).build().unwrap()
}

/// The first request that is signed.
fn signed(bench: &mut Bench) -> Vec<u8> {
    let request = bench.request(Method::Allocate);
    bench.answer(&bench.challenge(&request, 401));
    bench.request(Method::Allocate)
}

#[test]
fn one_request_asks_for_both_and_each_peer_has_its_own() {
    let mut bench = Bench::new();
    let request = signed(&mut bench);
    assert_eq!(asked(&request), (None, Some(Family::V6)));
    let of_drafts = [0x80, 0x32, 0, 4, 2, 0, 0, 0];
    assert!(request.windows(8).any(|part| part == of_drafts));
    bench.answer(&granted(&bench, &request, &[RELAYED, RELAYED_V6, "192.0.2.99:9"]));
    let relayed = vec![at(RELAYED), at(RELAYED_V6)];
    assert_eq!(bench.client.relayed(), relayed);
    let mapped = Some(bench.mapped);
    assert_eq!(bench.events.pop_front(), Some(TurnOutput::Allocated { relayed, mapped }));
    for (peer, local) in [(PEER, RELAYED), (PEER_V6, RELAYED_V6)] {
        assert_eq!(bench.client.relayed_to(at(peer)), Some(at(local)));
        bench.client.relay(bench.now, at(peer), b"x").unwrap();
        bench.drain();
        let permission = bench.request(Method::CreatePermission);
        assert_eq!(Message::parse(&permission).unwrap().xor_peer_address(), {
            Some(SocketAddr::new(at(peer).ip(), 0))
        });
        let sent = bench.request(Method::Send);
        assert_eq!(Message::parse(&sent).unwrap().xor_peer_address(), Some(at(peer)));
        let received = bench.take(&indication(peer, b"back"));
        assert!(matches!(received, Ok(Received::Data { peer: from, .. }) if from == at(peer)));
    }
}

#[test]
fn a_server_without_ipv6_gives_what_it_has() {
    let mut bench = Bench::allocated();
    let refused = bench.client.relay(bench.now, at(PEER_V6), b"x");
    assert_eq!(refused, Err(RelayError::WrongFamily));
    assert_eq!(bench.client.bind(bench.now, at(PEER_V6)), Err(RelayError::WrongFamily));
    bench.client.relay(bench.now, at(PEER), b"x").unwrap();
}

#[test]
fn an_address_that_is_none_is_not_taken_for_one() {
    let mut bench = Bench::new();
    let request = signed(&mut bench);
    bench.answer(&granted(&bench, &request, &[RELAYED_V6, "0.0.0.0:0"]));
    assert_eq!(bench.client.relayed(), [at(RELAYED_V6)]);
}

#[test]
fn who_refuses_both_families_is_asked_for_less() {
    let mut bench = Bench::new();
    let mut request = signed(&mut bench);
    for less in [(None, None), (Some(Family::V6), None)] {
        bench.answer(&bench.error(&request, 440));
        request = bench.request(Method::Allocate);
        assert_eq!(asked(&request), less);
    }
    bench.answer(&granted(&bench, &request, &[RELAYED_V6]));
    assert_eq!(bench.client.relayed(), [at(RELAYED_V6)]);
    // The next allocation begins with both: another server may stand there.
    bench.client.probe(bench.now);
    bench.drain();
    let refresh = bench.request(Method::Refresh);
    bench.answer(&bench.error(&refresh, 437));
    assert_eq!(asked(&bench.request(Method::Allocate)), (None, Some(Family::V6)));
}

#[test]
fn a_server_that_has_no_family_at_all_is_left() {
    let mut bench = Bench::new();
    let mut request = signed(&mut bench);
    for _ in 0..2 {
        bench.answer(&bench.error(&request, 440));
        request = bench.request(Method::Allocate);
    }
    bench.answer(&bench.error(&request, 440));
    let failed = TurnOutput::Failed { error: TurnError::NoFamily, retry_at: None };
    assert_eq!(bench.events.pop_front(), Some(failed));
}

#[test]
fn an_old_server_that_takes_offence_is_asked_as_of_old() {
    for code in [400, 420] {
        let mut bench = Bench::new();
        let mut request = signed(&mut bench);
        // A first 400 may be about the nonce.
        while asked(&request) == (None, Some(Family::V6)) {
            let signed = Message::parse(&request).unwrap().has_integrity();
            let answer = match signed {
                true => bench.error(&request, code),
                false => bench.challenge(&request, 401),
            };
            bench.answer(&answer);
            request = bench.request(Method::Allocate);
        }
        assert_eq!(asked(&request), (None, None));
        bench.answer(&bench.success(&request));
        assert_eq!(bench.client.relayed(), [at(RELAYED)]);
    }
}

#[test]
fn a_peer_of_a_family_that_is_not_relayed_is_told_of() {
    let mut bench = Bench::allocated();
    bench.client.relay(bench.now, at(PEER), b"x").unwrap();
    bench.drain();
    let request = bench.request(Method::CreatePermission);
    bench.answer(&bench.error(&request, 443));
    let refused = TurnOutput::Refused { peer: at(PEER).ip(), error: TurnError::PeerFamily };
    assert_eq!(bench.events.pop_front(), Some(refused));
    assert_eq!(bench.client.relay(bench.now, at(PEER), b"x"), Err(RelayError::Refused));
    assert_eq!(bench.client.relayed(), [at(RELAYED)], "the allocation stands");
}
