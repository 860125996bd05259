//! Small UDP packets: echoed for the round trip, counted for the rate.
//!
//! ```text
//! | secret 16 | sort 1 | number 8 | zeros ... |    64 bytes
//! ```

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::Type;

use super::batches::{Arrivals, flood};
use super::streams::any_address;
use super::words::Secret;

const PACKET_LEN: usize = 64;
const SORT_AT: usize = 16;
const NUMBER_AT: usize = 17;
/// To be sent back.
const PING: u8 = 0;
/// To be counted.
const FLOOD: u8 = 1;

/// Room for the packets that come while a thread does not run.
const BUFFER_LEN: usize = 4 << 20;
/// How often a thread looks whether it is to end.
const STEP: Duration = Duration::from_millis(100);
/// How long a ping may take, and how long a lost one counts.
const PING_PATIENCE: Duration = Duration::from_secs(1);
/// Between two pings: the machines may fall asleep, as they do between most packets.
const PING_PAUSE: Duration = Duration::from_millis(2);
/// Pings before a way counts as closed.
const TRIES: usize = 3;

/// The answering end of one way, until it is dropped.
pub struct Responder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    socket: UdpSocket,
    secret: Secret,
    peer: IpAddr,
    counted: AtomicU64,
    /// Where the last ping came from.
    asker: Mutex<Option<SocketAddr>>,
    stop: AtomicBool,
}

impl Responder {
    /// Starts one for `peer` on any port of all addresses; of one interface only, if that is named.
    ///
    /// # Errors
    /// The system's.
    pub fn start(interface: Option<&str>, secret: Secret, peer: IpAddr) -> io::Result<Self> {
        let socket =
            any_address(Type::DGRAM, 0, |socket| socket.bind_device(interface.map(str::as_bytes)))?;
        // Less is granted where the machine's limit is lower.
        let _ = socket.set_recv_buffer_size(BUFFER_LEN);
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(STEP))?;
        let (counted, asker) = (AtomicU64::new(0), Mutex::new(None));
        let stop = AtomicBool::new(false);
        let shared = Arc::new(Shared { socket, secret, peer, counted, asker, stop });
        let thread = std::thread::spawn({
            let shared = shared.clone();
            move || shared.run()
        });
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Its port.
    ///
    /// # Errors
    /// The system's.
    pub fn port(&self) -> io::Result<u16> {
        self.shared.socket.local_addr().map(|address| address.port())
    }

    /// How many packets were counted since the last question.
    pub fn count(&self) -> u64 {
        self.shared.counted.swap(0, Ordering::Relaxed)
    }

    /// Sends packets to where the last ping came from, while `goes_on`; returns how many.
    ///
    /// # Errors
    /// When no ping came yet.
    pub fn flood(&self, time: Duration, goes_on: impl Fn() -> bool) -> io::Result<u64> {
        let asker = *self.shared.asker.lock().unwrap_or_else(PoisonError::into_inner);
        let asker = asker.ok_or(io::ErrorKind::NotConnected)?;
        let Shared { socket, secret, .. } = &*self.shared;
        let (deadline, packet) = (Instant::now() + time, packet(secret, FLOOD, 0));
        Ok(flood(socket, &packet, Some(asker), || Instant::now() < deadline && goes_on()))
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut arrivals = Arrivals::new();
        while !self.stop.load(Ordering::Relaxed) {
            // Nothing in time, or an answer of the network to what was sent: the next one counts.
            let _ = arrivals.receive(&self.socket, |packet, from| self.take(packet, from));
        }
    }

    fn take(&self, packet: &[u8], from: SocketAddr) {
        if from.ip().to_canonical() != self.peer {
            return;
        }
        match sort(packet, &self.secret) {
            Some(FLOOD) => {
                self.counted.fetch_add(1, Ordering::Relaxed);
            }
            Some(PING) => {
                *self.asker.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
                // A lost answer is a lost ping, which the other end counts.
                let _ = self.socket.send_to(packet, from);
            }
            _ => {}
        }
    }
}

/// The asking end of one way.
pub struct Asker {
    socket: UdpSocket,
    secret: Secret,
    number: u64,
}

