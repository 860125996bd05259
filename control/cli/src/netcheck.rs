//! `ipop netcheck`: what the network around this machine allows.
//!
//! Each STUN server is asked what the NAT does (RFC 5780, where the server has two addresses), each
//! TURN server for an allocation; all at once, each on a socket of its own. Those over TCP and TLS
//! are asked through the same bridge as in a running instance. Beside that all servers of a family
//! of addresses are asked from one socket, see `netcheck/survey.rs`, and with `--lifetime` how long
//! its NAT remembers.

mod drive;
mod family;
mod lifetime;
mod report;
mod servers;
mod survey;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ipop_controller::TurnTransport;
use ipop_engine::bridge::{Bridge, BridgeConfig, BridgeEvent, BridgeTls};
use ipop_stun::behaviour::{self, Discovery, DiscoveryConfig, DiscoveryOutput};
use ipop_stun::{Credential, Input, TurnClient, TurnConfig, TurnOutput};

use crate::args::Netcheck;
use crate::failure::Failure;

use drive::{Machine, drive, drive_on};
use report::{Report, StunReport, TurnReport};
use servers::{Relay, Servers};

/// For a connection and TLS.
const CONNECT_PATIENCE: Duration = Duration::from_secs(25);

/// Runs `ipop netcheck`.
///
/// # Errors
/// When no server is known to ask.
pub fn run(flags: &Netcheck) -> Result<ExitCode, Failure> {
    let mut servers = Servers::find(flags)?;
    if servers.stun.is_empty() && servers.turn.is_empty() {
        if !servers.unresolved.is_empty() {
            let names: Vec<_> = servers.unresolved.iter().map(ToString::to_string).collect();
            return Err(Failure::failed(format!("no server can be asked: {}", names.join("; "))));
        }
        return Err(Failure::usage(
            "no STUN or TURN server to ask: give --stun stun:HOST:PORT, a --config with a [nat] \
             section, or the --name of a running instance",
        ));
    }
    let mut report = check(&servers);
    report.unresolved = std::mem::take(&mut servers.unresolved);
    if flags.lifetime {
        report.measure_lifetimes(&servers.stun);
    }
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&report).map_err(Failure::failed)?);
    } else {
        print!("{}", report.text());
    }
    let is_shut = report.udp_blocked && !report.has_relay();
    Ok(if is_shut { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn check(servers: &Servers) -> Report {
    let all: Vec<_> =
        servers.stun.iter().copied().chain(servers.turn.iter().map(|turn| turn.address)).collect();
    let (families, stun, turn) = std::thread::scope(|scope| {
        let families = [true, false].map(|is_ipv4| {
            let all = &all;
            scope.spawn(move || family::check(is_ipv4, all))
        });
        let stun: Vec<_> =
            servers.stun.iter().map(|server| scope.spawn(|| check_stun(*server))).collect();
        let turn: Vec<_> =
            servers.turn.iter().map(|server| scope.spawn(|| servers.check(server))).collect();
        let stun: Vec<StunReport> = stun.into_iter().filter_map(|t| t.join().ok()).collect();
        let turn: Vec<TurnReport> = turn.into_iter().filter_map(|t| t.join().ok()).collect();
        let families = families.into_iter().filter_map(|family| family.join().ok());
        (families.collect(), stun, turn)
    });
    let mut over_udp = turn.iter().filter(|turn| turn.transport == TurnTransport::Udp).peekable();
    let is_asked = !stun.is_empty() || over_udp.peek().is_some();
    let is_answered = stun.iter().any(|s| s.mapped.is_some()) || over_udp.any(|t| t.answered);
    Report { udp_blocked: is_asked && !is_answered, families, stun, turn, unresolved: Vec::new() }
}

/// The tests of RFC 5780, and what they found.
struct StunCheck {
    discovery: Discovery,
    report: Option<behaviour::Report>,
}

impl Machine for StunCheck {
    fn input(&mut self, now: Instant, input: Input<'_>) {
        let _ = self.discovery.handle_input(now, input);
    }

    fn timeout(&mut self, now: Instant) {
        self.discovery.handle_timeout(now);
    }

    fn due(&self) -> Option<Instant> {
        self.discovery.poll_timeout()
    }

    fn transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        loop {
            match self.discovery.poll_output()? {
                DiscoveryOutput::Transmit { to, data } => return Some((to, data)),
                DiscoveryOutput::Done(report) => self.report = Some(report),
                DiscoveryOutput::Mapped(_) | DiscoveryOutput::Filtering(_) => {}
            }
        }
    }

    fn is_done(&self) -> bool {
        self.report.is_some()
    }
}

fn check_stun(server: SocketAddr) -> StunReport {
    let result = drive(server, |local| {
        let config = DiscoveryConfig { local: Some(local), ..DiscoveryConfig::new(server) };
        StunCheck { discovery: Discovery::new(config, seed(), Instant::now()), report: None }
    });
    match result {
        Ok(check) => StunReport::new(server, check.report, None),
        Err(error) => StunReport::new(server, None, Some(error.to_string())),
    }
}

/// One allocation, given back at once.
struct TurnCheck {
    client: TurnClient,
    started: Instant,
    outcome: Option<Result<Vec<SocketAddr>, String>>,
    took: Option<std::time::Duration>,
    answered: bool,
}

impl Machine for TurnCheck {
    fn input(&mut self, now: Instant, input: Input<'_>) {
        self.answered |= self.client.handle_input(now, input).is_ok();
    }

    fn timeout(&mut self, now: Instant) {
        self.client.handle_timeout(now);
    }

    fn due(&self) -> Option<Instant> {
        self.client.poll_timeout()
    }

    fn transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        loop {
            match self.client.poll_output()? {
                TurnOutput::Transmit { to, data } => return Some((to, data)),
                TurnOutput::Allocated { relayed, .. } => {
                    self.outcome = Some(Ok(relayed));
                    self.took = Some(self.started.elapsed());
                    self.client.close(Instant::now());
                }
                TurnOutput::Elsewhere(to) => {
                    self.outcome = Some(Err(format!("the server sends its clients to {to}")));
                }
                TurnOutput::Failed { error, .. } if self.outcome.is_none() => {
                    self.outcome = Some(Err(error.to_string()));
                }
                _ => {}
            }
        }
    }

    fn is_done(&self) -> bool {
        self.outcome.is_some()
    }
}

