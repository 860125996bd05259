//! One address family as a whole: is it there, what does its NAT do, how far do its servers see.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use serde::Serialize;

use super::lifetime::{self, Lifetime};
use super::report::{StunReport, milliseconds};
use super::survey::{Survey, survey};

/// Servers that are asked for each family, at most.
const SERVERS_MAX: usize = 8;
/// Addresses that nobody has (RFC 5737, RFC 3849): to ask the kernel for a route. Nothing is sent.
const NOWHERE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// What was found out about a family.
#[derive(Debug, Serialize)]
pub(super) struct FamilyReport {
    /// `IPv4` or `IPv6`.
    pub family: &'static str,
    /// The address that this machine sends from; `None`: there is no route.
    pub local: Option<IpAddr>,
    /// Whether a server answered.
    pub reachable: bool,
    /// Where servers see the machine, each address once.
    pub mapped: Vec<SocketAddr>,
    /// Whether there is a NAT.
    pub translated: Option<bool>,
    /// Whether the NAT keeps the port.
    pub port_preserved: Option<bool>,
    /// Whether all servers see the same address and port; `None` if fewer than two answered.
    pub mapping_is_one: Option<bool>,
    /// Whether the NAT turns round what is sent to its own outside.
    pub hairpinning: Option<bool>,
    /// How long the NAT remembers a mapping that is not used; only where that was asked for.
    pub lifetime: Option<Lifetime>,
    /// All servers of the family.
    pub servers: Vec<ServerReport>,
}

/// How far a server is.
#[derive(Debug, Serialize)]
pub(super) struct ServerReport {
    /// The server.
    pub server: SocketAddr,
    /// Round trip, milliseconds.
    pub rtt_ms: Option<f64>,
    /// The largest IP packet that reaches it, of those that networks are made for; bytes.
    pub path_mtu: Option<u16>,
}

/// Looks at a family with its servers, if there are any.
pub(super) fn check(is_ipv4: bool, servers: &[SocketAddr]) -> FamilyReport {
    let of_family: BTreeSet<_> =
        servers.iter().copied().filter(|server| server.is_ipv4() == is_ipv4).collect();
    let servers: Vec<_> = of_family.into_iter().take(SERVERS_MAX).collect();
    let local = own_address(NOWHERE[usize::from(!is_ipv4)]);
    let found = survey(&servers).ok();
    FamilyReport::new(is_ipv4, local, found)
}

/// The address that this machine would send from.
fn own_address(target: &str) -> Option<IpAddr> {
    let target: SocketAddr = target.parse().ok()?;
    let any: IpAddr = if target.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let probe = UdpSocket::bind((any, 0)).ok()?;
    probe.connect(target).ok()?;
    Some(probe.local_addr().ok()?.ip())
}

impl FamilyReport {
    fn new(is_ipv4: bool, local: Option<IpAddr>, survey: Option<Survey>) -> Self {
        let asked = survey.iter().flat_map(|survey| &survey.asked);
        let seen: Vec<_> = asked.clone().filter_map(|asked| asked.mapped).collect();
        let mapped: BTreeSet<_> = seen.iter().copied().collect();
        let from = survey.as_ref().map(|survey| survey.local);
        let first = seen.first().copied();
        let with = |is: fn(&SocketAddr, &SocketAddr) -> bool| {
            first.zip(from).map(|(mapped, from)| is(&mapped, &from))
        };
        let translated = with(|mapped, from| mapped != from);
        Self {
            family: if is_ipv4 { "IPv4" } else { "IPv6" },
            local: from.map(|from| from.ip()).or(local),
            reachable: !seen.is_empty(),
            mapping_is_one: (seen.len() > 1).then_some(mapped.len() == 1),
            mapped: mapped.into_iter().collect(),
            translated,
            port_preserved: with(|mapped, from| mapped.port() == from.port())
                .filter(|_| translated == Some(true)),
            lifetime: None,
            hairpinning: survey.as_ref().and_then(|survey| survey.hairpins),
            servers: asked
                .map(|asked| ServerReport {
                    server: asked.server,
                    rtt_ms: asked.rtt.map(milliseconds),
                    path_mtu: asked.path_mtu,
                })
                .collect(),
        }
    }

    /// Measures how long mappings last, by a server of the family that answers; it takes minutes.
    pub(super) fn measure_lifetime(
        &mut self,
        stun: &[SocketAddr],
        reports: &[StunReport],
        tell: &mut dyn FnMut(&str),
    ) {
        let answers = |server: &&SocketAddr| {
            reports.iter().any(|report| report.server == **server && report.mapped.is_some())
        };
        let is_ipv4 = self.family == "IPv4";
        let mut of_family = stun.iter().filter(|server| server.is_ipv4() == is_ipv4);
        self.lifetime = of_family.find(answers).map(|server| lifetime::measure(*server, tell));
    }

