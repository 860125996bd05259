//! Signalling as the controller sees it: the client's configuration, and names resolved.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipop_signal::{Host, HostPort, IceServers, Transport};
use ipop_steer::TurnServer;
use ipop_xmpp::{Config, InvalidPem, InvalidServerAddress, Security, ServerAddress};
use tokio::net::lookup_host;

use crate::settings::{Account, Endpoint, Relay, Settings, Trust, TurnTransport};

/// Settings that the signalling client cannot work with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    /// The server's address is none.
    #[error("xmpp.server: {0}")]
    Server(#[from] InvalidServerAddress),
    /// The account or the room is none.
    #[error("{key} = `{text}`: write it as {shape}")]
    Address {
        /// The key of the configuration.
        key: &'static str,
        /// What it says.
        text: String,
        /// What it should look like.
        shape: &'static str,
    },
    /// The roots cannot be read.
    #[error("xmpp.ca_file {}: {source}", .path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The roots for TURN servers cannot be used.
    #[error("nat.ca_file {}: {text}", .path.display())]
    TurnRoots {
        /// The file.
        path: PathBuf,
        /// Why not.
        text: String,
    },
    /// The roots are none.
    #[error("xmpp.ca_file {}: {source}", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: InvalidPem,
    },
}

/// How long a name may take: without a network, a node that starts has its peers to find.
const NAME_PATIENCE: Duration = Duration::from_secs(3);

/// Looks for whatever can be seen to be wrong without asking anybody.
///
/// # Errors
/// [`NetworkError`] names the key of the configuration.
pub(crate) fn check(settings: &Settings) -> Result<(), NetworkError> {
    let addresses = [
        ("xmpp.jid", &settings.account.jid, "user@domain"),
        ("groupvpn.room", &settings.room, "room@conference.domain"),
    ];
    for (key, text, shape) in addresses {
        let part = |part: &str| !part.is_empty() && !part.contains(['@', ' ', '"', '&', '<', '>']);
        let is_address = text.split_once('@').is_some_and(|(user, at)| {
            part(user) && part(at) && !user.contains('/') && !at.contains('/')
        });
        if !is_address {
            return Err(NetworkError::Address { key, text: text.clone(), shape });
        }
    }
    for server in &settings.account.servers {
        server.parse::<ServerAddress>()?;
    }
    trust(&settings.account)?;
    turn_roots(settings)
}

/// The configuration of the XMPP client.
pub(crate) fn config(settings: &Settings) -> Result<Config, NetworkError> {
    let account = &settings.account;
    let mut config = Config::new(&account.jid, &account.password, &settings.room);
    config.room_password.clone_from(&settings.room_password);
    config.allow_plain = account.allow_plain;
    config.trust = trust(account)?;
    config.resource.clone_from(&account.resource);
    config.servers = account.servers.iter().map(|s| s.parse()).collect::<Result<Vec<_>, _>>()?;
    if account.direct_tls {
        config.servers.iter_mut().for_each(|server| server.security = Security::DirectTls);
    }
    Ok(config)
}

fn trust(account: &Account) -> Result<ipop_xmpp::Trust, NetworkError> {
    match &account.trust {
        Trust::System => Ok(ipop_xmpp::Trust::System),
        Trust::Pinned(hash) => Ok(ipop_xmpp::Trust::Certificate(*hash)),
        Trust::File(path) => {
            let pem = std::fs::read(path)
                .map_err(|source| NetworkError::Roots { path: path.clone(), source })?;
            ipop_xmpp::Trust::from_pem(&pem)
                .map_err(|source| NetworkError::Pem { path: path.clone(), source })
        }
    }
}

/// Whether the roots for TURN servers are any.
fn turn_roots(settings: &Settings) -> Result<(), NetworkError> {
    let Some(path) = &settings.turn_ca_file else { return Ok(()) };
    let refused = |text: String| NetworkError::TurnRoots { path: path.clone(), text };
    if path.as_os_str().len() > ipop_steer::limits::CA_FILE_LEN_MAX {
        return Err(refused("the path is too long".to_owned()));
    }
    let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
    ipop_xmpp::Trust::from_pem(&pem).map(drop).map_err(|error| refused(error.to_string()))
}

/// The servers of the configuration, by address. A name that cannot be resolved is said and left
/// out: the others may do.
pub(crate) async fn resolve_configured(
    stun: &[Endpoint],
    turn: &[Relay],
) -> (Vec<SocketAddr>, Vec<TurnServer>) {
    let mut addresses = Vec::new();
    for endpoint in stun {
        addresses.extend(resolve(&endpoint.host, endpoint.port).await);
    }
    let mut relays = Vec::new();
    for relay in turn {
        let found = resolve(&relay.endpoint.host, relay.endpoint.port).await;
        relays.extend(found.into_iter().map(|address| TurnServer {
            address,
            transport: to_steer(relay.transport),
            name: relay.endpoint.host.clone(),
            username: relay.username.clone(),
            password: relay.password.clone(),
        }));
    }
    (addresses, relays)
}

/// The servers that the network offers, by address; not those over DTLS.
pub(crate) async fn resolve_offered(servers: IceServers) -> (Vec<SocketAddr>, Vec<TurnServer>) {
    let mut stun = Vec::new();
    for server in &servers.stun {
        stun.extend(resolve_host(server).await);
    }
    let mut turn = Vec::new();
    for server in &servers.turn {
        let transport = match server.transport {
            Transport::Udp => TurnTransport::Udp,
            Transport::Tcp => TurnTransport::Tcp,
            Transport::Tls => TurnTransport::Tls,
            Transport::Dtls => continue,
        };
        let found = resolve_host(&server.at).await;
        turn.extend(found.into_iter().map(|address| TurnServer {
            address,
            transport: to_steer(transport),
            name: name_of(&server.at.host),
            username: server.username.clone(),
            password: server.password.clone(),
        }));
    }
    (stun, turn)
}

fn to_steer(transport: TurnTransport) -> ipop_steer::TurnTransport {
    match transport {
        TurnTransport::Udp => ipop_steer::TurnTransport::Udp,
        TurnTransport::Tcp => ipop_steer::TurnTransport::Tcp,
        TurnTransport::Tls => ipop_steer::TurnTransport::Tls,
    }
}

/// As a certificate would name it: an address without brackets.
fn name_of(host: &Host) -> String {
    match host {
        Host::Address(address) => address.to_string(),
        Host::Name(name) => name.clone(),
    }
}

async fn resolve_host(at: &HostPort) -> Vec<SocketAddr> {
    match &at.host {
        Host::Address(address) => vec![SocketAddr::new(*address, at.port)],
        Host::Name(name) => resolve(name, at.port).await,
    }
}

async fn resolve(host: &str, port: u16) -> Vec<SocketAddr> {
    let found = tokio::time::timeout(NAME_PATIENCE, lookup_host((host, port))).await;
    match found.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
        // One of each family will do: a name with many addresses is one server to us.
        Ok(found) => {
            let found: Vec<_> = found.collect();
            let v4 = found.iter().find(|address| address.is_ipv4());
            let v6 = found.iter().find(|address| address.is_ipv6());
            v4.into_iter().chain(v6).copied().collect()
        }
        Err(error) => {
            tracing::warn!("STUN/TURN server {host}: {error}");
            Vec::new()
        }
    }
}
