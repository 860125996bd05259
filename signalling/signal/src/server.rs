//! STUN and TURN servers that the network offers (as XEP-0215 does).

use std::fmt;
use std::net::IpAddr;

/// A host as a server wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A literal address, of either family.
    Address(IpAddr),
    /// A name to be looked up.
    Name(String),
}

impl Host {
    /// Reads a literal address (IPv6 with or without brackets) or takes the text as a name.
    pub fn of(text: &str) -> Self {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        match bare.parse() {
            Ok(address) => Self::Address(address),
            Err(_) => Self::Name(text.to_owned()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The host.
    pub host: Host,
    /// UDP or TCP port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// How to talk to a TURN server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Plain UDP.
    Udp,
    /// Plain TCP.
    Tcp,
    /// TLS over TCP (`turns`).
    Tls,
    /// DTLS over UDP (`turns` with transport udp).
    Dtls,
}

/// A relay and the credentials for it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TurnServer {
    /// Where it is.
    pub at: HostPort,
    /// How to talk to it.
    pub transport: Transport,
    /// Long-term credential (RFC 8489 section 9.2); empty when the server asks for none.
    pub username: String,
    /// Belongs to the user name.
    pub password: String,
    /// End of the credentials' life in seconds since 1970, if they end.
    pub expires_unix_s: Option<u64>,
}

/// Leaves the password out.
impl fmt::Debug for TurnServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TurnServer")
            .field("at", &format_args!("{}", self.at))
            .field("transport", &self.transport)
            .field("username", &self.username)
            .field("expires_unix_s", &self.expires_unix_s)
            .finish_non_exhaustive()
    }
}

/// All servers on offer; replaces what was said before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IceServers {
    /// STUN over UDP.
    pub stun: Vec<HostPort>,
    /// TURN over anything.
    pub turn: Vec<TurnServer>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_apart() {
        assert_eq!(Host::of("10.0.0.1"), Host::Address("10.0.0.1".parse().unwrap()));
        assert_eq!(Host::of("[::1]"), Host::of("::1"));
        assert_eq!(Host::of("turn.example"), Host::Name("turn.example".into()));
        assert_eq!(HostPort { host: Host::of("::1"), port: 3478 }.to_string(), "[::1]:3478");
    }
}
