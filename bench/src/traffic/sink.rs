//! A sink that counts: many packets per system call.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use rustix::net::sockopt;
use serde::{Deserialize, Serialize};

use super::PAYLOAD_LEN;
use crate::error::BenchError;
use crate::stop::Stop;

/// Packets per system call.
const BATCH: usize = 64;
/// Bytes of kernel memory for packets that wait: a burst is not to be the sink's loss.
const QUEUE_LEN: usize = 4 << 20;
/// How long the first packet may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// From the first packet until counting starts.
const WARM_UP: Duration = Duration::from_millis(300);
/// Longest wait of one system call.
const TICK: Duration = Duration::from_millis(50);

/// What arrived in the time that was counted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Received {
    packets: u64,
    seconds: f64,
}

impl Received {
    pub(crate) fn per_second(&self) -> f64 {
        self.packets as f64 / self.seconds
    }
}

pub(super) fn run(port: u16, seconds: u32, stop: &Stop) -> Result<Received, BenchError> {
    let socket = UdpSocket::bind(("0.0.0.0", port))?;
    socket.set_read_timeout(Some(TICK))?;
    if sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_LEN).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, QUEUE_LEN).map_err(std::io::Error::from)?;
    }
    let mut batch = Batch::new();
    let deadline = Instant::now() + PATIENCE;
    while batch.receive(&socket)? == 0 {
        stop.check()?;
        if Instant::now() > deadline {
            return Err(BenchError::new("no packet of the flood arrived"));
        }
    }
    count(&mut batch, &socket, WARM_UP, stop)?;
    count(&mut batch, &socket, Duration::from_secs(u64::from(seconds)), stop)
}

fn count(
    batch: &mut Batch,
    socket: &UdpSocket,
    time: Duration,
    stop: &Stop,
) -> Result<Received, BenchError> {
    let start = Instant::now();
    let mut packets = 0;
    while start.elapsed() < time {
        stop.check()?;
        packets += batch.receive(socket)?;
    }
    Ok(Received { packets, seconds: start.elapsed().as_secs_f64() })
}

/// Room for the packets of one system call.
struct Batch {
    headers: MultiHeaders<SockaddrStorage>,
    buffers: Vec<[u8; PAYLOAD_LEN]>,
}

impl Batch {
    fn new() -> Self {
        let headers = MultiHeaders::preallocate(BATCH, None);
        Self { headers, buffers: vec![[0; PAYLOAD_LEN]; BATCH] }
    }

    /// Waits for at least one packet, not for long; returns how many there were.
    fn receive(&mut self, socket: &UdpSocket) -> Result<u64, BenchError> {
        let mut slices: Vec<_> =
            self.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        let fd = socket.as_raw_fd();
        match recvmmsg(fd, &mut self.headers, slices.iter_mut(), flags, None) {
            Ok(messages) => Ok(messages.count() as u64),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(error) => Err(std::io::Error::from(error).into()),
        }
    }
}
