use std::collections::HashMap;

use super::*;
use crate::server::{Alternates, BindingServer};

const CLIENT: &str = "10.0.0.2:5000";
const NAT_IP: &str = "203.0.113.1";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Endpoint,
    Address,
    AddressAndPort,
}

/// A NAT in front of one client port.
struct Nat {
    mapping: Kind,
    filtering: Kind,
    ports: HashMap<Option<SocketAddr>, u16>,
    spoken_to: Vec<(u16, SocketAddr)>,
}

fn key(kind: Kind, remote: SocketAddr) -> Option<SocketAddr> {
    match kind {
        Kind::Endpoint => None,
        Kind::Address => Some(SocketAddr::new(remote.ip(), 0)),
        Kind::AddressAndPort => Some(remote),
    }
}

impl Nat {
    fn out(&mut self, remote: SocketAddr) -> SocketAddr {
        let fresh = 40_000 + u16::try_from(self.ports.len()).unwrap();
        let port = *self.ports.entry(key(self.mapping, remote)).or_insert(fresh);
        self.spoken_to.push((port, remote));
        SocketAddr::new(NAT_IP.parse().unwrap(), port)
    }

    fn lets_in(&self, from: SocketAddr, to: SocketAddr) -> bool {
        self.spoken_to.iter().any(|(port, remote)| {
            *port == to.port() && key(self.filtering, *remote) == key(self.filtering, from)
        })
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// How the server of a run misbehaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    Good,
    NoAlternates,
    IgnoresChange,
    OtherIpDead,
    Dead,
}

/// Runs a discovery to its end through `nat`, or without one; every `lose`-th datagram vanishes.
fn run(nat: Option<(Kind, Kind)>, server: Server, lose: usize) -> (Report, Duration) {
    let start = Instant::now();
    let alternates = Alternates { primary: at("198.18.0.20:3478"), other: at("198.18.0.21:3479") };
    let mut answering = BindingServer::new("ipop");
    if server != Server::NoAlternates {
        answering = answering.with_alternates(alternates);
    }
    let mut nat = nat.map(|(mapping, filtering)| Nat {
        mapping,
        filtering,
        ports: HashMap::new(),
        spoken_to: Vec::new(),
    });
    let mut config = DiscoveryConfig::new(alternates.primary);
    config.local = Some(at(CLIENT));
    let mut discovery = Discovery::new(config, [3; 32], start);
    let (mut now, mut datagrams) = (start, 0);
    let mut passes = || {
        datagrams += 1;
        lose == 0 || datagrams % lose != 0
    };
    loop {
        while let Some(output) = discovery.poll_output() {
            let (to, data) = match output {
                DiscoveryOutput::Transmit { to, data } => (to, data),
                DiscoveryOutput::Done(report) => {
                    assert_eq!(discovery.poll_timeout(), None);
                    assert_eq!(discovery.poll_output(), None);
                    return (report, now - start);
                }
                _ => continue,
            };
            let source = nat.as_mut().map_or(at(CLIENT), |nat| nat.out(to));
            let dead = server == Server::Dead
                || server == Server::OtherIpDead && to.ip() != alternates.primary.ip();
            if !passes() || dead {
                continue;
            }
            let mut answer = answering.answer(to, source, &data).unwrap();
            if server == Server::IgnoresChange {
                answer.from = to;
            }
            let admitted = nat.as_ref().is_none_or(|nat| nat.lets_in(answer.from, source));
            if passes() && admitted {
                let input = Input { remote: answer.from, data: &answer.data };
                // An answer to a question that no longer matters is refused.
                let refused = discovery.handle_input(now, input).err();
                let late = [Dropped::Stranger, Dropped::Unexpected];
                assert!(refused.is_none_or(|refused| late.contains(&refused)));
            }
        }
        now = discovery.poll_timeout().expect("neither done nor waiting");
        discovery.handle_timeout(now);
    }
}

fn expected(kind: Kind) -> Behaviour {
    match kind {
        Kind::Endpoint => Behaviour::EndpointIndependent,
        Kind::Address => Behaviour::AddressDependent,
        Kind::AddressAndPort => Behaviour::AddressAndPortDependent,
    }
}

#[test]
fn all_nine_nats_are_told_apart_even_with_loss() {
    let kinds = [Kind::Endpoint, Kind::Address, Kind::AddressAndPort];
    for mapping in kinds {
        for filtering in kinds {
            for lose in [0, 3, 5] {
                let (report, took) = run(Some((mapping, filtering)), Server::Good, lose);
                assert_eq!(report.mapping, expected(mapping), "{mapping:?} {filtering:?} {lose}");
                assert_eq!(report.filtering, expected(filtering), "{filtering:?} {lose}");
                assert_eq!(report.translated, Some(true));
                assert_eq!(report.mapped, Some(at("203.0.113.1:40000")));
                assert!(took <= 3 * Retransmission::BRIEF.patience());
            }
        }
    }
}

#[test]
fn without_a_nat_nothing_is_translated() {
    let (report, took) = run(None, Server::Good, 0);
    assert_eq!(report.translated, Some(false));
    assert_eq!(report.mapping, Behaviour::EndpointIndependent);
    assert_eq!(report.filtering, Behaviour::EndpointIndependent);
    assert_eq!(took, Duration::ZERO);
}

#[test]
fn what_the_server_cannot_tell_stays_unknown_with_its_reason() {
    let nat = Some((Kind::Endpoint, Kind::AddressAndPort));
    let (report, _) = run(nat, Server::NoAlternates, 0);
    assert_eq!(report.mapping, Behaviour::Unknown(Unknown::NotOffered));
    assert_eq!(report.filtering, Behaviour::Unknown(Unknown::NotOffered));
    assert!(report.mapped.is_some());

    let (report, _) = run(nat, Server::IgnoresChange, 0);
    assert_eq!(report.filtering, Behaviour::Unknown(Unknown::ChangeIgnored));
    assert_eq!(report.mapping, Behaviour::EndpointIndependent);

    let (report, _) = run(nat, Server::OtherIpDead, 0);
    let timeout = Behaviour::Unknown(Unknown::Other(BindingError::Timeout));
    assert_eq!(report.mapping, timeout);

    let (report, took) = run(nat, Server::Dead, 0);
    let timeout = Behaviour::Unknown(Unknown::Server(BindingError::Timeout));
    assert_eq!((&report.mapping, &report.filtering), (&timeout, &timeout));
    assert_eq!(took, Retransmission::BRIEF.patience());
}

#[test]
fn an_other_address_that_cannot_be_is_not_asked() {
    let server = at("198.18.0.20:3478");
    for other in [
        "198.18.0.20:3479",
        "198.18.0.21:3478",
        "0.0.0.0:3479",
        "224.0.0.1:3479",
        "[2001:db8::1]:3479",
        "198.18.0.21:0",
    ] {
        let other = at(other);
        assert_eq!(usable_other(server, Some(other)), Err(Unknown::OtherAddress(other)));
    }
    let good = at("198.18.0.21:3479");
    assert_eq!(usable_other(server, Some(good)), Ok(good));
}
