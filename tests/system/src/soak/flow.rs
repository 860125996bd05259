//! One flow of UDP datagrams of all sizes, each of which says which it is.
//!
//! ```text
//! 24 bytes or more: | sequence 8 | flow 8 | check 8 | pattern of flow and sequence ... |
//! shorter:          | pattern of flow and length ... |
//! ```

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use super::stream::Route;
use super::{Sums, is_over};
use crate::dice::Dice;
use crate::pattern::{fill, wrong};

const HEADER_LEN: usize = 24;
/// The largest UDP payload over IPv4, bytes.
const DATAGRAM_MAX: u64 = 65_507;
/// Bytes of IPv6 and UDP headers.
const HEADERS: u64 = 48;
/// Datagrams of one call, and their bytes, that every kernel with UDP segmentation takes.
const SEGMENTS_MAX: u64 = 64;
const SEGMENTS_BYTES: u64 = 64_000;
/// Datagrams, and their bytes, that are under way at most: no queue has to overflow.
const WINDOW: u64 = 1024;
const WINDOW_BYTES: u64 = 256 << 10;
/// After so long without an arrival, what is under way counts as lost.
const LOST_AFTER: Duration = Duration::from_millis(30);
/// How long the receiver listens after the last arrival, once the sender is done.
const QUIET: Duration = Duration::from_secs(1);
const RECEIVE_BUFFER: usize = 8 << 20;

/// What sender and receiver of one process tell each other.
#[derive(Debug, Default)]
struct Shared {
    arrived: AtomicU64,
    arrived_bytes: AtomicU64,
    is_sent: AtomicBool,
}

/// Sends so many datagrams, or until the time is up. `mtu` is that of the sender's interface.
pub(crate) fn send(
    route: &Route,
    mtu: u16,
    datagrams: u64,
    until: Option<Instant>,
    seed: u64,
) -> Sums {
    let mut dice = Dice::new(seed);
    let flow = dice.number();
    let any_port = SocketAddr::new(route.address, 0);
    let receiver = ipop_lab::inside(&route.to, move || UdpSocket::bind(any_port)).unwrap();
    let _ = set_socket_recv_buffer_size_force(&receiver, RECEIVE_BUFFER);
    let to = receiver.local_addr().unwrap();
    let segmenting = ipop_lab::inside(&route.from, move || connected(to)).unwrap();
    let plain = ipop_lab::inside(&route.from, move || connected(to)).unwrap();
    let shared = Arc::new(Shared::default());
    let receiving = {
        let (shared, joins) = (shared.clone(), dice.below(2) == 0);
        std::thread::spawn(move || Receiver::new(receiver, flow, joins).run(&shared))
    };
    let state = UdpSocketState::new(UdpSockRef::from(&segmenting)).unwrap();
    let mut sender = Sender { flow, to, segmenting, state, plain, sent: 0, sent_bytes: 0 };
    while sender.sent < datagrams && !is_over(until) {
        sender.burst(&mut dice, u64::from(mtu) - HEADERS, datagrams, &shared);
    }
    shared.is_sent.store(true, Ordering::Release);
    let mut sums = receiving.join().unwrap();
    sums.datagrams_sent = sender.sent;
    let distinct = sums.datagrams - sums.datagrams_doubled - sums.datagrams_wrong;
    sums.datagrams_lost = sender.sent.saturating_sub(distinct);
    sums
}

fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    Ok(socket)
}

/// How often a send is tried again for what became of earlier ones.
const TRIES_MAX: u32 = 10;

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Whether a connected socket hands on what ICMP said of a datagram that was sent before: it was
/// too large for the path to go whole. Nothing was sent, and the next try is not told again.
fn is_of_an_earlier_one(error: &io::Error) -> bool {
    is(error, Errno::MSGSIZE)
}

struct Sender {
    flow: u64,
    to: SocketAddr,
    /// For several datagrams by one call; never fragments.
    segmenting: UdpSocket,
    state: UdpSocketState,
    /// For one datagram by one call, fragmented where it is large.
    plain: UdpSocket,
    sent: u64,
    sent_bytes: u64,
}

