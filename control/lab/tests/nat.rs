//! The routers do what their names say: checked with real sockets behind real nftables rules.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use ipop_lab::{Impairment, Internet, InternetConfig, Namespace, Nat, Site};

fn socket(namespace: &Namespace, address: &str) -> UdpSocket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = namespace.inside(move || UdpSocket::bind(address)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

/// Sends from `from` to `to` and returns the source address that `to` saw.
fn seen(from: &UdpSocket, to: &UdpSocket) -> Option<SocketAddr> {
    from.send_to(b"?", to.local_addr().unwrap()).unwrap();
    to.recv_from(&mut [0; 16]).ok().map(|(_, source)| source)
}

fn lab(nat: Nat) -> (Internet, Site) {
    let mut internet = Internet::build(InternetConfig::default()).unwrap();
    let site = internet.add_site(nat, Impairment::default()).unwrap();
    (internet, site)
}

#[test]
fn mappings_and_filters_are_those_of_the_kind() {
    // kind, same mapping for two destinations, lets a stranger in
    let kinds = [
        (Nat::None, true, true),
        (Nat::Firewall, true, false),
        (Nat::FullCone, true, true),
        (Nat::PortRestricted, true, false),
        (Nat::AddressRestricted, true, true),
        (Nat::Rejecting, true, false),
        (Nat::Hairpin, true, false),
        (Nat::AddressDependent, true, false),
        (Nat::Sequential, false, false),
        (Nat::Symmetric, false, false),
        (Nat::Double, true, false),
        (Nat::Carrier, false, false),
    ];
    for (nat, same, open) in kinds {
        let (internet, site) = lab(nat);
        let inside = socket(&site.node, "0.0.0.0:40000");
        let servers =
            [4001, 4002].map(|port| socket(internet.hub(), &format!("198.18.0.10:{port}")));
        let mapped = seen(&inside, &servers[0]).expect("the way out works");
        assert_eq!(mapped.ip(), site.public, "{nat}");
        assert_eq!(seen(&inside, &servers[1]) == Some(mapped), same, "{nat}: mapping");
        servers[0].send_to(b"!", mapped).unwrap();
        assert!(inside.recv_from(&mut [0; 16]).is_ok(), "{nat}: an answer comes back");
        let stranger = socket(internet.hub(), "198.18.0.10:4003");
        stranger.send_to(b"!", mapped).unwrap();
        assert_eq!(inside.recv_from(&mut [0; 16]).is_ok(), open, "{nat}: filtering");
    }
}

/// Of the hub's further addresses; what an address-restricted NAT does not let in.
#[test]
fn addresses_are_told_apart() {
    for (nat, same, open) in [
        (Nat::FullCone, true, true),
        (Nat::AddressRestricted, true, false),
        (Nat::AddressDependent, false, false),
    ] {
        let (internet, site) = lab(nat);
        let inside = socket(&site.node, "0.0.0.0:40000");
        internet.add_hub_address(11).unwrap();
        internet.add_hub_address(12).unwrap();
        let servers =
            ["10", "11"].map(|last| socket(internet.hub(), &format!("198.18.0.{last}:4001")));
        let mapped = seen(&inside, &servers[0]).expect("the way out works");
        assert_eq!(seen(&inside, &servers[1]) == Some(mapped), same, "{nat}: mapping");
        let stranger = socket(internet.hub(), "198.18.0.12:4001");
        stranger.send_to(b"!", mapped).unwrap();
        assert_eq!(inside.recv_from(&mut [0; 16]).is_ok(), open, "{nat}: filtering");
    }
}

#[test]
fn sequential_ports_are_counted_up() {
    let (internet, site) = lab(Nat::Sequential);
    let inside = socket(&site.node, "0.0.0.0:40000");
    let ports: Vec<u16> = (0..5)
        .map(|number| socket(internet.hub(), &format!("198.18.0.10:{}", 4001 + number)))
        .map(|server| seen(&inside, &server).expect("the way out works").port())
        .collect();
    assert!(ports.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ports:?}");
}

#[test]
fn neighbours_meet_by_a_router_that_reflects_and_by_no_other() {
    for (nat, reflects) in
        [(Nat::Hairpin, true), (Nat::PortRestricted, false), (Nat::Symmetric, false)]
    {
        let (internet, site) = lab(nat);
        let neighbour = internet.add_neighbour(&site).unwrap();
        let a = socket(&site.node, "0.0.0.0:40000");
        let b = socket(&neighbour.node, "0.0.0.0:40001");
        let server = socket(internet.hub(), "198.18.0.10:4001");
        let [at_a, at_b] = [&a, &b].map(|inside| seen(inside, &server).expect("the way out"));
        a.send_to(b"?", at_b).unwrap();
        b.send_to(b"?", at_a).unwrap();
        a.send_to(b"?", at_b).unwrap();
        let source = b.recv_from(&mut [0; 16]).ok().map(|(_, source)| source);
        assert_eq!(source, reflects.then_some(at_a), "{nat}");
        assert_eq!(a.recv_from(&mut [0; 16]).is_ok(), reflects, "{nat}");
        let inner = SocketAddr::new(neighbour.address.into(), 40001);
        a.send_to(b"?", inner).unwrap();
        assert!(b.recv_from(&mut [0; 16]).ok().is_none_or(|(_, from)| from == at_a), "{nat}");
    }
}

#[test]
fn a_site_without_udp_has_tcp() {
    let (internet, site) = lab(Nat::UdpBlocked);
    let inside = socket(&site.node, "0.0.0.0:40000");
    let server = socket(internet.hub(), "198.18.0.10:4001");
    assert_eq!(seen(&inside, &server), None);
    let listener = internet.hub().inside(|| std::net::TcpListener::bind("198.18.0.10:80")).unwrap();
    let stream = site.node.inside(|| std::net::TcpStream::connect("198.18.0.10:80"));
    assert!(stream.is_ok(), "{stream:?}");
    drop(listener);
}

#[test]
fn a_wire_delays_loses_and_corrupts_as_told() {
    let mut internet = Internet::build(InternetConfig::default()).unwrap();
    let delay = Duration::from_millis(15);
    let site = internet.add_site(Nat::None, Impairment { delay, ..Impairment::default() }).unwrap();
    let inside = socket(&site.node, "0.0.0.0:40000");
    let server = socket(internet.hub(), "198.18.0.10:4001");
    seen(&inside, &server).expect("first frame, after address resolution");
    let start = std::time::Instant::now();
    seen(&inside, &server).expect("second frame");
    assert!(start.elapsed() >= delay);
    let wire = site.wire.as_ref().unwrap();
    wire.impair(Impairment { delay, corrupt: 1.0, ..Impairment::default() });
    seen(&inside, &server).expect("a corrupted datagram still arrives");
    assert!(wire.faults().corrupted.load(std::sync::atomic::Ordering::Relaxed) >= 1);
    wire.impair(Impairment { delay, loss: 1.0, ..Impairment::default() });
    assert_eq!(seen(&inside, &server), None);
}

#[test]
fn nothing_is_left_behind() {
    let (internet, site) = lab(Nat::Symmetric);
    let mut names = vec![internet.hub().name().to_owned(), internet.middle().name().to_owned()];
    names.extend([&site.node, site.router().unwrap()].map(|one| one.name().to_owned()));
    drop((internet, site));
    let left = ipop_lab::run("ip netns list").unwrap();
    assert!(names.iter().all(|name| !left.contains(name)), "{left}");
}
