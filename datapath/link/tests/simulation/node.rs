//! A node by itself and in company: commands, servers, strangers, many links.

use std::time::Duration;

use crate::support::nat::Kind;
use crate::support::{Faults, SERVER, World, credentials, turn_server};
use ipop_crypto::Fingerprint;
use ipop_link::{
    CandidateKind, CommandError, ControlInput, Datagram, Event, LinkState, OpenLink, Refused,
    TurnServer,
};
use ipop_stun::{Attribute, Builder, Key, Method, TransactionId};
use ipop_wire::LinkIndex;
use proptest::prelude::*;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn server() -> std::net::SocketAddr {
    SERVER.parse().expect("an address")
}

/// Two machines whose link is up.
fn up() -> World {
    let mut world = World::new(&[Kind::Public, Kind::Public], Faults::default(), 1);
    world.open(0, 1, 1);
    world.run_until(seconds(5), |world| world.is_up(0, 1)).expect("up");
    world
}

#[test]
fn gathering_finds_every_kind_and_says_when_it_is_done() {
    let mut world = World::new(&[Kind::PortRestricted], Faults::default(), 1).with_servers();
    world.run(seconds(1));
    let machine = &world.machines[0];
    let kinds: Vec<_> = machine.node.local_candidates().iter().map(|c| c.kind).collect();
    let all = [CandidateKind::Host, CandidateKind::ServerReflexive, CandidateKind::Relayed];
    assert_eq!(kinds, all);
    assert!(machine.node.is_gathering_done());
    let done = machine.events.iter().filter(|(_, event)| *event == Event::GatheringDone);
    let done: Vec<_> = done.map(|(at, _)| *at - world.start).collect();
    assert_eq!(done.len(), 2, "without servers at first, then with them");
    assert!(done[1] < Duration::from_millis(200), "{done:?}");
    let told = machine.events.iter().filter(|(_, e)| matches!(e, Event::LocalCandidate(_)));
    assert_eq!(told.count(), 3);
}

#[test]
fn a_machine_without_nat_has_no_reflexive_address() {
    let mut world = World::new(&[Kind::Public], Faults::default(), 1).with_servers();
    world.run(seconds(1));
    let candidates = world.machines[0].node.local_candidates();
    // What a server sees is the host address itself.
    let reflexive = candidates.iter().filter(|c| c.kind == CandidateKind::ServerReflexive);
    assert_eq!(reflexive.count(), 0);
}

#[test]
fn silent_servers_delay_nobody_and_are_named() {
    let mut world = World::new(&[Kind::Public, Kind::Public], Faults::default(), 1);
    let nowhere = "192.0.2.1:3478".parse().expect("an address");
    let turn = turn_server(nowhere, "p");
    let now = world.now;
    world.machines[0].node.set_servers(now, &[nowhere], &[turn]);
    world.open(0, 1, 1);
    world.run_until(seconds(1), |world| world.is_up(0, 1)).expect("up without them");
    world.run(seconds(90));
    let events = &world.machines[0].events;
    let failed: Vec<_> = events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::ServerFailed { address, text } => Some((*address, text.as_str())),
            _ => None,
        })
        .collect();
    let stun = (nowhere, "no answer to STUN: unreachable, or UDP is blocked");
    let turn = (nowhere, "no answer to TURN: unreachable, or UDP is blocked");
    assert!(failed.contains(&stun) && failed.contains(&turn), "{failed:?}");
    assert_eq!(failed.len(), 2, "once each");
    let done = events.iter().rfind(|(_, event)| *event == Event::GatheringDone);
    assert!(done.expect("done").0 - world.start <= seconds(5));
}

#[test]
fn a_wrong_password_at_the_relay_is_named() {
    let mut world = World::new(&[Kind::PortRestricted], Faults::default(), 1);
    let turn = turn_server(server(), "wrong");
    let other = "198.18.0.21:3478".parse().expect("an address");
    let unusable = TurnServer { username: String::new(), address: other, ..turn.clone() };
    let now = world.now;
    world.machines[0].node.set_servers(now, &[], &[turn, unusable]);
    world.run(seconds(5));
    let texts: Vec<_> = world.machines[0]
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::ServerFailed { text, .. } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].starts_with("TURN: the user name or password cannot be used"), "{texts:?}");
    assert_eq!(texts[1], "TURN: user name or password is wrong");
    assert!(world.machines[0].node.is_gathering_done());
}

#[test]
fn servers_that_come_later_help_links_that_exist() {
    let kinds = [Kind::Symmetric, Kind::Symmetric];
    let mut world = World::new(&kinds, Faults::default(), 1);
    world.open(0, 1, 1);
    world.run(seconds(3));
    assert_eq!(world.machines[0].state(world.fingerprint(1)), Some(LinkState::Checking));
    let mut world = world.with_servers();
    world.run_until(seconds(3), |world| world.is_up(0, 1)).expect("up through the relay");
    assert_eq!(world.talk(0, 1, 20), [20, 20]);
}

