//! What the last run knew of the account's servers: how one logs in, and where STUN is. It saves
//! the next run round trips and nothing else: what is no longer true is found out and put right, so
//! a file that is missing, damaged or another account's is no more than a slower start.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cache::replace;
use crate::settings::LoginOffer;

/// Longer files are not ours.
const LEN_MAX: u64 = 64 << 10;

/// What the file holds, as JSON.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Servers {
    /// Whose servers they are: `user@domain`.
    pub(crate) account: String,
    /// What the XMPP server offered.
    pub(crate) offer: Option<LoginOffer>,
    /// The STUN servers that the network named.
    pub(crate) stun: Vec<SocketAddr>,
}

/// The file.
#[derive(Debug)]
pub(crate) struct LastServers {
    path: PathBuf,
    /// What is known now.
    pub(crate) known: Servers,
    written: Servers,
}

impl LastServers {
    /// Reads what is there of the account.
    pub(crate) fn of(path: &Path, account: &str) -> Self {
        let read = read(path).inspect_err(|error| tracing::debug!("{}: {error}", path.display()));
        let known = read.ok().filter(|servers| servers.account == account);
        let nothing = Servers { account: account.to_owned(), ..Servers::default() };
        let known = known.unwrap_or(nothing);
        Self { path: path.to_owned(), written: known.clone(), known }
    }

    /// Writes what is known, if that is news.
    pub(crate) fn keep(&mut self) {
        if self.known == self.written {
            return;
        }
        self.written.clone_from(&self.known);
        let text = serde_json::to_vec(&self.known).unwrap_or_default();
        if let Err(error) = replace(&self.path, &text) {
            tracing::debug!("{}: {error}", self.path.display());
        }
    }
}

fn read(path: &Path) -> std::io::Result<Servers> {
    let mut text = Vec::new();
    File::open(path)?.take(LEN_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_comes_back_to_its_account_alone() {
        let name = format!("ipop-last-servers-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut servers = LastServers::of(&path, "a@b");
        assert_eq!(servers.known.stun, []);
        servers.known.stun.push(([192, 0, 2, 1], 3478).into());
        servers.known.offer = Some(LoginOffer { pipelines: true, ..LoginOffer::default() });
        servers.keep();
        assert_eq!(LastServers::of(&path, "a@b").known, servers.known);
        assert_eq!(LastServers::of(&path, "c@b").known.offer, None);
        std::fs::write(&path, "{").expect("written");
        assert_eq!(LastServers::of(&path, "a@b").known.offer, None);
        std::fs::remove_file(path).expect("removed");
    }
}
