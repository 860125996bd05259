//! Who is not known is not answered, and who proves to be somebody else gets no link.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ipop_lab::{Impairment, Internet, InternetConfig, Nat, Site};
use ipop_steer::{Command, Event, Fingerprint, IceCredentials, LinkState};
use ipop_stun::{Attribute, Builder, Key, Method, TransactionId};
use ipop_system_tests::{Datapath, eventually};

const SESSION: u64 = 7;
const TIE_BREAKER: u64 = 1;

fn credentials(ufrag: &str) -> IceCredentials {
    let pwd = format!("{ufrag}-password-of-enough-length");
    IceCredentials { ufrag: ufrag.to_owned(), pwd }
}

/// Two machines without NATs, a datapath on each.
fn two() -> (Internet, Vec<Site>, Datapath, Datapath) {
    let mut internet = Internet::build(InternetConfig::default()).unwrap();
    let sites = [0, 1].map(|_| internet.add_site(Nat::None, Impairment::default()).unwrap());
    let [a, b] = sites.each_ref().map(|site| Datapath::start(&site.node));
    (internet, sites.into(), a, b)
}

/// Tells `one` all about `other`, but expects `peer` behind those credentials.
fn open(one: &mut Datapath, other: &Datapath, peer: Fingerprint, is_first: bool) {
    let (local, remote) = if is_first { ("first", "second") } else { ("second", "first") };
    one.command(Command::OpenLink {
        peer,
        name: "peer".to_owned(),
        controlling: is_first,
        head_start_ms: if is_first { 0 } else { 1000 },
        session: SESSION,
        local: credentials(local),
        remote: Some(credentials(remote)),
    });
    for candidate in other.candidates.clone() {
        one.command(Command::AddRemoteCandidate { peer, session: SESSION, candidate });
    }
    one.command(Command::EndOfCandidates { peer, session: SESSION });
}

/// The states that a link went through, and the last reason.
fn states(datapath: &Datapath) -> (Vec<LinkState>, String) {
    let mut last = String::new();
    let states = datapath.heard.iter().filter_map(|event| match event {
        Event::LinkState { state, reason, .. } => {
            last.clone_from(reason);
            Some(*state)
        }
        _ => None,
    });
    (states.collect(), last)
}

fn has(datapath: &Datapath, state: LinkState) -> bool {
    states(datapath).0.contains(&state)
}

#[test]
fn the_right_fingerprint_is_linked() {
    let (_internet, _sites, mut a, mut b) = two();
    let (of_a, of_b) = (a.fingerprint, b.fingerprint);
    open(&mut a, &b, of_b, true);
    open(&mut b, &a, of_a, false);
    for datapath in [&mut a, &mut b] {
        datapath.wait_for("up", |datapath| has(datapath, LinkState::Up));
    }
}

#[test]
fn a_wrong_fingerprint_is_refused() {
    // Either end may be the one that was lied to.
    for liar_is_server in [true, false] {
        let (_internet, _sites, mut a, mut b) = two();
        let (of_a, of_b) = (a.fingerprint, b.fingerprint);
        let somebody_else = Fingerprint([7; 32]);
        let (expected_by_a, expected_by_b) =
            if liar_is_server { (somebody_else, of_a) } else { (of_b, somebody_else) };
        open(&mut a, &b, expected_by_a, true);
        open(&mut b, &a, expected_by_b, false);
        let deceived = if liar_is_server { &mut a } else { &mut b };
        deceived.wait_for("failed", |datapath| has(datapath, LinkState::Failed));
        let (_, reason) = states(deceived);
        assert!(reason.to_lowercase().contains("fingerprint"), "{reason}");
        std::thread::sleep(Duration::from_secs(2));
        for datapath in [&mut a, &mut b] {
            datapath.listen();
            assert!(!has(datapath, LinkState::Up), "{:#?}", datapath.heard);
        }
        // Neither does the one that told the truth believe in a link.
        b.wait_for("given up", |datapath| has(datapath, LinkState::Failed));
    }
}

