//! Networks that let nothing out but TCP to the ports 443 and 5222: links go over a TURN server by
//! TLS, or over the hub's own port.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipop_lab::{Impairment, Internet, InternetConfig, Nat, Site};
use ipop_system_tests::{
    Coturn, Hub, Node, NodeConfig, Prosody, Scratch, Stage, USERS, XmppServer, assert_all_answer,
    ended, eventually, transfer, turn_credential,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
/// From a server's start to links that carry.
const SOON: Duration = Duration::from_secs(8);

/// What a link over TCP has to do.
fn assert_works(nodes: &[Node]) {
    let [a, b, ..] = nodes else { panic!("two nodes") };
    for (node, peer) in [(a, b), (b, a)] {
        assert_eq!(node.link_to(peer)["path"], "relayed", "{}", node.link_to(peer));
        // Observers see the counters a moment later.
        eventually("the connection is counted", Duration::from_secs(5), || {
            node.counter("relay_connections") > 0
        });
    }
    assert_all_answer(nodes);
    for (from, to) in [(a, b), (b, a)] {
        let result = transfer(from, to, to.v4(), 8 << 20);
        assert_eq!((result.bytes, result.corrupted), (8 << 20, 0));
    }
    eventually("the relayed datagrams are counted", Duration::from_secs(5), || {
        nodes[..2].iter().any(|node| node.counter("relayed_datagrams_in") > 5_000)
    });
}

fn await_link(nodes: &[Node]) {
    let [a, b] = nodes else { panic!("two nodes") };
    for (node, peer) in [(a, b), (b, a)] {
        let link = || node.ipop(&format!("ping {} --count 1", peer.name)).status.success();
        eventually("the link carries again", PATIENCE, link);
    }
}

#[test]
fn a_tls_relay_on_443_is_enough() {
    let stage = Stage::prosody_and_coturn_over_tls(true).join([Nat::TcpOnly, Nat::TcpOnly]);
    stage.await_links();
    assert_works(&stage.nodes);
}

#[test]
fn links_over_tls_come_back_with_their_server() {
    let mut stage = Stage::prosody_and_coturn_over_tls(true).join([Nat::TcpOnly, Nat::TcpOnly]);
    stage.await_links();
    stage.coturn.as_mut().unwrap().kill();
    let (a, b) = stage.pair();
    for node in [a, b] {
        eventually("the loss is told", Duration::from_secs(10), || {
            ["the connection is lost", "closed the connection"]
                .iter()
                .any(|text| node.log().contains(text))
        });
    }
    std::thread::sleep(Duration::from_secs(3));
    stage.coturn.as_mut().unwrap().start();
    await_link(&stage.nodes);
    assert_works(&stage.nodes);
}

/// A node that UDP works for takes no connection.
#[test]
fn one_end_behind_such_a_firewall_is_linked_too() {
    let stage = Stage::prosody_and_coturn_over_tls(true).join([Nat::TcpOnly, Nat::Symmetric]);
    stage.await_links();
    let (a, b) = stage.pair();
    assert_eq!(a.link_to(b)["path"], "relayed");
    eventually("the connection is counted", Duration::from_secs(5), || {
        a.counter("relay_connections") > 0
    });
    assert_eq!(b.counter("relay_connections"), 0);
    assert_all_answer(&stage.nodes);
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused_and_named() {
    let mut stage = Stage::prosody_and_coturn_over_tls(false);
    stage.add(Nat::TcpOnly);
    let node = &stage.nodes[0];
    eventually("the certificate is named", Duration::from_secs(20), || {
        node.log().contains("the certificate of 198.18.0.10 is not trusted")
    });
    eventually("the failure is counted", Duration::from_secs(5), || {
        node.counter("relay_connections_failed") > 0
    });
    assert_eq!(node.counter("relay_connections"), 0);
    // Its root in the configuration mends it.
    for number in [1, 2] {
        stage.add_site(Nat::TcpOnly, Impairment::default());
        let mut config = stage.config(number);
        config.nat = format!("[nat]\nca_file = \"{}\"\n", stage.keys().path("root.pem").display());
        stage.start(number, &config);
    }
    let [_, b, c] = &stage.nodes[..] else { unreachable!() };
    b.wait_for(1, 30);
    assert_eq!(b.link_to(c)["path"], "relayed");
    assert_eq!(stage.nodes[0].stop(), Some(0));
}

#[test]
fn netcheck_tries_servers_over_tcp_and_tls() {
    let mut stage = Stage::prosody_and_coturn_over_tls(true);
    stage.add_site(Nat::TcpOnly, Impairment::default());
    let config = stage.config(0);
    let (username, password) = turn_credential();
    let entry = |uri: &str, password: &str| {
        format!("{{ uri = \"{uri}\", username = \"{username}\", password = \"{password}\" }}")
    };
    let scratch = stage.keys();
    let turn = [
        entry("turns:198.18.0.10:443", &password),
        entry("turn:198.18.0.10:3478?transport=udp", &password),
        entry("turn:198.18.0.10:5222?transport=tcp", &password),
        entry("turns:198.18.0.10:443", "guess"),
    ];
    let text = format!("{}[nat]\nturn = [{}]\n", config.signalling, turn.join(", "));
    let file = scratch.write("netcheck.toml", &text).display().to_string();
    let netcheck = |words: &[&str]| {
        let mut command = stage.sites[0].node.command(ipop_system_tests::binary());
        command.args(["netcheck", "--config", &file]).args(words);
        ended(command)
    };
    let json = netcheck(&["--json"]);
    let report: Value =
        serde_json::from_str(&json.text).unwrap_or_else(|_| panic!("{}", json.text));
    assert_eq!(report["udp_blocked"], true, "{report}");
    let turn = &report["turn"];
    assert_eq!(turn[0]["transport"], "tls", "{report}");
    assert!(
        turn[0]["relayed"].as_str().unwrap_or_default().starts_with("198.18.0.10:"),
        "{report}"
    );
    assert!(turn[1]["relayed"].is_null(), "{report}");
    // What listens there is an XMPP server.
    assert!(turn[2]["relayed"].is_null() && turn[2]["error"].is_string(), "{report}");
    assert!(turn[3]["relayed"].is_null() && turn[3]["answered"] == true, "{report}");
    let text = netcheck(&[]);
    assert_eq!((text.code, json.code), (Some(0), Some(0)), "{}", text.text);
    assert!(text.text.contains("a relay over TCP or TLS"), "{}", text.text);
}

/// The first server lends nothing: it names the second one (300), where a connection is made.
#[test]
fn a_server_that_names_another_over_tcp_is_followed() {
    let followed = Followed::build();
    let (first, second) = (followed.first, followed.second);
    let hub = followed.internet.hub();
    let _servers = [
        Coturn::naming_another(hub, first, second),
        Coturn::lending(hub, second.into(), &[second.into()]),
    ];
    followed.assert_followed(Nat::UdpBlocked, &format!("turn:{first}:3478?transport=tcp"));
}

/// The other server has to prove itself as the first one did: by the name that was configured.
#[test]
fn a_server_that_names_another_over_tls_is_followed() {
    let followed = Followed::build();
    let (first, second) = (followed.first, followed.second);
    let (hub, certificates) = (followed.internet.hub(), followed.xmpp.certificates());
    let _servers = [
        Coturn::naming_another_over_tls(hub, first, second, certificates),
        Coturn::over_tls(hub, second, certificates),
    ];
    followed.assert_followed(Nat::TcpOnly, &format!("turns:{first}:443"));
}

/// Two servers' addresses, of which nodes are told the first.
struct Followed {
    xmpp: Prosody,
    first: Ipv4Addr,
    second: Ipv4Addr,
    internet: Internet,
}

impl Followed {
    fn build() -> Self {
        let internet = Internet::build(InternetConfig::default()).unwrap();
        let first = internet.hub_address();
        let second = internet.add_hub_address(11).unwrap();
        let xmpp = Prosody::new(internet.hub(), first, None);
        Self { xmpp, first, second, internet }
    }

    /// Two nodes that are told this server are linked through the other.
    fn assert_followed(mut self, nat: Nat, uri: &str) {
        let (username, password) = turn_credential();
        let site = |_| self.internet.add_site(nat, Impairment::default()).unwrap();
        let sites: Vec<_> = (0..2).map(site).collect();
        let keys = Scratch::new();
        let nodes: Vec<_> = sites
            .iter()
            .enumerate()
            .map(|(number, site)| {
                let config = NodeConfig {
                    identity: keys.path(&format!("{number}.pem")),
                    overlay: format!("address = \"10.77.0.{}/24\"\n", number + 1),
                    signalling: self.xmpp.config(USERS[number], &format!("{}:5222", self.first)),
                    nat: format!(
                        "[nat]\nturn = [{{ uri = \"{uri}\", username = \"{username}\", \
                         password = \"{password}\" }}]\n"
                    ),
                };
                Node::start(&site.node, &config)
            })
            .collect();
        nodes.iter().for_each(|node| node.wait_for(1, 30));
        assert_works(&nodes);
        for (node, peer) in [(&nodes[0], &nodes[1]), (&nodes[1], &nodes[0])] {
            let link = node.link_to(peer);
            let remote = link["remote"].as_str().unwrap_or_default();
            assert!(remote.starts_with(&format!("{}:", self.second)), "{link}");
            // One connection to each server.
            assert_eq!(node.counter("relay_connections"), 2, "{}", node.status()["counters"]);
        }
    }
}

/// A hub, of which nothing but port 5222 can be reached.
struct Place {
    nodes: Vec<Node>,
    _sites: Vec<Site>,
    hub: Hub,
    _internet: Internet,
}

impl Place {
    fn new() -> Self {
        Self::behind(Nat::TcpOnly)
    }

    fn behind(nat: Nat) -> Self {
        let mut internet = Internet::build(InternetConfig::default()).unwrap();
        let hub = Hub::new(internet.hub(), internet.hub_address());
        let site = |_| internet.add_site(nat, Impairment::default()).unwrap();
        let sites: Vec<_> = (0..2).map(site).collect();
        let ticket = hub.ticket();
        let nodes = sites.iter().map(|site| Node::join(&site.node, &ticket)).collect();
        Self { nodes, _sites: sites, hub, _internet: internet }
    }

    fn await_links(&self) {
        self.nodes.iter().for_each(|node| node.wait_for(1, 30));
    }
}

#[test]
fn a_hub_and_its_port_are_enough() {
    let place = Place::new();
    place.await_links();
    assert_works(&place.nodes);
}

#[test]
fn links_over_a_hub_come_back_with_it() {
    come_back(Nat::TcpOnly);
}

/// Over UDP nothing breaks when a server dies: its silence has to be noticed.
#[test]
fn links_relayed_by_a_hub_over_udp_come_back_with_it() {
    come_back(Nat::Symmetric);
}

fn is_online(node: &Node) -> bool {
    let status = node.status();
    status["controller"]["signalling"].as_str().is_some_and(|text| text.starts_with("online"))
}

/// Everything is whole again a few seconds after the hub is.
fn come_back(nat: Nat) {
    let mut place = Place::behind(nat);
    place.await_links();
    place.hub.kill();
    std::thread::sleep(Duration::from_secs(3));
    place.hub.start();
    let began = Instant::now();
    for node in &place.nodes {
        eventually("the node is in the group again", SOON, || is_online(node));
    }
    let online = began.elapsed();
    await_link(&place.nodes);
    let linked = began.elapsed();
    println!("{nat}: signalling after {online:?}, the link after {linked:?}");
    assert!(linked < SOON, "{linked:?}");
    if nat == Nat::TcpOnly {
        assert_works(&place.nodes);
    }
}
