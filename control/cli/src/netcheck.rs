//! `ipop netcheck`: what the network around this machine allows.
//!
//! Each STUN server is asked what the NAT does (RFC 5780, where the server has two addresses), each
//! TURN server for an allocation; all at once, each on a socket of its own. Beside that all servers
//! of an address family are asked from one socket, see `netcheck/survey.rs`.

mod drive;
mod family;
mod report;
mod servers;
mod survey;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use ipop_stun::behaviour::{self, Discovery, DiscoveryConfig, DiscoveryOutput};
use ipop_stun::{Credential, Input, TurnClient, TurnConfig, TurnOutput};

use crate::args::Netcheck;
use crate::failure::Failure;

use drive::{Machine, drive};
use report::{Report, StunReport, TurnReport};
use servers::{Relay, Servers};

/// Runs `ipop netcheck`.
///
/// # Errors
/// When no server is known to ask.
pub fn run(flags: &Netcheck) -> Result<ExitCode, Failure> {
    let servers = Servers::find(flags)?;
    if servers.stun.is_empty() && servers.turn.is_empty() {
        return Err(Failure::usage(
            "no STUN or TURN server to ask: give --stun stun:HOST:PORT, a --config with a [nat] \
             section, or the --name of a running instance",
        ));
    }
    let report = check(&servers);
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&report).map_err(Failure::failed)?);
    } else {
        print!("{}", report.text());
    }
    Ok(if report.udp_blocked { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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
            servers.turn.iter().map(|server| scope.spawn(|| check_turn(server))).collect();
        let stun: Vec<StunReport> = stun.into_iter().filter_map(|t| t.join().ok()).collect();
        let turn: Vec<TurnReport> = turn.into_iter().filter_map(|t| t.join().ok()).collect();
        let families = families.into_iter().filter_map(|family| family.join().ok());
        (families.collect(), stun, turn)
    });
    let answered = stun.iter().any(|s| s.mapped.is_some()) || turn.iter().any(|t| t.answered);
    Report { udp_blocked: !answered, families, stun, turn }
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
    outcome: Option<Result<SocketAddr, String>>,
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

fn check_turn(relay: &Relay) -> TurnReport {
    let credential = match Credential::new(&relay.username, &relay.password) {
        Ok(credential) => credential,
        Err(error) => return TurnReport::failed(relay.address, error.to_string()),
    };
    let result = drive(relay.address, |_| {
        let started = Instant::now();
        let config = TurnConfig::new(relay.address, credential);
        let client = TurnClient::new(config, seed(), started);
        TurnCheck { client, started, outcome: None, took: None, answered: false }
    });
    match result {
        Ok(check) => TurnReport::new(relay.address, check.outcome, check.took, check.answered),
        Err(error) => TurnReport::failed(relay.address, error.to_string()),
    }
}

fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    if ipop_controller::fill_random(&mut seed).is_err() {
        tracing::warn!("the system gives no randomness: transaction ids can be guessed");
    }
    seed
}
