//! Paths that carry less than the machines' interfaces, with ICMP dropped, and that change; and
//! what the kernels above the overlay learn of them.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ipop_lab::{Impairment, Nat};
use ipop_system_tests::{Flow, Node, Stage, eventually, transfer};
use rustix::io::Errno;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};

const MIB: u64 = 1 << 20;
/// IPv4 and UDP header.
const HEADERS: u16 = 28;
/// Tunnel header, tag and geometry: what a datagram has besides a whole inner packet.
const SEALED: u16 = 32 + 12;

/// Two machines with interfaces of 9000 bytes, and a middle that says nothing to nobody: what is
/// too long is gone. TCP to the servers is told to keep small, as by many a router.
fn stage() -> Stage {
    stage_of(2)
}

/// As [`stage`], with so many machines.
fn stage_of(machines: usize) -> Stage {
    let mut stage = Stage::prosody_on_cables_of(9000);
    for _ in 0..machines {
        stage.add_site(Nat::None, Impairment::default());
    }
    let rules = "table inet silence {
  chain forward { type filter hook forward priority filter;
    tcp flags syn tcp option maxseg size set 500
  }
  chain output { type filter hook output priority filter;
    icmp type destination-unreachable drop
    icmpv6 type packet-too-big drop
  }
}
";
    stage.internet().middle().nft(rules).unwrap();
    stage
}

/// What the middle passes on to both machines from now on.
fn narrow(stage: &Stage, mtu: u16) {
    for site in ["site1", "site2"] {
        stage.internet().middle().ip(&format!("link set {site} mtu {mtu}")).unwrap();
    }
}

/// Starts a node at each machine.
fn start(stage: &mut Stage, overlay_mtu: Option<u16>) {
    for number in 0..stage.sites.len() {
        let mut config = stage.config(number);
        if let Some(mtu) = overlay_mtu {
            config.overlay.push_str(&format!("mtu = {mtu}\n"));
        }
        stage.start(number, &config);
    }
}

/// The largest IP packet that a node takes the path to carry.
fn believed(node: &Node, peer: &Node) -> u16 {
    node.row(peer).map_or(0, |row| row.mtu.saturating_add(HEADERS))
}

