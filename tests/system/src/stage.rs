//! The usual set: an internet, the group's servers in its middle, and nodes at its sites.

use std::net::Ipv4Addr;

use ipop_lab::{Impairment, Internet, InternetConfig, Nat, Site};
use rustix::process::Signal;

use crate::{
    Certificates, Coturn, Ejabberd, Node, NodeConfig, Prosody, Scratch, USERS, XmppServer,
};

/// The prefix of fixed overlay addresses: node k has host k.
pub const GROUP_PREFIX: &str = "10.77.0.0/24";

/// Machines and programs of one test; taken down in the order of the fields, nodes first, so that
/// they say goodbye while their server still listens.
pub struct Stage {
    /// The members, in the order in which they joined.
    pub nodes: Vec<Node>,
    /// The group's XMPP server.
    pub server: Box<dyn XmppServer>,
    /// The members' machines.
    pub sites: Vec<Site>,
    /// The TURN server, where it is a process of its own.
    pub coturn: Option<Coturn>,
    /// Nodes reach the XMPP server by TLS from the first byte, on port 5223.
    pub is_tls_direct: bool,
    internet: Internet,
    keys: Scratch,
}

impl Stage {
    /// Prosody, which names coturn as STUN and TURN server by XEP-0215. coturn has two addresses.
    pub fn prosody() -> Self {
        Self::with_coturn(internet(), true)
    }

    /// As [`Stage::prosody`], with cables of this MTU.
    pub fn prosody_on_cables_of(mtu: u16) -> Self {
        Self::prosody_in(InternetConfig { mtu, ..InternetConfig::default() })
    }

    /// As [`Stage::prosody`], in an internet of this kind.
    pub fn prosody_in(config: InternetConfig) -> Self {
        Self::with_coturn(Internet::build(config).unwrap(), true)
    }

    /// As [`Stage::prosody`], but Prosody does not know of coturn.
    pub fn prosody_and_hidden_coturn() -> Self {
        Self::with_coturn(internet(), false)
    }

    /// Prosody, which names coturn with TLS on port 443. Their certificate is the same; or coturn
    /// has one whose root nobody knows but [`Stage::keys`].
    pub fn prosody_and_coturn_over_tls(is_known: bool) -> Self {
        let internet = internet();
        let (address, keys) = (internet.hub_address(), Scratch::new());
        let prosody = Prosody::with_turn_over_tls(internet.hub(), address, address);
        let unknown = (!is_known).then(|| Certificates::make(&keys, "turn.test"));
        let certificates = unknown.as_ref().unwrap_or_else(|| prosody.certificates());
        let coturn = Some(Coturn::over_tls(internet.hub(), address, certificates));
        let server = Box::new(prosody);
        Self::of(internet, server, coturn, keys)
    }

    /// As [`Stage::prosody_in`], and TURN is there over TCP and, on port 443, over TLS as well.
    /// With `has_nagle`, Prosody is as Debian ships it.
    pub fn prosody_and_coturn_over_all(config: InternetConfig, has_nagle: bool) -> Self {
        let internet = Internet::build(config).unwrap();
        let first = internet.hub_address();
        let second = internet.add_hub_address(11).unwrap();
        let prosody = Prosody::with_turn_over_all(internet.hub(), first, first, has_nagle);
        let coturn = Coturn::over_all(internet.hub(), [first, second], prosody.certificates());
        let (server, coturn) = (Box::new(prosody), Some(coturn));
        Self::of(internet, server, coturn, Scratch::new())
    }

    fn with_coturn(internet: Internet, is_offered: bool) -> Self {
        let first = internet.hub_address();
        let second = internet.add_hub_address(11).unwrap();
        let coturn = Some(Coturn::new(internet.hub(), first, second));
        let offered = is_offered.then_some(first);
        let server = Box::new(Prosody::new(internet.hub(), first, offered));
        Self::of(internet, server, coturn, Scratch::new())
    }