impl Sender {
    /// Some datagrams in a row: of one size by one call, of one size by as many calls, or of any.
    fn burst(&mut self, dice: &mut Dice, whole: u64, datagrams: u64, shared: &Shared) {
        let kind = dice.below(4);
        let count = (1 + dice.below(SEGMENTS_MAX)).min(datagrams - self.sent);
        let length = match dice.below(3) {
            0 => whole,
            _ => dice.size(whole),
        };
        match kind {
            0 => self.segments(length, count.min((SEGMENTS_BYTES / length).max(1))),
            1 | 2 => (0..count).for_each(|_| self.single(length)),
            _ => {
                // Large ones cost as much as many small ones.
                let largest = dice.pick(&[64, whole, whole, DATAGRAM_MAX]);
                let count = if largest > whole { count.min(4) } else { count };
                (0..count).for_each(|_| self.single(dice.size(largest)));
            }
        }
        self.await_window(shared);
    }

    fn segments(&mut self, length: u64, count: u64) {
        let mut contents = vec![0; (length * count) as usize];
        for datagram in contents.chunks_mut(length as usize) {
            self.write(datagram);
        }
        let transmit = Transmit {
            destination: self.to,
            ecn: None,
            contents: &contents,
            segment_size: Some(length as usize),
            src_ip: None,
        };
        let mut tries = 0..TRIES_MAX;
        loop {
            match self.state.try_send(UdpSockRef::from(&self.segmenting), &transmit) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    wait(&self.segmenting, PollFlags::OUT);
                }
                Err(error) if is_of_an_earlier_one(&error) && tries.next().is_some() => {}
                Err(error) => panic!("{count} datagrams of {length} bytes: {error}"),
                Ok(()) => return,
            }
        }
    }

    fn single(&mut self, length: u64) {
        let mut datagram = vec![0; length as usize];
        self.write(&mut datagram);
        let mut tries = 0..TRIES_MAX;
        loop {
            match self.plain.send(&datagram) {
                Ok(sent) => return assert_eq!(sent, datagram.len()),
                // A full queue is a loss like any other.
                Err(error) if is(&error, Errno::NOBUFS) => return,
                Err(error) if is_of_an_earlier_one(&error) && tries.next().is_some() => {}
                Err(error) => panic!("a datagram of {length} bytes: {error}"),
            }
        }
    }

    fn write(&mut self, datagram: &mut [u8]) {
        let length = datagram.len() as u64;
        if let Some((header, body)) = datagram.split_first_chunk_mut() {
            *header = header_of(self.flow, self.sent, length);
            fill(body, body_start(self.flow, self.sent));
        } else {
            fill(datagram, short_start(self.flow, length));
        }
        self.sent += 1;
        self.sent_bytes += length;
    }

    /// Waits until few datagrams are under way, or what is has had time enough.
    fn await_window(&self, shared: &Shared) {
        let mut before = 0;
        let mut since = Instant::now();
        loop {
            let arrived = shared.arrived.load(Ordering::Acquire);
            let bytes = shared.arrived_bytes.load(Ordering::Acquire);
            let is_open = self.sent.saturating_sub(arrived) < WINDOW
                && self.sent_bytes.saturating_sub(bytes) < WINDOW_BYTES;
            if is_open {
                return;
            }
            if arrived != before {
                (before, since) = (arrived, Instant::now());
            } else if since.elapsed() > LOST_AFTER {
                // What never came is no longer under way.
                shared.arrived.fetch_add(self.sent.saturating_sub(arrived), Ordering::AcqRel);
                shared
                    .arrived_bytes
                    .fetch_add(self.sent_bytes.saturating_sub(bytes), Ordering::AcqRel);
                return;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

struct Receiver {
    socket: UdpSocket,
    /// For datagrams that the kernel joins.
    joining: Option<UdpSocketState>,
    flow: u64,
    /// One bit for each sequence number that came.
    seen: Vec<u64>,
    next: u64,
    room: Vec<u8>,
    sums: Sums,
}

impl Receiver {
    fn new(socket: UdpSocket, flow: u64, joins: bool) -> Self {
        socket.set_nonblocking(true).unwrap();
        let joining = joins.then(|| UdpSocketState::new(UdpSockRef::from(&socket)).unwrap());
        let room = vec![0; 1 << 16];
        Self { socket, joining, flow, seen: Vec::new(), next: 0, room, sums: Sums::default() }
    }

    fn run(mut self, shared: &Shared) -> Sums {
        let mut buffer = vec![0; 1 << 16];
        let mut last = Instant::now();
        loop {
            match self.take(&mut buffer) {
                Ok((length, stride)) => {
                    last = Instant::now();
                    let bytes = &buffer[..length];
                    // A datagram without content is one, too, but nobody sends any.
                    let datagrams = bytes.chunks(stride.max(1));
                    let count = datagrams.len() as u64;
                    datagrams.for_each(|datagram| self.check(datagram));
                    shared.arrived.fetch_add(count, Ordering::AcqRel);
                    shared.arrived_bytes.fetch_add(length as u64, Ordering::AcqRel);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let is_sent = shared.is_sent.load(Ordering::Acquire);
                    if is_sent && last.elapsed() > QUIET {
                        return self.sums;
                    }
                    wait(&self.socket, PollFlags::IN);
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Bytes that came, and how many of them are each datagram's.
    fn take(&self, buffer: &mut [u8]) -> io::Result<(usize, usize)> {
        let Some(state) = &self.joining else {
            return self.socket.recv(buffer).map(|length| (length, length));
        };
        let mut meta = [RecvMeta::default()];
        let buffers = &mut [IoSliceMut::new(buffer)];
        state.recv(UdpSockRef::from(&self.socket), buffers, &mut meta)?;
        Ok((meta[0].len, meta[0].stride))
    }

    fn check(&mut self, datagram: &[u8]) {
        let length = datagram.len() as u64;
        self.sums.datagrams += 1;
        self.sums.datagram_bytes += length;
        let Some((header, body)) = datagram.split_first_chunk::<HEADER_LEN>() else {
            let room = &mut self.room[..datagram.len()];
            let is_wrong = wrong(datagram, short_start(self.flow, length), room) > 0;
            self.sums.datagrams_wrong += u64::from(is_wrong);
            return;
        };
        let (sequence, _) = header.split_first_chunk().unwrap();
        let sequence = u64::from_be_bytes(*sequence);
        let room = &mut self.room[..body.len()];
        if *header != header_of(self.flow, sequence, length)
            || wrong(body, body_start(self.flow, sequence), room) > 0
        {
            self.sums.datagrams_wrong += 1;
            return;
        }
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        self.seen.resize(self.seen.len().max(word + 1), 0);
        self.sums.datagrams_doubled += u64::from(self.seen[word] & bit != 0);
        self.seen[word] |= bit;
        self.sums.datagrams_late += u64::from(sequence < self.next);
        self.next = self.next.max(sequence + 1);
    }
}

fn header_of(flow: u64, sequence: u64, length: u64) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&sequence.to_be_bytes());
    header[8..16].copy_from_slice(&flow.to_be_bytes());
    fill(&mut header[16..], flow ^ sequence.rotate_left(20) ^ length.rotate_left(44));
    header
}

fn body_start(flow: u64, sequence: u64) -> u64 {
    (flow ^ (sequence << 16)) & !7
}

fn short_start(flow: u64, length: u64) -> u64 {
    (flow ^ (length << 3)) & !7
}

/// Waits until the socket is ready, or for a little while.
fn wait(socket: &UdpSocket, flags: PollFlags) {
    let pause = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let _ = poll(&mut [PollFd::new(socket, flags)], Some(&pause));
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: u64 = 0x1234_5678_9abc_def0;

    fn datagram(sequence: u64, length: usize) -> Vec<u8> {
        let mut datagram = vec![0; length];
        if let Some((header, body)) = datagram.split_first_chunk_mut() {
            *header = header_of(FLOW, sequence, length as u64);
            fill(body, body_start(FLOW, sequence));
        } else {
            fill(&mut datagram, short_start(FLOW, length as u64));
        }
        datagram
    }

    fn checked(datagrams: &[Vec<u8>]) -> Sums {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut receiver = Receiver::new(socket, FLOW, false);
        datagrams.iter().for_each(|datagram| receiver.check(datagram));
        receiver.sums
    }

    #[test]
    fn right_datagrams_are_right_whatever_their_size() {
        let datagrams: Vec<_> = (0..200).map(|n| datagram(n, n as usize * 7 + 1)).collect();
        let sums = checked(&datagrams);
        assert_eq!(sums.datagrams, 200);
        assert!(sums.is_right() && sums.datagrams_late == 0);
    }

    #[test]
    fn doubled_and_late_ones_are_told_apart() {
        let datagrams = [datagram(0, 30), datagram(2, 30), datagram(1, 99), datagram(2, 30)];
        let sums = checked(&datagrams);
        assert_eq!((sums.datagrams_doubled, sums.datagrams_late), (1, 2));
    }

    #[test]
    fn each_flipped_bit_and_each_cut_is_seen() {
        for length in [1, 5, 23, 24, 60] {
            let right = datagram(7, length);
            for bit in 0..length * 8 {
                let mut changed = right.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(checked(&[changed]).datagrams_wrong, 1, "bit {bit} of {length} bytes");
            }
            if length > 1 {
                assert_eq!(checked(&[right[..length - 1].to_vec()]).datagrams_wrong, 1);
            }
        }
    }
}
