//! Which servers to ask: those on the command line, of a configuration, or of a running instance.

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use ipop_controller::{Endpoint, SERVERS_FILE, TurnTransport, UriError};
use serde::{Deserialize, Serialize};

use crate::args::Netcheck;
use crate::config::ConfigFile;
use crate::failure::Failure;
use crate::instance::RunDir;

/// STUN and TURN servers by address.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Servers {
    /// STUN servers.
    pub stun: Vec<SocketAddr>,
    /// TURN servers.
    pub turn: Vec<Relay>,
    /// File with the roots for TURN over TLS; empty for the system's.
    #[serde(default)]
    pub ca_file: String,
    /// Names of servers that do not resolve.
    #[serde(default)]
    pub unresolved: Vec<Unresolved>,
}

/// A name that does not resolve.
#[derive(Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Unresolved {
    /// The name.
    pub name: String,
    /// Why not.
    pub text: String,
}

/// A TURN server.
#[derive(Debug, Deserialize)]
pub(super) struct Relay {
    /// Where it is.
    pub address: SocketAddr,
    /// How to talk to it.
    #[serde(default)]
    pub transport: TurnTransport,
    /// Its name or address as it was written.
    #[serde(default)]
    pub name: String,
    /// Long-term credential.
    pub username: String,
    /// Long-term credential.
    pub password: String,
}

impl Servers {
    /// Finds them.
    ///
    /// # Errors
    /// Names what is wrong with a URI, a file, or the instance.
    pub(super) fn find(flags: &Netcheck) -> Result<Self, Failure> {
        let mut servers = Self::default();
        if let Some(path) = &flags.config {
            let file = ConfigFile::read(path)?;
            let folder = path.parent().unwrap_or(Path::new("."));
            let roots = crate::settings::turn_roots(&file, folder).unwrap_or_default();
            servers.ca_file = roots.to_string_lossy().into_owned();
            let (stun, turn) = crate::settings::servers(&file)?;
            for endpoint in &stun {
                servers.add_stun(endpoint);
            }
            for relay in turn {
                let (username, password) = (&relay.username, &relay.password);
                servers.add_relay(&relay.endpoint, relay.transport, username, password);
            }
        }
        for uri in &flags.stun {
            servers.add_stun(&endpoint("stun", Endpoint::from_stun_uri(uri))?);
        }
        for text in &flags.turn {
            let mut parts = text.splitn(3, ',');
            let (Some(uri), Some(username), Some(password)) =
                (parts.next(), parts.next(), parts.next())
            else {
                return Err(Failure::usage(format!(
                    "--turn `{text}`: write URI,USERNAME,PASSWORD"
                )));
            };
            let (endpoint, transport) = endpoint("turn", Endpoint::from_turn_uri(uri))?;
            servers.add_relay(&endpoint, transport, username, password);
        }
        if flags.config.is_none() && flags.stun.is_empty() && flags.turn.is_empty() {
            return of_instance(flags.instance.name.as_deref());
        }
        Ok(servers)
    }

    fn add_stun(&mut self, endpoint: &Endpoint) {
        let found = self.resolve(endpoint);
        self.stun.extend(found);
    }

    fn add_relay(
        &mut self,
        endpoint: &Endpoint,
        transport: TurnTransport,
        username: &str,
        password: &str,
    ) {
        for address in self.resolve(endpoint) {
            let (name, username) = (endpoint.host.clone(), username.to_owned());
            let password = password.to_owned();
            self.turn.push(Relay { address, transport, name, username, password });
        }
    }

    /// The addresses of a server. That it has none is said at the end: the others can be asked.
    fn resolve(&mut self, endpoint: &Endpoint) -> Vec<SocketAddr> {
        let name = endpoint.host.clone();
        match (endpoint.host.as_str(), endpoint.port).to_socket_addrs() {
            Ok(found) => found.collect(),
            Err(error) => {
                let unresolved = Unresolved { name, text: error.to_string() };
                if !self.unresolved.contains(&unresolved) {
                    self.unresolved.push(unresolved);
                }
                Vec::new()
            }
        }
    }
}

impl std::fmt::Display for Unresolved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} does not resolve: {}", self.name, self.text)
    }
}

/// What a running instance uses: its own configuration's and those that its network offers.
fn of_instance(name: Option<&str>) -> Result<Servers, Failure> {
    let path = RunDir::running(name)?.path().join(SERVERS_FILE);
    let text = fs::read_to_string(&path)
        .map_err(|error| Failure::failed(format!("cannot read {}: {error}", path.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

fn endpoint<T>(flag: &str, read: Result<T, UriError>) -> Result<T, Failure> {
    read.map_err(|error| Failure::usage(format!("--{flag}: {error}")))
}
