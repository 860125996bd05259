//! Our clients against a real coturn, which each test starts in a network namespace of its own.
//!
//! A test runs itself again under `unshare --net`, so that it needs no free port, disturbs nobody
//! and may give the loopback interface the addresses that it likes.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used)]

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipop_stun::behaviour::{Behaviour, Discovery, DiscoveryConfig, DiscoveryOutput, Report};
use ipop_stun::{
    BindingClient, BindingConfig, BindingOutput, Credential, Families, Family, Input, RelayError,
    TurnConfig, TurnError, TurnOutput,
};

#[path = "../examples/driver/mod.rs"]
mod driver;

use driver::Driver;

const TURNSERVER: &str = "/usr/bin/turnserver";
/// Set for the run inside the namespace.
const INSIDE: &str = "IPOP_STUN_TEST_NAMESPACE";
/// Set to the router's kind for the run behind a NAT.
const BEHIND: &str = "IPOP_STUN_TEST_BEHIND";
const SERVER: &str = "127.0.0.1:3478";
const PATIENCE: Duration = Duration::from_secs(10);

/// True inside the namespace. Outside it runs `test` there, fails if it fails, and says false.
///
/// The namespace of processes makes sure that nothing outlives the test, that of mounts that
/// `ip netns` leaves no names behind.
fn in_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    for (file, package) in [(TURNSERVER, "coturn"), ("/usr/bin/unshare", "util-linux")] {
        assert!(Path::new(file).exists(), "{file} is missing: apt-get install {package}");
    }
    let as_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let user: &[&str] = if as_root { &[] } else { &["--user", "--map-root-user"] };
    let status = Command::new("unshare")
        .args(user)
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, format!("{}-{test}", std::process::id()))
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespace: {status}");
    false
}

fn run(program: &str, package: &str, arguments: &str) {
    let status = Command::new(program).args(arguments.split(' ')).status();
    let status = status.unwrap_or_else(|error| panic!("{program}: {error}; see package {package}"));
    assert!(status.success(), "{program} {arguments}: {status}");
}

fn ip(arguments: &str) {
    run("ip", "iproute2", arguments);
}

/// Where coturn keeps its files; no other test has the same.
fn folder() -> PathBuf {
    std::env::temp_dir().join(format!("ipop-coturn-{}", std::env::var(INSIDE).unwrap()))
}

/// A running coturn, ended when dropped.
struct Coturn(Child);

impl Coturn {
    /// Starts coturn with user `u`, password `p`, and more options; answers when it answers.
    fn start(options: &[&str]) -> Self {
        Self::start_at(SERVER, options)
    }

    fn start_at(server: &str, options: &[&str]) -> Self {
        ip("link set lo up");
        let server: SocketAddr = server.parse().unwrap();
        let folder = folder();
        std::fs::create_dir_all(&folder).unwrap();
        let child = Command::new(TURNSERVER)
            .args(["-n", "--listening-ip"])
            .arg(server.ip().to_string())
            .args(["--lt-cred-mech", "--user", "u:p", "--realm", "lab.test"])
            .args(["--no-cli", "--no-tls", "--no-dtls", "--log-file", "stdout", "--pidfile"])
            .arg(folder.join("pid"))
            .arg("--userdb")
            .arg(folder.join("db"))
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let coturn = Self(child);
        assert!(mapped(server).is_some(), "coturn gives no answer");
        coturn
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_dir_all(folder());
    }
}

fn socket(server: SocketAddr) -> UdpSocket {
    UdpSocket::bind(SocketAddr::new(server.ip(), 0)).unwrap()
}

/// Our address as the server sees it, from a socket of its own.
fn mapped(server: SocketAddr) -> Option<(SocketAddr, SocketAddr)> {
    let socket = socket(server);
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut client = BindingClient::new(BindingConfig::new(server), [1; 32], Instant::now());
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        while let Some(output) = client.poll_output() {
            match output {
                // Refused as long as coturn does not listen yet.
                BindingOutput::Transmit { to, data } => drop(socket.send_to(&data, to)),
                BindingOutput::Mapped { address, .. } => {
                    return Some((address, socket.local_addr().unwrap()));
                }
                BindingOutput::Failed(error) => panic!("{error}"),
            }
        }
        let mut buffer = [0; 2048];
        if let Ok((length, remote)) = socket.recv_from(&mut buffer) {
            client.handle_input(Instant::now(), Input { remote, data: &buffer[..length] }).unwrap();
        }
        client.handle_timeout(Instant::now());
    }
    None
}