impl Servers {
    fn check(&self, relay: &Relay) -> TurnReport {
        let credential = match Credential::new(&relay.username, &relay.password) {
            Ok(credential) => credential,
            Err(error) => return TurnReport::failed(relay, error.to_string()),
        };
        let result = match relay.transport {
            TurnTransport::Udp => {
                drive(relay.address, |_| TurnCheck::new(TurnConfig::new(relay.address, credential)))
                    .map_err(|error| error.to_string())
            }
            TurnTransport::Tcp | TurnTransport::Tls => self.check_stream(relay, credential),
        };
        match result {
            Ok(check) => TurnReport::new(relay, check.outcome, check.took, check.answered),
            Err(text) => TurnReport::failed(relay, text),
        }
    }

    fn check_stream(&self, relay: &Relay, credential: Credential) -> Result<TurnCheck, String> {
        let told = |error: io::Error| error.to_string();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(told)?;
        let ca_file = (!self.ca_file.is_empty()).then(|| self.ca_file.clone().into());
        let is_tls = relay.transport == TurnTransport::Tls;
        let tls = is_tls.then(|| BridgeTls { name: relay.name.clone(), ca_file });
        let node = socket.local_addr().map_err(told)?;
        let (sender, events) = std::sync::mpsc::channel();
        let started = Instant::now();
        let tell = move |event| drop(sender.send(event));
        let bridge = Bridge::start(BridgeConfig { node, tls }, tell).map_err(told)?;
        bridge.connect(relay.address);
        match events.recv_timeout(CONNECT_PATIENCE) {
            Ok(BridgeEvent::Connected) => {}
            Ok(BridgeEvent::Lost(text)) => return Err(text),
            Err(_) => return Err("no connection".to_owned()),
        }
        let config = TurnConfig::new(bridge.address(), credential);
        let mut check = TurnCheck::new(TurnConfig { is_stream: true, ..config });
        check.started = started;
        check.client.connected(Instant::now());
        drive_on(&socket, check).map_err(told)
    }
}

impl TurnCheck {
    fn new(config: TurnConfig) -> Self {
        let started = Instant::now();
        let client = TurnClient::new(config, seed(), started);
        Self { client, started, outcome: None, took: None, answered: false }
    }
}

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    if ipop_controller::fill_random(&mut seed).is_err() {
        tracing::warn!("the system gives no randomness: transaction ids can be guessed");
    }
    seed
}
