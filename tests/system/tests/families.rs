//! Nodes that have no address family in common: one knows IPv4 only, the other IPv6 only.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipop_lab::{Impairment, Internet, InternetConfig, Nat, Site};
use ipop_system_tests::{
    Coturn, Hub, Node, NodeConfig, Prosody, Scratch, USERS, XmppServer, assert_all_answer,
    eventually, transfer, turn_credential,
};

/// A machine of either kind, and a server's machine with both.
struct Machines {
    six: Site,
    four: Site,
    server: [IpAddr; 2],
    internet: Internet,
}

impl Machines {
    fn new() -> Self {
        let mut internet = Internet::build(InternetConfig::default()).unwrap();
        let server = [internet.hub_address().into(), internet.give_hub_ipv6().unwrap().into()];
        let [six, four] =
            [(); 2].map(|()| internet.add_site(Nat::None, Impairment::default()).unwrap());
        internet.give_site_ipv6(&six).unwrap();
        internet.take_site_ipv4(&six).unwrap();
        Self { six, four, server, internet }
    }
}

/// What a link between them has to do.
fn assert_works(six: Node, four: Node) -> [Node; 2] {
    let nodes = [six, four];
    nodes.iter().for_each(|node| node.wait_for(1, 30));
    let [six, four] = &nodes;
    for (node, peer) in [(six, four), (four, six)] {
        let link = node.link_to(peer);
        assert_eq!(link["path"], "relayed", "{link}");
        let remote = link["remote"].as_str().unwrap_or_default();
        assert_eq!(remote.starts_with('['), link["local"].to_string().contains('['), "{link}");
    }
    assert_all_answer(&nodes);
    for (from, to) in [(six, four), (four, six)] {
        for address in [to.v4(), to.v6()] {
            let result = transfer(from, to, address, 4 << 20);
            assert_eq!((result.bytes, result.corrupted), (4 << 20, 0));
        }
    }
    eventually("the relayed datagrams are counted", Duration::from_secs(5), || {
        nodes.iter().any(|node| node.counter("relayed_datagrams_in") > 2_000)
    });
    nodes
}

#[test]
fn a_hub_joins_the_two_families() {
    let machines = Machines::new();
    let hub = Hub::new(machines.internet.hub(), Ipv6Addr::UNSPECIFIED);
    let ticket = hub.ticket();
    let [six, four] = [&machines.six, &machines.four].map(|site| Node::join(&site.node, &ticket));
    drop(assert_works(six, four));
}

/// The server is reached by these families; each end uses it as far as it can.
fn with_coturn(reached: &[usize]) {
    let machines = Machines::new();
    let hub = machines.internet.hub();
    let xmpp = Prosody::new(hub, machines.internet.hub_address(), None);
    let coturn: Vec<_> = reached
        .iter()
        .map(|number| Coturn::lending(hub, machines.server[*number], &machines.server))
        .collect();
    let (username, password) = turn_credential();
    let entries = machines.server.map(|ip| {
        let at = std::net::SocketAddr::new(ip, 3478);
        format!(
            "{{ uri = \"turn:{at}?transport=udp\", username = \"{username}\", password = \
             \"{password}\" }}"
        )
    });
    let keys = Scratch::new();
    let config = |number: usize, server: IpAddr| NodeConfig {
        identity: keys.path(&format!("{number}.pem")),
        overlay: format!("address = \"10.77.0.{}/24\"\n", number + 1),
        signalling: xmpp
            .config(USERS[number], &std::net::SocketAddr::new(server, 5222).to_string()),
        nat: format!("[nat]\nturn = [{}]\n", entries.join(", ")),
    };
    let six = Node::start(&machines.six.node, &config(0, machines.server[1]));
    let four = Node::start(&machines.four.node, &config(1, machines.server[0]));
    drop(assert_works(six, four));
    drop(coturn);
}

#[test]
fn a_turn_server_joins_the_two_families() {
    with_coturn(&[0, 1]);
}

/// Only the end with IPv4 reaches the server, which lends it an address of IPv6 for the other.
#[test]
fn a_relayed_address_of_ipv6_is_had_over_ipv4() {
    with_coturn(&[0]);
}

/// Only the end with IPv6 reaches the server, which lends it an address of IPv4 for the other.
#[test]
fn a_relayed_address_of_ipv4_is_had_over_ipv6() {
    with_coturn(&[1]);
}
