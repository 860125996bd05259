//! Egress and ingress of a batch: route, cut, seal; and open, join, deliver.
//!
//! What it is: everything that happens to a packet between the tap and the UDP socket of one
//! worker, with no ring, socket, clock, thread or allocation. A worker owns one [`Pipeline`] and
//! lends it output slots through a [`Sink`]; all that comes out goes there. One tap read becomes
//! one GSO send, one GRO receive one tap write: a super-segment travels in parts of whole segments,
//! payload first, and each payload is decrypted straight behind the one before. Nobody computes an
//! inner checksum: the AEAD's tag is the integrity, and the receiving host's kernel completes the
//! checksum if the packet ever leaves it.
//!
//! What it leaves out: handshakes, paths and their health (the link agent's), when to wake up, and
//! what a node may talk to. Nothing is shared between workers: each has its own lane of each link,
//! and hands whole frames to the first worker while it has none.
//!
//! Read first: [`Pipeline`] and [`Sink`]. `egress.rs` and `ingress.rs` open with the numbered way
//! of a packet, and their functions stand in that order.
#![forbid(unsafe_code)]

mod codel;
mod control;
mod counters;
mod egress;
mod ingress;
mod links;
mod neighbour;
mod patch;
mod recent;
mod repeat;
mod routes;
mod sink;

use std::net::IpAddr;
use std::ops::DerefMut;
use std::time::{Duration, Instant};

use ipop_crypto::KeyLife;
use ipop_wire::ethernet::Mac;

pub use control::LinkStatus;
pub use counters::{Counters, Drop, LinkCounters, Total};
pub use links::{DATAGRAM_LEN_MIN, LinkEntry, Path};
pub use sink::{SEND_LEN_MAX, SLOT_LEN, SendRun, Sink, Source, ToAgent};

/// Longest inner headers of a frame that is cut or joined by segments.
pub(crate) const HEADERS_MAX: usize = 256;

/// Most datagrams of one UDP super-segment that every kernel takes.
pub(crate) const UDP_SEGMENTS_MAX: usize = 64;

/// What a pipeline is told once.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Hardware address of the tap.
    pub mac: Mac,
    /// The overlay's MTU: the largest IP packet that a fragmented frame may have, in bytes.
    pub mtu: u16,
    /// Most datagrams in one send: what the kernel takes of one GSO buffer.
    pub segments_max: usize,
    /// Whether the tap takes UDP super-segments (`TUN_F_USO4` and `TUN_F_USO6`).
    pub takes_uso: bool,
    /// Whether a frame from an address that is routed to another peer, or is the node's own, is
    /// refused.
    pub strict_source: bool,
    /// Whether frames that this worker has no lane for go to the first one. The first worker
    /// itself has a lane of every link, answers the host's questions and sends to groups.
    pub hands_over: bool,
    /// How long a sending key is used.
    pub key_life: KeyLife,
}

impl Config {
    /// The usual choice for a tap with this hardware address and MTU.
    pub fn new(mac: Mac, mtu: u16) -> Config {
        Config {
            mac,
            mtu,
            segments_max: 64,
            takes_uso: true,
            strict_source: true,
            hands_over: false,
            key_life: KeyLife::default(),
        }
    }
}

/// The packet path of one worker: its lanes of all links, its routes, its counters.
///
/// `S` is the output slot that the worker's [`Sink`] lends. All memory is allocated by
/// [`new`](Pipeline::new) and by installing links and routes.
pub struct Pipeline<S> {
    config: Config,
    addresses: Vec<IpAddr>,
    routes: routes::Routes,
    links: links::LinkTable,
    outbox: egress::outbox::Outbox<S>,
    inbox: ingress::Inbox<S>,
    recent: recent::Recent,
    told: egress::telling::Told,
    codel: codel::Codel,
    repeater: repeat::Repeater,
    counters: Counters,
}

impl<S: DerefMut<Target = [u8]>> Pipeline<S> {
    /// A pipeline without links and routes. `addresses` are the node's own.
    pub fn new(config: Config, addresses: &[IpAddr]) -> Pipeline<S> {
        Pipeline {
            config,
            addresses: addresses.to_vec(),
            routes: routes::Routes::default(),
            links: links::LinkTable::default(),
            outbox: egress::outbox::Outbox::new(config.segments_max),
            inbox: ingress::Inbox::new(&config),
            recent: recent::Recent::default(),
            told: egress::telling::Told::default(),
            codel: codel::Codel::default(),
            repeater: repeat::Repeater::default(),
            counters: Counters::default(),
        }
    }

    /// Tells how long packets that are about to be given may have waited for this worker; to be
    /// called once a turn. Where waits stay long, segments of TCP streams are dropped.
    pub fn note_wait(&mut self, now: Instant, wait: Duration) {
        self.repeater.note_time(now);
        self.codel.note_wait(now, wait);
    }

    /// All counters since the pipeline was made.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