fn config(server: &str, password: &str) -> TurnConfig {
    TurnConfig::new(server.parse().unwrap(), Credential::new("u", password).unwrap())
}

fn driver_at(server: &str, password: &str) -> Driver {
    let config = config(server, password);
    Driver::new(socket(config.server), config, [2; 32])
}

fn driver(password: &str) -> Driver {
    driver_at(SERVER, password)
}

/// Waits for the next event.
fn event(driver: &mut Driver) -> TurnOutput {
    driver.run(PATIENCE, |driver| !driver.events.is_empty()).unwrap();
    assert!(!driver.events.is_empty(), "nothing happens");
    driver.events.remove(0)
}

fn allocate(driver: &mut Driver) -> SocketAddr {
    match event(driver) {
        TurnOutput::Allocated { relayed, .. } => relayed[0],
        other => panic!("{other:?}"),
    }
}

/// Sends to `peer` through the server and back, and checks both; says whether the way back was a
/// channel. Repeats itself as ICE does: what follows a request that the server finds stale is lost.
fn exchange(driver: &mut Driver, peer: &UdpSocket, relayed: SocketAddr, text: &str) -> bool {
    let address = peer.local_addr().unwrap();
    peer.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut again = Instant::now();
    let done = driver.run(PATIENCE, |driver| {
        if Instant::now() >= again {
            again += Duration::from_millis(300);
            driver.client.relay(Instant::now(), address, text.as_bytes()).unwrap();
        }
        let mut buffer = [0; 2048];
        if let Ok((length, from)) = peer.recv_from(&mut buffer) {
            assert_eq!(from, relayed);
            peer.send_to(&buffer[..length], from).unwrap();
        }
        assert!(driver.received.iter().all(|data| data.peer == address));
        driver.received.iter().any(|data| data.payload == text.as_bytes())
    });
    assert!(done.unwrap(), "no answer came through: {:?}", driver.events);
    driver.received.drain(..).all(|data| data.in_channel)
}

fn discover(config: DiscoveryConfig, socket: &UdpSocket) -> Report {
    let mut discovery = Discovery::new(config, [3; 32], Instant::now());
    socket.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    loop {
        while let Some(output) = discovery.poll_output() {
            match output {
                DiscoveryOutput::Transmit { to, data } => drop(socket.send_to(&data, to)),
                DiscoveryOutput::Done(report) => return report,
                _ => {}
            }
        }
        let mut buffer = [0; 2048];
        if let Ok((length, remote)) = socket.recv_from(&mut buffer) {
            let input = Input { remote, data: &buffer[..length] };
            let _ = discovery.handle_input(Instant::now(), input);
        }
        discovery.handle_timeout(Instant::now());
    }
}

#[test]
fn data_goes_both_ways_in_indications_and_in_a_channel() {
    if !in_namespace("data_goes_both_ways_in_indications_and_in_a_channel") {
        return;
    }
    let _coturn = Coturn::start(&["--allow-loopback-peers"]);
    let mut driver = driver("p");
    let relayed = allocate(&mut driver);
    let peer = socket(SERVER.parse().unwrap());
    let address = peer.local_addr().unwrap();
    assert!(!exchange(&mut driver, &peer, relayed, "in an indication"));
    driver.client.bind(Instant::now(), address).unwrap();
    let channel = match event(&mut driver) {
        TurnOutput::ChannelBound { peer, channel } if peer == address => channel,
        other => panic!("{other:?}"),
    };
    assert_eq!(driver.client.channel(address), Some(channel));
    for n in 0..100 {
        assert!(exchange(&mut driver, &peer, relayed, &format!("in a channel {n}")));
    }
    driver.client.close(Instant::now());
    assert_eq!(event(&mut driver), TurnOutput::Closed);
}

