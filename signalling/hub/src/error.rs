//! What keeps a hub from starting.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a hub does not start, and the way out.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A socket could not be bound.
    #[error("cannot listen on {protocol} {address}: {source}. {remedy}")]
    Listen {
        /// TCP or UDP.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A file or directory could not be read or written.
    #[error(
        "cannot {action} {path}: {source}. Name another directory with --state, or make this one \
         writable for the user that runs the hub"
    )]
    File {
        /// Read, write, ...
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the state directory is not what this hub wrote.
    #[error(
        "{path} is damaged: {reason}. Restore it from a copy, or remove the whole directory for a \
         new hub; nodes then need its new ticket"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file with secrets can be read or written by others than its owner.
    #[error(
        "{path} holds secrets and its mode is {mode:04o}, so others can reach them: run \
         `chmod 600 {path}`; if somebody may have read it, remove the whole directory for a new hub"
    )]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The ticket could not be written.
    #[error("cannot write the ticket to {path}: {source}. Name another file with --ticket-file")]
    TicketFile {
        /// Where to.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The state directory belongs to another domain.
    #[error(
        "{path} holds the keys of domain {found:?}, not of {wanted:?}. Use --domain {found}, or \
         another directory with --state"
    )]
    OtherDomain {
        /// The state directory.
        path: PathBuf,
        /// Its domain.
        found: String,
        /// The configured domain.
        wanted: String,
    },
    /// The configuration itself cannot work.
    #[error("{0}")]
    Configuration(String),
    /// Keys or random numbers could not be made.
    #[error("cryptography failed: {0}")]
    Cryptography(String),
}
