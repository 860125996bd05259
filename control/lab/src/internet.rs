//! The whole lab: an internet in the middle, a hub's machine, and sites behind their routers.
//!
//! ```text
//!  hub 198.18.0.10 ---- 198.18.0.1 internet
//!  node j 198.18.j.2 -- 198.18.j.1 internet                         (no NAT)
//!  node k 192.168.k.2 -- 192.168.k.1 [ router k ] 198.18.k.2 -- 198.18.k.1 internet
//!  node k 192.168.k.2 -- [ router k ] 100.64.k.2 -- [ carrier k ] 198.18.k.2 -- internet (double)
//!  its neighbour 172.31.k.2 ---- 172.31.k.1 [ router k ], which joins the two only by its outside
//! ```
//! The middle knows no way to private addresses: what is not translated does not arrive.

mod families;

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::{Impairment, LabError, Namespace, Nat, Wire};

/// Sites that an internet has room for.
pub const SITES_MAX: usize = 200;

/// The hub's address; further servers take the ones behind it.
const HUB: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 10);

/// What kind of internet to build.
#[derive(Clone, Debug, Default)]
pub struct InternetConfig {
    /// One-way delay of each site's cable to the middle and of the hub's. Zero takes veth pairs,
    /// which pass super-segments and are as fast as the machine.
    pub delay: Duration,
    /// MTU of all cables in bytes; 0 takes 1500.
    pub mtu: u16,
}

/// The namespaces in the middle, and the cables to them.
#[derive(Debug)]
pub struct Internet {
    config: InternetConfig,
    middle: Namespace,
    hub: Namespace,
    hub_wire: Option<Wire>,
    sites: usize,
}

/// A machine behind its router.
#[derive(Debug)]
pub struct Site {
    /// Where the machine's programs run.
    pub node: Namespace,
    /// What its router does; without one, the machine is public.
    pub nat: Nat,
    /// The address that the internet sees.
    pub public: Ipv4Addr,
    /// The machine's own address.
    pub address: Ipv4Addr,
    /// The cable to the middle, where it is one that can be impaired.
    pub wire: Option<Wire>,
    router: Option<Namespace>,
    _carrier: Option<Namespace>,
}

impl Internet {
    /// Builds the middle and the hub's machine.
    ///
    /// # Errors
    /// When the system refuses a namespace, a cable or an address.
    pub fn build(config: InternetConfig) -> Result<Self, LabError> {
        let middle = Namespace::create("internet")?;
        middle.forward()?;
        let hub = Namespace::create("hub")?;
        let impairment = Impairment { delay: config.delay, ..Impairment::default() };
        let hub_wire = cable(&config, impairment, (&middle, "hub"), (&hub, "eth0"))?;
        address(&middle, "hub", Ipv4Addr::new(198, 18, 0, 1))?;
        address(&hub, "eth0", HUB)?;
        hub.ip("route add default via 198.18.0.1")?;
        if hub_wire.is_some() {
            acquaint((&middle, "hub", Ipv4Addr::new(198, 18, 0, 1)), (&hub, "eth0", HUB))?;
        }
        Ok(Self { config, middle, hub, hub_wire, sites: 0 })
    }

    /// The public machine for servers.
    pub fn hub(&self) -> &Namespace {
        &self.hub
    }

    /// The public address of the servers' machine.
    pub fn hub_address(&self) -> Ipv4Addr {
        HUB
    }

    /// The namespace in the middle, where all traffic passes in the clear of its outer headers.
    pub fn middle(&self) -> &Namespace {
        &self.middle
    }

    /// The servers' cable, where it is one that can be impaired.
    pub fn hub_wire(&self) -> Option<&Wire> {
        self.hub_wire.as_ref()
    }

    /// Gives the servers' machine a further address (RFC 5780 servers want two).
    ///
    /// # Errors
    /// When the system refuses it.
    pub fn add_hub_address(&self, last: u8) -> Result<Ipv4Addr, LabError> {
        let further = Ipv4Addr::new(198, 18, 0, last);
        address(&self.hub, "eth0", further)?;
        Ok(further)
    }

