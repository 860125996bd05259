//! Traffic through the overlay, checked byte by byte.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Node;

/// What a transfer brought.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Bytes received.
    pub bytes: u64,
    /// Bytes that were not those sent.
    pub corrupted: u64,
    /// How long it took.
    pub time: Duration,
}

/// Sends `bytes` from one node to the other by TCP; every byte depends on its position.
pub fn transfer(from: &Node, to: &Node, bytes: u64) -> Transfer {
    let address: SocketAddr = SocketAddr::new(to.address.parse().unwrap(), 5999);
    let listener = ipop_lab::inside(to.namespace(), move || TcpListener::bind(address)).unwrap();
    let stream = ipop_lab::inside(from.namespace(), move || {
        TcpStream::connect_timeout(&address, Duration::from_secs(10))
    })
    .unwrap();
    let start = Instant::now();
    let sender = std::thread::spawn(move || send(stream, bytes));
    let (received, corrupted) = receive(&listener);
    sender.join().unwrap();
    Transfer { bytes: received, corrupted, time: start.elapsed() }
}

fn send(mut stream: TcpStream, bytes: u64) {
    let mut block = vec![0; 128 * 1024];
    let mut at = 0;
    while at < bytes {
        let length = usize::try_from(bytes - at).unwrap().min(block.len());
        fill(&mut block[..length], at);
        stream.write_all(&block[..length]).unwrap();
        at += length as u64;
    }
    stream.shutdown(Shutdown::Write).unwrap();
}

fn receive(listener: &TcpListener) -> (u64, u64) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut block = vec![0; 128 * 1024];
    let mut expected = vec![0; 128 * 1024];
    let (mut at, mut corrupted) = (0, 0);
    loop {
        let length = stream.read(&mut block).unwrap();
        if length == 0 {
            return (at, corrupted);
        }
        fill(&mut expected[..length], at);
        if block[..length] != expected[..length] {
            let wrong = block[..length].iter().zip(&expected).filter(|(a, b)| a != b).count();
            corrupted += wrong as u64;
        }
        at += length as u64;
    }
}

/// A pattern without a short period, so that a piece in the wrong place is seen.
fn fill(block: &mut [u8], start: u64) {
    for (offset, byte) in block.iter_mut().enumerate() {
        let at = start + offset as u64;
        *byte = (at ^ (at >> 8) ^ (at >> 16).wrapping_mul(37) ^ (at >> 24)) as u8;
    }
}

/// Runs `ping <words>` on the node's machine: packets sent and answered.
pub fn ping(from: &Node, words: &str) -> (u32, u32) {
    let namespace = from.namespace().file_name().unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec"]).arg(namespace).arg("ping").args(words.split_whitespace());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("packets transmitted"));
    let line = line.unwrap_or_else(|| panic!("ping {words}: {text} {:?}", output.stderr));
    let number = |word: &str| -> u32 {
        let part = line.split(',').find(|part| part.contains(word)).unwrap_or("0");
        part.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
    };
    (number("transmitted"), number("received"))
}
