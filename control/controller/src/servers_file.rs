//! The file with the servers in use: for `ipop netcheck`, and for the controller that comes after
//! this one while the datapath stays.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipop_steer::TurnServer;
use serde::{Deserialize, Serialize};

use crate::SERVERS_FILE;
use crate::cache::replace;
use crate::servers::{Resolved, Unresolved};
use crate::settings::TurnTransport;

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
struct Content {
    stun: Vec<SocketAddr>,
    turn: Vec<Relay>,
    ca_file: String,
    unresolved: Vec<Name>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Relay {
    address: SocketAddr,
    transport: TurnTransport,
    name: String,
    username: String,
    password: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Name {
    name: String,
    text: String,
}

/// The file.
pub(crate) struct ServersFile {
    path: PathBuf,
    content: Content,
    written: Content,
}

impl ServersFile {
    /// Reads what is there.
    pub(crate) fn of(run_dir: &Path) -> Self {
        let path = run_dir.join(SERVERS_FILE);
        let text = std::fs::read(&path).unwrap_or_default();
        let content: Content = serde_json::from_slice(&text).unwrap_or_default();
        Self { path, written: content.clone(), content }
    }

    /// The servers in it.
    pub(crate) fn servers(&self) -> Resolved {
        let turn = self.content.turn.iter().map(|relay| TurnServer {
            address: relay.address,
            transport: relay.transport.into(),
            name: relay.name.clone(),
            username: relay.username.clone(),
            password: relay.password.clone(),
        });
        Resolved { stun: self.content.stun.clone(), turn: turn.collect() }
    }

    /// These servers are used now.
    pub(crate) fn put_servers(&mut self, stun: &[SocketAddr], turn: &[TurnServer], ca_file: &str) {
        let relay = |server: &TurnServer| Relay {
            address: server.address,
            transport: server.transport.into(),
            name: server.name.clone(),
            username: server.username.clone(),
            password: server.password.clone(),
        };
        self.content.stun = stun.to_vec();
        self.content.turn = turn.iter().map(relay).collect();
        ca_file.clone_into(&mut self.content.ca_file);
    }

    /// These names do not resolve now.
    pub(crate) fn put_unresolved<'a>(&mut self, names: impl Iterator<Item = Unresolved<'a>>) {
        let name = |name: Unresolved<'_>| Name { name: name.name.into(), text: name.text.into() };
        self.content.unresolved = names.map(name).collect();
    }

    /// Writes what is not written yet.
    pub(crate) fn keep(&mut self) {
        if self.content == self.written {
            return;
        }
        self.written.clone_from(&self.content);
        let text = serde_json::to_vec(&self.content).unwrap_or_default();
        if let Err(error) = replace(&self.path, &text) {
            tracing::debug!("cannot write {SERVERS_FILE}: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_controller_finds_the_servers_in_use() {
        let folder = std::env::temp_dir().join(format!("ipop-servers-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("made");
        let mut file = ServersFile::of(&folder);
        assert_eq!(file.servers(), Resolved::default());
        let turn = TurnServer {
            address: ([192, 0, 2, 1], 443).into(),
            transport: ipop_steer::TurnTransport::Tls,
            name: "turn.test".into(),
            username: "u".into(),
            password: "p".into(),
        };
        let stun = [([192, 0, 2, 2], 3478).into()];
        file.put_servers(&stun, std::slice::from_ref(&turn), "ca.pem");
        file.keep();
        let again = ServersFile::of(&folder);
        assert_eq!(again.servers(), Resolved { stun: stun.to_vec(), turn: vec![turn] });
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
