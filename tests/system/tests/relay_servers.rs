//! TURN servers that are away, forget nonces, or fall silent: what a link notices of it.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use ipop_lab::{Impairment, Internet, InternetConfig, Nat, Site};
use ipop_system_tests::{
    Beat, Coturn, Node, NodeConfig, Pinging, Prosody, Scratch, USERS, XmppServer, eventually,
    turn_credential,
};

/// An address of the servers' network that nobody has, and towards which all is lost.
const NOBODY: &str = "198.18.0.77";
/// What a dead server may add to a start on a busy machine; one that is waited for adds six
/// seconds over UDP and ten over TLS.
const DELAY: Duration = Duration::from_secs(3);
/// How long a path may be dead unnoticed while there is traffic and another path.
const DEAD_PATH: Duration = Duration::from_secs(2);
/// The same for a connection that is the only way: five seconds in which TCP itself may come
/// through, and another connection with an allocation.
const SILENT_STREAM: Duration = Duration::from_secs(6);

/// An XMPP server that knows of no TURN server, on a machine with two addresses, and members.
struct Stage {
    nodes: Vec<Node>,
    sites: Vec<Site>,
    xmpp: Prosody,
    first: Ipv4Addr,
    second: Ipv4Addr,
    keys: Scratch,
    internet: Internet,
}

impl Stage {
    fn new() -> Self {
        let internet = Internet::build(InternetConfig::default()).unwrap();
        let first = internet.hub_address();
        let second = internet.add_hub_address(11).unwrap();
        internet.middle().ip(&format!("rule add to {NOBODY} blackhole")).unwrap();
        let xmpp = Prosody::new(internet.hub(), first, None);
        let (nodes, sites, keys) = (Vec::new(), Vec::new(), Scratch::new());
        Self { nodes, sites, xmpp, first, second, keys, internet }
    }

    /// Adds a member that is told these servers, in this order.
    fn add(&mut self, nat: Nat, uris: &[String]) {
        let site = self.internet.add_site(nat, Impairment::default()).unwrap();
        let (username, password) = turn_credential();
        let entry = |uri: &String| {
            format!("{{ uri = \"{uri}\", username = \"{username}\", password = \"{password}\" }}")
        };
        let number = self.sites.len();
        let config = NodeConfig {
            identity: self.keys.path(&format!("{number}.pem")),
            overlay: format!("address = \"10.77.0.{}/24\"\n", number + 1),
            signalling: self.xmpp.config(USERS[number], &format!("{}:5222", self.first)),
            nat: format!(
                "[nat]\nturn = [{}]\n",
                uris.iter().map(entry).collect::<Vec<_>>().join(", ")
            ),
        };
        self.nodes.push(Node::start(&site.node, &config));
        self.sites.push(site);
    }

    fn pair(&self) -> (&Node, &Node) {
        (&self.nodes[0], &self.nodes[1])
    }

    /// How long two members of this kind take from their start to a relayed link.
    fn time_to_link(&mut self, nat: Nat, uris: &[String]) -> Duration {
        let began = Instant::now();
        for _ in 0..2 {
            self.add(nat, uris);
        }
        self.nodes.iter().for_each(|node| node.wait_for(1, 30));
        let took = began.elapsed();
        let (a, b) = self.pair();
        for (node, peer) in [(a, b), (b, a)] {
            assert_eq!(node.link_to(peer)["path"], "relayed", "{}", node.link_to(peer));
        }
        took
    }

    /// What the link of a member goes through.
    fn server_of_link(&self) -> Ipv4Addr {
        let (a, b) = self.pair();
        let link = a.link_to(b);
        let is_in = |server: &Ipv4Addr| {
            ["local", "remote"]
                .iter()
                .any(|end| link[end].to_string().contains(&server.to_string()))
        };
        [self.first, self.second].into_iter().find(is_in).unwrap_or_else(|| panic!("{link}"))
    }
}

/// How long links take with these servers, and with a dead one in front of them.
fn assert_not_delayed(nat: Nat, serve: impl Fn(&Stage) -> Coturn, uri: impl Fn(&str) -> String) {
    let times = [false, true].map(|has_dead_one| {
        let mut stage = Stage::new();
        let _coturn = serve(&stage);
        let dead = has_dead_one.then(|| uri(NOBODY));
        let uris: Vec<_> = dead.into_iter().chain([uri(&stage.first.to_string())]).collect();
        stage.time_to_link(nat, &uris)
    });
    let [alone, behind] = times;
    println!("linked after {alone:?}, and after {behind:?} with a dead server in front");
    assert!(behind < alone + DELAY, "{times:?}");
}

#[test]
fn a_dead_server_in_front_delays_no_link() {
    let serve = |stage: &Stage| {
        Coturn::lending(stage.internet.hub(), stage.first.into(), &[stage.first.into()])
    };
    let uri = |server: &str| format!("turn:{server}:3478?transport=udp");
    assert_not_delayed(Nat::Symmetric, serve, uri);
}

