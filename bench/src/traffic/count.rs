//! A sink of numbered datagrams, which tells what is missing and what came late.

use std::io::IoSliceMut;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RxqOvfl, UdpGroSegment};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use rustix::net::sockopt as rustix_sockopt;
use serde::{Deserialize, Serialize};

use super::{NUMBER_LEN, PACKET_MAX, THE_END};
use crate::error::BenchError;
use crate::stop::Stop;

/// Bytes of kernel memory for what waits: a quarter of a second at 8 Gbit/s, so that what is lost
/// is not the sink's loss, if it has to wait for a core.
const QUEUE_LEN: usize = 256 << 20;
/// How long the first datagram may take, and the next one after the last.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest wait of one system call.
const TICK: Duration = Duration::from_millis(50);

/// What arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Datagrams.
    pub datagrams: u64,
    /// Those of them that came after a later one.
    pub reordered: u64,
    /// Times that this socket's own queue was full: at least so many that did arrive were lost by
    /// this program.
    pub overruns: u64,
    /// From the first to the last.
    pub seconds: f64,
}

impl Counted {
    /// Datagrams per second.
    pub(crate) fn per_second(&self) -> f64 {
        self.datagrams as f64 / self.seconds.max(1e-9)
    }
}

pub(super) fn run(port: u16, stop: &Stop) -> Result<Counted, BenchError> {
    let socket = UdpSocket::bind(("0.0.0.0", port))?;
    socket.set_read_timeout(Some(TICK))?;
    if rustix_sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE_LEN).is_err() {
        rustix_sockopt::set_socket_recv_buffer_size(&socket, QUEUE_LEN)
            .map_err(std::io::Error::from)?;
    }
    setsockopt(&socket, UdpGroSegment, &true).map_err(std::io::Error::from)?;
    setsockopt(&socket, RxqOvfl, &1).map_err(std::io::Error::from)?;
    let mut buffer = vec![0; PACKET_MAX];
    let mut count = Count::default();
    let mut heard = Instant::now();
    let mut first = None;
    loop {
        stop.check()?;
        match receive(&socket, &mut buffer)? {
            Some(received) => {
                heard = Instant::now();
                count.counted.overruns = count.counted.overruns.max(received.overruns);
                if !count.take(&buffer[..received.len], received.size) {
                    break;
                }
                let first = *first.get_or_insert(heard);
                count.counted.seconds = (heard - first).as_secs_f64();
            }
            None if heard.elapsed() > PATIENCE => break,
            None => {}
        }
    }
    if count.counted.datagrams == 0 {
        return Err(BenchError::new("no datagram of the stream arrived"));
    }
    Ok(count.counted)
}

/// One receive: a row of datagrams of one size.
struct Received {
    len: usize,
    size: usize,
    overruns: u64,
}

/// Waits for datagrams, not for long.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Result<Option<Received>, BenchError> {
    let mut control = cmsg_space!(i32, u32);
    let mut slices = [IoSliceMut::new(buffer)];
    let fd = socket.as_raw_fd();
    let message = match recvmsg::<()>(fd, &mut slices, Some(&mut control), MsgFlags::empty()) {
        Ok(message) => message,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
        Err(error) => return Err(std::io::Error::from(error).into()),
    };
    let mut received = Received { len: message.bytes, size: message.bytes, overruns: 0 };
    for control in message.cmsgs().map_err(std::io::Error::from)? {
        match control {
            ControlMessageOwned::UdpGroSegments(size) => {
                received.size = usize::try_from(size).unwrap_or(received.len);
            }
            ControlMessageOwned::RxqOvfl(overruns) => received.overruns = u64::from(overruns),
            _ => {}
        }
    }
    Ok(Some(received))
}

/// What came so far.
#[derive(Default)]
struct Count {
    counted: Counted,
    /// The number after the highest one.
    next: u64,
}

impl Count {
    /// Counts datagrams of `size` bytes each; `false` when one was the end.
    fn take(&mut self, bytes: &[u8], size: usize) -> bool {
        for datagram in bytes.chunks(size.max(1)) {
            let Some(number) = datagram.first_chunk::<NUMBER_LEN>() else { continue };
            let number = u64::from_be_bytes(*number);
            if number == THE_END {
                return false;
            }
            self.counted.datagrams += 1;
            self.counted.reordered += u64::from(number < self.next);
            self.next = self.next.max(number + 1);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(numbers: &[u64]) -> Vec<u8> {
        numbers.iter().flat_map(|number| [number.to_be_bytes(), [0; 8]].concat()).collect()
    }

    #[test]
    fn what_comes_late_is_counted_once() {
        let mut count = Count::default();
        assert!(count.take(&row(&[0, 1, 3, 2, 4]), 16));
        assert!(count.take(&row(&[7, 5, 6]), 16));
        assert_eq!((count.counted.datagrams, count.counted.reordered), (8, 3));
    }

    #[test]
    fn the_end_ends_it() {
        let mut count = Count::default();
        assert!(!count.take(&row(&[0, THE_END]), 16));
        assert_eq!(count.counted.datagrams, 1);
    }
}
