//! Round trips, one packet under way at a time.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::PAYLOAD_LEN;
use crate::error::BenchError;
use crate::stop::Stop;

/// A ping that takes longer is lost, and counts as one that took this long.
const TIMEOUT: Duration = Duration::from_secs(1);

/// How long the first answer may take: what was measured before may have left queues full.
const PATIENCE: Duration = Duration::from_secs(10);

/// Round trips of one run.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RoundTrips {
    /// Pings, the lost ones included.
    pub sent: usize,
    /// Pings without an answer.
    pub lost: usize,
    /// Median, microseconds.
    pub p50_us: f64,
    /// 99th percentile, microseconds.
    pub p99_us: f64,
    /// The longest, microseconds.
    pub max_us: f64,
}

pub(super) fn run(
    to: SocketAddr,
    seconds: u32,
    pause_us: u64,
    stop: &Stop,
) -> Result<RoundTrips, BenchError> {
    let socket = UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let pause = Duration::from_micros(pause_us);
    wait_for_answer(&socket, stop)?;
    let (start, time) = (Instant::now(), Duration::from_secs(u64::from(seconds)));
    let (mut trips, mut lost) = (Vec::new(), 0);
    for number in 1u64.. {
        stop.check()?;
        if start.elapsed() >= time {
            break;
        }
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        match one(&socket, number)? {
            Some(trip) => trips.push(trip),
            None => {
                lost += 1;
                trips.push(TIMEOUT);
            }
        }
    }
    summary(trips, lost).ok_or_else(|| BenchError::new("no ping was answered"))
}

fn wait_for_answer(socket: &UdpSocket, stop: &Stop) -> Result<(), BenchError> {
    let start = Instant::now();
    while one(socket, 0)?.is_none() {
        stop.check()?;
        if start.elapsed() > PATIENCE {
            return Err(BenchError::new("no ping was answered"));
        }
    }
    Ok(())
}

/// Sends ping `number` and waits for its answer.
fn one(socket: &UdpSocket, number: u64) -> Result<Option<Duration>, BenchError> {
    let mut packet = [0; PAYLOAD_LEN];
    packet[..8].copy_from_slice(&number.to_be_bytes());
    let start = Instant::now();
    // A full queue is a lost ping, like every other.
    let _ = socket.send(&packet);
    let mut answer = [0; PAYLOAD_LEN];
    loop {
        if start.elapsed() >= TIMEOUT {
            return Ok(None);
        }
        match socket.recv(&mut answer) {
            // An answer to an earlier ping came too late.
            Ok(_) if answer[..8] != packet[..8] => {}
            Ok(_) => return Ok(Some(start.elapsed())),
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                ErrorKind::ConnectionRefused => {}
                _ => return Err(error.into()),
            },
        }
    }
}

/// Nothing when every ping was lost.
fn summary(mut trips: Vec<Duration>, lost: usize) -> Option<RoundTrips> {
    if trips.len() == lost {
        return None;
    }
    trips.sort_unstable();
    let at = |share: f64| {
        let index = (trips.len() as f64 * share) as usize;
        trips[index.min(trips.len() - 1)].as_secs_f64() * 1e6
    };
    let sent = trips.len();
    Some(RoundTrips { sent, lost, p50_us: at(0.5), p99_us: at(0.99), max_us: at(1.0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_pings() {
        let trips = (1..=200).rev().map(Duration::from_micros).collect();
        let trips = summary(trips, 0).unwrap();
        assert_eq!((trips.sent, trips.lost), (200, 0));
        assert_eq!((trips.p50_us, trips.p99_us, trips.max_us), (101.0, 199.0, 200.0));
    }

    #[test]
    fn a_lost_ping_is_a_long_one_and_nothing_but_lost_ones_is_no_result() {
        let trips = summary(vec![Duration::from_micros(5), TIMEOUT], 1).unwrap();
        assert_eq!((trips.lost, trips.max_us), (1, 1e6));
        assert_eq!(summary(vec![TIMEOUT], 1), None);
        assert_eq!(summary(Vec::new(), 0), None);
    }
}