#[test]
fn a_dead_server_in_front_delays_no_link_over_tls() {
    let serve = |stage: &Stage| {
        Coturn::over_tls(stage.internet.hub(), stage.first, stage.xmpp.certificates())
    };
    assert_not_delayed(Nat::TcpOnly, serve, |server| format!("turns:{server}:443"));
}

/// Nonces end after three seconds and allocations are refreshed every five: each time the first
/// try is refused (438). A member that comes later needs permissions and channels under an old
/// nonce.
#[test]
fn nonces_that_end_cost_a_relayed_link_nothing() {
    let mut stage = Stage::new();
    let first = stage.first;
    let coturn = Coturn::forgetting(stage.internet.hub(), first, 3, 10);
    let uris = [format!("turn:{first}:3478?transport=udp")];
    stage.time_to_link(Nat::Symmetric, &uris);
    let (a, b) = stage.pair();
    let session = a.row(b).unwrap().session;
    let pings = [
        Pinging::start(a, b.v4(), 2_000, Duration::from_millis(10)),
        Pinging::start(b, a.v6(), 2_000, Duration::from_millis(10)),
    ];
    std::thread::sleep(Duration::from_secs(8));
    stage.add(Nat::Symmetric, &uris);
    stage.nodes[2].wait_for(2, 30);
    pings.into_iter().for_each(Pinging::assert_lossless);
    let (a, b) = stage.pair();
    assert_eq!(a.row(b).unwrap().session, session, "the same link");
    let refused = coturn.log().matches("error 438").count();
    println!("{refused} requests came with an old nonce");
    assert!(refused >= 6, "{}", coturn.log());
}

/// Packets of the connection in use are lost from now on, and nobody says so; another server is
/// there.
#[test]
fn a_connection_that_dies_silently_gives_way_to_another_servers() {
    let mut stage = Stage::new();
    let (hub, certificates) = (stage.internet.hub(), stage.xmpp.certificates());
    let _servers =
        [stage.first, stage.second].map(|address| Coturn::over_tls(hub, address, certificates));
    let uris = [stage.first, stage.second].map(|server| format!("turns:{server}:443"));
    stage.time_to_link(Nat::TcpOnly, &uris);
    // Both connections stand, and the pairs over the second have been checked.
    std::thread::sleep(Duration::from_secs(3));
    let (a, b) = stage.pair();
    let server = stage.server_of_link();
    let beat = Beat::start(a, b);
    std::thread::sleep(Duration::from_secs(1));
    cut(&stage.internet, &format!("ip daddr {server} tcp dport 443"));
    std::thread::sleep(DEAD_PATH * 3);
    let other = stage.server_of_link();
    std::thread::sleep(DEAD_PATH);
    let pause = beat.finish();
    println!("another server after {pause:?}");
    assert_ne!(server, other);
    assert!(pause < DEAD_PATH * 2, "{pause:?}");
}

/// The same, where no other server is: a router has forgotten the connections there are, a new one
/// is let through.
#[test]
fn a_connection_that_dies_silently_is_made_anew() {
    let mut stage = Stage::new();
    let (hub, certificates) = (stage.internet.hub(), stage.xmpp.certificates());
    let _coturn = Coturn::over_tls(hub, stage.first, certificates);
    let uris = [format!("turns:{}:443", stage.first)];
    stage.time_to_link(Nat::TcpOnly, &uris);
    std::thread::sleep(Duration::from_secs(2));
    let (a, b) = stage.pair();
    let beat = Beat::start(a, b);
    std::thread::sleep(Duration::from_secs(1));
    for port in ports_to(&stage.internet, 443) {
        cut(&stage.internet, &format!("tcp sport {port} tcp dport 443"));
    }
    std::thread::sleep(SILENT_STREAM * 2 + Duration::from_secs(3));
    let pause = beat.finish();
    println!("connected anew after {pause:?}");
    eventually("both have connected anew", Duration::from_secs(5), || {
        [a, b].iter().all(|node| node.counter("relay_connections") >= 2)
    });
    assert!(pause < SILENT_STREAM * 2, "{pause:?}");
}

/// Loses, in the middle of the internet, what this expression is true of.
fn cut(internet: &Internet, expression: &str) {
    let rules = format!(
        "table ip lost {{
  chain lost {{ type filter hook forward priority filter; policy accept;
    {expression} drop
  }}
}}
"
    );
    internet.middle().nft(&rules).unwrap();
}

/// The ports, as the servers see them, that connections to this port of theirs come from.
fn ports_to(internet: &Internet, port: u16) -> Vec<u16> {
    let text = internet.hub().run(&format!("ss -Htn state established sport = :{port}")).unwrap();
    let peer = |line: &str| line.split_whitespace().nth(3)?.rsplit_once(':')?.1.parse().ok();
    let ports: Vec<_> = text.lines().filter_map(peer).collect();
    assert!(!ports.is_empty(), "{text}");
    ports
}