/// Waits until both know what passes; how long that took. A search ends within eight bytes.
fn found(a: &Node, b: &Node, mtu: u16) -> Duration {
    let start = Instant::now();
    let is_known = |node, peer| (mtu - 7..=mtu).contains(&believed(node, peer));
    while !(is_known(a, b) && is_known(b, a)) {
        let (here, there) = (believed(a, b), believed(b, a));
        assert!(start.elapsed() < Duration::from_secs(20), "{here} and {there}, not {mtu}");
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

#[test]
fn every_size_of_path_is_found_and_carries() {
    let mut stage = stage();
    for (mtu, overlay) in
        [(576, None), (1280, None), (1337, None), (1400, None), (1500, None), (9000, Some(8900))]
    {
        narrow(&stage, mtu);
        start(&mut stage, overlay);
        stage.await_links();
        let (a, b) = stage.pair();
        // The link table is written twice a second.
        let took = found(a, b, mtu);
        println!("MTU {mtu}: known {took:?} after the link was up");
        assert!(took < Duration::from_secs(3), "{mtu}: {took:?}");
        for (from, to, address) in [(a, b, b.v4()), (b, a, a.v6())] {
            let result = transfer(from, to, address, MIB);
            println!("MTU {mtu}: 1 MiB to {address} in {:?}", result.time);
            assert_eq!((result.bytes, result.corrupted), (MIB, 0), "{mtu}");
        }
        stage.nodes.clear();
    }
}

#[test]
fn a_path_that_shrinks_and_grows_stalls_nothing() {
    let mut stage = stage();
    start(&mut stage, None);
    stage.await_links();
    let (a, b) = stage.pair();
    found(a, b, 9000);
    for mtu in [1500, 576, 1400, 1280, 9000] {
        let flows = [Flow::start(a, b, b.v4()), Flow::start(b, a, a.v4())];
        std::thread::sleep(Duration::from_secs(1));
        narrow(&stage, mtu);
        let took = found(a, b, mtu);
        std::thread::sleep(Duration::from_millis(500));
        for flow in flows {
            let result = flow.finish();
            println!("to MTU {mtu}: known after {took:?}, longest pause {:?}", result.pause);
            assert_eq!(result.corrupted, 0);
            assert!(result.pause < Duration::from_secs(3), "{mtu}: {:?}", result.pause);
        }
    }
    assert!(a.is_linked_to(b) && b.is_linked_to(a));
}

/// Our own interface shrinks: the kernel says so, and nobody has to find out.
#[test]
fn an_interface_that_shrinks_stalls_nothing() {
    let mut stage = stage();
    start(&mut stage, None);
    stage.await_links();
    let (a, b) = stage.pair();
    found(a, b, 9000);
    for mtu in [1300, 9000] {
        let flow = Flow::start(a, b, b.v4());
        std::thread::sleep(Duration::from_secs(1));
        stage.sites[0].node.ip(&format!("link set eth0 mtu {mtu}")).unwrap();
        narrow(&stage, mtu);
        let took = found(a, b, mtu);
        let result = flow.finish();
        println!("own MTU {mtu}: known after {took:?}, longest pause {:?}", result.pause);
        assert!(result.pause < Duration::from_secs(3), "{mtu}: {:?}", result.pause);
    }
}

/// Numbered UDP datagrams of a program that wants none of them fragmented.
struct Datagrams {
    sender: UdpSocket,
    receiver: UdpSocket,
    /// IP and UDP header.
    headers: u16,
    sent: BTreeSet<u32>,
    arrived: BTreeSet<u32>,
}

impl Datagrams {
    fn new(from: &Node, to: &Node, address: IpAddr) -> Self {
        let any_port = SocketAddr::new(address, 0);
        let receiver =
            ipop_lab::inside(&to.namespace(), move || UdpSocket::bind(any_port)).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let own_port = SocketAddr::new(if address.is_ipv4() { from.v4() } else { from.v6() }, 0);
        let sender =
            ipop_lab::inside(&from.namespace(), move || UdpSocket::bind(own_port)).unwrap();
        match address {
            IpAddr::V4(_) => set_ip_mtu_discover(&sender, Ipv4PathMtuDiscovery::DO).unwrap(),
            IpAddr::V6(_) => set_ipv6_mtu_discover(&sender, Ipv6PathMtuDiscovery::DO).unwrap(),
        }
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        let headers = if address.is_ipv4() { 28 } else { 48 };
        let (sent, arrived) = Default::default();
        Self { sender, receiver, headers, sent, arrived }
    }

    /// Sends one whose IP packet has `len` bytes; `false` if the kernel knows that it is too long.
    fn send(&mut self, len: u16) -> bool {
        let mut payload = vec![0x5a; usize::from(len - self.headers)];
        let number = self.sent.len() as u32;
        payload[..4].copy_from_slice(&number.to_be_bytes());
        let is_too_long =
            |error: &io::Error| error.raw_os_error() == Some(Errno::MSGSIZE.raw_os_error());
        match self.sender.send(&payload) {
            Ok(_) => self.sent.insert(number),
            Err(error) if is_too_long(&error) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends such ones until the kernel takes none of them any more.
    fn send_until_refused(&mut self, len: u16) {
        let what = format!("datagrams of {len} bytes are refused");
        eventually(&what, Duration::from_secs(10), || !self.send(len));
        // What ICMP says is kept for the next call as well.
        let _ = self.sender.take_error();
    }

    /// Sends so many that the kernel takes, one after the other.
    fn send_all(&mut self, count: usize, len: u16) {
        for _ in 0..count {
            assert!(self.send(len), "{len} bytes");
            // So that neither end's queue overflows.
            std::thread::sleep(Duration::from_millis(2));
            self.take();
        }
    }

    /// Takes what has arrived by now.
    fn take(&mut self) {
        self.receiver.set_nonblocking(true).unwrap();
        while self.receive() {}
        self.receiver.set_nonblocking(false).unwrap();
    }

    fn receive(&mut self) -> bool {
        let mut datagram = [0; 9000];
        let Ok(len) = self.receiver.recv(&mut datagram) else { return false };
        assert!(datagram[4..len].iter().all(|byte| *byte == 0x5a));
        self.arrived.insert(u32::from_be_bytes(*datagram.first_chunk().unwrap()));
        true
    }

    /// All that the kernel took have arrived.
    fn assert_none_lost(&mut self) {
        while self.arrived.len() < self.sent.len() && self.receive() {}
        assert_eq!(self.arrived, self.sent);
    }
}

/// What the kernel of a node's machine takes the way to an address to carry.
fn route_mtu(node: &Node, address: IpAddr) -> Option<u16> {
    let output = node.command("ip").args(["route", "get", &address.to_string()]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, behind) = text.split_once(" mtu ")?;
    behind.split_whitespace().next()?.parse().ok()
}

/// The MTU of a node's overlay interface.
fn interface_mtu(node: &Node) -> u16 {
    let output = node.command("ip").args(["-o", "link", "show", "ipop0"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, behind) = text.split_once(" mtu ").expect("an interface");
    behind.split_whitespace().next().unwrap().parse().unwrap()
}

/// The largest inner packet that a path of this MTU carries whole, and what a kernel is told.
fn inner(mtu: u16, address: IpAddr) -> u16 {
    let least = if address.is_ipv4() { 576 } else { 1280 };
    (mtu - HEADERS - SEALED).max(least)
}

#[test]
fn senders_learn_what_a_path_carries_and_lose_nothing_meanwhile() {
    const OVERLAY: u16 = 8900;
    let mut stage = stage();
    for mtu in [576, 1280, 1337, 1400, 1500, 9000] {
        narrow(&stage, mtu);
        start(&mut stage, Some(OVERLAY));
        stage.await_links();
        let (a, b) = stage.pair();
        found(a, b, mtu);
        for (from, to, address) in [(a, b, b.v4()), (b, a, a.v6())] {
            let mut datagrams = Datagrams::new(from, to, address);
            if inner(mtu, address) >= OVERLAY {
                datagrams.send_all(50, OVERLAY);
                assert_eq!(route_mtu(from, address), None);
            } else {
                datagrams.send_until_refused(OVERLAY);
                let learned = route_mtu(from, address).expect("an exception of the route");
                // The search ends within eight bytes, and data may use what it has proven.
                let expected = inner(believed(from, to), address);
                println!("MTU {mtu}: the way to {address} carries {learned}");
                assert_eq!(learned, expected, "MTU {mtu}, to {address}");
                assert!((inner(mtu - 7, address)..=inner(mtu, address)).contains(&learned));
                assert!(!datagrams.send(learned + 1), "the kernel knows");
                datagrams.send_all(50, learned);
                // Once a second, and nobody needs it twice.
                eventually("it is counted", Duration::from_secs(2), || {
                    (1..=3).contains(&from.counter("senders_told"))
                });
            }
            datagrams.assert_none_lost();
            assert_eq!(interface_mtu(from), OVERLAY, "what was chosen stays");
        }
        stage.nodes.clear();
    }
}

/// Three nodes, of which the third has a narrow path: the first one's interface is as wide as its
/// widest link, and its kernel knows better of the way to the third.
#[test]
fn an_interface_follows_its_widest_link_down_and_up() {
    let mut stage = stage_of(3);
    let third = |mtu| stage.internet().middle().ip(&format!("link set site3 mtu {mtu}")).unwrap();
    third(1400);
    narrow(&stage, 9000);
    start(&mut stage, None);
    stage.await_links();
    let [a, b, c] = &stage.nodes[..] else { panic!("three nodes") };
    found(a, b, 9000);
    eventually("the third's path is known", Duration::from_secs(5), || {
        (1393..=1400).contains(&believed(a, c))
    });
    let follows = |mtu: u16, nodes: &[&Node]| {
        let what = format!("interfaces follow a path of {mtu}");
        let expected = inner(mtu - 7, b.v6())..=inner(mtu, b.v6());
        eventually(&what, Duration::from_secs(20), || {
            nodes.iter().all(|node| expected.contains(&interface_mtu(node)))
        });
        nodes.iter().for_each(|node| assert_eq!(node.addresses().len(), 2, "IPv6 stays"));
    };
    follows(9000, &[a, b]);
    let wide = interface_mtu(a);

    let mut to_third = Datagrams::new(a, c, c.v4());
    to_third.send_until_refused(wide);
    assert_eq!(route_mtu(a, c.v4()), Some(inner(believed(a, c), c.v4())));
    to_third.assert_none_lost();
    let mut to_second = Datagrams::new(a, b, b.v6());
    to_second.send_all(50, wide);
    to_second.assert_none_lost();
    assert_eq!(route_mtu(a, b.v6()), None, "each way is another one");

    let flow = Flow::start(a, b, b.v4());
    narrow(&stage, 1500);
    found(a, b, 1500);
    let mut meanwhile = Datagrams::new(a, b, b.v4());
    meanwhile.send_until_refused(wide);
    assert_eq!(route_mtu(a, b.v4()), Some(inner(believed(a, b), b.v4())));
    meanwhile.assert_none_lost();
    follows(1500, &[a, b]);
    narrow(&stage, 9000);
    follows(9000, &[a, b]);
    let result = flow.finish();
    println!("down to 1500 and up again: longest pause {:?}", result.pause);
    assert_eq!(result.corrupted, 0);
    assert!(result.pause < Duration::from_secs(3), "{:?}", result.pause);
    // What was learned of the narrow path went with it.
    let mut wide_again = Datagrams::new(a, b, b.v4());
    wide_again.send_all(50, wide);
    wide_again.assert_none_lost();
}
