//! What a datapath is told at its start.

use std::path::PathBuf;

use ipop_crypto::Identity;

/// What a datapath is told at its start; the rest comes over the control ring.
#[derive(Debug)]
pub struct DatapathConfig {
    /// The instance's name, for people.
    pub name: String,
    /// Where the shared-memory segment is made.
    pub segment: PathBuf,
    /// Name of the overlay interface.
    pub interface: String,
    /// The node's key.
    pub identity: Identity,
    /// UDP port of the links, for both families; 0 for any.
    pub port: u16,
    /// Largest packet of the overlay interface, bytes; 0 for automatic.
    pub mtu: u16,
}
