//! The workers of a node: each has a thread, tap queues, sockets, a port and a pipeline of its
//! own, and shares none of it. Worker k carries lane k of every link. The first one's sockets are
//! those that candidates name; what other workers have no lane for comes to it.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipop_link::LanePorts;
use ipop_pipeline::{Config as PipelineConfig, Pipeline};
use ipop_shm::WorkerCounters;
use ipop_uring::{
    Batch, Family, Port, PortConfig, TAP_QUEUES_MAX, TapQueue, TapQueues, UdpError, UdpSocket,
    pin_to_core, run_in_real_time,
};

use crate::counting::Publisher;
use crate::exchange::{Handover, Notes, Orders, orders};
use crate::last_ports;
use crate::ports::{self, AnyPort, Io, Opened};
use crate::process::RunError;
use crate::worker::{Outside, Worker};

/// One worker's sockets. Those of the first are shared by links, STUN and TURN.
#[derive(Clone, Default)]
pub(crate) struct Sockets {
    v4: Option<Arc<UdpSocket>>,
    v6: Option<Arc<UdpSocket>>,
}

impl Sockets {
    pub(crate) fn v4(&self) -> Option<&Arc<UdpSocket>> {
        self.v4.as_ref()
    }

    pub(crate) fn v6(&self) -> Option<&Arc<UdpSocket>> {
        self.v6.as_ref()
    }

    /// Datagrams that the kernel dropped for want of room.
    pub(crate) fn overflows(&self) -> u64 {
        let sockets = self.v4.iter().chain(&self.v6);
        sockets.map(|socket| u64::from(socket.overflows())).sum()
    }

    /// The socket of an address's family.
    pub(crate) fn of(&self, address: &IpAddr) -> Option<&Arc<UdpSocket>> {
        if address.is_ipv4() { self.v4() } else { self.v6() }
    }
}

/// Sockets for so many workers. With a port given, the workers have it and those that follow it.
pub(crate) fn open_all_sockets(port: u16, workers: u8) -> Result<Vec<Sockets>, RunError> {
    let port_of = |worker: u8| match port {
        0 => Some(0),
        port => port.checked_add(u16::from(worker)),
    };
    (0..workers)
        .map(|worker| match port_of(worker) {
            Some(port) => open_sockets(port),
            None => Err(UdpError::PortTaken { port: u16::MAX }.into()),
        })
        .collect()
}

/// How long a port of the last run may still be taken: the kernel closes the sockets of a process
/// that was killed, and their io_uring, a while after its end.
const LAST_PORT_PATIENCE: Duration = Duration::from_secs(1);
const LAST_PORT_PAUSE: Duration = Duration::from_millis(10);

