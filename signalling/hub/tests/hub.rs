//! Tickets, accounts, limits and failures of the hub.

#![allow(clippy::unwrap_used)]

mod common;

use common::peer::{Peer, announcement, candidate, credentials};
use common::{DOMAIN, HubServer, network};
use ipop_hub::{Hub, HubConfig, HubError, Ticket};
use ipop_signal::{Action, FatalCause, Happening, SessionId};
use ipop_xmpp::Config;
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;

const UID_A: &str = "00112233445566778899aabbccddeeff00112233";
const UID_B: &str = "ffeeddccbbaa99887766554433221100ffeeddcc";

#[test]
fn ticket_holders_meet() {
    network::private("ticket_holders_meet", async {
        let server = HubServer::new();
        let written = std::fs::read_to_string(server.state().join("ticket")).unwrap();
        assert_eq!(written.parse::<Ticket>().as_ref(), Ok(server.ticket()));
        let mode = std::fs::metadata(server.state().join("ticket")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(server.ticket().room_address(), format!("ipop@conference.{DOMAIN}"));

        let mut a = Peer::start(server.node_config(UID_A), announcement("alpha", 1));
        let mut b = Peer::start(server.node_config(UID_B), announcement("beta", 2));
        let (at_a, at_b) = (a.online().await, b.online().await);
        a.sees(&b.announcement).await;
        b.sees(&a.announcement).await;
        let session = SessionId::new("s").unwrap();
        let offer = |to| Action::Offer {
            to,
            session: session.clone(),
            credentials: credentials("offr"),
            fingerprint: a.announcement.fingerprint,
            candidates: vec![candidate(1)],
        };
        a.say(offer(at_b));
        let offered = |h: &Happening| match h {
            Happening::Offered { from, .. } => Some(from.clone()),
            _ => None,
        };
        assert_eq!(b.expect("an offer", offered).await, at_a);
        a.stop().await;
        b.stop().await;
    });
}

#[test]
fn a_wrong_secret_is_fatal() {
    network::private("a_wrong_secret_is_fatal", async {
        let server = HubServer::new();
        let mut ticket = server.ticket().clone();
        ticket.secret[0] ^= 1;
        let (account, password) = ipop_hub::account_for(&ticket, UID_A);
        let config = Config { account, password, ..server.node_config(UID_A) };
        let (cause, text) = Peer::start(config, announcement("alpha", 1)).fatal().await;
        assert_eq!(cause, FatalCause::Authentication, "{text}");
    });
}

#[test]
fn failures_name_the_way_out() {
    network::private("failures_name_the_way_out", async {
        let server = HubServer::new();
        let elsewhere = server.state().join("other");
        let config = HubConfig { state: elsewhere.clone(), ..server.hub_config() };
        let text = refusal(config.clone()).await;
        assert!(text.contains("0.0.0.0:5223") && text.contains("--listen"), "{text}");
        let config = HubConfig { listen: ([0, 0, 0, 0], 0).into(), ..config };
        let text = refusal(config.clone()).await;
        assert!(text.contains("0.0.0.0:3478") && text.contains("--stun-port"), "{text}");
        let free = HubConfig { stun_port: 0, ..config };
        let nowhere = HubConfig { ticket_file: Some("/nowhere/ticket".into()), ..free.clone() };
        let text = refusal(nowhere).await;
        assert!(text.contains("--ticket-file"), "{text}");
        let other = HubConfig { domain: "other.test".into(), ..free.clone() };
        assert!(refusal(other).await.contains("--domain hub.test"));
        let long = "a".repeat(254);
        for (domain, room) in
            [("a@b", "ipop"), ("", "ipop"), (DOMAIN, ""), (DOMAIN, "a@b"), (DOMAIN, &long)]
        {
            let (domain, room) = (domain.to_owned(), room.to_owned());
            refusal(HubConfig { domain, room, ..free.clone() }).await;
        }
        let odd = HubConfig { advertise: vec!["a b".into()], ..free.clone() };
        assert!(refusal(odd).await.contains("advertise"));
        let text = Hub::add_account(&elsewhere.join("new"), "alice").unwrap_err().to_string();
        assert!(text.contains("start it once"), "{text}");

        let advertise = vec!["hub.example".into(), "[2001:db8::1]:443".into()];
        let hub = Hub::bind(HubConfig { advertise, ..free }).await.unwrap();
        let port = hub.address().port();
        let addresses: Vec<_> = hub.ticket().addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, [format!("hub.example:{port}"), "[2001:db8::1]:443".into()]);
    });
}

async fn refusal(config: HubConfig) -> String {
    let error: HubError = Hub::bind(config).await.err().expect("cannot work");
    error.to_string()
}

/// What the hub says to somebody who speaks no TLS.
fn answer_to(text: &str) -> String {
    answer_on(TcpStream::connect("127.0.0.1:5223").unwrap(), text)
}

fn answer_on(mut tcp: TcpStream, text: &str) -> String {
    tcp.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = tcp.read_to_string(&mut answer);
    answer
}

fn opening(to: &str) -> String {
    format!(
        "<stream:stream to='{to}' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'>"
    )
}

/// A connection from another address of this machine.
fn connection_from(ip: [u8; 4]) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], 5223)).into()).unwrap();
    socket.into()
}

#[test]
fn one_address_cannot_hold_the_door_shut() {
    network::private("one_address_cannot_hold_the_door_shut", async {
        let _server = HubServer::new();
        let connect = || TcpStream::connect("127.0.0.1:5223").unwrap();
        let idle: Vec<_> = (0..512).map(|_| connect()).collect();
        let answer = answer_to(&opening(DOMAIN));
        assert!(answer.contains("resource-constraint"), "{answer}");
        assert!(answer.ends_with("</stream:stream>"), "{answer}");
        let ended = opening(DOMAIN) + "</stream:stream>";
        let answer = answer_on(connection_from([127, 0, 0, 2]), &ended);
        assert!(answer.contains("<starttls"), "{answer}");
        drop(idle);
        // The hub has to see them go first.
        let is_open = |_: &u32| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            answer_to(&ended).contains("<starttls")
        };
        assert!((0..100).any(|attempt| is_open(&attempt)));
    });
}

#[test]
fn streams_that_break_the_rules_end_with_an_error() {
    network::private("streams_that_break_the_rules_end_with_an_error", async {
        let _server = HubServer::new();
        let open = opening;
        for (said, condition) in [
            ("GET / HTTP/1.1\r\n\r\n".to_owned(), "not-well-formed"),
            ("<html/>".to_owned(), "invalid-namespace"),
            (open("elsewhere.test"), "host-unknown"),
            (open(DOMAIN).replace("version='1.0'", ""), "unsupported-version"),
            (open(DOMAIN) + "<iq/>", "policy-violation"),
            (
                open(DOMAIN) + "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
                "encryption-required",
            ),
            (open(DOMAIN) + &"<a>".repeat(100), "policy-violation"),
            (open(DOMAIN) + "<a>" + &"x".repeat(70_000), "policy-violation"),
        ] {
            let answer = answer_to(&said);
            assert!(answer.contains(condition), "{said:.100}: {answer}");
            assert!(answer.ends_with("</stream:stream>"), "{answer}");
        }
        let early = open(DOMAIN) + "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><iq/>";
        assert!(answer_to(&early).ends_with("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"));
    });
}
