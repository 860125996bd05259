//! What a datapath is told at its start.

use std::path::PathBuf;
use std::time::Duration;

use ipop_crypto::{Cipher, Identity, KeyLife};

use crate::ports::Io;

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
    /// Where the ports of one run are noted for the next one, which takes them again when they
    /// are free and `port` is 0.
    pub last_ports: PathBuf,
    /// Workers, each with a core's worth of traffic and a lane of every link; 0 for one per core,
    /// at most [`WORKERS_AUTO_MAX`](crate::WORKERS_AUTO_MAX).
    pub workers: u8,
    /// Tap queues of each worker, 1 to [`QUEUES_MAX`](crate::QUEUES_MAX): so many peers can be
    /// flooded before one of the others is likely to share a queue with it. One keeps the order of
    /// frames that the kernel takes for several flows.
    pub queues: u8,
    /// Ciphers that the group allows; the usual ones, if empty.
    pub ciphers: Vec<Cipher>,
    /// How long a sending key is used.
    pub key_life: KeyLife,
    /// After how long a link makes new keys by a handshake.
    pub rehandshake_after: Duration,
    /// Whether each worker stays on a core of its own.
    pub pins: bool,
    /// Whether workers run before all ordinary programs.
    pub real_time: bool,
    /// How long a worker looks for more before it sleeps: lower latency for CPU time.
    pub busy_poll: Duration,
    /// Largest packet of the overlay interface, bytes; 0 for automatic.
    pub mtu: u16,
    /// Whether the router is asked for a port mapping.
    pub maps_port: bool,
    /// What carries the packets.
    pub io: Io,
}
