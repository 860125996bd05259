//! What was found, for people and for programs.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::time::Duration;

use ipop_controller::TurnTransport;
use ipop_stun::behaviour::{self, Behaviour};
use serde::Serialize;

use super::family::FamilyReport;
use super::servers::{Relay, Unresolved};

/// All that was found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// No server answered by UDP.
    pub udp_blocked: bool,
    /// IPv4 and IPv6, each as a whole.
    pub families: Vec<FamilyReport>,
    /// A report for each STUN server.
    pub stun: Vec<StunReport>,
    /// A report for each TURN server.
    pub turn: Vec<TurnReport>,
    /// Servers that could not be asked.
    pub unresolved: Vec<Unresolved>,
}

/// What a STUN server shows.
#[derive(Debug, Serialize)]
pub(super) struct StunReport {
    /// The server.
    pub server: SocketAddr,
    /// Where it sees this machine.
    pub mapped: Option<SocketAddr>,
    /// Whether there is a NAT in between.
    pub translated: Option<bool>,
    /// Round trip, milliseconds.
    pub rtt_ms: Option<f64>,
    /// What the mapping depends on (RFC 5780 section 4.3).
    pub mapping: String,
    /// Whose datagrams get in (RFC 5780 section 4.4).
    pub filtering: String,
    /// Why there is nothing more to say.
    pub error: Option<String>,
}

/// What a TURN server gives.
#[derive(Debug, Serialize)]
pub(super) struct TurnReport {
    /// The server.
    pub server: SocketAddr,
    /// How it was talked to.
    pub transport: TurnTransport,
    /// Whether it answered at all.
    pub answered: bool,
    /// The address that it lent.
    pub relayed: Option<SocketAddr>,
    /// The one of the other family beside it.
    pub relayed_too: Option<SocketAddr>,
    /// From the first request to the allocation, milliseconds.
    pub took_ms: Option<f64>,
    /// Why there is no allocation.
    pub error: Option<String>,
}

impl StunReport {
    pub(super) fn new(
        server: SocketAddr,
        report: Option<behaviour::Report>,
        error: Option<String>,
    ) -> Self {
        let Some(report) = report else {
            let unknown = || "unknown".to_owned();
            let (mapping, filtering) = (unknown(), unknown());
            let (mapped, translated, rtt_ms) = (None, None, None);
            return Self { server, mapped, translated, rtt_ms, mapping, filtering, error };
        };
        Self {
            server,
            mapped: report.mapped,
            translated: report.translated,
            rtt_ms: report.rtt.map(milliseconds),
            mapping: text(&report.mapping),
            filtering: text(&report.filtering),
            error,
        }
    }
}

impl TurnReport {
    pub(super) fn new(
        relay: &Relay,
        outcome: Option<Result<Vec<SocketAddr>, String>>,
        took: Option<Duration>,
        answered: bool,
    ) -> Self {
        let (lent, error) = match outcome {
            Some(Ok(lent)) => (lent, None),
            Some(Err(error)) => (Vec::new(), Some(error)),
            None => (Vec::new(), Some("no answer".to_owned())),
        };
        let (relayed, relayed_too) = (lent.first().copied(), lent.get(1).copied());
        let took_ms = took.map(milliseconds);
        Self { answered, relayed, relayed_too, took_ms, error, ..Self::unasked(relay) }
    }

    pub(super) fn failed(relay: &Relay, error: String) -> Self {
        Self { error: Some(error), ..Self::unasked(relay) }
    }

    fn unasked(relay: &Relay) -> Self {
        Self {
            server: relay.address,
            transport: relay.transport,
            answered: false,
            relayed: None,
            relayed_too: None,
            took_ms: None,
            error: None,
        }
    }
}

