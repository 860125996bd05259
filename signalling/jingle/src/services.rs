//! STUN and TURN servers that an XMPP server offers (XEP-0215).
//!
//! Servers differ: one leaves the credentials of `turns` out and means those of `turn`, one writes
//! `restricted='1'` and another `restricted='true'`, ports may be left out. All of it is read here.

use crate::ns;
use ipop_signal::{Host, HostPort, IceServers, Transport, TurnServer};
use minidom::Element;
use std::time::Duration;
use xmpp_parsers::date::DateTime;
use xso::{AsXml, FromXml};

/// Most services that are taken from one answer.
const SERVICES_MAX: usize = 32;
const DEFAULT_PORT: u16 = 3478;
const DEFAULT_TLS_PORT: u16 = 5349;
const HOST_LEN_MAX: usize = 255;

#[derive(Clone, Debug, Default, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::EXT_DISCO, name = "service")]
struct ServiceElement {
    #[xml(attribute(default))]
    action: Option<String>,
    #[xml(attribute(default))]
    expires: Option<String>,
    #[xml(attribute(default))]
    host: Option<String>,
    #[xml(attribute(default))]
    password: Option<String>,
    #[xml(attribute(default))]
    port: Option<String>,
    #[xml(attribute(default))]
    restricted: Option<String>,
    #[xml(attribute(default))]
    transport: Option<String>,
    #[xml(attribute(default, name = "type"))]
    kind: Option<String>,
    #[xml(attribute(default))]
    username: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::EXT_DISCO, name = "services")]
struct ServicesElement {
    #[xml(child(n = ..))]
    services: Vec<ServiceElement>,
}

#[derive(Clone, Debug, Default, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::EXT_DISCO, name = "credentials")]
struct CredentialsElement {
    #[xml(child(n = ..))]
    services: Vec<ServiceElement>,
}

/// What one answer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Usable as they are.
    pub servers: IceServers,
    /// Relays that want credentials which have to be asked for apart, see [`emit_credentials`].
    pub locked: Vec<TurnServer>,
}

/// The query for all services, sent to the account's server.
pub fn emit_query() -> Element {
    Element::bare("services", ns::EXT_DISCO)
}

/// The query for the credentials of one service (XEP-0215 section 3.3).
pub fn emit_credentials(server: &TurnServer) -> Element {
    let service = ServiceElement {
        host: Some(bare_host(&server.at.host)),
        port: Some(server.at.port.to_string()),
        kind: Some(kind_of(server.transport).to_owned()),
        ..ServiceElement::default()
    };
    Element::from(CredentialsElement { services: vec![service] })
}

/// Reads an answer to either query.
pub fn parse(element: &Element) -> Option<Services> {
    let elements = if element.name() == "credentials" {
        CredentialsElement::try_from(element.clone()).ok()?.services
    } else {
        ServicesElement::try_from(element.clone()).ok()?.services
    };
    let elements = &elements[..elements.len().min(SERVICES_MAX)];
    let present = elements.iter().filter(|service| service.action.as_deref() != Some("delete"));
    let mut services = Services::default();
    for service in present {
        match service.kind.as_deref() {
            Some("stun") if service.is_udp() => services.servers.stun.extend(service.at()),
            Some("turn" | "turns") => {
                let lender = || elements.iter().find(|other| other.lends_to(service));
                let keyed = if service.username.is_some() { Some(service) } else { lender() };
                let Some(server) = service.turn_server(keyed) else { continue };
                if keyed.is_none() && service.is_restricted() {
                    services.locked.push(server);
                } else {
                    services.servers.turn.push(server);
                }
            }
            _ => {}
        }
    }
    Some(services)
}

