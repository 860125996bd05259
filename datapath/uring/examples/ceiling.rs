//! What the ports alone can carry: tap -> segmented send -> joined receive -> tap, without
//! cryptography or routing, one worker per end, in two private network namespaces.
//!
//! ```text
//! cargo run --release -p ipop-uring --example ceiling [seconds [frames [datagrams [slots]]]]
//! ```
//!
//! Needs CAP_SYS_ADMIN. A frame travels with its virtio-net header as the payload of one send,
//! cut every 1472 bytes; the receiver copies the joined payload to a slot, in place of
//! decrypting it.

#![allow(clippy::unwrap_used, reason = "a measurement fails by panicking")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{MAC_A, MAC_B, Namespace, thread_cpu_time};
use ipop_uring::{
    Completion, Destination, Family, Port, PortConfig, PortCounters, UringPort, pin_to_core,
};

const SEGMENT_SIZE: usize = 1472;

#[derive(Debug, Default)]
struct Tally {
    turns: u64,
    frames: u64,
    datagrams: u64,
    outputs_full: u64,
    failures: u64,
    cpu: Duration,
    counters: PortCounters,
}

fn worker(mut port: UringPort, peer: &Destination, core: usize, done: &AtomicBool) -> Tally {
    pin_to_core(core).unwrap();
    let mut tally = Tally::default();
    let mut batch = port.batch();
    while !done.load(Ordering::Relaxed) {
        port.wait(Some(Duration::from_millis(100)), &mut batch).unwrap();
        tally.turns += 1;
        for completion in batch.drain() {
            match completion {
                Completion::TapFrame(frame) => {
                    tally.frames += 1;
                    let bytes = frame.bytes();
                    match port.output() {
                        Some(mut slot) => {
                            slot[..bytes.len()].copy_from_slice(bytes);
                            port.send(slot, bytes.len(), SEGMENT_SIZE, peer);
                        }
                        None => tally.outputs_full += 1,
                    }
                    port.release_frame(frame);
                }
                Completion::Datagram(datagram) => {
                    tally.datagrams += 1;
                    let bytes = datagram.data();
                    match port.output() {
                        Some(mut slot) => {
                            slot[..bytes.len()].copy_from_slice(bytes);
                            port.write_tap(slot, 0..bytes.len());
                        }
                        None => tally.outputs_full += 1,
                    }
                    port.release_datagram(datagram);
                }
                Completion::SendFailed { .. } | Completion::WriteFailed { .. } => {
                    tally.failures += 1;
                }
                _ => {}
            }
        }
    }
    tally.cpu = thread_cpu_time();
    tally.counters = port.counters();
    tally
}

fn end(namespace: &Namespace, mac: [u8; 6], ip: &str, config: &PortConfig) -> UringPort {
    let (mut tap, queue) = namespace.tap("tap0", mac, ip);
    tap.set_gso_segments_max(44).unwrap();
    UringPort::open(queue, Some(namespace.socket(Family::V4)), None, config).unwrap()
}

fn destination(port: &UringPort, ip: &str) -> Destination {
    let remote = SocketAddr::new(ip.parse().unwrap(), port.socket(Family::V4).unwrap().port());
    Destination { remote, local_ip: [0, 0, 0, 0].into(), local_port: 0 }
}

fn main() {
    let arguments: Vec<u16> = std::env::args().skip(1).map(|word| word.parse().unwrap()).collect();
    let argument = |n: usize, default: u16| arguments.get(n).copied().unwrap_or(default);
    let seconds = u64::from(argument(0, 3));
    let config = PortConfig {
        frames: argument(1, 64),
        datagrams: argument(2, 64),
        slots: argument(3, 64),
        ..PortConfig::default()
    };
    let (here, there) = (Namespace::new(), Namespace::new());
    here.connect(&there);
    let a = end(&here, MAC_A, "10.9.0.1", &config);
    let b = end(&there, MAC_B, "10.9.0.2", &config);
    println!("{}; {config:?}", a.probe());
    let (to_a, to_b) = (destination(&a, "10.1.0.1"), destination(&b, "10.1.0.2"));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| worker(a, &to_b, 0, &done));
        let receiver = scope.spawn(|| worker(b, &to_a, 1, &done));
        let listener = there.run(|| TcpListener::bind("10.9.0.2:5201").unwrap());
        let sink = scope.spawn(move || {
            pin_to_core(1).unwrap();
            let (mut stream, mut buffer, mut total) =
                (listener.accept().unwrap().0, vec![0; 256 << 10], 0u64);
            loop {
                match stream.read(&mut buffer).unwrap() {
                    0 => return total,
                    len => total += len as u64,
                }
            }
        });
        let mut stream = here.run(|| TcpStream::connect("10.9.0.2:5201").unwrap());
        pin_to_core(0).unwrap();
        let (begun, data) = (Instant::now(), vec![7; 256 << 10]);
        while begun.elapsed() < Duration::from_secs(seconds) {
            stream.write_all(&data).unwrap();
        }
        drop(stream);
        let total = sink.join().unwrap();
        let took = begun.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        let (sender, receiver) = (sender.join().unwrap(), receiver.join().unwrap());
        let gib = total as f64 / f64::from(1u32 << 30);
        println!(
            "{:.1} Gbit/s, {:.2} + {:.2} CPU s/GiB\nsender   {sender:?}\nreceiver {receiver:?}",
            total as f64 * 8.0 / took / 1e9,
            sender.cpu.as_secs_f64() / gib,
            receiver.cpu.as_secs_f64() / gib,
        );
    });
}
