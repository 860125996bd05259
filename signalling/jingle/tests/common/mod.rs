//! Values of the vocabulary for property tests.
#![allow(dead_code, reason = "each test binary uses its share")]

use ipop_jingle::node::Node;
use ipop_jingle::session::{Body, Message, Proposal};
use ipop_signal::{
    Announcement, ByeReason, Candidate, CandidateKind, Fingerprint, Host, HostPort, IceCredentials,
    IceServers, Invitation, Origin, OverlayAddress, SessionId, Transport, TurnServer,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::{IpAddr, SocketAddr};

pub fn address() -> impl Strategy<Value = SocketAddr> {
    let usable = |a: &SocketAddr| !a.ip().is_unspecified();
    (any::<IpAddr>(), 1..=u16::MAX)
        .prop_map(|(ip, port)| SocketAddr::new(ip, port))
        .prop_filter("a candidate is somewhere", usable)
}

pub fn kind() -> impl Strategy<Value = CandidateKind> {
    prop_oneof![
        Just(CandidateKind::Host),
        Just(CandidateKind::ServerReflexive),
        Just(CandidateKind::PeerReflexive),
        Just(CandidateKind::Relayed),
    ]
}

prop_compose! {
    pub fn candidate()(
        component in 1..=256u16,
        kind in kind(),
        address in address(),
        related in option::of(address()),
        priority in any::<u32>(),
        foundation in "[a-zA-Z0-9+/]{1,32}",
    ) -> Candidate {
        Candidate { component, kind, address, related, priority, foundation }
    }
}

prop_compose! {
    pub fn credentials()(
        ufrag in "[a-zA-Z0-9+/]{4,32}",
        pwd in "[a-zA-Z0-9+/]{22,64}",
    ) -> IceCredentials {
        IceCredentials::new(&ufrag, &pwd).unwrap()
    }
}

prop_compose! {
    pub fn proposal()(
        credentials in credentials(),
        fingerprint in any::<[u8; 32]>().prop_map(Fingerprint),
        candidates in vec(candidate(), 0..8),
        end in any::<bool>(),
    ) -> Proposal {
        Proposal { credentials, fingerprint, candidates, end }
    }
}

pub fn reason() -> impl Strategy<Value = ByeReason> {
    prop_oneof![
        Just(ByeReason::Success),
        Just(ByeReason::Decline),
        Just(ByeReason::AlternativeSession),
        Just(ByeReason::Gone),
        Just(ByeReason::ConnectivityError),
        Just(ByeReason::SecurityError),
        Just(ByeReason::Timeout),
        Just(ByeReason::UnknownSession),
        Just(ByeReason::GeneralError),
    ]
}

pub fn body() -> impl Strategy<Value = Body> {
    let info = (option::of(credentials()), vec(candidate(), 0..8), any::<bool>())
        .prop_map(|(credentials, candidates, end)| Body::Info { credentials, candidates, end });
    prop_oneof![
        proposal().prop_map(Body::Initiate),
        proposal().prop_map(Body::Accept),
        info,
        reason().prop_map(Body::Terminate),
        Just(Body::Ping),
    ]
}

pub fn message() -> impl Strategy<Value = Message> {
    ("[!-~]{1,64}", body())
        .prop_map(|(sid, body)| Message { session: SessionId::new(&sid).unwrap(), body })
}

prop_compose! {
    pub fn overlay_address()(
        address in any::<IpAddr>(),
        share in 0..=100u32,
        origin in prop_oneof![Just(Origin::Fixed), Just(Origin::Derived)],
        attempt in any::<u32>(),
    ) -> OverlayAddress {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        OverlayAddress { address, prefix: (bits * share / 100) as u8, origin, attempt }
    }
}

prop_compose! {
    pub fn invitation()(
        credentials in credentials(),
        candidates in vec(candidate(), 0..8),
    ) -> Invitation {
        Invitation { credentials, candidates }
    }
}

prop_compose! {
    pub fn node()(
        fingerprint in any::<[u8; 32]>().prop_map(Fingerprint),
        name in "[^ \\s\\p{Cc}\u{fffe}\u{ffff}]{1,16}",
        addresses in vec(overlay_address(), 0..16),
        invitation in option::of(invitation()),
        instance in "[0-9a-f]{0,16}",
    ) -> Node {
        Node { announcement: Announcement { fingerprint, name, addresses, invitation }, instance }
    }
}

pub fn host() -> impl Strategy<Value = Host> {
    prop_oneof![
        any::<IpAddr>().prop_map(Host::Address),
        "[a-z][a-z0-9-]{0,20}(\\.[a-z]{2,8}){0,3}".prop_map(|name| Host::of(&name)),
    ]
}

prop_compose! {
    pub fn host_port()(host in host(), port in 1..=u16::MAX) -> HostPort {
        HostPort { host, port }
    }
}

prop_compose! {
    pub fn turn_server()(
        at in host_port(),
        transport in prop_oneof![
            Just(Transport::Udp), Just(Transport::Tcp), Just(Transport::Tls), Just(Transport::Dtls)
        ],
        username in "[ -~]{1,40}",
        password in "[ -~]{1,40}",
        expires_unix_s in option::of(0..253_402_300_800u64),
    ) -> TurnServer {
        TurnServer { at, transport, username, password, expires_unix_s }
    }
}

prop_compose! {
    pub fn ice_servers()(
        stun in vec(host_port(), 0..8),
        turn in vec(turn_server(), 0..8),
    ) -> IceServers {
        IceServers { stun, turn }
    }
}