impl Asker {
    /// Opens a socket towards the other end.
    ///
    /// # Errors
    /// The system's.
    pub fn open(address: SocketAddr, secret: Secret) -> io::Result<Self> {
        let any: SocketAddr =
            if address.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(BUFFER_LEN);
        socket.connect(address)?;
        Ok(Self { socket, secret, number: 0 })
    }

    /// Whether the other end answers.
    pub fn is_answered(&mut self) -> bool {
        (0..TRIES).any(|_| self.ping().is_some())
    }

    /// Round trips, one after the other, while `goes_on`. A lost ping counts as one second.
    pub fn round_trips(&mut self, goes_on: impl Fn() -> bool) -> Vec<Duration> {
        let mut times = Vec::new();
        while goes_on() {
            times.push(self.ping().unwrap_or(PING_PATIENCE));
            std::thread::sleep(PING_PAUSE);
        }
        times
    }

    /// Sends packets to be counted at the other end.
    pub fn flood(&self, time: Duration) -> u64 {
        let (deadline, packet) = (Instant::now() + time, packet(&self.secret, FLOOD, 0));
        flood(&self.socket, &packet, None, || Instant::now() < deadline)
    }

    /// Counts packets while `goes_on`.
    ///
    /// # Errors
    /// The system's.
    pub fn count(&self, goes_on: impl Fn() -> bool) -> io::Result<u64> {
        self.socket.set_read_timeout(Some(STEP))?;
        let mut arrivals = Arrivals::new();
        let mut count = 0;
        while goes_on() {
            // Nothing in time is nothing to count.
            let _ = arrivals.receive(&self.socket, |packet, _| {
                count += u64::from(sort(packet, &self.secret) == Some(FLOOD));
            });
        }
        Ok(count)
    }

    fn ping(&mut self) -> Option<Duration> {
        self.number += 1;
        let request = packet(&self.secret, PING, self.number);
        let start = Instant::now();
        // The answer to a port that is closed comes as the next call's error.
        self.socket.send(&request).ok()?;
        let mut answer = [0; PACKET_LEN];
        loop {
            let left = PING_PATIENCE.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
            self.socket.set_read_timeout(Some(left)).ok()?;
            let length = self.socket.recv(&mut answer).ok()?;
            if answer[..length] == request {
                return Some(start.elapsed());
            }
        }
    }
}

fn packet(secret: &Secret, sort: u8, number: u64) -> [u8; PACKET_LEN] {
    let mut packet = [0; PACKET_LEN];
    packet[..SORT_AT].copy_from_slice(&secret.0);
    packet[SORT_AT] = sort;
    packet[NUMBER_AT..NUMBER_AT + 8].copy_from_slice(&number.to_be_bytes());
    packet
}

/// What a packet is for; nothing without the secret.
fn sort(packet: &[u8], secret: &Secret) -> Option<u8> {
    packet.strip_prefix(&secret.0).and_then(<[u8]>::first).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_with_the_secret_are_echoed_and_counted_both_ways() {
        let secret = Secret([1; 16]);
        let responder = Responder::start(Some("lo"), secret, [127, 0, 0, 1].into()).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], responder.port().unwrap()));
        let mut stranger = Asker::open(address, Secret([2; 16])).unwrap();
        stranger.number = u64::MAX - 1;
        assert!(stranger.ping().is_none());
        assert!(responder.flood(Duration::ZERO, || true).is_err(), "to whom?");
        let mut asker = Asker::open(address, secret).unwrap();
        assert!(asker.is_answered());
        stranger.flood(Duration::from_millis(5));
        assert!(asker.flood(Duration::from_millis(20)) > 0);
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut counted = 0;
        while counted == 0 && Instant::now() < deadline {
            counted += responder.count();
        }
        assert!(counted > 0);
        assert_eq!(responder.flood(Duration::from_secs(20), || false).unwrap(), 0);
        assert!(responder.flood(Duration::from_millis(20), || true).unwrap() > 0);
        let seen = AtomicBool::new(false);
        let count = asker.count(|| !seen.swap(true, Ordering::Relaxed)).unwrap();
        assert!(count > 0);
    }
}