#[test]
fn a_peer_that_was_forgotten_can_be_bound_again() {
    if !in_namespace("a_peer_that_was_forgotten_can_be_bound_again") {
        return;
    }
    let _coturn = Coturn::start(&["--allow-loopback-peers"]);
    let mut driver = driver("p");
    let relayed = allocate(&mut driver);
    let peer = socket(SERVER.parse().unwrap());
    let address = peer.local_addr().unwrap();
    let mut channels = Vec::new();
    for _ in 0..3 {
        driver.client.bind(Instant::now(), address).unwrap();
        match event(&mut driver) {
            TurnOutput::ChannelBound { peer, channel } if peer == address => channels.push(channel),
            other => panic!("{other:?}"),
        }
        driver.client.forget(Instant::now(), address);
        assert_eq!(event(&mut driver), TurnOutput::ChannelLost { peer: address });
        let in_channel = exchange(&mut driver, &peer, relayed, "sent in an indication");
        assert!(in_channel, "coturn still answers in the channel");
    }
    assert!(channels.iter().all(|channel| *channel == channels[0]), "{channels:?}");
    assert!(driver.events.is_empty(), "{:?}", driver.events);
}

#[test]
fn the_server_sees_us_where_we_are() {
    if !in_namespace("the_server_sees_us_where_we_are") {
        return;
    }
    let _coturn = Coturn::start(&[]);
    let (seen, local) = mapped(SERVER.parse().unwrap()).unwrap();
    assert_eq!(seen, local);
}

#[test]
fn a_wrong_password_is_refused() {
    if !in_namespace("a_wrong_password_is_refused") {
        return;
    }
    let _coturn = Coturn::start(&[]);
    let failed = TurnOutput::Failed { error: TurnError::WrongCredential, retry_at: None };
    assert_eq!(event(&mut driver("wrong")), failed);
}

#[test]
fn a_used_up_quota_is_told() {
    if !in_namespace("a_used_up_quota_is_told") {
        return;
    }
    let _coturn = Coturn::start(&["--user-quota", "1"]);
    let mut first = driver("p");
    allocate(&mut first);
    let failed = event(&mut driver("p"));
    let quota = matches!(failed, TurnOutput::Failed { error: TurnError::Quota, retry_at: Some(_) });
    assert!(quota, "{failed:?}");
}

#[test]
fn a_stale_nonce_is_replaced() {
    if !in_namespace("a_stale_nonce_is_replaced") {
        return;
    }
    let _coturn = Coturn::start(&["--allow-loopback-peers", "--stale-nonce=1"]);
    let mut driver = driver("p");
    let relayed = allocate(&mut driver);
    let peer = socket(SERVER.parse().unwrap());
    for _ in 0..3 {
        driver.run(Duration::from_millis(1500), |_| false).unwrap();
        driver.client.probe(Instant::now());
        driver.run(Duration::from_millis(200), |_| false).unwrap();
        exchange(&mut driver, &peer, relayed, "with a new nonce");
    }
    assert_eq!(driver.client.relayed(), [relayed]);
    assert!(driver.events.is_empty(), "{:?}", driver.events);
}

#[test]
fn a_forbidden_peer_is_told() {
    if !in_namespace("a_forbidden_peer_is_told") {
        return;
    }
    let _coturn = Coturn::start(&[]);
    let mut driver = driver("p");
    allocate(&mut driver);
    let peer: SocketAddr = "127.0.0.1:9".parse().unwrap();
    driver.client.relay(Instant::now(), peer, b"x").unwrap();
    let refused = event(&mut driver);
    let forbidden = matches!(
        refused,
        TurnOutput::Refused { peer: at, error: TurnError::Forbidden(_) } if at == peer.ip()
    );
    assert!(forbidden, "{refused:?}");
    let again = driver.client.relay(Instant::now(), peer, b"x");
    assert_eq!(again, Err(RelayError::Refused));
}

#[test]
fn a_restarted_client_gets_an_allocation_on_its_old_port() {
    if !in_namespace("a_restarted_client_gets_an_allocation_on_its_old_port") {
        return;
    }
    let _coturn = Coturn::start(&["--allow-loopback-peers"]);
    let mut driver = driver("p");
    allocate(&mut driver);
    let mut next = Driver::new(driver.socket, config(SERVER, "p"), [7; 32]);
    let relayed = allocate(&mut next);
    exchange(&mut next, &socket(SERVER.parse().unwrap()), relayed, "from the new one");
}

