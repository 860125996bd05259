//! A stream of numbered datagrams as large as the path takes, many per system call, at a given rate
//! or as fast as the kernel takes them.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rustix::net::sockopt;
use serde::{Deserialize, Serialize};

use super::{NUMBER_LEN, THE_END};
use crate::error::BenchError;
use crate::stop::Stop;

/// Bytes that IPv4 and UDP, or IPv6 and UDP, take of a packet.
const HEADERS_V4: usize = 28;
const HEADERS_V6: usize = 48;
/// What one send may carry: the kernel's limits on segments and bytes.
const SEGMENTS_MAX: usize = 64;
const SEND_LEN_MAX: usize = 65_507;
/// A stream that is behind its rate makes up for so long at most: more would be a burst that no
/// sender with a pace makes.
const ARREARS_MAX: Duration = Duration::from_millis(2);
/// How often the end is told, and the pause before each time: what is under way arrives first.
const FAREWELLS: u32 = 10;
const FAREWELL_PAUSE: Duration = Duration::from_millis(50);

/// What the kernel took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Streamed {
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes of payload in each.
    pub len: usize,
    /// From the first to the last.
    pub seconds: f64,
}

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Datagrams per second; none: as fast as they go.
    pub rate: Option<f64>,
    /// At most so many datagrams.
    pub datagrams: u64,
    /// For at most so long.
    pub seconds: u32,
}

pub(super) fn run(to: SocketAddr, plan: Plan, stop: &Stop) -> Result<Streamed, BenchError> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to)?;
    let mut row = Row::new(datagram_len(&socket, to)?);
    let time = Duration::from_secs(u64::from(plan.seconds));
    let begin = Instant::now();
    let mut pace = plan.rate.map(|rate| Pace { rate, begin, sent: 0 });
    let mut number = 0;
    while number < plan.datagrams && begin.elapsed() < time {
        stop.check()?;
        if let Some(pace) = &mut pace {
            pace.wait();
        }
        let sent = row.send(&socket, number)?;
        number += sent;
        pace.iter_mut().for_each(|pace| pace.sent += sent);
    }
    let seconds = begin.elapsed().as_secs_f64();
    for _ in 0..FAREWELLS {
        stop.sleep(FAREWELL_PAUSE)?;
        let _ = socket.send(&THE_END.to_be_bytes());
    }
    Ok(Streamed { datagrams: number, len: row.len, seconds })
}

/// Payload of the largest packet that goes whole.
fn datagram_len(socket: &UdpSocket, to: SocketAddr) -> Result<usize, BenchError> {
    let (mtu, headers) = match to {
        SocketAddr::V4(_) => (sockopt::ip_mtu(socket), HEADERS_V4),
        SocketAddr::V6(_) => (sockopt::ipv6_mtu(socket), HEADERS_V6),
    };
    let mtu = mtu.map_err(std::io::Error::from)? as usize;
    Ok(mtu.clamp(headers + NUMBER_LEN, SEND_LEN_MAX) - headers)
}

/// The datagrams of one system call, one behind the other.
struct Row {
    /// Bytes of each.
    len: usize,
    bytes: Vec<u8>,
}

impl Row {
    fn new(len: usize) -> Self {
        let count = (SEND_LEN_MAX / len).clamp(1, SEGMENTS_MAX);
        Self { len, bytes: vec![0x55; count * len] }
    }

    /// Numbers them from `number` on and sends them; returns how many the kernel took.
    fn send(&mut self, socket: &UdpSocket, number: u64) -> Result<u64, BenchError> {
        let datagrams = self.bytes.chunks_exact_mut(self.len);
        let count = datagrams.len() as u64;
        for (number, datagram) in (number..).zip(datagrams) {
            datagram[..NUMBER_LEN].copy_from_slice(&number.to_be_bytes());
        }
        let size = u16::try_from(self.len).unwrap_or(u16::MAX);
        let control = [ControlMessage::UdpGsoSegments(&size)];
        let control = if count > 1 { control.as_slice() } else { &[] };
        let bytes = [IoSlice::new(&self.bytes)];
        match sendmsg::<()>(socket.as_raw_fd(), &bytes, control, MsgFlags::empty(), None) {
            Ok(_) => Ok(count),
            // Full queues, and echoes of a far end that does not listen any more.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS | Errno::ECONNREFUSED) => Ok(0),
            // The path has become narrower.
            Err(Errno::EMSGSIZE | Errno::EINVAL) => {
                let len = datagram_len(socket, socket.peer_addr()?)?;
                if len >= self.len {
                    return Err(BenchError::new("the kernel takes no datagram of the path's MTU"));
                }
                *self = Self::new(len);
                Ok(0)
            }
            Err(error) => Err(std::io::Error::from(error).into()),
        }
    }
}

/// When the next datagrams are due.
struct Pace {
    /// Datagrams per second.
    rate: f64,
    begin: Instant,
    sent: u64,
}

impl Pace {
    fn wait(&mut self) {
        let due = self.begin + Duration::from_secs_f64(self.sent as f64 / self.rate);
        let now = Instant::now();
        if due > now {
            std::thread::sleep(due - now);
        } else {
            self.begin += (now - due).saturating_sub(ARREARS_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_as_long_as_one_send_may_be() {
        assert_eq!(Row::new(1372).bytes.len(), 47 * 1372);
        assert_eq!(Row::new(100).bytes.len(), 64 * 100);
        assert_eq!(Row::new(SEND_LEN_MAX).bytes.len(), SEND_LEN_MAX);
    }

    #[test]
    fn what_is_far_behind_is_not_made_up_for() {
        let begin = Instant::now() - Duration::from_secs(1);
        let mut pace = Pace { rate: 1000.0, begin, sent: 0 };
        pace.wait();
        let behind = pace.begin.elapsed();
        assert!(behind >= ARREARS_MAX && behind < Duration::from_millis(500), "{behind:?}");
    }
}
