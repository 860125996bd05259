//! What a controller has to be told: the supervisor writes it, a (re)started controller reads it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipop_group::{AddressPlan, PlanError, group_prefix6};
use serde::{Deserialize, Serialize};

/// Settings of a GroupVPN controller, checked by whoever made them.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Settings {
    /// The node's name, for people.
    pub name: String,
    /// Whether account and room come from a ticket: people are told of that, not of keys in a file.
    pub by_ticket: bool,
    /// The file with what is remembered of peers.
    pub memory: PathBuf,
    /// The file with what is remembered of servers.
    pub servers_memory: PathBuf,
    /// The account.
    pub account: Account,
    /// The room: room@service.
    pub room: String,
    /// The room's password, where it has one.
    pub room_password: Option<String>,
    /// Where the IPv4 address comes from.
    pub address: Address,
    /// A configured IPv6 address with prefix length.
    pub address6: Option<(Ipv6Addr, u8)>,
    /// Largest packet of the overlay interface, bytes; 0 for automatic.
    pub mtu: u16,
    /// STUN servers of the configuration.
    pub stun: Vec<Endpoint>,
    /// STUN servers to ask until the network has named its own, without a word if they are none.
    pub likely_stun: Vec<SocketAddr>,
    /// TURN servers of the configuration.
    pub turn: Vec<Relay>,
    /// PEM file with the roots for TURN servers over TLS; the system's without one.
    pub turn_ca_file: Option<PathBuf>,
}

/// An XMPP account and how to reach its server.
#[derive(Clone, Deserialize, Serialize)]
pub struct Account {
    /// user@domain.
    pub jid: String,
    /// The password.
    pub password: String,
    /// `host:port`s to try in order; none: DNS SRV.
    pub servers: Vec<String>,
    /// Whose certificates to trust.
    pub trust: Trust,
    /// TLS from the first byte, instead of STARTTLS.
    pub direct_tls: bool,
    /// Whether PLAIN may be used where the server offers no SCRAM.
    pub allow_plain: bool,
    /// What the node is called at the server: the same in all its runs.
    pub resource: String,
    /// What the server is known to offer for a login.
    pub offer: Option<LoginOffer>,
}

/// What a server offers for a login; see [`ipop_xmpp::Offer`].
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct LoginOffer {
    /// Names of SASL mechanisms.
    pub mechanisms: Vec<String>,
    /// Whether a login may be bound to the TLS connection.
    pub binds_exporter: bool,
    /// Whether the server minds nobody who goes on before it has answered.
    pub pipelines: bool,
}

impl From<ipop_xmpp::Offer> for LoginOffer {
    fn from(offer: ipop_xmpp::Offer) -> Self {
        let ipop_xmpp::Offer { mechanisms, binds_exporter, pipelines } = offer;
        Self { mechanisms, binds_exporter, pipelines }
    }
}

impl From<LoginOffer> for ipop_xmpp::Offer {
    fn from(offer: LoginOffer) -> Self {
        let LoginOffer { mechanisms, binds_exporter, pipelines } = offer;
        Self { mechanisms, binds_exporter, pipelines }
    }
}

/// Leaves the password out.
impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("jid", &self.jid).finish_non_exhaustive()
    }
}

/// Whose certificates to trust.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub enum Trust {
    /// The system's roots.
    System,
    /// The roots in this PEM file.
    File(PathBuf),
    /// One server certificate, by its SHA-256.
    Pinned([u8; 32]),
}

/// Where the IPv4 address comes from.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub enum Address {
    /// It is configured: address and prefix length.
    Fixed(Ipv4Addr, u8),
    /// Derived from the node's key within this network.
    Derived(Ipv4Addr, u8),
}

/// A server by name or address, and its port.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Name or literal address.
    pub host: String,
    /// UDP or TCP port.
    pub port: u16,
}

/// What carries the messages between a node and a TURN server.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TurnTransport {
    /// Datagrams.
    #[default]
    Udp,
    /// A plain TCP connection.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl From<TurnTransport> for ipop_steer::TurnTransport {
    fn from(transport: TurnTransport) -> Self {
        match transport {
            TurnTransport::Udp => Self::Udp,
            TurnTransport::Tcp => Self::Tcp,
            TurnTransport::Tls => Self::Tls,
        }
    }
}

impl From<ipop_steer::TurnTransport> for TurnTransport {
    fn from(transport: ipop_steer::TurnTransport) -> Self {
        match transport {
            ipop_steer::TurnTransport::Udp => Self::Udp,
            ipop_steer::TurnTransport::Tcp => Self::Tcp,
            ipop_steer::TurnTransport::Tls => Self::Tls,
        }
    }
}

/// A TURN server.
#[derive(Clone, Deserialize, Serialize)]
pub struct Relay {
    /// Where it is.
    pub endpoint: Endpoint,
    /// How to talk to it.
    pub transport: TurnTransport,
    /// Long-term credential.
    pub username: String,
    /// Long-term credential.
    pub password: String,
}

/// Leaves the password out.
impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Relay");
        shown.field("endpoint", &self.endpoint).field("transport", &self.transport);
        shown.finish_non_exhaustive()
    }
}

