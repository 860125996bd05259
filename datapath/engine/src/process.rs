//! The process: everything is made, then worker and agent run until they are told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ipop_link::{Node, NodeConfig};
use ipop_pipeline::Config as PipelineConfig;
use ipop_shm::{CreateError, ErrorLog, Layout, Ringer};
use ipop_steer::{WORDS_VERSION, counter_slots};
use ipop_uring::{Offloads, RingError, Tap, TapError, UdpError};
use ipop_wire::mac_of;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::agent::{Agent, Parts};
use crate::cipher::costs;
use crate::clock::unix_ms;
use crate::config::DatapathConfig;
use crate::exchange::notes;
use crate::interface::Interface;
use crate::journal::Journal;
use crate::mappings::Mappings;
use crate::network::Network;
use crate::note::Note;
use crate::ports;
use crate::rows::Rows;
use crate::steering::Events;
use crate::workers::{
    QUEUES_MAX, Scheduling, Sockets, Team, lane_ports, open_all_sockets, open_last_sockets,
    open_ports,
};

/// Exit code of a datapath that a new start would not mend.
pub const EXIT_FATAL: i32 = 11;

/// Workers that a node has of itself at most: more cores than that are rarely all for a VPN.
pub const WORKERS_AUTO_MAX: u8 = 8;

/// Why a datapath did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The segment cannot be made.
    #[error(transparent)]
    Segment(#[from] CreateError),
    /// The overlay interface cannot be made or set up.
    #[error("{0} (overlay.interface in the configuration, or --interface)")]
    Interface(#[from] TapError),
    /// No UDP socket.
    #[error("{0} (overlay.port in the configuration)")]
    Socket(#[from] UdpError),
    /// No io_uring, and nothing else may be used.
    #[error("{0}; a poll loop needs no io_uring (overlay.io = \"auto\", or --io auto)")]
    Ring(#[from] RingError),
    /// The kernel does not let workers run in real time.
    #[error(
        "workers may not run in real time: {0}; give CAP_SYS_NICE, or leave out --realtime \
         (overlay.realtime in the configuration)"
    )]
    RealTime(std::io::Error),
    /// A worker ended.
    #[error("a worker has ended: {0}")]
    Worker(String),
    /// The system refused something else.
    #[error("{what}: {source}")]
    System {
        /// What was attempted.
        what: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl RunError {
    /// Whether a new start would end the same way.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Worker(_))
    }
}

/// Runs a datapath until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`] says what was wrong and what to do.
pub fn run(config: DatapathConfig) -> Result<(), RunError> {
    std::thread::spawn(ipop_crypto::seed_generator);
    let fingerprint = config.identity.fingerprint();
    let mac = mac_of(&fingerprint.0);
    let workers = worker_count(config.workers);
    let layout = Layout::new(WORDS_VERSION, u32::from(workers) + 1, counter_slots() as u32);
    let mut segment = ipop_shm::create(&config.segment, &layout)?;
    let stop = Arc::new(AtomicBool::new(false));
    watch_signals(&stop, segment.commands.ringer())?;
    let each = usize::from(config.queues.clamp(1, QUEUES_MAX));
    let (tap, queues) = Tap::open(&config.interface, usize::from(workers) * each, mac)?;
    let interface = Interface::set_up(tap, config.mtu)?;
    let sockets = match config.port {
        0 => open_last_sockets(&config.last_ports, workers)?,
        port => open_all_sockets(port, workers)?,
    };
    let mut pipeline = PipelineConfig::new(mac, interface.mtu());
    pipeline.takes_uso = interface.offloads() == Offloads::TsoUso;
    pipeline.key_life = config.key_life;
    let (notes_in, notes_out) = notes(segment.commands.ringer());
    let mut blocks = std::mem::take(&mut segment.counters);
    let agent_block = blocks
        .pop()
        .ok_or_else(|| system("find the agent's counters", std::io::ErrorKind::NotFound))?;
    let opened = open_ports(config.io, (queues, each), &sockets, config.busy_poll)?;
    let io = ports::describe(&opened);
    let note = Note::new(segment.note, &config, &interface, &sockets, &io);
    tell_of_fallback(&opened, &segment.errors);
    let scheduling = Scheduling { pins: config.pins, real_time: config.real_time };
    let ports = opened.into_iter().map(|opened| opened.port).collect();
    let team = Team::start(ports, blocks, &pipeline, &notes_in, scheduling)?;
    let network = Network::watch(segment.commands.ringer(), interface.index());
    let mappings = mappings(&config, &sockets, segment.commands.ringer());
    let node = Node::new(NodeConfig {
        identity: Arc::new(config.identity),
        ciphers: costs(&config.ciphers),
        lanes: lane_ports(&sockets),
        mtu: interface.mtu(),
        rehandshake_after: config.rehandshake_after,
        seed: seed()?,
    });
    let mut sockets = sockets.into_iter();
    let parts = Parts {
        fingerprint,
        mac,
        node,
        sockets: sockets.next().unwrap_or_default(),
        lane_sockets: sockets.collect(),
        interface,
        note,
        orders: team.orders(),
        notes: notes_out,
        network,
        mappings,
        commands: segment.commands,
        events: Events::new(segment.events),
        rows: Rows::new(segment.links),
        errors: segment.errors,
        journal: Journal::new(segment.journal),
        counters: agent_block,
        holder: segment.holder,
        stop,
    };
    let result = Agent::new(parts, Instant::now()).run().map_err(RunError::Worker);
    team.join();
    result
}

/// Says so where io_uring cannot be had.
fn tell_of_fallback(opened: &[ports::Opened], errors: &ErrorLog) {
    if let Some(error) = opened.iter().find_map(|opened| opened.fallback.as_ref()) {
        let text = format!("a poll loop carries the packets, at more CPU for each: {error}");
        tracing::warn!("{text}");
        errors.observe(unix_ms(), &text);
    }
}

/// The number of workers that is meant by `wanted`; 0 is one per core.
fn worker_count(wanted: u8) -> u8 {
    if wanted != 0 {
        return wanted;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    u8::try_from(cores).unwrap_or(u8::MAX).min(WORKERS_AUTO_MAX)
}

/// SIGTERM and SIGINT end the agent, wherever it sleeps.
fn watch_signals(stop: &Arc<AtomicBool>, ringer: Ringer) -> Result<(), RunError> {
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])
        .map_err(|source| RunError::System { what: "handle signals", source })?;
    let stop = stop.clone();
    std::thread::spawn(move || {
        for _ in signals.forever() {
            stop.store(true, Ordering::Relaxed);
            ringer.ring();
        }
    });
    Ok(())
}

/// The router's port for the first worker's socket, where one is wanted.
fn mappings(config: &DatapathConfig, sockets: &[Sockets], ringer: Ringer) -> Mappings {
    match sockets.first().and_then(Sockets::v4) {
        Some(socket) if config.maps_port => Mappings::start(socket.port(), ringer),
        _ => Mappings::default(),
    }
}

fn seed() -> Result<[u8; 32], RunError> {
    let mut seed = [0; 32];
    let mut filled = 0;
    while filled < seed.len() {
        filled +=
            rustix::rand::getrandom(&mut seed[filled..], rustix::rand::GetRandomFlags::empty())
                .map_err(|errno| RunError::System {
                    what: "draw randomness",
                    source: errno.into(),
                })?;
    }
    Ok(seed)
}

fn system(what: &'static str, kind: std::io::ErrorKind) -> RunError {
    RunError::System { what, source: kind.into() }
}