    /// For people, with what RFC 5780's tests found.
    pub(super) fn write(&self, out: &mut String, stun: &[StunReport]) {
        let _ = writeln!(out, "{}  {}", self.family, self.head());
        if self.translated == Some(true) {
            let said = |is: Option<bool>, yes: &'static str, no: &'static str| match is {
                Some(true) => yes,
                Some(false) => no,
                None => "unknown",
            };
            let ports = said(self.port_preserved, "kept", "changed");
            let hairpins = said(self.hairpinning, "yes", "no");
            let _ = writeln!(out, "  ports      {ports}; hairpinning {hairpins}");
        }
        if let Some(is_one) = self.mapping_is_one.filter(|_| self.translated == Some(true)) {
            let text = if is_one { "the same for all servers" } else { "another for each server" };
            let _ = writeln!(out, "  address    {text}");
        }
        if let Some(lifetime) = &self.lifetime {
            let _ = writeln!(out, "  lifetime   {}", lifetime.text());
        }
        if let Some(outlook) = self.outlook(stun) {
            let _ = writeln!(out, "  outlook    {outlook}");
        }
    }

    fn head(&self) -> String {
        let list = |addresses: &[SocketAddr]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        match (self.local, self.reachable) {
            (None, _) => "no route: this machine has none".to_owned(),
            (Some(local), false) if self.servers.is_empty() => {
                format!("from {local}; no server of this family to ask")
            }
            (Some(local), false) => format!("from {local}; no server answers"),
            (Some(local), true) => {
                let nat = if self.translated == Some(true) { "a NAT" } else { "no NAT" };
                format!("from {local} through {nat}, seen as {}", list(&self.mapped))
            }
        }
    }

    /// With whom links can be direct.
    fn outlook(&self, stun: &[StunReport]) -> Option<&'static str> {
        let translated = self.translated?;
        let of_family = |report: &&StunReport| {
            report.server.is_ipv4() == (self.family == "IPv4") && report.mapped.is_some()
        };
        let knows = |word: &str, is_of: fn(&StunReport) -> &str| {
            stun.iter().filter(of_family).any(|report| is_of(report) == word)
        };
        let is_one = self.mapping_is_one == Some(true)
            || knows("endpoint-independent", |report| &report.mapping);
        let is_many = self.mapping_is_one == Some(false)
            || knows("address-dependent", |report| &report.mapping)
            || knows("address- and port-dependent", |report| &report.mapping);
        let is_open = knows("endpoint-independent", |report| &report.filtering);
        Some(match (translated, is_many, is_one, is_open) {
            (false, _, _, true) => "direct links with everybody",
            (false, ..) => "direct links with nearly everybody: a firewall waits for us to begin",
            (true, true, ..) => {
                "a hard NAT, another port for each destination: direct links only with peers that \
                 let us in from any port"
            }
            (true, false, true, true) => "an easy NAT: direct links with everybody",
            (true, false, true, false) => {
                "a usual NAT: direct links with all peers but those behind hard NATs"
            }
            (true, false, false, _) => return None,
        })
    }
}

impl ServerReport {
    /// For people, beside what the server said.
    pub(super) fn text(&self) -> String {
        let rtt = self.rtt_ms.map(|ms| format!("RTT {ms:.1} ms"));
        let mtu = self.path_mtu.map(|bytes| format!("packets of {bytes} bytes arrive"));
        [rtt, mtu].into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::survey::Asked;
    use super::*;

    fn asked(last: u8, mapped: Option<&str>) -> Asked {
        let server = SocketAddr::from(([198, 18, 0, last], 3478));
        let mapped = mapped.map(|mapped| mapped.parse().unwrap());
        Asked { server, mapped, rtt: Some(Duration::from_millis(5)), path_mtu: Some(1500) }
    }

    fn report(mapped: [Option<&str>; 2], local: &str) -> FamilyReport {
        let asked = vec![asked(1, mapped[0]), asked(2, mapped[1])];
        let survey = Survey { local: local.parse().unwrap(), asked, hairpins: Some(false) };
        FamilyReport::new(true, None, Some(survey))
    }

    fn text(report: &FamilyReport) -> String {
        let mut out = String::new();
        report.write(&mut out, &[]);
        out
    }

    #[test]
    fn two_servers_tell_a_hard_nat_without_a_second_address() {
        let hard = report([Some("192.0.2.9:1"), Some("192.0.2.9:2")], "10.0.0.1:500");
        assert_eq!((hard.mapping_is_one, hard.port_preserved), (Some(false), Some(false)));
        assert!(text(&hard).contains("a hard NAT"), "{}", text(&hard));
        let usual = report([Some("192.0.2.9:500"), Some("192.0.2.9:500")], "10.0.0.1:500");
        assert_eq!((usual.mapping_is_one, usual.port_preserved), (Some(true), Some(true)));
        assert!(text(&usual).contains("kept; hairpinning no"), "{}", text(&usual));
    }

    #[test]
    fn without_a_nat_or_an_answer_there_is_nothing_to_say_of_one() {
        let open = report([Some("10.0.0.1:500"), None], "10.0.0.1:500");
        assert_eq!((open.translated, open.port_preserved), (Some(false), None));
        assert_eq!((open.mapping_is_one, open.reachable), (None, true));
        let blocked = report([None, None], "10.0.0.1:500");
        assert!(text(&blocked).contains("no server answers"), "{}", text(&blocked));
        let none = FamilyReport::new(false, None, None);
        assert!(text(&none).contains("no route"), "{}", text(&none));
    }
}