#[test]
fn a_restarted_server_gives_a_new_allocation_with_all_that_was_in_the_old() {
    if !in_namespace("a_restarted_server_gives_a_new_allocation_with_all_that_was_in_the_old") {
        return;
    }
    let coturn = Coturn::start(&["--allow-loopback-peers"]);
    let mut driver = driver("p");
    allocate(&mut driver);
    let peer = socket(SERVER.parse().unwrap());
    driver.client.bind(Instant::now(), peer.local_addr().unwrap()).unwrap();
    assert!(matches!(event(&mut driver), TurnOutput::ChannelBound { .. }));
    drop(coturn);
    let _coturn = Coturn::start(&["--allow-loopback-peers"]);
    driver.client.probe(Instant::now());
    assert!(matches!(event(&mut driver), TurnOutput::ChannelLost { .. }));
    assert_eq!(event(&mut driver), TurnOutput::Lost(TurnError::Mismatch));
    let relayed = allocate(&mut driver);
    assert!(matches!(event(&mut driver), TurnOutput::ChannelBound { .. }));
    assert!(exchange(&mut driver, &peer, relayed, "as before"));
}

#[test]
fn ipv6_is_relayed_over_ipv6() {
    if !in_namespace("ipv6_is_relayed_over_ipv6") {
        return;
    }
    let server = "[::1]:3478";
    let _coturn = Coturn::start_at(server, &["--allow-loopback-peers", "--relay-ip", "::1"]);
    let mut config = config(server, "p");
    config.families = Families::Only(Family::V6);
    let mut driver = Driver::new(socket(config.server), config, [2; 32]);
    let relayed = allocate(&mut driver);
    assert!(relayed.is_ipv6());
    exchange(&mut driver, &socket(server.parse().unwrap()), relayed, "over IPv6");
    let v4 = driver.client.relay(Instant::now(), "127.0.0.1:9".parse().unwrap(), b"x");
    assert_eq!(v4, Err(RelayError::WrongFamily));
}

/// IPv4 from a client over IPv6, and the other way round, in one allocation.
#[test]
fn both_families_are_relayed_at_once() {
    if !in_namespace("both_families_are_relayed_at_once") {
        return;
    }
    let options = ["--listening-ip", "::1", "--relay-ip", "127.0.0.1", "--relay-ip", "::1"];
    let _coturn = Coturn::start(&[&options[..], &["--allow-loopback-peers"]].concat());
    for server in [SERVER, "[::1]:3478"] {
        let mut driver = driver_at(server, "p");
        let relayed = match event(&mut driver) {
            TurnOutput::Allocated { relayed, .. } => relayed,
            other => panic!("{other:?}"),
        };
        assert_eq!(relayed.iter().filter(|relayed| relayed.is_ipv6()).count(), 1, "{relayed:?}");
        assert_eq!(relayed.len(), 2);
        for relayed in relayed {
            let peer = socket(SocketAddr::new(relayed.ip(), 0));
            exchange(&mut driver, &peer, relayed, "as an indication");
            driver.client.bind(Instant::now(), peer.local_addr().unwrap()).unwrap();
            assert!(matches!(event(&mut driver), TurnOutput::ChannelBound { .. }));
            assert!(exchange(&mut driver, &peer, relayed, "in a channel"));
        }
    }
}

#[test]
fn behaviour_is_discovered_without_a_nat() {
    if !in_namespace("behaviour_is_discovered_without_a_nat") {
        return;
    }
    ip("link set lo up");
    ip("address add 198.18.0.20/32 dev lo");
    ip("address add 198.18.0.21/32 dev lo");
    ip("address add 198.18.0.2/32 dev lo");
    let options = ["--listening-ip", "198.18.0.21"];
    let _coturn = Coturn::start_at("198.18.0.20:3478", &options);
    let socket = UdpSocket::bind("198.18.0.2:0").unwrap();
    let mut config = DiscoveryConfig::new("198.18.0.20:3478".parse().unwrap());
    let local = socket.local_addr().unwrap();
    let report = discover(config.clone(), &socket);
    assert_eq!(report.mapped, Some(local));
    assert_eq!(report.translated, None);
    assert_eq!(report.mapping, Behaviour::EndpointIndependent);
    assert_eq!(report.filtering, Behaviour::EndpointIndependent);
    config.local = Some(local);
    assert_eq!(discover(config, &socket).translated, Some(false));
}