    /// Adds a machine behind a router of kind `nat`, on a cable with `impairment` (whose delay is
    /// the internet's own where it is zero).
    ///
    /// # Errors
    /// When the system refuses a part, or the address plan is full.
    pub fn add_site(&mut self, nat: Nat, impairment: Impairment) -> Result<Site, LabError> {
        let number = self.sites + 1;
        let octet = u8::try_from(number).ok().filter(|_| number <= SITES_MAX);
        let octet = octet.ok_or(LabError::TooManySites(number))?;
        self.sites = number;
        let delay = if impairment.delay.is_zero() { self.config.delay } else { impairment.delay };
        let impairment = Impairment { delay, ..impairment };
        let node = Namespace::create(&format!("node{number}"))?;
        if nat == Nat::None {
            self.public_site(octet, node, impairment)
        } else {
            self.routed_site(octet, nat, node, impairment)
        }
    }

    fn public_site(
        &self,
        octet: u8,
        node: Namespace,
        impairment: Impairment,
    ) -> Result<Site, LabError> {
        let wire = self.uplink(octet, (&node, "eth0"), impairment)?;
        let public = Ipv4Addr::new(198, 18, octet, 2);
        let (router, _carrier) = (None, None);
        Ok(Site { node, nat: Nat::None, public, address: public, wire, router, _carrier })
    }

    fn routed_site(
        &self,
        octet: u8,
        nat: Nat,
        node: Namespace,
        impairment: Impairment,
    ) -> Result<Site, LabError> {
        let router = Namespace::create(&format!("router{octet}"))?;
        router.forward()?;
        let (home, carrier) = nat.routers();
        let public = Ipv4Addr::new(198, 18, octet, 2);
        let (wire, outside, carrier) = match carrier {
            None => (self.uplink(octet, (&router, "wan"), impairment)?, public, None),
            Some(kind) => {
                let carrier = Namespace::create(&format!("carrier{octet}"))?;
                carrier.forward()?;
                let wire = self.uplink(octet, (&carrier, "wan"), impairment)?;
                let [gateway, outside] = [1, 2].map(|last| Ipv4Addr::new(100, 64, octet, last));
                veth(&self.config, (&carrier, "lan"), (&router, "wan"))?;
                address(&carrier, "lan", gateway)?;
                address(&router, "wan", outside)?;
                router.ip(&format!("route add default via {gateway}"))?;
                carrier.nft(&kind.rules(outside, public))?;
                (wire, outside, Some(carrier))
            }
        };
        let inside = self.inside_address(octet, nat);
        let gateway = Ipv4Addr::from(u32::from(inside) - 1);
        veth(&self.config, (&router, "lan"), (&node, "eth0"))?;
        address(&router, "lan", gateway)?;
        address(&node, "eth0", inside)?;
        node.ip(&format!("route add default via {gateway}"))?;
        if !nat.translates() {
            self.middle.ip(&format!("route add {inside}/32 via {public}"))?;
        }
        router.nft(&home.rules(inside, outside))?;
        let public = if nat.translates() { public } else { inside };
        let (router, _carrier) = (Some(router), carrier);
        Ok(Site { node, nat, public, address: inside, wire, router, _carrier })
    }

    /// Adds a second machine behind a site's router, in a network of its own: the two have no way
    /// to each other but by the router's outside, if it lets them.
    ///
    /// # Errors
    /// When the system refuses a part, or there is no router that translates.
    pub fn add_neighbour(&self, site: &Site) -> Result<Site, LabError> {
        let router = site.router().filter(|_| site.nat.translates()).ok_or(LabError::NoRouter)?;
        let [_, _, octet, _] = site.address.octets();
        let node = Namespace::create(&format!("neighbour{octet}"))?;
        let [gateway, inside] = [1, 2].map(|last| Ipv4Addr::new(172, 31, octet, last));
        veth(&self.config, (router, "lan2"), (&node, "eth0"))?;
        address(router, "lan2", gateway)?;
        address(&node, "eth0", inside)?;
        node.ip(&format!("route add default via {gateway}"))?;
        let (nat, public) = (site.nat, site.public);
        let (wire, router, _carrier) = (None, None, None);
        Ok(Site { node, nat, public, address: inside, wire, router, _carrier })
    }

    fn inside_address(&self, octet: u8, nat: Nat) -> Ipv4Addr {
        if nat.translates() {
            Ipv4Addr::new(192, 168, octet, 2)
        } else {
            Ipv4Addr::new(198, 19, octet, 2)
        }
    }

