//! Routers that map a port where they are asked to: miniupnpd, which speaks PCP, NAT-PMP and UPnP.

#![allow(missing_docs, clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::time::Duration;

use ipop_lab::{Impairment, Nat};
use ipop_system_tests::{Node, Process, Scratch, Stage, assert_all_answer, eventually};

/// The protocols that a router speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Pcp,
    NatPmp,
    Upnp,
}

/// miniupnpd on a site's router.
struct Router {
    process: Process,
    _scratch: Scratch,
}

impl Router {
    /// The lab's internet has addresses that are set apart for benchmarks (RFC 2544), which
    /// miniupnpd takes for private: the router has one of the others as well.
    fn start(stage: &Stage, site: usize, speaks: Speaks) -> Self {
        let site = &stage.sites[site];
        let router = site.router().unwrap();
        let outside = Ipv4Addr::new(5, 5, 5, site.public.octets()[2]);
        router.ip(&format!("address add {outside}/32 dev wan")).unwrap();
        let middle = stage.internet().middle();
        middle.ip(&format!("route add {outside}/32 via {}", site.public)).unwrap();
        router.nft(&rules(speaks)).unwrap();
        let scratch = Scratch::new();
        let yes = |holds: bool| if holds { "yes" } else { "no" };
        let config = format!(
            "ext_ifname=wan
ext_ip={outside}
listening_ip=lan
enable_natpmp={pmp}
enable_upnp={upnp}
secure_mode=yes
lease_file={leases}
upnp_table_name=port_maps
upnp_nat_table_name=port_maps
upnp_forward_chain=forward_maps
upnp_nat_chain=nat_maps
upnp_nat_postrouting_chain=postrouting_maps
allow 1024-65535 192.168.0.0/16 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
",
            pmp = yes(speaks != Speaks::Upnp),
            upnp = yes(speaks == Speaks::Upnp),
            leases = scratch.path("leases").display(),
        );
        let file = scratch.write("miniupnpd.conf", &config);
        let mut command = router.command("/usr/sbin/miniupnpd");
        command.arg("-d").arg("-f").arg(&file).arg("-P").arg(scratch.path("pid"));
        let mut process = Process::start(command, scratch.path("log"));
        eventually("miniupnpd (Debian's package miniupnpd-nftables) runs", PATIENCE, || {
            assert!(process.is_running(), "{}", process.log());
            process.log().to_lowercase().contains("listening ")
        });
        Self { process, _scratch: scratch }
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

/// miniupnpd's chains, a lab router that lets in what was mapped, and ears that hear only one of
/// the protocols: miniupnpd speaks PCP wherever it speaks NAT-PMP, which differ in the first byte.
fn rules(speaks: Speaks) -> String {
    let deaf = match speaks {
        Speaks::NatPmp => "udp dport 5351 @th,64,8 2 reject",
        _ => "",
    };
    format!(
        "table inet port_maps {{
  chain forward_maps {{ }}
  chain nat_maps {{ }}
  chain postrouting_maps {{ }}
  chain forward {{ type filter hook forward priority -5; jump forward_maps; }}
  chain prerouting {{ type nat hook prerouting priority -110; jump nat_maps; }}
  chain postrouting {{ type nat hook postrouting priority 90; jump postrouting_maps; }}
  chain ears {{ type filter hook input priority -5;
    {deaf}
  }}
}}
table ip lab {{
  chain forward {{ }}
}}
insert rule ip lab forward ct status dnat accept
"
    )
}

fn is_told(node: &Node, protocol: &str) -> bool {
    let log = node.log();
    log.lines().any(|line| line.contains("the router maps ") && line.contains(protocol))
}

/// Two symmetric NATs: without the mapping, no direct path.
fn direct_by(speaks: Speaks, protocol: &str) {
    let mut stage = Stage::prosody();
    for _ in 0..2 {
        stage.add_site(Nat::Symmetric, Impairment::default());
    }
    let router = Router::start(&stage, 0, speaks);
    for number in 0..2 {
        let config = stage.config(number);
        stage.start(number, &config);
    }
    stage.await_links();
    let (a, b) = stage.pair();
    eventually(&format!("{protocol}: {}{}", a.log(), router.process.log()), PATIENCE, || {
        is_told(a, protocol)
    });
    for (node, peer) in [(a, b), (b, a)] {
        eventually(&format!("direct: {}", node.link_to(peer)), PATIENCE, || {
            node.link_to(peer)["path"] == "direct"
        });
    }
    assert_all_answer(&stage.nodes);
    let rules = |stage: &Stage| {
        let router = stage.sites[0].router().unwrap();
        router.run("nft list chain inet port_maps nat_maps").unwrap()
    };
    assert!(rules(&stage).contains("dnat"), "{}", rules(&stage));
    stage.nodes[0].stop();
    eventually("the mapping is given back", PATIENCE, || !rules(&stage).contains("dnat"));
}

#[test]
fn a_port_mapped_by_pcp_makes_two_symmetric_nats_direct() {
    direct_by(Speaks::Pcp, "(PCP)");
}

#[test]
fn a_port_mapped_by_nat_pmp_makes_two_symmetric_nats_direct() {
    direct_by(Speaks::NatPmp, "(NAT-PMP)");
}

#[test]
fn a_port_mapped_by_upnp_makes_two_symmetric_nats_direct() {
    direct_by(Speaks::Upnp, "(UPnP)");
}

#[test]
fn a_router_is_not_asked_where_the_configuration_says_no() {
    let mut stage = Stage::prosody();
    let number = stage.add_site(Nat::Symmetric, Impairment::default());
    let router = Router::start(&stage, number, Speaks::Pcp);
    for asked in [false, true] {
        let mut config = stage.config(number);
        config.nat = format!("[nat]\nport_mapping = {asked}\n");
        let node = Node::start(&stage.sites[number].node, &config);
        eventually("it has joined", PATIENCE, || node.log().contains("in the group"));
        if asked {
            eventually("the router is asked", PATIENCE, || is_told(&node, "(PCP)"));
        } else {
            std::thread::sleep(Duration::from_secs(2));
            assert!(!is_told(&node, "("), "{}{}", node.log(), router.process.log());
        }
    }
}