/// Sockets for so many workers, at the ports of the last run where they are free. What others took
/// meanwhile is replaced by any port.
pub(crate) fn open_last_sockets(path: &Path, workers: u8) -> Result<Vec<Sockets>, RunError> {
    let last = last_ports::read(path);
    let port_of = |worker: u8| last.get(usize::from(worker)).copied().unwrap_or(0);
    let deadline = Instant::now() + LAST_PORT_PATIENCE;
    let open = |worker| loop {
        match open_sockets(port_of(worker)) {
            Err(RunError::Socket(UdpError::PortTaken { .. })) if Instant::now() < deadline => {
                std::thread::sleep(LAST_PORT_PAUSE);
            }
            Err(_) => break open_sockets(0),
            opened => break opened,
        }
    };
    let all = (0..workers).map(open).collect::<Result<Vec<_>, _>>()?;
    let socket = |sockets: &Sockets| sockets.v4().or(sockets.v6()).map(|socket| socket.port());
    let ports: Vec<_> = all.iter().filter_map(socket).collect();
    last_ports::write(path, &ports);
    Ok(all)
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

/// The ports of the lanes besides the first, as peers are told them.
pub(crate) fn lane_ports(sockets: &[Sockets]) -> Vec<LanePorts> {
    let port = |socket: Option<&Arc<UdpSocket>>| socket.map_or(0, |socket| socket.port());
    let ports = |sockets: &Sockets| LanePorts { v4: port(sockets.v4()), v6: port(sockets.v6()) };
    sockets.iter().skip(1).map(ports).collect()
}

/// Tap queues that each worker may have.
pub const QUEUES_MAX: u8 = TAP_QUEUES_MAX as u8;

/// A port for each worker, with so many of the queues.
pub(crate) fn open_ports(
    io: Io,
    (queues, each): (Vec<TapQueue>, usize),
    sockets: &[Sockets],
    busy_poll: Duration,
) -> Result<Vec<Opened>, RunError> {
    let config = port_config(busy_poll);
    let mut queues = queues.into_iter();
    let shares = std::iter::from_fn(|| TapQueues::new(queues.by_ref().take(each).collect()));
    let open = |(share, sockets)| ports::open(io, share, sockets, &config);
    shares.zip(sockets).map(open).collect()
}

/// Every input of one turn may become an output, so there are slots for all of them, and some for
/// answers and control frames.
fn port_config(busy_poll: Duration) -> PortConfig {
    let inputs = PortConfig::default();
    PortConfig { slots: inputs.frames + inputs.datagrams + 16, busy_poll, ..inputs }
}

/// How the kernel schedules workers.
#[derive(Clone, Copy)]
pub(crate) struct Scheduling {
    /// Each on a core of its own.
    pub pins: bool,
    /// Before all ordinary threads.
    pub real_time: bool,
}

impl Scheduling {
    /// Schedules the calling thread as worker `number`.
    fn apply(self, number: usize) -> Result<(), RunError> {
        if self.pins
            && let Err(error) = pin_to_core(number)
        {
            tracing::warn!("worker {number} cannot be bound to core {number}: {error}");
        }
        if self.real_time { run_in_real_time().map_err(RunError::RealTime) } else { Ok(()) }
    }
}

/// Workers at work.
pub(crate) struct Team {
    orders: Vec<Orders>,
    threads: Vec<JoinHandle<()>>,
}

impl Team {
    /// Starts a worker on each port.
    pub(crate) fn start(
        ports: Vec<AnyPort>,
        counters: Vec<WorkerCounters>,
        pipeline: &PipelineConfig,
        notes: &Notes,
        scheduling: Scheduling,
    ) -> Result<Self, RunError> {
        let mut team = Self { orders: Vec::new(), threads: Vec::new() };
        let Some(first) = ports.first() else { return Ok(team) };
        let handover = Handover::new(first.doorbell());
        for (number, (port, block)) in ports.into_iter().zip(counters).enumerate() {
            let outside = Outside {
                notes: notes.of_worker(number as u8),
                handover: handover.clone(),
                counters: Publisher::new(block),
            };
            let pipeline = PipelineConfig { hands_over: number > 0, ..*pipeline };
            let pipeline = Pipeline::new(pipeline, &[]);
            let (orders, inbox) = orders(port.doorbell());
            let thread = match port {
                AnyPort::Ring(port) => {
                    let batch = port.batch();
                    start(number, scheduling, Worker::new(port, pipeline, inbox, outside), batch)?
                }
                AnyPort::Poll(port) => {
                    let batch = port.batch();
                    start(number, scheduling, Worker::new(port, pipeline, inbox, outside), batch)?
                }
            };
            team.orders.push(orders);
            team.threads.push(thread);
        }
        Ok(team)
    }

    /// How to order each worker about.
    pub(crate) fn orders(&self) -> Vec<Orders> {
        self.orders.clone()
    }

    /// Waits until all have ended.
    pub(crate) fn join(self) {
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn start<P: Port + Send + 'static>(
    number: usize,
    scheduling: Scheduling,
    worker: Worker<P>,
    batch: Batch,
) -> Result<JoinHandle<()>, RunError> {
    let (sender, scheduled) = std::sync::mpsc::channel();
    let run = move || {
        let result = scheduling.apply(number);
        let is_scheduled = result.is_ok();
        if sender.send(result).is_ok() && is_scheduled {
            worker.run(batch);
        }
    };
    let thread = std::thread::Builder::new().name(format!("worker-{number}"));
    let started = thread.spawn(run);
    let thread =
        started.map_err(|source| RunError::System { what: "start a worker's thread", source })?;
    match scheduled.recv() {
        Ok(result) => result.map(|()| thread),
        Err(_) => Err(RunError::Worker(format!("{number}, before it began"))),
    }
}