    /// ejabberd, which is STUN and TURN server as well and says so by mod_stun_disco.
    pub fn ejabberd() -> Self {
        let internet = internet();
        let server = Box::new(Ejabberd::new(internet.hub(), internet.hub_address()));
        Self::of(internet, server, None, Scratch::new())
    }

    fn of(
        internet: Internet,
        server: Box<dyn XmppServer>,
        coturn: Option<Coturn>,
        keys: Scratch,
    ) -> Self {
        let (nodes, sites) = (Vec::new(), Vec::new());
        Self { nodes, server, sites, coturn, is_tls_direct: false, internet, keys }
    }

    /// The internet itself.
    pub fn internet(&self) -> &Internet {
        &self.internet
    }

    /// Where the machines' keys are kept.
    pub fn keys(&self) -> &Scratch {
        &self.keys
    }

    /// Adds machines behind routers of these kinds, each with a node that has the next fixed
    /// address; all start at once.
    pub fn join<const N: usize>(mut self, nats: [Nat; N]) -> Self {
        for nat in nats {
            self.add(nat);
        }
        self
    }

    /// Adds a machine behind a router of kind `nat`, with a node that has the next fixed address.
    pub fn add(&mut self, nat: Nat) -> &mut Node {
        let number = self.add_site(nat, Impairment::default());
        let config = self.config(number);
        self.start(number, &config)
    }

    /// Takes all nodes and their machines away; the servers stay.
    pub fn clear(&mut self) {
        // Each says goodbye in its own time; the times shall not add up.
        for node in &mut self.nodes {
            node.process().signal(Signal::TERM);
        }
        self.nodes.clear();
        self.sites.clear();
    }

    /// Adds a machine behind the router of the last one, without a network in common, and a node.
    pub fn add_neighbour(&mut self) -> &mut Node {
        let last = self.sites.last().expect("a machine with a router");
        self.sites.push(self.internet.add_neighbour(last).unwrap());
        let number = self.sites.len() - 1;
        let config = self.config(number);
        self.start(number, &config)
    }

    /// Adds a machine on a cable with `impairment`, without a node yet; returns its number.
    pub fn add_site(&mut self, nat: Nat, impairment: Impairment) -> usize {
        self.sites.push(self.internet.add_site(nat, impairment).unwrap());
        self.sites.len() - 1
    }

    /// All servers die: XMPP, STUN and TURN.
    pub fn kill_servers(&mut self) {
        self.server.kill();
        self.coturn = None;
    }

    /// What the node at a machine is usually configured with. A machine has one key, whichever
    /// node runs on it.
    pub fn config(&self, number: usize) -> NodeConfig {
        let port = if self.is_tls_direct { 5223 } else { 5222 };
        let server = format!("{}:{port}", self.internet.hub_address());
        let mut signalling = self.server.config(USERS[number], &server);
        if self.is_tls_direct {
            signalling = signalling.replacen("[xmpp]\n", "[xmpp]\ntls = \"direct\"\n", 1);
        }
        NodeConfig {
            identity: self.keys.path(&format!("{number}.pem")),
            overlay: format!("address = \"{}/24\"\n", Self::overlay_address(number)),
            signalling,
            nat: String::new(),
        }
    }

    /// The overlay address of the node with this number.
    pub fn overlay_address(number: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, u8::try_from(number + 1).unwrap())
    }

    /// Starts a node at a machine.
    pub fn start(&mut self, number: usize, config: &NodeConfig) -> &mut Node {
        self.nodes.push(Node::start(&self.sites[number].node, config));
        self.nodes.last_mut().unwrap()
    }

    /// Waits until all nodes are linked with each other and answer.
    pub fn await_links(&self) {
        for node in &self.nodes {
            node.wait_for(self.nodes.len() - 1, 30);
        }
    }

    /// The first two members.
    pub fn pair(&self) -> (&Node, &Node) {
        (&self.nodes[0], &self.nodes[1])
    }
}

fn internet() -> Internet {
    Internet::build(InternetConfig::default()).unwrap()
}