#[test]
fn an_address_that_comes_up_later_is_used() {
    let mut world = World::new(&[Kind::Public, Kind::Public], Faults::default(), 1);
    let address = world.machines[0].hosts.clone();
    let now = world.now;
    world.machines[0].node.set_hosts(now, &[]);
    assert!(world.machines[0].node.local_candidates().is_empty());
    // Not even the peer can reach us: nothing is sent from an address that is not there.
    world.machines[1].node.set_hosts(now, &[]);
    world.open(0, 1, 1);
    world.run(seconds(2));
    assert_eq!(world.machines[0].state(world.fingerprint(1)), Some(LinkState::Checking));
    let other = world.machines[1].hosts.clone();
    let now = world.now;
    world.machines[0].node.set_hosts(now, &address);
    world.machines[1].node.set_hosts(now, &other);
    world.run_until(seconds(3), |world| world.is_up(0, 1)).expect("up");
}

#[test]
fn useless_host_addresses_are_left_out() {
    let mut world = World::new(&[Kind::Public], Faults::default(), 1);
    let hosts = ["0.0.0.0:5000", "169.254.1.1:5000", "[fe80::1]:5000", "[::]:1", "10.0.0.1:0"];
    let hosts = hosts.map(|host| host.parse().expect("an address"));
    let now = world.now;
    world.machines[0].node.set_hosts(now, &hosts);
    assert!(world.machines[0].node.local_candidates().is_empty());
}

#[test]
fn commands_that_make_no_sense_say_so() {
    let mut world = up();
    let (peer, stranger) = (world.fingerprint(1), Fingerprint([7; 32]));
    let now = world.now;
    let candidate = world.machines[1].node.local_candidates()[0].clone();
    let node = &mut world.machines[0].node;
    let wish = |session, local| OpenLink {
        peer,
        session,
        controlling: true,
        head_start: Duration::ZERO,
        local,
        remote: None,
    };
    assert_eq!(node.open_link(now, wish(1, credentials(8, 8, 8))), Ok(()), "no news");
    assert_eq!(node.open_link(now, wish(2, credentials(0, 1, 1))), Err(CommandError::UfragInUse));
    let unknown = Err(CommandError::UnknownLink);
    let remote = credentials(1, 0, 1);
    assert_eq!(node.set_remote(now, stranger, 1, remote.clone()), unknown);
    assert_eq!(node.add_remote_candidate(now, stranger, 1, candidate.clone()), unknown);
    assert_eq!(node.end_of_candidates(now, stranger, 1), unknown);
    assert_eq!(node.close_link(now, stranger, ""), unknown);
    assert_eq!(node.rehandshake(now, stranger), unknown);
    let stale = Err(CommandError::StaleSession);
    assert_eq!(node.set_remote(now, peer, 9, remote), stale);
    assert_eq!(node.add_remote_candidate(now, peer, 9, candidate.clone()), stale);
    assert_eq!(node.end_of_candidates(now, peer, 9), stale);
    let mut useless = candidate;
    useless.address.set_port(0);
    let result = node.add_remote_candidate(now, peer, 1, useless);
    assert_eq!(result, Err(CommandError::UselessCandidate));
    world.run(seconds(1));
    assert!(world.is_up(0, 1));
}

#[test]
fn a_peer_without_addresses_is_named_as_the_reason() {
    let mut world = World::new(&[Kind::Public, Kind::Public], Faults::default(), 1);
    world.open_end(0, 1, 1, true, Some(credentials(1, 0, 1)));
    let peer = world.fingerprint(1);
    world.machines[0].node.end_of_candidates(world.now, peer, 1).expect("known");
    world.run(seconds(60));
    assert_eq!(
        world.machines[0].reasons(),
        ["the peer has no address that packets can be sent to"]
    );
    world.open_end(1, 0, 1, true, None);
    world.run(seconds(600));
    assert_eq!(world.machines[1].state(world.fingerprint(0)), Some(LinkState::Idle));
}

#[test]
fn seven_machines_all_to_all() {
    let kinds = [Kind::Public, Kind::FullCone, Kind::PortRestricted, Kind::Symmetric];
    let mut world = World::new(&kinds, Faults::default(), 1).with_servers();
    // A neighbour for each, behind the same router.
    for router in 1..4 {
        world.add_machine(router);
    }
    let mut world = world.with_servers();
    world.run(Duration::from_millis(200));
    let count = world.machines.len();
    let pairs: Vec<_> = (0..count).flat_map(|a| (a + 1..count).map(move |b| (a, b))).collect();
    for (a, b) in &pairs {
        world.open(*a, *b, 1);
    }
    let all_up = |world: &World| pairs.iter().all(|(a, b)| world.is_up(*a, *b));
    let took = world.run_until(seconds(10), all_up);
    assert!(took.is_some(), "{:?}", world.reasons());
    for (a, b) in &pairs {
        assert_eq!(world.talk(*a, *b, 5), [5, 5], "{a} {b}");
    }
    // Neighbours talk over their LAN.
    let status = world.machines[2].status(world.fingerprint(5)).expect("a link");
    let path = status.path.expect("a path");
    assert_eq!(world.machines[2].router, world.machines[5].router);
    assert_eq!((path.local_kind, path.remote_kind), (CandidateKind::Host, CandidateKind::Host));
    assert_eq!(status.rtt, Some(crate::support::LATENCY * 2));
}

