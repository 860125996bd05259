//! What every server has to bear.

use super::Server;
use super::peer::{Peer, announcement, candidate, credentials};
use ipop_signal::{
    Action, ByeReason, FatalCause, Fingerprint, Happening, Origin, PeerAddress, SessionId,
};
use ipop_xmpp::{Config, Offer, Trust};
use std::time::Duration;

/// Logs in by both ways of encrypting, and with a pinned certificate.
pub async fn logins(server: &impl Server) {
    let mut config = server.config("alice");
    log_in(config.clone()).await;
    config.servers = vec!["tls://127.0.0.1:5223".parse().unwrap()];
    log_in(config.clone()).await;
    config.trust = Trust::Certificate(server.scratch().leaf_sha256());
    log_in(config).await;
}

/// Logs in with an offer expected: the real one, others that the server makes no more, and one that
/// it never made.
pub async fn expectations(server: &impl Server) {
    let config = server.config("alice");
    let offer = log_in(config.clone()).await;
    assert!(!offer.mechanisms.is_empty());
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let expectations = [
        offer.clone(),
        Offer { mechanisms: of(&["SCRAM-SHA-1"]), binds_exporter: false, pipelines: false },
        Offer { mechanisms: of(&["SCRAM-SHA-256"]), ..offer.clone() },
        Offer {
            mechanisms: of(&["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]),
            binds_exporter: true,
            ..offer.clone()
        },
        Offer { mechanisms: of(&["SCRAM-SHA-512"]), ..offer.clone() },
        Offer { pipelines: true, ..offer.clone() },
    ];
    for expected in expectations {
        let config = Config { expected: Some(expected.clone()), ..config.clone() };
        assert_eq!(log_in(config).await, offer, "{expected:?}");
    }
}

/// What the server offered.
async fn log_in(config: Config) -> Offer {
    let mut peer = Peer::start(config, announcement("alpha", 1));
    let address = peer.online().await;
    assert!(address.0.ends_with("/alpha-01010101"), "{address}");
    let offer = peer.offer().unwrap();
    peer.stop().await;
    offer
}

/// What only a person can mend ends the client, and says what to do.
pub async fn refusals(server: &impl Server) {
    let config = || server.config("alice");
    let wrong_password = Config { password: "guess".to_owned(), ..config() };
    let (cause, text) = refused(wrong_password).await;
    assert_eq!(cause, FatalCause::Authentication, "{text}");
    assert!(text.contains("alice@"), "{text}");

    let (cause, text) = refused(Config { trust: Trust::System, ..config() }).await;
    assert_eq!(cause, FatalCause::Certificate, "{text}");
    let (cause, text) = refused(Config { trust: Trust::Certificate([0; 32]), ..config() }).await;
    assert_eq!(cause, FatalCause::Certificate, "{text}");
    assert!(text.contains("SHA-256"), "{text}");

    let elsewhere = Config { account: "alice@elsewhere.test".to_owned(), ..config() };
    let (cause, text) = refused(elsewhere).await;
    assert_eq!(cause, FatalCause::HostUnknown, "{text}");

    let nonsense = Config { room: "no room at all".to_owned(), ..config() };
    let (cause, text) = refused(nonsense).await;
    assert_eq!(cause, FatalCause::Configuration, "{text}");
}

async fn refused(config: Config) -> (FatalCause, String) {
    Peer::start(config, announcement("alpha", 1)).fatal().await
}

/// Two members see each other, and say all there is to say about a link.
pub async fn exchange(server: &impl Server) {
    let mut a = Peer::start(server.config("alice"), announcement("alpha", 1));
    let mut b = Peer::start(server.config("bob"), announcement("beta", 2));
    let (at_a, at_b) = (a.online().await, b.online().await);
    assert_eq!(a.sees(&b.announcement).await, at_b);
    assert_eq!(b.sees(&a.announcement).await, at_a);
    talk(&mut a, &at_a, &mut b, &at_b, "session-1").await;
    talk(&mut b, &at_b, &mut a, &at_a, "session-2").await;
    change(&mut a, &mut b).await;
    let to = PeerAddress(format!("{at_b}-nobody"));
    let session = SessionId::new("lost").unwrap();
    a.say(Action::Bye { to: to.clone(), session: session.clone(), reason: ByeReason::Gone });
    let failed = |h: &Happening| match h {
        Happening::DeliveryFailed { to: failed, session: about, .. } => {
            (*failed == to && *about == session).then_some(())
        }
        _ => None,
    };
    a.expect("a failed delivery", failed).await;
    b.stop().await;
    let left =
        |h: &Happening| matches!(h, Happening::MemberLeft(left) if *left == at_b).then_some(());
    a.expect("beta's leaving", left).await;
    a.stop().await;
}

async fn talk(a: &mut Peer, at_a: &PeerAddress, b: &mut Peer, at_b: &PeerAddress, id: &str) {
    let session = || SessionId::new(id).unwrap();
    a.say(Action::Offer {
        to: at_b.clone(),
        session: session(),
        credentials: credentials("offr"),
        fingerprint: a.announcement.fingerprint,
        candidates: (1..=20).map(candidate).collect(),
    });
    let offered = Happening::Offered {
        from: at_a.clone(),
        session: session(),
        credentials: credentials("offr"),
        fingerprint: a.announcement.fingerprint,
        candidates: (1..=20).map(candidate).collect(),
    };
    b.expect("an offer", |h| (*h == offered).then_some(())).await;
    b.say(Action::Answer {
        to: at_a.clone(),
        session: session(),
        credentials: credentials("answ"),
        fingerprint: b.announcement.fingerprint,
        candidates: vec![candidate(30)],
    });
    let answered = Happening::Answered {
        from: at_b.clone(),
        session: session(),
        credentials: credentials("answ"),
        fingerprint: b.announcement.fingerprint,
        candidates: vec![candidate(30)],
    };
    a.expect("an answer", |h| (*h == answered).then_some(())).await;
    for (port, end) in [(40, false), (41, true)] {
        let candidates = vec![candidate(port)];
        a.say(Action::Candidates {
            to: at_b.clone(),
            session: session(),
            candidates: candidates.clone(),
            end,
        });
        let trickled =
            Happening::Candidates { from: at_a.clone(), session: session(), candidates, end };
        b.expect("candidates", |h| (*h == trickled).then_some(())).await;
    }
    b.say(Action::Bye { to: at_a.clone(), session: session(), reason: ByeReason::Timeout });
    let bye = Happening::ByeReceived {
        from: at_b.clone(),
        session: session(),
        reason: ByeReason::Timeout,
    };
    a.expect("a bye", |h| (*h == bye).then_some(())).await;
}

/// A member takes another overlay address.
async fn change(a: &mut Peer, b: &mut Peer) {
    let mut other = a.announcement.clone();
    other.addresses[0].attempt = 1;
    other.addresses[0].origin = Origin::Fixed;
    a.say(Action::Announce(other.clone()));
    let changed = |h: &Happening| match h {
        Happening::MemberChanged(member) => (member.addresses == other.addresses).then_some(()),
        _ => None,
    };
    b.expect("a change", changed).await;
}

/// Rooms: a password, a nick that is taken, a node that runs twice.
pub async fn rooms(server: &impl Server) {
    let locked = |user: &str, password: Option<&str>| Config {
        room: format!("locked@conference.{}", server.domain()),
        room_password: password.map(str::to_owned),
        ..server.config(user)
    };
    let mut a = Peer::start(locked("alice", Some("sesame")), announcement("alpha", 1));
    a.online().await;
    for password in [None, Some("wrong")] {
        let (cause, text) =
            Peer::start(locked("bob", password), announcement("beta", 2)).fatal().await;
        assert_eq!(cause, FatalCause::Room, "{text}");
        assert!(text.contains("password"), "{text}");
    }
    let mut namesake = announcement("alpha", 3);
    namesake.fingerprint = Fingerprint(std::array::from_fn(|i| if i < 4 { 1 } else { 3 }));
    let mut b = Peer::start(locked("bob", Some("sesame")), namesake);
    let address = b.online().await;
    assert!(address.0.ends_with("/alpha-01010101-2"), "{address}");
    b.sees(&a.announcement).await;
    a.sees(&b.announcement).await;

    let mut twin = Peer::start(locked("alice", Some("sesame")), announcement("alpha", 1));
    let (cause, text) = a.fatal().await;
    assert_eq!(cause, FatalCause::Conflict, "{text}");
    twin.online().await;
    twin.sees(&b.announcement).await;
    twin.stop().await;
    b.stop().await;
}

/// The server goes and comes back: nobody is reported as left but who really is.
pub async fn restart(server: &mut impl Server) {
    let mut a = Peer::start(server.config("alice"), announcement("alpha", 1));
    let mut b = Peer::start(server.config("bob"), announcement("beta", 2));
    let (at_a, at_b) = (a.online().await, b.online().await);
    a.sees(&b.announcement).await;
    b.sees(&a.announcement).await;
    server.stop();
    a.offline().await;
    b.offline().await;
    let session = SessionId::new("away").unwrap();
    a.say(Action::Bye { to: at_b.clone(), session, reason: ByeReason::Gone });
    let failed = |h: &Happening| matches!(h, Happening::DeliveryFailed { .. }).then_some(());
    a.expect("a failed delivery", failed).await;
    server.start();
    assert_eq!(a.online().await, at_a);
    assert_eq!(b.online().await, at_b);
    talk_when_back(&mut a, &at_a, &mut b, &at_b).await;
    let moved =
        |h: &Happening| matches!(h, Happening::MemberLeft(_) | Happening::MemberAppeared(_));
    assert!(!a.hears(Duration::from_secs(3), moved).await, "alpha saw somebody come or go");
    assert!(!b.hears(Duration::from_millis(10), moved).await, "beta saw somebody come or go");
    a.stop().await;
    b.stop().await;
}

/// The one may be back in the room before the other: then a delivery fails, and is said again.
async fn talk_when_back(a: &mut Peer, at_a: &PeerAddress, b: &mut Peer, at_b: &PeerAddress) {
    tokio::time::sleep(Duration::from_millis(200)).await;
    talk(a, at_a, b, at_b, "session-after").await;
}

/// A crowd enters at once, though the first of them has yet to make the room.
pub async fn crowd(server: &impl Server) {
    let room = format!("crowd@conference.{}", server.domain());
    let start = |number: u8| {
        let user = super::USERS[usize::from(number) % super::USERS.len()];
        let config = Config { room: room.clone(), ..server.config(user) };
        Peer::start(config, announcement(&format!("node{number}"), number + 1))
    };
    let mut peers: Vec<Peer> = (0..12).map(start).collect();
    for peer in &mut peers {
        peer.online().await;
    }
    let announcements: Vec<_> = peers.iter().map(|peer| peer.announcement.clone()).collect();
    for peer in &mut peers {
        for other in &announcements {
            if other != &peer.announcement {
                peer.sees(other).await;
            }
        }
    }
    for peer in peers {
        peer.stop().await;
    }
}
