//! Echo requests, every one of which is accounted for.
//!
//! The program `ping` ends two round trips after its last request: on a busy machine it calls lost
//! what is merely late.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto};

use crate::Node;

/// How late an answer may be.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two pings of which the first answer is awaited.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
const PAYLOAD: [u8; 56] = [0x5a; 56];

/// Pings all addresses of all nodes from all others; each packet is answered.
pub fn assert_all_answer(nodes: &[Node]) {
    for from in nodes {
        for to in nodes.iter().filter(|to| to.name != from.name) {
            for address in to.addresses() {
                let lost = Pinging::start(from, address, 5, Duration::from_millis(50)).finish();
                let (here, there) = (from.status(), to.status());
                assert!(
                    lost.is_empty(),
                    "{} to {address} of {}: {lost:?} of 5 lost: {here:#} {there:#}",
                    from.name,
                    to.name
                );
            }
        }
    }
}

/// How long after `start` the first ping of `to` from the node's machine is answered, which may not
/// have an overlay yet; one is sent every few milliseconds.
pub fn first_answer(
    from: &Node,
    to: IpAddr,
    start: Instant,
    patience: Duration,
) -> Option<Duration> {
    let socket = ipop_lab::inside(&from.namespace(), move || open(to)).unwrap();
    set_socket_timeout(&socket, Timeout::Recv, Some(FIRST_PAUSE)).unwrap();
    let echo = Echo::new(socket, to);
    for sequence in 0.. {
        if start.elapsed() > patience {
            break;
        }
        echo.send(sequence);
        if echo.receive().is_some() {
            return Some(start.elapsed());
        }
    }
    None
}

/// Pings that run while the test does something.
#[derive(Debug)]
pub struct Pinging {
    count: u16,
    is_sending: Arc<AtomicBool>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<Vec<u16>>,
}

impl Pinging {
    /// Starts `count` pings of `to` from the node's machine, one each `interval`.
    pub fn start(from: &Node, to: IpAddr, count: u16, interval: Duration) -> Self {
        let socket = ipop_lab::inside(&from.namespace(), move || open(to)).unwrap();
        let echo = Arc::new(Echo::new(socket, to));
        let is_sending = Arc::new(AtomicBool::new(true));
        let sender = {
            let (echo, is_sending) = (echo.clone(), is_sending.clone());
            std::thread::spawn(move || {
                for sequence in 0..count {
                    echo.send(sequence);
                    std::thread::sleep(interval);
                }
                is_sending.store(false, Ordering::Release);
            })
        };
        let receiver = {
            let is_sending = is_sending.clone();
            std::thread::spawn(move || unanswered(&echo, count, &is_sending))
        };
        Self { count, is_sending, sender, receiver }
    }

    /// Whether there are still pings to be sent.
    pub fn is_running(&self) -> bool {
        self.is_sending.load(Ordering::Acquire)
    }

    /// How many there are, sent or not.
    pub fn count(&self) -> usize {
        self.count.into()
    }

    /// Waits for its end; panics unless each one was answered.
    pub fn assert_lossless(self) {
        let lost = self.finish();
        assert!(lost.is_empty(), "{} pings are not answered: {lost:?}", lost.len());
    }

    /// Waits for its end; returns the numbers of those not answered.
    pub fn finish(self) -> Vec<u16> {
        self.sender.join().unwrap();
        self.receiver.join().unwrap()
    }
}

/// Listens until all are answered, or the last one is too late.
fn unanswered(echo: &Echo, count: u16, is_sending: &AtomicBool) -> Vec<u16> {
    let mut open: BTreeSet<u16> = (0..count).collect();
    let mut deadline = Instant::now() + PATIENCE;
    while !open.is_empty() && Instant::now() < deadline {
        if is_sending.load(Ordering::Acquire) {
            deadline = Instant::now() + PATIENCE;
        }
        if let Some(sequence) = echo.receive() {
            open.remove(&sequence);
        }
    }
    open.into_iter().collect()
}

/// A raw socket that talks to one address. It is not connected: the kernel chooses way and source
/// of each packet anew, since the overlay may have come meanwhile.
#[derive(Debug)]
struct Echo {
    socket: OwnedFd,
    to: SocketAddr,
    is_ipv4: bool,
    identifier: u16,
}

fn open(to: IpAddr) -> std::io::Result<OwnedFd> {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP),
        IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let socket = rustix::net::socket(family, SocketType::RAW, Some(protocol))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_millis(100)))?;
    Ok(socket)
}

impl Echo {
    fn new(socket: OwnedFd, to: IpAddr) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let identifier = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { socket, to: SocketAddr::new(to, 0), is_ipv4: to.is_ipv4(), identifier }
    }

    fn send(&self, sequence: u16) {
        let mut packet = vec![if self.is_ipv4 { 8 } else { 128 }, 0, 0, 0];
        packet.extend_from_slice(&self.identifier.to_be_bytes());
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&PAYLOAD);
        // The kernel fills in ICMPv6's checksum, which covers addresses.
        if self.is_ipv4 {
            let sum = checksum(&packet);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        // What cannot be sent is not answered either.
        let _ = rustix::net::sendto(&self.socket, &packet, SendFlags::empty(), &self.to);
    }

    /// The number of the next answer; none after a while.
    fn receive(&self) -> Option<u16> {
        let mut buffer = [0; 256];
        let (_, length) = rustix::net::recv(&self.socket, &mut buffer, RecvFlags::empty()).ok()?;
        // IPv4's raw sockets show the IP header.
        let start = if self.is_ipv4 { usize::from(buffer[0] & 15) * 4 } else { 0 };
        let message = buffer.get(start..length)?;
        let kind = if self.is_ipv4 { 0 } else { 129 };
        let is_ours = *message.first()? == kind
            && message.get(4..6)? == self.identifier.to_be_bytes()
            && message.get(8..)? == PAYLOAD;
        let sequence = message.get(6..8)?.try_into().ok()?;
        is_ours.then_some(u16::from_be_bytes(sequence))
    }
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
