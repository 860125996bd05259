//! The process: everything is made, then worker and agent run until they are told to stop.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ipop_link::{Node, NodeConfig};
use ipop_pipeline::{Config as PipelineConfig, Pipeline};
use ipop_shm::{CreateError, DatapathEnd, Layout, Ringer};
use ipop_steer::{WORDS_VERSION, counter_slots};
use ipop_uring::{
    Family, Offloads, PortConfig, RingError, Tap, TapError, UdpError, UdpSocket, UringPort,
};
use ipop_wire::mac_of;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::agent::{Agent, Parts, Sockets};
use crate::cipher::costs;
use crate::config::DatapathConfig;
use crate::counting::Publisher;
use crate::exchange::{notes, orders};
use crate::interface::{Interface, MTU_AUTO};
use crate::rows::Rows;
use crate::steering::Events;
use crate::worker::Worker;

/// Exit code of a datapath that a new start would not mend.
pub const EXIT_FATAL: i32 = 11;

/// Workers of a node. A second one needs its own tap queue, sockets and lane.
const WORKERS: u32 = 1;

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
    /// No io_uring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The worker ended.
    #[error("the worker has ended: {0}")]
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
    let fingerprint = config.identity.fingerprint();
    let mac = mac_of(&fingerprint.0);
    let layout = Layout::new(WORDS_VERSION, WORKERS + 1, counter_slots() as u32);
    let mut segment = ipop_shm::create(&config.segment, &layout)?;
    let stop = Arc::new(AtomicBool::new(false));
    watch_signals(&stop, segment.commands.ringer())?;
    let (tap, mut queues) = Tap::open(&config.interface, WORKERS as usize, mac)?;
    let interface = Interface::set_up(tap, config.mtu)?;
    let sockets = open_sockets(config.port)?;
    let queue =
        queues.pop().ok_or_else(|| system("open a tap queue", std::io::ErrorKind::NotFound))?;
    let port = UringPort::open(queue, sockets.v4.clone(), sockets.v6.clone(), &port_config())?;
    write_note(&mut segment, &config, &interface, &sockets, &port);
    let (orders, inbox) = orders(port.doorbell());
    let (sender, notes) = notes(segment.commands.ringer());
    let mut blocks = segment.counters.into_iter();
    let (Some(worker_block), Some(agent_block)) = (blocks.next(), blocks.next()) else {
        return Err(system("find the counters of all threads", std::io::ErrorKind::NotFound));
    };
    let mut pipeline_config = PipelineConfig::new(mac, interface.mtu());
    pipeline_config.takes_uso = interface.offloads() == Offloads::TsoUso;
    let pipeline = Pipeline::new(pipeline_config, &[]);
    let batch = port.batch();
    let worker = Worker::new(port, pipeline, inbox, sender, Publisher::new(worker_block));
    let thread = std::thread::Builder::new()
        .name("worker-0".to_owned())
        .spawn(move || worker.run(batch))
        .map_err(|source| RunError::System { what: "start the worker's thread", source })?;
    let node = Node::new(NodeConfig {
        identity: Arc::new(config.identity),
        ciphers: costs(),
        lanes: WORKERS as u8,
        mtu: interface.mtu(),
        seed: seed()?,
    });
    let parts = Parts {
        fingerprint,
        mac,
        node,
        sockets,
        interface,
        orders,
        notes,
        commands: segment.commands,
        events: Events::new(segment.events),
        rows: Rows::new(segment.links),
        errors: segment.errors,
        counters: agent_block,
        holder: segment.holder,
        stop,
    };
    let result = Agent::new(parts, Instant::now()).run().map_err(RunError::Worker);
    let _ = thread.join();
    result
}

/// Every input of one turn may become an output, so there are slots for all of them, and some for
/// answers and control frames.
fn port_config() -> PortConfig {
    let inputs = PortConfig::default();
    PortConfig { slots: inputs.frames + inputs.datagrams + 16, ..inputs }
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

/// A socket per family; a machine without one of them has the other.
fn open_sockets(port: u16) -> Result<Sockets, RunError> {
    let v4 = UdpSocket::bind(Family::V4, port);
    let same = v4.as_ref().map_or(port, UdpSocket::port);
    let v6 = UdpSocket::bind(Family::V6, same).or_else(|error| match port {
        0 => UdpSocket::bind(Family::V6, 0),
        _ => Err(error),
    });
    match (v4, v6) {
        (Err(error), Err(_)) => Err(error.into()),
        (Err(error @ UdpError::PortTaken { .. }), _)
        | (_, Err(error @ UdpError::PortTaken { .. })) => Err(error.into()),
        (v4, v6) => Ok(Sockets { v4: v4.ok().map(Arc::new), v6: v6.ok().map(Arc::new) }),
    }
}

/// What observers see of the process itself.
fn write_note(
    segment: &mut DatapathEnd,
    config: &DatapathConfig,
    interface: &Interface,
    sockets: &Sockets,
    port: &UringPort,
) {
    let mut note = String::new();
    let fingerprint = config.identity.fingerprint();
    let _ = writeln!(note, "name={}", config.name);
    let _ = writeln!(note, "fingerprint={fingerprint}");
    let _ = writeln!(note, "interface={}", interface.name());
    let mtu = interface.mtu();
    let _ = writeln!(note, "mtu={mtu}{}", if mtu == MTU_AUTO { " (auto)" } else { "" });
    let _ = writeln!(note, "offloads={:?}", interface.offloads());
    for (family, socket) in [("v4", &sockets.v4), ("v6", &sockets.v6)] {
        if let Some(socket) = socket {
            let (port, buffer) = (socket.port(), socket.receive_buffer_len());
            let _ = writeln!(note, "udp_{family}=port {port}, receive buffer {buffer} bytes");
        }
    }
    let _ = writeln!(note, "io={}", port.probe());
    let _ = writeln!(note, "workers={WORKERS}");
    if let Err(error) = segment.note.write(0, note.as_bytes()) {
        tracing::debug!("the note cannot be written: {error}");
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