impl Settings {
    /// The plan of addresses that the settings amount to.
    ///
    /// # Errors
    /// [`PlanError`] when no host can have the address.
    pub fn plan(&self) -> Result<AddressPlan, PlanError> {
        let prefix6 = group_prefix6(&self.room);
        let plan = match self.address {
            Address::Fixed(address, prefix) => AddressPlan::fixed(address, prefix, prefix6)?,
            Address::Derived(network, prefix) => AddressPlan::derived(network, prefix, prefix6)?,
        };
        match self.address6 {
            Some((address, prefix)) => plan.with_v6(address, prefix),
            None => Ok(plan),
        }
    }
}

/// A STUN or TURN URI (RFC 7064, RFC 7065) that is not of use here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// Not `scheme:host[:port]`.
    #[error("`{0}` is not of the form {1}:HOST[:PORT]")]
    Form(String, &'static str),
    /// TCP, TLS or DTLS to a STUN server: that would tell of no UDP address.
    #[error("`{0}`: STUN servers are asked over UDP only")]
    StunTransport(String),
    /// DTLS, or something unknown.
    #[error("`{0}`: TURN goes over udp and tcp, and turns over tcp")]
    TurnTransport(String),
}

/// Of STUN and TURN (RFC 8489 section 18.6).
pub(crate) const STUN_PORT: u16 = 3478;
/// RFC 8656 section 3.3.
const TLS_PORT: u16 = 5349;

impl Endpoint {
    /// Reads `stun:host[:port]`; the default port is 3478.
    ///
    /// # Errors
    /// [`UriError`] for anything else.
    pub fn from_stun_uri(uri: &str) -> Result<Self, UriError> {
        let form = || UriError::Form(uri.to_owned(), "stun");
        let (scheme, rest) = uri.split_once(':').ok_or_else(form)?;
        let (authority, query) = rest.split_once('?').unwrap_or((rest, "transport=udp"));
        match (scheme, query) {
            ("stun", "transport=udp") => Self::of(authority, STUN_PORT).ok_or_else(form),
            ("stun" | "stuns", _) => Err(UriError::StunTransport(uri.to_owned())),
            _ => Err(form()),
        }
    }

    /// Reads `turn:host[:port][?transport=udp|tcp]` or `turns:host[:port][?transport=tcp]` (RFC
    /// 7065); the default ports are 3478 and, with TLS, 5349.
    ///
    /// # Errors
    /// [`UriError`] for anything else.
    pub fn from_turn_uri(uri: &str) -> Result<(Self, TurnTransport), UriError> {
        let form = || UriError::Form(uri.to_owned(), "turn");
        let (scheme, rest) = uri.split_once(':').ok_or_else(form)?;
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (transport, port) = match (scheme, query) {
            ("turn", "" | "transport=udp") => (TurnTransport::Udp, STUN_PORT),
            ("turn", "transport=tcp") => (TurnTransport::Tcp, STUN_PORT),
            ("turns", "" | "transport=tcp") => (TurnTransport::Tls, TLS_PORT),
            ("turn" | "turns", _) => return Err(UriError::TurnTransport(uri.to_owned())),
            _ => return Err(form()),
        };
        Ok((Self::of(authority, port).ok_or_else(form)?, transport))
    }

    fn of(authority: &str, default_port: u16) -> Option<Self> {
        let (host, port) = split_port(authority)?;
        Some(Self { host: host.to_owned(), port: port.unwrap_or(default_port) })
    }
}

/// Splits `host`, `host:port` or `[v6]:port`.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            (host, rest.strip_prefix(':').or((!rest.is_empty()).then_some("")))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let port = port.map(str::parse).transpose().ok()?;
    (!host.is_empty() && port != Some(0)).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_read_and_wrong_ones_say_why() {
        use TurnTransport::{Tcp, Tls, Udp};
        let read = |uri| Endpoint::from_turn_uri(uri).map(|(e, over)| (e.host, e.port, over));
        assert_eq!(read("turn:198.18.0.20"), Ok(("198.18.0.20".into(), 3478, Udp)));
        assert_eq!(read("turn:a.test:99?transport=udp"), Ok(("a.test".into(), 99, Udp)));
        assert_eq!(read("turn:[fd00::1]:99"), Ok(("fd00::1".into(), 99, Udp)));
        assert_eq!(read("turn:a.test?transport=tcp"), Ok(("a.test".into(), 3478, Tcp)));
        assert_eq!(read("turns:a.test"), Ok(("a.test".into(), 5349, Tls)));
        assert_eq!(read("turns:a.test:443?transport=tcp"), Ok(("a.test".into(), 443, Tls)));
        for uri in ["turns:a.test?transport=udp", "turn:a.test?transport=sctp", "turn:a.test?x"] {
            assert!(matches!(read(uri), Err(UriError::TurnTransport(_))), "{uri}");
        }
        for uri in
            ["stun:a.test", "a.test", "turn:", "turn:a:b", "turn:[::1", "turn:[::1]x", "turn:a:0"]
        {
            assert!(matches!(read(uri), Err(UriError::Form(..))), "{uri}");
        }
        let stun = Endpoint { host: "a.test".into(), port: 3478 };
        assert_eq!(Endpoint::from_stun_uri("stun:a.test"), Ok(stun));
        for uri in ["stuns:a.test", "stun:a.test?transport=tcp"] {
            let refused = Endpoint::from_stun_uri(uri);
            assert!(matches!(refused, Err(UriError::StunTransport(_))), "{uri}");
        }
        assert!(matches!(Endpoint::from_stun_uri("turn:a.test"), Err(UriError::Form(..))));
    }
}
