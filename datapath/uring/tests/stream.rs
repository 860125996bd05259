//! A real TCP connection through two taps joined by their ports: super-segments are read whole,
//! written with unfinished checksums, and arrive.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{KernelPort, MAC_A, MAC_B, Namespace, on_every_port};
use ipop_uring::{Batch, Completion, PortConfig, VNET_HEADER_LEN};

const NEEDS_CHECKSUM: u8 = 1;
const STREAM_LEN: usize = 16 << 20;

/// What the relay saw, of one direction.
#[derive(Debug, Default)]
struct Seen {
    frames: u64,
    longest: usize,
    super_segments: u64,
    unfinished_checksums: u64,
    write_failures: u64,
}

/// Moves everything from one tap to the other.
fn relay<P: KernelPort>(from: &mut P, to: &mut P, batch: &mut Batch, seen: &mut Seen) {
    from.wait(Some(Duration::from_micros(200)), batch).unwrap();
    for completion in batch.drain() {
        match completion {
            Completion::TapFrame(frame) => {
                let bytes = frame.bytes();
                seen.frames += 1;
                seen.longest = seen.longest.max(bytes.len());
                seen.super_segments += u64::from(bytes[1] != 0);
                seen.unfinished_checksums += u64::from(bytes[0] & NEEDS_CHECKSUM != 0);
                if let Some(mut slot) = to.output() {
                    slot[..bytes.len()].copy_from_slice(bytes);
                    to.write_tap(slot, 0..bytes.len());
                }
                from.release_frame(frame);
            }
            Completion::WriteFailed { .. } => seen.write_failures += 1,
            _ => {}
        }
    }
}

fn byte(at: usize) -> u8 {
    (at / 7 + at / 65_536) as u8
}

fn stream_through<P: KernelPort>(config: &PortConfig, addresses: [&str; 2]) {
    let (here, there) = (Namespace::new(), Namespace::new());
    let (_tap_a, queue_a) = here.tap("tap0", MAC_A, addresses[0]);
    let (_tap_b, queue_b) = there.tap("tap0", MAC_B, addresses[1]);
    let mut a = P::open(queue_a, None, None, config);
    let mut b = P::open(queue_b, None, None, config);
    let done = AtomicBool::new(false);
    let (forth, back) = thread::scope(|scope| {
        let relay = scope.spawn(|| {
            let (mut forth, mut back) = (Seen::default(), Seen::default());
            let mut batch = a.batch();
            while !done.load(Ordering::Relaxed) {
                relay(&mut a, &mut b, &mut batch, &mut forth);
                relay(&mut b, &mut a, &mut batch, &mut back);
            }
            // Here, because the thread that ran a port drops it.
            drop((a, b));
            (forth, back)
        });
        let listener = there.run(|| TcpListener::bind((addresses[1], 0)).unwrap());
        let port = listener.local_addr().unwrap().port();
        let sink = scope.spawn(move || {
            let mut data = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut data).unwrap();
            data
        });
        let mut stream = here.run(|| TcpStream::connect((addresses[1], port)).unwrap());
        stream.write_all(&(0..STREAM_LEN).map(byte).collect::<Vec<_>>()).unwrap();
        drop(stream);
        let data = sink.join().unwrap();
        done.store(true, Ordering::Relaxed);
        assert_eq!(data.len(), STREAM_LEN);
        assert!(data.iter().enumerate().all(|(at, value)| *value == byte(at)));
        relay.join().unwrap()
    });
    assert!(forth.longest > 20_000 + VNET_HEADER_LEN, "{forth:?}");
    assert!(forth.super_segments > 0 && forth.unfinished_checksums > 0, "{forth:?}");
    assert!(forth.frames < STREAM_LEN as u64 / 2800, "super-segments carried it: {forth:?}");
    assert_eq!((forth.write_failures, back.write_failures), (0, 0));
}

fn a_stream_crosses_as_super_segments<P: KernelPort>() {
    stream_through::<P>(&PortConfig::default(), ["10.9.0.1", "10.9.0.2"]);
}

fn a_stream_crosses_by_ipv6<P: KernelPort>() {
    stream_through::<P>(&PortConfig::default(), ["fd09::1", "fd09::2"]);
}

fn a_stream_crosses_by_single_reads<P: KernelPort>() {
    let config = PortConfig { single_reads: true, ..PortConfig::default() };
    stream_through::<P>(&config, ["10.9.0.1", "10.9.0.2"]);
}

fn a_stream_crosses_with_few_buffers<P: KernelPort>() {
    let config = PortConfig { frames: 2, datagrams: 1, slots: 4, ..PortConfig::default() };
    stream_through::<P>(&config, ["10.9.0.1", "10.9.0.2"]);
}

fn a_stream_crosses_by_busy_polling<P: KernelPort>() {
    let busy_poll = Duration::from_micros(50);
    let config = PortConfig { busy_poll, ..PortConfig::default() };
    stream_through::<P>(&config, ["10.9.0.1", "10.9.0.2"]);
}

on_every_port! {
    a_stream_crosses_as_super_segments
    a_stream_crosses_by_ipv6
    a_stream_crosses_by_single_reads
    a_stream_crosses_with_few_buffers
    a_stream_crosses_by_busy_polling
}
