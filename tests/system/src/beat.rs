//! A small datagram every few milliseconds, both ways: how long an overlay does not carry.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Node;

/// From one datagram to the next.
const INTERVAL: Duration = Duration::from_millis(5);

/// Datagrams between two nodes that go on while the test does something. TCP waits ever longer
/// while nothing is answered, so its pauses say less of the path than these.
#[derive(Debug)]
pub struct Beat {
    is_wanted: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Beat {
    /// Between the overlay addresses of two nodes.
    pub fn start(a: &Node, b: &Node) -> Self {
        let is_wanted = Arc::new(AtomicBool::new(true));
        let [at_a, at_b] = [a, b].map(bind);
        let [address_a, address_b] = [&at_a, &at_b].map(|socket| socket.local_addr().unwrap());
        let mut threads = Vec::new();
        for (socket, to) in [(at_a, address_b), (at_b, address_a)] {
            let (sender, is_sent) = (socket.try_clone().unwrap(), is_wanted.clone());
            threads.push(std::thread::spawn(move || send(&sender, to, &is_sent)));
            let is_wanted = is_wanted.clone();
            threads.push(std::thread::spawn(move || longest_pause(&socket, &is_wanted)));
        }
        Self { is_wanted, threads }
    }

    /// Ends it; the longest time in which nothing came at one of the ends.
    pub fn finish(self) -> Duration {
        self.is_wanted.store(false, Ordering::Release);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).max().unwrap_or_default()
    }
}

fn bind(node: &Node) -> UdpSocket {
    let address = SocketAddr::new(node.v4(), 0);
    let socket = ipop_lab::inside(&node.namespace(), move || UdpSocket::bind(address)).unwrap();
    socket.set_read_timeout(Some(INTERVAL)).unwrap();
    socket
}

fn send(socket: &UdpSocket, to: SocketAddr, is_wanted: &AtomicBool) -> Duration {
    while is_wanted.load(Ordering::Acquire) {
        // What cannot be sent does not arrive, and that is counted.
        let _ = socket.send_to(b"beat", to);
        std::thread::sleep(INTERVAL);
    }
    Duration::ZERO
}

fn longest_pause(socket: &UdpSocket, is_wanted: &AtomicBool) -> Duration {
    let (mut heard, mut pause) = (Instant::now(), Duration::ZERO);
    let mut buffer = [0; 16];
    while is_wanted.load(Ordering::Acquire) {
        if socket.recv_from(&mut buffer).is_ok() {
            heard = Instant::now();
        }
        pause = pause.max(heard.elapsed());
    }
    pause
}
