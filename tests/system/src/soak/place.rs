//! The machines of a round: a hub, and two nodes of which the first has the cable of the weather.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ipop_lab::{Impairment, Internet, InternetConfig, Nat, Site, Wire};

use super::stream::Route;
use super::{Sums, Weather, flow, stream};
use crate::dice::Dice;
use crate::{Hub, Node};

/// About what a node's MTU is when it follows its links, bytes.
const MTU_AUTO: u16 = 1400;

/// Nothing that is sent in a round is so wrong, and nothing that arrives.
const NEVER: [&str; 4] =
    ["malformed_frame", "malformed_plaintext", "foreign_source", "tap_write_failed"];
/// What only a cable that damages datagrams leads to.
const DAMAGE: [&str; 2] = ["forged", "truncated"];

/// When a round ends: each of its streams and flows at whatever is reached first.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Bytes of each TCP stream.
    pub stream_bytes: u64,
    /// Datagrams of each UDP flow.
    pub datagrams: u64,
    /// A point in time.
    pub until: Option<Instant>,
}

/// Two linked nodes in a weather; taken down in the order of the fields.
pub struct Place {
    nodes: [Node; 2],
    routes: Vec<Route>,
    sites: Vec<Site>,
    _hub: Hub,
    _internet: Internet,
    weather: Weather,
}

impl Place {
    /// Builds the machines and waits until the nodes are linked.
    pub fn build(weather: &Weather) -> Self {
        let mut internet = Internet::build(InternetConfig::default()).unwrap();
        let hub = Hub::new(internet.hub(), internet.hub_address());
        let cables = [(weather.cable)(), Impairment::default()];
        let sites = cables.map(|cable| internet.add_site(Nat::None, cable).unwrap());
        for site in &sites {
            set_up(site, weather);
        }
        if weather.is_underlay_v6 {
            go_by_v6(&internet, &sites);
        }
        let nodes = [0, 1].map(|number| {
            let words = match weather.mtus[number] {
                0 => String::new(),
                mtu => format!("--mtu {mtu}"),
            };
            Node::join_with(&sites[number].node, &hub.ticket(), &words)
        });
        for node in &nodes {
            node.wait_for(1, 30);
        }
        let routes = routes(&nodes);
        let sites = sites.into();
        Self { nodes, routes, sites, _hub: hub, _internet: internet, weather: *weather }
    }

    /// Lets a stream and a flow run each way over each IP version, all at once; panics when the
    /// nodes dropped what they should not, or lost each other.
    pub fn round(&self, limit: Limit, seed: u64) -> Sums {
        let before = self.cable_sums();
        let mut dice = Dice::new(seed);
        let mut sums = Sums::default();
        std::thread::scope(|scope| {
            let mut running = Vec::new();
            for (number, route) in self.routes.iter().enumerate() {
                let (seed, other) = (dice.number(), dice.number());
                running.push(scope.spawn(move || {
                    stream::send_many(route, limit.stream_bytes, limit.until, seed)
                }));
                let mtu = match self.weather.mtus[number % 2] {
                    0 => MTU_AUTO,
                    mtu => mtu,
                };
                running
                    .push(scope.spawn(move || {
                        flow::send(route, mtu, limit.datagrams, limit.until, other)
                    }));
            }
            for one in running {
                sums += one.join().unwrap();
            }
        });
        self.check_nodes();
        let after = self.cable_sums();
        sums.cable_lost = after.cable_lost - before.cable_lost;
        sums.cable_doubled = after.cable_doubled - before.cable_doubled;
        sums.cable_delayed = after.cable_delayed - before.cable_delayed;
        sums.cable_damaged = after.cable_damaged - before.cable_damaged;
        sums
    }

    fn check_nodes(&self) {
        let [a, b] = &self.nodes;
        crate::eventually("both are linked", Duration::from_secs(30), || {
            a.is_linked_to(b) && b.is_linked_to(a)
        });
        for node in &self.nodes {
            let damage = DAMAGE.iter().filter(|_| !self.weather.damages());
            for reason in NEVER.iter().chain(damage) {
                assert_eq!(node.drops(reason), 0, "{reason}: {}", node.status()["drops"]);
            }
        }
    }

    fn cable_sums(&self) -> Sums {
        let faults = self.sites[0].wire.as_ref().map(Wire::faults);
        faults.map_or_else(Sums::default, |faults| Sums {
            cable_lost: faults.lost.load(Ordering::Relaxed),
            cable_doubled: faults.duplicated.load(Ordering::Relaxed),
            cable_delayed: faults.reordered.load(Ordering::Relaxed),
            cable_damaged: faults.corrupted.load(Ordering::Relaxed)
                + faults.truncated.load(Ordering::Relaxed),
            ..Sums::default()
        })
    }
}

/// From the first to the second and back, by both IP versions; even ones begin at the first.
fn routes(nodes: &[Node; 2]) -> Vec<Route> {
    let [a, b] = nodes;
    let route = |from: &Node, to: &Node, address| Route {
        from: from.namespace(),
        to: to.namespace(),
        address,
    };
    vec![route(a, b, b.v4()), route(b, a, a.v4()), route(a, b, b.v6()), route(b, a, a.v6())]
}

fn set_up(site: &Site, weather: &Weather) {
    let tcp = weather.tcp;
    let settings = [
        ("tcp_timestamps", tcp.timestamps),
        ("tcp_sack", tcp.sack),
        ("tcp_ecn", tcp.ecn),
        // Fragments that wait for lost ones must not meet those of a datagram with the same
        // identification: RFC 4963.
        ("ipfrag_time", true),
    ];
    for (name, value) in settings {
        let value = u8::from(value);
        site.node.run(&format!("sysctl -qw net.ipv4.{name}={value}")).unwrap();
    }
    site.node.run("sysctl -qw net.ipv6.ip6frag_time=1").unwrap();
}

/// Gives both machines IPv6 addresses and takes the IPv4 way between them away.
fn go_by_v6(internet: &Internet, sites: &[Site; 2]) {
    let middle = internet.middle();
    for site in sites {
        internet.give_site_ipv6(site).unwrap();
    }
    let [a, b] = sites.each_ref().map(|site| site.address);
    let rules = format!(
        "table ip apart {{ chain way {{ type filter hook forward priority 0; \
         ip saddr {{ {a}, {b} }} ip daddr {{ {a}, {b} }} drop; }}; }}"
    );
    middle.nft(&rules).unwrap();
}
