//! A flood: many packets per system call, each a datagram of its own to the kernel.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use serde::Serialize;

use super::PAYLOAD_LEN;
use crate::error::BenchError;
use crate::stop::Stop;

/// Packets per system call.
const BATCH: usize = 64;

/// What the kernel took.
#[derive(Debug, Serialize)]
pub(super) struct Sent {
    packets: u64,
    seconds: f64,
}

pub(super) fn run(to: SocketAddr, seconds: u32, stop: &Stop) -> Result<Sent, BenchError> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to)?;
    let payload = [0x55u8; PAYLOAD_LEN];
    let slices = [IoSlice::new(&payload)];
    let mut controls: Vec<_> = (0..BATCH).map(|_| SendAncillaryBuffer::default()).collect();
    let mut batch: Vec<_> =
        controls.iter_mut().map(|control| MMsgHdr::new(&slices, control)).collect();
    let (start, time) = (Instant::now(), Duration::from_secs(u64::from(seconds)));
    let mut packets = 0;
    while start.elapsed() < time {
        stop.check()?;
        match sendmmsg(&socket, &mut batch, SendFlags::empty()) {
            Ok(count) => packets += count as u64,
            Err(error) if is_passing(error.into()) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
    Ok(Sent { packets, seconds: start.elapsed().as_secs_f64() })
}

/// Full queues, and echoes of a far end that does not listen any more, are part of a flood.
fn is_passing(error: io::Error) -> bool {
    let kinds = [
        io::ErrorKind::WouldBlock,
        io::ErrorKind::Interrupted,
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::OutOfMemory,
    ];
    kinds.contains(&error.kind())
        || error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
}