#[test]
fn an_idle_link_is_cheap() {
    let mut world = up();
    world.run(seconds(60));
    let before = world.datagrams;
    world.run(seconds(600));
    let per_minute = (world.datagrams - before) / 10;
    assert!(per_minute < 120, "{per_minute} datagrams a minute, both ends together");
}

/// Sends to machine 0 from an address that nobody knows, and counts what comes back.
fn answers_to(world: &mut World, data: Vec<u8>) -> u64 {
    world.run(seconds(1));
    let stranger = "192.0.2.66:6666".parse().expect("an address");
    let to = world.machines[0].hosts[0];
    world.faults = Faults { lost: 0, doubled: 0, late: 0 };
    let refused = world.machines[0].refused.len();
    world.transmit(stranger, to, data);
    let before = world.to(stranger);
    world.run(seconds(1));
    assert_eq!(world.machines[0].refused.len(), refused + 1);
    world.to(stranger) - before
}

#[test]
fn strangers_get_no_answer_whatever_they_say() {
    let mut world = up();
    let request = || Builder::request(Method::Binding, TransactionId([3; 12]));
    let local = credentials(0, 1, 1).ufrag;
    let wrong = Key::short_term("wrong-password-wrong-password").expect("a password");
    let build = |builder: Builder| builder.fingerprint().build().expect("a message");
    let named = |name: &str| request().with(Attribute::Username(format!("{name}:{name}")));
    let messages = [
        build(request()),
        build(named("nobody")),
        build(named(&local)),
        build(named(&local).integrity(&wrong)),
        build(Builder::request(Method::Allocate, TransactionId([4; 12]))),
        vec![0x40, 0, 0, 4, 1, 2, 3, 4],
        vec![0xff; 100],
        vec![0x90; 100],
        vec![0x90],
    ];
    for message in messages {
        assert_eq!(answers_to(&mut world, message.clone()), 0, "{message:02x?}");
    }
    assert!(world.is_up(0, 1));
}

#[test]
fn a_real_handshake_from_an_unproven_address_is_refused() {
    let mut world = World::new(&[Kind::Public, Kind::Public], Faults::default(), 1);
    let stranger = "192.0.2.66:6666".parse().expect("an address");
    // Machine 0 is the client: what it sends to machine 1 is taken and sent from elsewhere.
    world.open(0, 1, 1);
    let is_handshake = |data: &[u8]| data[0] == 0x90;
    let mut flight = None;
    while flight.is_none() {
        world.run(Duration::from_millis(1));
        flight = world.under_way().find(|data| is_handshake(data)).map(<[u8]>::to_vec);
    }
    let before = world.to(stranger);
    let flight = flight.expect("a handshake datagram");
    let now = world.now;
    let input = Datagram { local: world.machines[1].hosts[0], remote: stranger, data: &flight };
    let result = world.machines[1].node.handle_input(now, input);
    assert_eq!(result, Err(Refused::Stranger));
    world.run(seconds(1));
    assert_eq!(world.to(stranger), before);
    assert!(world.is_up(0, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_input_panics_or_ends_a_link(
        inputs in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..300)), 1..40),
        controls in proptest::collection::vec(
            (0u32..12, proptest::collection::vec(any::<u8>(), 0..40)), 0..40),
        first in proptest::collection::vec(prop_oneof![0u8..4, 64u8..80, 128u8..192], 40),
    ) {
        let mut world = up();
        let now = world.now;
        let (local, peer) = (world.machines[0].hosts[0], world.machines[1].hosts[0]);
        let stranger = "192.0.2.66:6666".parse().expect("an address");
        let node = &mut world.machines[0].node;
        for ((from_peer, mut data), first) in inputs.into_iter().zip(first) {
            if let Some(byte) = data.first_mut() {
                *byte = first;
            }
            let remote = if from_peer { peer } else { stranger };
            let _ = node.handle_input(now, Datagram { local, remote, data: &data });
        }
        for (index, data) in controls {
            // A good-bye under the session's keys is the one thing that may end it.
            if data.first() != Some(&3) {
                for lane in 0..2 {
                    let index = LinkIndex(index);
                    let (local, remote, channel) = (None, stranger, None);
                    let input = ControlInput { index, lane, local, remote, channel, data: &data };
                    let _ = node.handle_control(now, input);
                }
            }
        }
        world.run(seconds(1));
        prop_assert!(world.is_up(0, 1));
        prop_assert_eq!(world.talk(0, 1, 5), [5, 5]);
    }
}