    /// The cable from the middle to `end`, with both addresses and the way out.
    fn uplink(
        &self,
        octet: u8,
        end: (&Namespace, &str),
        impairment: Impairment,
    ) -> Result<Option<Wire>, LabError> {
        let port = format!("site{octet}");
        let wire = cable(&self.config, impairment, (&self.middle, &port), end)?;
        let [gateway, outside] = [1, 2].map(|last| Ipv4Addr::new(198, 18, octet, last));
        address(&self.middle, &port, gateway)?;
        address(end.0, end.1, outside)?;
        end.0.ip(&format!("route add default via {gateway}"))?;
        if wire.is_some() {
            acquaint((&self.middle, &port, gateway), (end.0, end.1, outside))?;
        }
        Ok(wire)
    }
}

impl Site {
    /// The router's namespace, where there is a router.
    pub fn router(&self) -> Option<&Namespace> {
        self.router.as_ref()
    }

    /// The router goes down and comes up again, as fast as that goes: it has forgotten who talked
    /// to whom, and the machine behind it is seen at UDP port `port` from now on, by everybody.
    ///
    /// # Errors
    /// When the system refuses a part of it, or there is no router.
    pub fn reboot_router(&self, port: u16) -> Result<(), LabError> {
        let router = self.router.as_ref().ok_or(LabError::NoRouter)?;
        let [a, b, c, _] = self.public.octets();
        // What was masqueraded behind an interface is forgotten when that goes down.
        router.ip("link set wan down")?;
        router.nft(&format!(
            "flush chain ip lab post
add rule ip lab post oifname wan meta l4proto udp masquerade to :{port}
add rule ip lab post oifname wan masquerade
"
        ))?;
        router.ip("link set wan up")?;
        router.ip(&format!("route add default via {a}.{b}.{c}.1")).map(drop)
    }
}

/// Joins two namespaces: by a wire where frames are to suffer, else by a veth pair.
fn cable(
    config: &InternetConfig,
    impairment: Impairment,
    a: (&Namespace, &str),
    b: (&Namespace, &str),
) -> Result<Option<Wire>, LabError> {
    if is_clean(&impairment) {
        veth(config, a, b)?;
        return Ok(None);
    }
    let wire = Wire::join(a, b, impairment)?;
    for (namespace, name) in [a, b] {
        namespace.ip(&format!("link set {name} mtu {} up", mtu(config)))?;
    }
    Ok(Some(wire))
}

/// An end of a cable: where, its interface and its address.
type End<'a> = (&'a Namespace, &'a str, Ipv4Addr);

/// Tells both ends of a cable each other's hardware address, as real neighbours know it: they are
/// close, and only what is between them here is long. By ARP they would wait for each other.
fn acquaint(a: End<'_>, b: End<'_>) -> Result<(), LabError> {
    for ((here, interface, _), (there, its_interface, its_address)) in [(a, b), (b, a)] {
        let hardware = there.mac(its_interface)?.map(|byte| format!("{byte:02x}")).join(":");
        here.ip(&format!(
            "neigh replace {its_address} lladdr {hardware} dev {interface} nud reachable"
        ))?;
    }
    Ok(())
}

fn is_clean(impairment: &Impairment) -> bool {
    let shares = [
        impairment.loss,
        impairment.duplicate,
        impairment.reorder,
        impairment.corrupt,
        impairment.truncate,
    ];
    impairment.delay.is_zero() && shares.iter().all(|share| *share == 0.0)
}

fn veth(
    config: &InternetConfig,
    a: (&Namespace, &str),
    b: (&Namespace, &str),
) -> Result<(), LabError> {
    let mtu = mtu(config);
    a.0.ip(&format!(
        "link add {} mtu {mtu} type veth peer name {} mtu {mtu} netns {}",
        a.1,
        b.1,
        b.0.name()
    ))?;
    for (namespace, name) in [a, b] {
        namespace.ip(&format!("link set {name} up"))?;
    }
    Ok(())
}

fn mtu(config: &InternetConfig) -> u16 {
    if config.mtu == 0 { 1500 } else { config.mtu }
}

fn address(namespace: &Namespace, interface: &str, address: Ipv4Addr) -> Result<(), LabError> {
    namespace.ip(&format!("address add {address}/24 dev {interface}")).map(drop)
}