/// A socket on a machine of its own.
fn stranger(internet: &mut Internet) -> (Site, UdpSocket) {
    let site = internet.add_site(Nat::None, Impairment::default()).unwrap();
    let address = SocketAddr::new(site.address.into(), 40_000);
    let socket = site.node.inside(move || UdpSocket::bind(address)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    (site, socket)
}

/// Whether anything comes back within a moment.
fn is_answered(socket: &UdpSocket) -> bool {
    socket.recv_from(&mut [0; 2048]).is_ok()
}

/// A connectivity check for the first datapath's session, as its peer would make it.
fn check(number: u8, username: &str, password: &str) -> Vec<u8> {
    Builder::request(Method::Binding, TransactionId([number; 12]))
        .with(Attribute::Username(username.to_owned()))
        .with(Attribute::Priority(1_000_000))
        .with(Attribute::IceControlled(TIE_BREAKER))
        .integrity(&Key::short_term(password).unwrap())
        .fingerprint()
        .build()
        .unwrap()
}

/// What somebody without the secrets may come up with.
fn attempts(of_a: &IceCredentials) -> Vec<(String, Vec<u8>)> {
    let binding = |number| Builder::request(Method::Binding, TransactionId([number; 12]));
    let name = format!("{}:second", of_a.ufrag);
    let mut attempts = vec![
        ("a plain binding request".to_owned(), binding(1).build().unwrap()),
        ("one with a fingerprint".to_owned(), binding(2).fingerprint().build().unwrap()),
        ("a check with a wrong password".to_owned(), check(3, &name, "guess")),
        ("a check for nobody".to_owned(), check(4, "nobody:second", &of_a.pwd)),
        ("a check without a peer".to_owned(), check(5, &of_a.ufrag, &of_a.pwd)),
    ];
    for first_byte in 0..=255 {
        for length in [1, 16, 48, 1200] {
            // Not random: the same bytes in each run, and a different look for each length.
            let noise = (0..length as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8);
            let mut datagram: Vec<u8> = noise.collect();
            datagram[0] = first_byte;
            attempts.push((format!("{length} bytes from {first_byte:#04x}"), datagram));
        }
    }
    attempts
}

#[test]
fn a_stranger_is_never_answered() {
    let (mut internet, _sites, mut a, mut b) = two();
    let (of_a, of_b) = (a.fingerprint, b.fingerprint);
    open(&mut a, &b, of_b, true);
    open(&mut b, &a, of_a, false);
    a.wait_for("up", |datapath| has(datapath, LinkState::Up));
    let target = a.candidates.iter().map(|c| c.address).find(SocketAddr::is_ipv4).unwrap();
    let (_site, socket) = stranger(&mut internet);
    let own = credentials("first");
    // The door is there: with the right password the same kind of request is answered.
    socket.send_to(&check(9, "first:second", &own.pwd), target).unwrap();
    assert!(is_answered(&socket), "a check with the right password is answered");
    let (_site, socket) = stranger(&mut internet);
    let (before, attempts) = (a.all_drops(), attempts(&own));
    let count = attempts.len() as u64;
    for (what, datagram) in attempts {
        socket.send_to(&datagram, target).unwrap();
        if datagram.len() > 64 && datagram[0].is_multiple_of(64) {
            assert!(!is_answered(&socket), "{what}");
        }
    }
    assert!(!is_answered(&socket), "some attempt is answered");
    eventually("each attempt is counted", Duration::from_secs(5), || {
        a.all_drops() - before >= count
    });
    a.listen();
    let states = states(&a).0;
    assert_eq!(states.last(), Some(&LinkState::Up), "the link is not disturbed: {states:?}");
}

/// Somebody on the way writes the peer's address on what is not the peer's.
#[test]
fn a_false_sender_does_not_disturb_the_link() {
    let (mut internet, sites, mut a, mut b) = two();
    let (of_a, of_b) = (a.fingerprint, b.fingerprint);
    open(&mut a, &b, of_b, true);
    open(&mut b, &a, of_a, false);
    for datapath in [&mut a, &mut b] {
        datapath.wait_for("up", |datapath| has(datapath, LinkState::Up));
    }
    let address = |datapath: &Datapath| {
        datapath.candidates.iter().map(|c| c.address).find(SocketAddr::is_ipv4).unwrap()
    };
    let (target, false_sender) = (address(&a), address(&b));
    let (site, _socket) = stranger(&mut internet);
    site.node.ip(&format!("address add {}/32 dev lo", sites[1].address)).unwrap();
    for machine in [internet.middle(), &sites[0].node] {
        machine.run("sysctl -qw net.ipv4.conf.all.rp_filter=0").unwrap();
    }
    let socket = site.node.inside(move || UdpSocket::bind(false_sender)).unwrap();
    let before = a.all_drops();
    let attempts = attempts(&credentials("first"));
    for (_, datagram) in &attempts {
        socket.send_to(datagram, target).unwrap();
        std::thread::sleep(Duration::from_micros(200));
    }
    eventually("each attempt is counted", Duration::from_secs(5), || {
        a.all_drops() - before >= attempts.len() as u64
    });
    // Longer than it takes to give up a path that has gone silent.
    std::thread::sleep(Duration::from_secs(8));
    for datapath in [&mut a, &mut b] {
        datapath.listen();
        let states = states(datapath).0;
        let after_up = states.iter().skip_while(|state| **state != LinkState::Up);
        assert!(after_up.into_iter().all(|state| *state == LinkState::Up), "{states:?}");
    }
}