/// A router's kind, its rule for what goes out, whether it rejects what comes in unasked (else it
/// is silent), and how it maps. Each filters by address and port.
type Nat = (&'static str, &'static str, bool, Behaviour);

const NATS: [Nat; 3] = [
    ("one mapping", "masquerade", false, Behaviour::EndpointIndependent),
    // Its connection tracking remembers what it rejected, and maps later packets to that remote
    // to another port.
    ("rejecting", "masquerade", true, Behaviour::EndpointIndependent),
    ("symmetric", "masquerade fully-random", false, Behaviour::AddressAndPortDependent),
];

/// Builds a client's network behind a router in namespaces of their own; this one is the internet.
fn build_nat() {
    run("mount", "mount", "-t tmpfs none /run");
    for command in [
        "netns add router",
        "netns add client",
        "link add internet type veth peer name wan netns router",
        "address add 198.18.0.20/24 dev internet",
        "address add 198.18.0.21/24 dev internet",
        "link set internet up",
        "-n router address add 198.18.0.30/24 dev wan",
        "-n router link set wan up",
        "-n router link add lan type veth peer name eth0 netns client",
        "-n router address add 10.0.0.1/24 dev lan",
        "-n router link set lan up",
        "-n client address add 10.0.0.2/24 dev eth0",
        "-n client link set eth0 up",
        "-n client route add default via 10.0.0.1",
    ] {
        ip(command);
    }
    run("ip", "iproute2", "netns exec router sysctl -qw net.ipv4.ip_forward=1");
    let nft = "netns exec router nft";
    run("ip", "nftables", &format!("{nft} add table ip nat"));
    let hook = "{ type nat hook postrouting priority 100 ; }";
    run("ip", "nftables", &format!("{nft} add chain ip nat out {hook}"));
    run("ip", "nftables", &format!("{nft} add table ip filter"));
    let hook = "{ type filter hook input priority 0 ; policy drop ; }";
    run("ip", "nftables", &format!("{nft} add chain ip filter in {hook}"));
}

#[test]
fn behaviour_is_discovered_behind_real_nats() {
    if let Ok(nat) = std::env::var(BEHIND) {
        return behind(&nat);
    }
    if !in_namespace("behaviour_is_discovered_behind_real_nats") {
        return;
    }
    build_nat();
    let _coturn = Coturn::start_at("198.18.0.20:3478", &["--listening-ip", "198.18.0.21"]);
    for (nat, rule, rejects, _) in NATS {
        run("ip", "nftables", "netns exec router nft flush chain ip nat out");
        run("ip", "nftables", "netns exec router nft flush chain ip filter in");
        let rule = format!("netns exec router nft add rule ip nat out oifname wan {rule}");
        run("ip", "nftables", &rule);
        if rejects {
            run("ip", "nftables", "netns exec router nft add rule ip filter in reject");
        }
        let status = Command::new("ip")
            .args(["netns", "exec", "client"])
            .arg(std::env::current_exe().unwrap())
            .args(["behaviour_is_discovered_behind_real_nats", "--exact", "--nocapture"])
            .env(BEHIND, nat)
            .status()
            .unwrap();
        assert!(status.success(), "{nat}: {status}");
    }
}

/// The client's side of the test.
fn behind(nat: &str) {
    let (.., mapping) = NATS.into_iter().find(|(name, ..)| *name == nat).unwrap();
    let socket = UdpSocket::bind("10.0.0.2:0").unwrap();
    let mut config = DiscoveryConfig::new("198.18.0.20:3478".parse().unwrap());
    config.local = Some(socket.local_addr().unwrap());
    let started = Instant::now();
    let report = discover(config, &socket);
    println!("{nat}: {report:?} after {:?}", started.elapsed());
    assert_eq!(report.translated, Some(true));
    assert_eq!(report.mapped.unwrap().ip().to_string(), "198.18.0.30");
    assert_eq!(report.mapping, mapping);
    assert_eq!(report.filtering, Behaviour::AddressAndPortDependent);
    assert!(started.elapsed() < Duration::from_secs(4));
}
