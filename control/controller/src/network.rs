//! Signalling as the controller sees it: the client's configuration, and names resolved.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipop_xmpp::{Config, InvalidPem, InvalidServerAddress, Security, ServerAddress};
use tokio::net::lookup_host;

use crate::settings::{Account, Settings, Trust};

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

/// How long a name may take: the system's resolver asks twice meanwhile.
const NAME_PATIENCE: Duration = Duration::from_secs(6);
/// What the library puts in front of the reason.
const LOOK_UP_FAILED: &str = "failed to lookup address information: ";

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

/// The addresses of a name, or why there are none, for people.
pub(crate) async fn look_up(name: &str) -> Result<Vec<IpAddr>, String> {
    match tokio::time::timeout(NAME_PATIENCE, lookup_host((name, 0))).await {
        Ok(Ok(found)) => Ok(found.map(|address| address.ip()).collect()),
        Ok(Err(error)) => {
            let text = error.to_string();
            Err(text.strip_prefix(LOOK_UP_FAILED).unwrap_or(&text).to_owned())
        }
        Err(_) => Err("DNS does not answer".to_owned()),
    }
}
