//! Servers that are none, and ways between that are bad.

#![allow(clippy::unwrap_used)]

mod common;

use common::dns::DnsServer;
use common::peer::{Peer, announcement};
use common::prosody::Prosody;
use common::{Server, network, slow};
use ipop_signal::FatalCause;
use ipop_xmpp::{Client, Config, Offer};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' \
                      from='a.test' id='1' xmlns:stream='http://etherx.jabber.org/streams'>";

/// Somebody who says always the same, whatever is asked.
fn parrot(text: &str) -> Config {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = Config::new("a@a.test", "secret", "r@conference.a.test");
    config.servers = vec![listener.local_addr().unwrap().to_string().parse().unwrap()];
    let text = text.to_owned();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(text.as_bytes());
            std::thread::spawn(move || while stream.read(&mut [0; 100]).is_ok_and(|n| n > 0) {});
        }
    });
    config
}

#[tokio::test]
async fn a_server_without_encryption_gets_nothing() {
    let features = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
                    <mechanism>PLAIN</mechanism></mechanisms></stream:features>";
    let mut config = parrot(&format!("{HEADER}{features}"));
    config.allow_plain = true;
    let (cause, text) = Peer::start(config, announcement("alpha", 1)).fatal().await;
    assert_eq!(cause, FatalCause::Certificate, "{text}");
}

#[tokio::test]
async fn data_slipped_in_before_encryption_are_refused() {
    let text = format!(
        "{HEADER}<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>\
         </stream:features><proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>{HEADER}"
    );
    let reason = Peer::start(parrot(&text), announcement("alpha", 1)).offline().await;
    assert!(reason.contains("before encryption"), "{reason}");
}

#[tokio::test]
async fn something_else_on_the_port_is_tried_again() {
    let mut peer = Peer::start(parrot("HTTP/1.1 400 Bad Request\r\n\r\n"), announcement("a", 1));
    peer.offline().await;
    let mut peer = Peer::start(parrot(&format!("{HEADER}{HEADER}")), announcement("a", 1));
    peer.offline().await;
}

#[tokio::test]
async fn nobody_on_the_port_is_said() {
    let mut config = Config::new("a@a.test", "secret", "r@conference.a.test");
    config.servers = vec!["127.0.0.1:1".parse().unwrap()];
    let reason = Peer::start(config, announcement("alpha", 1)).offline().await;
    assert!(reason.contains("127.0.0.1:1"), "{reason}");
}

/// Dropping either end is enough.
#[tokio::test]
async fn a_client_ends_with_its_controller() {
    let config = || Config::new("a@a.test", "secret", "r@conference.a.test");
    let (actions, mut happenings) = Client::start(config());
    drop(actions);
    assert_eq!(happenings.recv().await, None);
    let (actions, happenings) = Client::start(config());
    drop(happenings);
    let ended = async {
        while actions.send(ipop_signal::Action::Announce(announcement("a", 1))).is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap();
}

#[test]
fn the_server_is_found_by_dns() {
    network::private("the_server_is_found_by_dns", async {
        let server = Prosody::new();
        let dns = DnsServer::start(server.scratch());
        let mut config = server.config("alice");
        config.servers.clear();
        for (records, expected) in [
            // Direct TLS is preferred by its priority, the second target does not listen.
            ("xmpps 5 5223, xmpp 10 5222", true),
            ("xmpp 1 5299, xmpp 2 5222", true),
            ("", true),
            ("xmpp 0 none", false),
        ] {
            dns.serve(records);
            let mut peer = Peer::start(config.clone(), announcement("alpha", 1));
            if expected {
                peer.online().await;
            } else {
                let reason = peer.offline().await;
                assert!(reason.contains("no XMPP server"), "{reason}");
            }
            peer.stop().await;
        }
    });
}

/// A client is in its room after four round trips (TLS from the start) or five (STARTTLS), the one
/// for TCP not counted, whether it knows or guesses what the server offers; and after one more
/// where it guesses wrong.
#[test]
fn round_trips_are_few() {
    network::private("round_trips_are_few", async {
        let server = Prosody::new();
        let wrong = Offer { mechanisms: vec!["SCRAM-SHA-256".to_owned()], ..Offer::default() };
        let mut real = None;
        for (port, scheme, expected, turns) in [
            (5222, "", "nothing", 5),
            (5223, "tls://", "nothing", 4),
            (5223, "tls://", "the wrong", 5),
            (5223, "tls://", "the real", 4),
        ] {
            // So long that what one end says at once is one word.
            let slow = slow::proxy(port, Duration::from_millis(100)).await;
            let mut config = server.config("alice");
            config.servers = vec![format!("{scheme}127.0.0.1:{}", slow.port).parse().unwrap()];
            config.expected = match expected {
                "the real" => real.take(),
                "the wrong" => Some(wrong.clone()),
                _ => None,
            };
            let mut peer = Peer::start(config, announcement("alpha", 1));
            peer.online().await;
            assert_eq!(slow.turns(), turns, "{scheme}, {expected}");
            real = peer.offer();
            peer.stop().await;
        }
    });
}

/// A server that stops answering without closing anything.
#[test]
#[ignore = "takes a minute of waiting; the same in virtual time is a unit test"]
fn a_frozen_server_is_noticed_within_a_minute() {
    network::private("a_frozen_server_is_noticed_within_a_minute", async {
        let server = Prosody::new();
        let mut peer = Peer::start(server.config("alice"), announcement("alpha", 1));
        peer.online().await;
        server.freeze();
        let began = Instant::now();
        let offline =
            |h: &ipop_signal::Happening| matches!(h, ipop_signal::Happening::Offline { .. });
        assert!(peer.hears(Duration::from_secs(60), offline).await);
        println!("noticed after {:?}", began.elapsed());
        server.thaw();
        peer.online().await;
    });
}