impl Report {
    /// Measures how long NATs remember, one family after the other. Each step is told on a
    /// terminal, where somebody waits.
    pub(super) fn measure_lifetimes(&mut self, stun: &[SocketAddr]) {
        let is_told = std::io::stderr().is_terminal();
        let mut tell = |text: &str| {
            if is_told {
                eprintln!("ipop: {text}");
            }
        };
        tell("how long mappings last takes minutes; Ctrl-C ends");
        for family in &mut self.families {
            family.measure_lifetime(stun, &self.stun, &mut tell);
        }
    }

    /// Whether some server lent an address.
    pub(super) fn has_relay(&self) -> bool {
        self.turn.iter().any(|turn| turn.relayed.is_some())
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for family in &self.families {
            family.write(&mut out, &self.stun);
        }
        for stun in &self.stun {
            let _ = writeln!(out, "STUN {}", stun.server);
            stun.write(&mut out);
            self.write_distance(&mut out, stun.server);
        }
        for turn in &self.turn {
            let over = match turn.transport {
                TurnTransport::Udp => "",
                TurnTransport::Tcp => " over TCP",
                TurnTransport::Tls => " over TLS",
            };
            let _ = writeln!(out, "TURN {}{over}", turn.server);
            turn.write(&mut out);
            self.write_distance(&mut out, turn.server);
        }
        for name in &self.unresolved {
            let _ = writeln!(out, "{name}");
        }
        let verdict = match (self.udp_blocked, self.has_relay()) {
            (true, false) => {
                "no server answers: UDP is blocked here, or the servers are down. Links need UDP, \
                 or a TURN server over TCP or TLS: open it, add one, or try another network"
            }
            (true, true) => {
                "UDP is blocked here; all links go through a relay over TCP or TLS, more slowly"
            }
            (false, true) => "a relay is there for peers that cannot be direct",
            (false, false) => {
                "UDP works; without a relay, two symmetric NATs cannot be linked: add a TURN server"
            }
        };
        let _ = writeln!(out, "{verdict}");
        out
    }
}

impl Report {
    fn write_distance(&self, out: &mut String, server: SocketAddr) {
        let mut servers = self.families.iter().flat_map(|family| &family.servers);
        let text = servers.find(|found| found.server == server).map(|found| found.text());
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            let _ = writeln!(out, "  distance   {text}");
        }
    }
}

impl StunReport {
    fn write(&self, out: &mut String) {
        match (self.mapped, &self.error) {
            (Some(mapped), _) => {
                let nat = match self.translated {
                    Some(true) => "behind a NAT",
                    Some(false) => "no NAT",
                    None => "NAT unknown",
                };
                let rtt = self.rtt_ms.map_or_else(String::new, |ms| format!(", RTT {ms:.1} ms"));
                let _ = writeln!(out, "  seen as    {mapped} ({nat}{rtt})");
            }
            (None, Some(error)) => {
                let _ = writeln!(out, "  error      {error}");
            }
            (None, None) => {
                let _ = writeln!(out, "  no answer");
            }
        }
        let _ = writeln!(out, "  mapping    {}", self.mapping);
        let _ = writeln!(out, "  filtering  {}", self.filtering);
    }
}

impl TurnReport {
    fn write(&self, out: &mut String) {
        if let Some(relayed) = self.relayed {
            let took = self.took_ms.unwrap_or_default();
            let too = self.relayed_too.map_or_else(String::new, |too| format!(" and {too}"));
            let _ = writeln!(out, "  relays     from {relayed}{too}, ready after {took:.1} ms");
        }
        if let Some(error) = &self.error {
            let _ = writeln!(out, "  error      {error}");
        }
    }
}

fn text(behaviour: &Behaviour) -> String {
    match behaviour {
        Behaviour::EndpointIndependent => "endpoint-independent".to_owned(),
        Behaviour::AddressDependent => "address-dependent".to_owned(),
        Behaviour::AddressAndPortDependent => "address- and port-dependent".to_owned(),
        Behaviour::Unknown(why) => format!("unknown: {why}"),
    }
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
