//! Traffic through the overlay, checked byte by byte.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::pattern::{fill, wrong};
use crate::{Node, Process, Scratch};

/// Block in which a transfer is written and checked.
pub(crate) const BLOCK_LEN: usize = 128 * 1024;

/// What a transfer brought.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Bytes received.
    pub bytes: u64,
    /// Bytes that were not those sent.
    pub corrupted: u64,
    /// How long it took.
    pub time: Duration,
    /// The longest time in which nothing came.
    pub pause: Duration,
}

/// A TCP stream that goes on while the test does something.
#[derive(Debug)]
pub struct Flow {
    is_wanted: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<Transfer>,
}

impl Flow {
    /// From one node to `address` of another, some 50 Mbit/s.
    pub fn start(from: &Node, to: &Node, address: IpAddr) -> Self {
        let (listener, stream) = connect(from, to, address);
        let is_wanted = Arc::new(AtomicBool::new(true));
        let sender = {
            let is_wanted = is_wanted.clone();
            std::thread::spawn(move || trickle(stream, &is_wanted))
        };
        let receiver = std::thread::spawn(move || receive(&listener));
        Self { is_wanted, sender, receiver }
    }

    /// Ends it; what arrived. Panics when the connection broke, or less came than was sent.
    pub fn finish(self) -> Transfer {
        self.is_wanted.store(false, Ordering::Release);
        let sent = self.sender.join().unwrap();
        let transfer = self.receiver.join().unwrap();
        assert_eq!(transfer.bytes, sent);
        transfer
    }
}

/// Writes a block every 20 ms until it is no longer wanted; returns the bytes written.
fn trickle(mut stream: TcpStream, is_wanted: &AtomicBool) -> u64 {
    let mut block = vec![0; BLOCK_LEN];
    let mut at = 0;
    while is_wanted.load(Ordering::Acquire) {
        fill(&mut block, at);
        stream.write_all(&block).unwrap();
        at += BLOCK_LEN as u64;
        std::thread::sleep(Duration::from_millis(20));
    }
    stream.shutdown(Shutdown::Write).unwrap();
    at
}

/// Sends `bytes` by TCP from one node to `address` of another; every byte depends on its position.
pub fn transfer(from: &Node, to: &Node, address: IpAddr, bytes: u64) -> Transfer {
    let (listener, stream) = connect(from, to, address);
    let sender = std::thread::spawn(move || send(stream, bytes));
    let transfer = receive(&listener);
    sender.join().unwrap();
    transfer
}

fn connect(from: &Node, to: &Node, address: IpAddr) -> (TcpListener, TcpStream) {
    let any_port = SocketAddr::new(address, 0);
    let listener = ipop_lab::inside(&to.namespace(), move || TcpListener::bind(any_port)).unwrap();
    let address = listener.local_addr().unwrap();
    let stream = ipop_lab::inside(&from.namespace(), move || {
        TcpStream::connect_timeout(&address, Duration::from_secs(10))
    })
    .unwrap();
    (listener, stream)
}

fn send(mut stream: TcpStream, bytes: u64) {
    let mut block = vec![0; BLOCK_LEN];
    let mut at = 0;
    while at < bytes {
        let length = usize::try_from(bytes - at).unwrap().min(block.len());
        fill(&mut block[..length], at);
        stream.write_all(&block[..length]).unwrap();
        at += length as u64;
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

fn receive(listener: &TcpListener) -> Transfer {
    let (mut stream, _) = listener.accept().unwrap();
    let start = Instant::now();
    let mut pause = Duration::ZERO;
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut block = vec![0; BLOCK_LEN];
    let mut room = vec![0; BLOCK_LEN];
    let (mut at, mut corrupted) = (0, 0);
    loop {
        let (length, waited) = read_full(&mut stream, &mut block);
        pause = waited.max(pause);
        corrupted += wrong(&block[..length], at, &mut room[..length]);
        at += length as u64;
        if length < block.len() {
            return Transfer { bytes: at, corrupted, time: start.elapsed(), pause };
        }
    }
}

/// Reads until the block is full or the stream ends: blocks then start where words do. Returns the
/// bytes read, and the longest time in which nothing came.
pub(crate) fn read_full(stream: &mut TcpStream, block: &mut [u8]) -> (usize, Duration) {
    let (mut filled, mut pause) = (0, Duration::ZERO);
    while filled < block.len() {
        let start = Instant::now();
        match stream.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("after {filled} bytes of a block: {error}"),
        }
        pause = start.elapsed().max(pause);
    }
    (filled, pause)
}

/// Who answers `ping <words>`, by address, as seen from the node's machine.
pub fn answers(from: &Node, words: &str) -> BTreeSet<IpAddr> {
    let output = from.command("ping").args(words.split_whitespace()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let senders =
        text.lines().filter_map(|line| line.split_once("bytes from ")).map(|(_, rest)| {
            let word = rest.split_whitespace().next().unwrap_or_default();
            word.trim_end_matches(':').split('%').next().unwrap_or_default().to_owned()
        });
    senders.filter_map(|sender| sender.parse().ok()).collect()
}

/// Runs an iperf3 server on one node and `iperf3 -c <address> <words>` on the other.
pub fn iperf3(client: &Node, server: &Node, address: IpAddr, words: &str) -> Output {
    let scratch = Scratch::new();
    let mut command = server.command("iperf3");
    command.args(["--server", "--one-off", "--forceflush", "--bind", &address.to_string()]);
    let listening = Process::start(command, scratch.path("server"));
    crate::eventually("iperf3 listens (Debian's package iperf3)", Duration::from_secs(10), || {
        listening.log().contains("Server listening")
    });
    let mut command = client.command("iperf3");
    command.args(["--json", "--client", &address.to_string()]).args(words.split_whitespace());
    command.output().unwrap()
}
