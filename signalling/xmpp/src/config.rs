//! What a client has to be told.

use crate::offer::Offer;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::str::FromStr;

/// Everything about one account in one room.
#[derive(Clone)]
pub struct Config {
    /// The account: `user@domain`.
    pub account: String,
    /// The account's password.
    pub password: String,
    /// The group's room: `room@conference.domain`. It is made when it is not there.
    pub room: String,
    /// What the room asks for; a room that we make will ask for it.
    pub room_password: Option<String>,
    /// Where the server is, all of them tried at once; without any the domain's SRV records say,
    /// or else its addresses.
    pub servers: Vec<ServerAddress>,
    /// Which certificates are believed.
    pub trust: Trust,
    /// Whether the password may be shown to the server, if that offers no better way. TLS hides it
    /// from everybody else.
    pub allow_plain: bool,
    /// Behind the `/` of the full address. The same in all runs of a node, so that the server knows
    /// that a new stream is in the old one's place.
    pub resource: String,
    /// What the server is expected to offer; without it, what all servers do. It saves a round
    /// trip, two if the server pipelines; if it is another offer, the login goes by the real one.
    pub expected: Option<Offer>,
    /// Unguessable bytes, used for nothing else. Without them they are drawn from the library,
    /// whose generator takes some 20 ms to begin.
    pub seed: Option<[u8; 16]>,
}

impl Config {
    /// The usual case: found by DNS, believed by the system's roots, no PLAIN.
    pub fn new(account: &str, password: &str, room: &str) -> Self {
        Self {
            account: account.to_owned(),
            password: password.to_owned(),
            room: room.to_owned(),
            room_password: None,
            servers: Vec::new(),
            trust: Trust::System,
            allow_plain: false,
            resource: "ipop".to_owned(),
            expected: None,
            seed: None,
        }
    }
}

/// Leaves the passwords out.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("account", &self.account)
            .field("room", &self.room)
            .field("servers", &self.servers)
            .field("trust", &self.trust)
            .field("allow_plain", &self.allow_plain)
            .finish_non_exhaustive()
    }
}

/// How a connection becomes a secure one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// Begins in the clear and is upgraded (RFC 6120 section 5), port 5222.
    StartTls,
    /// TLS from the first byte (XEP-0368), port 5223.
    DirectTls,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// A name or a literal address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How to talk to it.
    pub security: Security,
}

/// The text is no server address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no server address; write host:port, or tls://host:port for TLS from the start")]
pub struct InvalidServerAddress(String);

/// `host:port`, `[v6]:port` or `tls://host:port`. Without `tls://` the connection is upgraded,
/// except on port 5223, which is for TLS from the start by convention.
impl FromStr for ServerAddress {
    type Err = InvalidServerAddress;

    fn from_str(text: &str) -> Result<Self, InvalidServerAddress> {
        let invalid = || InvalidServerAddress(text.to_owned());
        let (direct, place) = match text.strip_prefix("tls://") {
            Some(place) => (true, place),
            None => (false, text),
        };
        let (host, port) = place.rsplit_once(':').ok_or_else(invalid)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(address) => address,
            None if host.contains(':') => return Err(invalid()),
            None => host,
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(invalid)?;
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Err(invalid());
        }
        let direct = direct || port == 5223;
        let security = if direct { Security::DirectTls } else { Security::StartTls };
        Ok(Self { host: host.to_owned(), port, security })
    }
}

/// Which server certificates are believed.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Those that the system's roots vouch for.
    System,
    /// Those that these roots vouch for, and no others.
    Roots(Vec<CertificateDer<'static>>),
    /// The one whose DER has this SHA-256, whatever it says about names, dates and issuers.
    Certificate([u8; 32]),
}

/// The text holds no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no certificate in PEM form: {0}")]
pub struct InvalidPem(String);

impl Trust {
    /// Roots from PEM text, as `openssl` writes it.
    ///
    /// # Errors
    /// [`InvalidPem`] when there is no certificate in it, or a broken one.
    pub fn from_pem(pem: &[u8]) -> Result<Self, InvalidPem> {
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        match roots {
            Ok(roots) if roots.is_empty() => Err(InvalidPem("nothing found".to_owned())),
            Ok(roots) => Ok(Self::Roots(roots)),
            Err(error) => Err(InvalidPem(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses_are_read() {
        let read = |text: &str| {
            let server: ServerAddress = text.parse().unwrap();
            (server.host, server.port, server.security)
        };
        assert_eq!(read("a.b:5222"), ("a.b".to_owned(), 5222, Security::StartTls));
        assert_eq!(read("a.b:5223"), ("a.b".to_owned(), 5223, Security::DirectTls));
        assert_eq!(read("tls://[::1]:443"), ("::1".to_owned(), 443, Security::DirectTls));
        for text in ["a.b", "a.b:", ":5222", "a.b:0", "::1:5222", "a b:1", "a.b:99999"] {
            assert!(text.parse::<ServerAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn passwords_stay_out_of_debug_output() {
        let mut config = Config::new("a@b", "hunter2", "r@c");
        config.room_password = Some("hunter3".to_owned());
        assert!(!format!("{config:?}").contains("hunter"));
    }

    #[test]
    fn pem_without_a_certificate_is_refused() {
        assert!(Trust::from_pem(b"").is_err());
        assert!(
            Trust::from_pem(b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----").is_err()
        );
    }
}