/// Writes an answer to [`emit_query`], for a server.
pub fn emit(servers: &IceServers) -> Element {
    let stun = servers.stun.iter().map(|at| ServiceElement {
        host: Some(bare_host(&at.host)),
        port: Some(at.port.to_string()),
        transport: Some("udp".to_owned()),
        kind: Some("stun".to_owned()),
        ..ServiceElement::default()
    });
    let turn = servers.turn.iter().map(|server| ServiceElement {
        expires: server.expires_unix_s.and_then(date_of),
        host: Some(bare_host(&server.at.host)),
        port: Some(server.at.port.to_string()),
        restricted: Some("1".to_owned()),
        transport: Some(transport_of(server.transport).to_owned()),
        kind: Some(kind_of(server.transport).to_owned()),
        username: Some(server.username.clone()),
        password: Some(server.password.clone()),
        ..ServiceElement::default()
    });
    Element::from(ServicesElement { services: stun.chain(turn).collect() })
}

impl ServiceElement {
    fn is_udp(&self) -> bool {
        self.transport.as_deref().is_none_or(|name| name.eq_ignore_ascii_case("udp"))
    }

    fn is_restricted(&self) -> bool {
        matches!(self.restricted.as_deref(), Some("1" | "true"))
    }

    fn is_tls(&self) -> bool {
        self.kind.as_deref() == Some("turns")
    }

    /// Whether `other` means this service's credentials when it has none of its own.
    fn lends_to(&self, other: &Self) -> bool {
        let is_turn = matches!(self.kind.as_deref(), Some("turn" | "turns"));
        is_turn && self.username.is_some() && self.host == other.host
    }

    fn at(&self) -> Option<HostPort> {
        let host = self.host.as_deref().filter(|host| (1..=HOST_LEN_MAX).contains(&host.len()))?;
        let default = if self.is_tls() { DEFAULT_TLS_PORT } else { DEFAULT_PORT };
        let port = match self.port.as_deref() {
            None | Some("") => default,
            Some(text) => text.parse().ok().filter(|port| *port != 0)?,
        };
        Some(HostPort { host: Host::of(host), port })
    }

    fn turn_server(&self, keyed: Option<&Self>) -> Option<TurnServer> {
        // TLS runs over TCP unless said otherwise; plain TURN over UDP.
        let over_udp = match self.transport.as_deref() {
            Some(name) => name.eq_ignore_ascii_case("udp"),
            None => !self.is_tls(),
        };
        let transport = match (self.is_tls(), over_udp) {
            (false, true) => Transport::Udp,
            (false, false) => Transport::Tcp,
            (true, true) => Transport::Dtls,
            (true, false) => Transport::Tls,
        };
        let expires = keyed.and_then(|service| service.expires.as_deref());
        Some(TurnServer {
            at: self.at()?,
            transport,
            username: keyed.and_then(|service| service.username.clone()).unwrap_or_default(),
            password: keyed.and_then(|service| service.password.clone()).unwrap_or_default(),
            expires_unix_s: expires.and_then(seconds_of),
        })
    }
}

fn transport_of(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp | Transport::Dtls => "udp",
        Transport::Tcp | Transport::Tls => "tcp",
    }
}

fn kind_of(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp | Transport::Tcp => "turn",
        Transport::Tls | Transport::Dtls => "turns",
    }
}

fn bare_host(host: &Host) -> String {
    match host {
        Host::Address(address) => address.to_string(),
        Host::Name(name) => name.clone(),
    }
}

/// XEP-0082 date and time to seconds since 1970.
fn seconds_of(text: &str) -> Option<u64> {
    text.parse::<DateTime>().ok()?.0.timestamp().try_into().ok()
}

/// The reverse; `None` past the year 9999, where the format ends.
fn date_of(unix_s: u64) -> Option<String> {
    const YEAR_10000: u64 = 253_402_300_800;
    let epoch: DateTime = "1970-01-01T00:00:00Z".parse().ok()?;
    let date = (unix_s < YEAR_10000).then(|| epoch.0 + Duration::from_secs(unix_s))?;
    Some(date.format("%Y-%m-%dT%H:%M:%SZ").to_string())
}
