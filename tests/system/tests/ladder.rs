//! Cables that lose much, in bursts, and are long: links come up, stay up, and carry TCP.
//!
//! A short form runs always. The ignored test climbs all rungs, or some, as `IPOP_LADDER` names
//! them ("10%/100 25%/400"), and compares each with the bare underlay: how long it takes is TCP's
//! business, and printed. What takes longer than `IPOP_LADDER_SECONDS` is given up.

#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipop_lab::{Impairment, Nat};
use ipop_system_tests::{Node, Stage};
use rustix::net::sockopt::set_tcp_congestion;

const MIB: usize = 1 << 20;
const BYTES: usize = 10 * MIB;
/// Frames lost in a row, on average.
const BURST: f64 = 4.0;
/// How often somebody looks.
const SOON: Duration = Duration::from_millis(20);

/// Losses each way, and the round trip in milliseconds.
const LOSSES: [f64; 6] = [0.01, 0.05, 0.1, 0.15, 0.2, 0.25];
const RTTS_MS: [u64; 3] = [20, 100, 400];

/// Two machines, of which the first has a cable that is `loss`y and long.
fn stage(loss: f64, rtt_ms: u64) -> Stage {
    let mut stage = Stage::prosody();
    let delay = Duration::from_millis(rtt_ms / 2);
    let bad = Impairment { delay, loss, burst: BURST, seed: rtt_ms, ..Impairment::default() };
    stage.add_site(Nat::None, bad);
    stage.add_site(Nat::None, Impairment::default());
    stage
}

/// From where to where.
type Way = (PathBuf, PathBuf, IpAddr);

/// How TCP is to carry what is sent.
#[derive(Clone, Copy, Debug)]
struct Streams {
    congestion: &'static str,
    count: usize,
}

impl Streams {
    /// Sends `bytes`, spread over the streams; how long it took, and how many came in time.
    fn transfer(self, way: &Way, bytes: usize, patience: Duration) -> Carried {
        let start = Instant::now();
        let deadline = start + patience;
        let one = || one_stream(way, self.congestion, bytes / self.count, deadline);
        let came = std::thread::scope(|scope| {
            let streams: Vec<_> = (0..self.count).map(|_| scope.spawn(one)).collect();
            streams.into_iter().map(|stream| stream.join().unwrap()).sum()
        });
        (start.elapsed(), came)
    }
}

/// Sends `bytes` by one TCP stream and checks each of them; returns how many came in time.
fn one_stream(way: &Way, congestion: &str, bytes: usize, deadline: Instant) -> usize {
    let (from, to, address) = way;
    let any_port = SocketAddr::new(*address, 0);
    let listener = ipop_lab::inside(to, move || TcpListener::bind(any_port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let left = move || deadline.saturating_duration_since(Instant::now()) + SOON;
    let connected = ipop_lab::inside(from, move || TcpStream::connect_timeout(&address, left()));
    let Ok(mut stream) = connected else { return 0 };
    set_tcp_congestion(&stream, congestion).unwrap();
    let byte = |at: usize| (at / 3 + at / 1009) as u8;
    let stopper = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let sent: Vec<_> = (0..bytes).map(byte).collect();
        stream.write_all(&sent).and_then(|()| stream.shutdown(Shutdown::Write))
    });
    let mut stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            // The last packet of the handshake may be lost.
            Err(_) if Instant::now() < deadline => std::thread::sleep(SOON),
            Err(_) => return 0,
        }
    };
    stream.set_nonblocking(false).unwrap();
    let mut at = 0;
    let mut block = vec![0; 1 << 16];
    while at < bytes && Instant::now() < deadline {
        stream.set_read_timeout(Some(left())).unwrap();
        let Ok(len) = stream.read(&mut block) else { break };
        assert_ne!(len, 0, "the stream ended after {at} bytes");
        assert!(block[..len].iter().enumerate().all(|(n, got)| *got == byte(at + n)), "at {at}");
        at += len;
    }
    let _ = stopper.shutdown(Shutdown::Both);
    let _ = sender.join().unwrap();
    at
}

/// How long a transfer took, and how many bytes came.
type Carried = (Duration, usize);

/// What a rung showed.
struct Rung {
    /// From the start of both programs until each answers the other.
    up: Duration,
    /// Times and bytes through the link and, where that was asked for, without it.
    carried: Vec<(Streams, [Option<Carried>; 2])>,
}

fn climb(
    loss: f64,
    rtt_ms: u64,
    bytes: usize,
    kinds: &[Streams],
    with_bare: bool,
    patience: Duration,
) -> Rung {
    let mut stage = stage(loss, rtt_ms);
    let start = Instant::now();
    for number in 0..2 {
        let config = stage.config(number);
        stage.start(number, &config);
    }
    for node in &stage.nodes {
        node.wait_for(1, 120);
    }
    let up = start.elapsed();
    let (a, b) = stage.pair();
    let session = || a.row(b).map(|row| row.session);
    let before = session();
    let inner = (a.namespace(), b.namespace(), b.v4());
    let bare = (a.namespace(), b.namespace(), stage.sites[1].address.into());
    let carried = kinds.iter().map(|kind| {
        let inner = kind.transfer(&inner, bytes, patience);
        let bare = with_bare.then(|| kind.transfer(&bare, bytes, patience));
        (*kind, [Some(inner), bare])
    });
    let carried = carried.collect();
    assert!(a.is_linked_to(b) && b.is_linked_to(a));
    assert_eq!(session(), before, "the link stays the same one");
    for node in [a, b] {
        println!("    drops: {}; lengths found: {:?}", node.status()["drops"], lengths(node));
    }
    Rung { up, carried }
}

/// Each length that a node took its path to carry, as the journal has them.
fn lengths(node: &Node) -> Vec<String> {
    let text = String::from_utf8(node.ipop("trace --for 0").stdout).unwrap();
    let lengths = text.lines().filter_map(|line| line.split_once("the path carries "));
    let lengths = lengths.filter_map(|(_, behind)| behind.split_whitespace().next());
    lengths.map(str::to_owned).collect()
}

/// One line of a table for each kind of transfer.
fn show(name: &str, bytes: usize, rung: &Rung) {
    let up = rung.up.as_secs_f64();
    for (Streams { congestion, count }, carried) in &rung.carried {
        let [inner, bare] = carried.map(|carried| match carried {
            Some((time, came)) if came >= bytes / count * count => {
                format!("{:.1} s", time.as_secs_f64())
            }
            Some((time, came)) => {
                let share = came as f64 / bytes as f64 * 100.0;
                format!("{share:.0} % in {:.0} s", time.as_secs_f64())
            }
            None => "-".to_owned(),
        });
        println!("| {name} | {up:.1} s | {count} x {congestion} | {inner} | {bare} |");
    }
}

#[test]
fn links_come_up_and_carry_on_cables_that_lose_a_quarter() {
    let patience = Duration::from_secs(120);
    for (loss, rtt_ms, count, bytes) in
        [(0.05, 20, 1, BYTES), (0.15, 100, 16, BYTES), (0.25, 400, 1, 8 << 10)]
    {
        let kinds = [Streams { congestion: "bbr", count }];
        let rung = climb(loss, rtt_ms, bytes, &kinds, false, patience);
        show(&format!("{:.0}%/{rtt_ms}", loss * 100.0), bytes, &rung);
        let (_, carried) = rung.carried[0].1[0].unwrap();
        assert_eq!(carried, bytes / count * count);
    }
}

#[test]
#[ignore = "takes an hour; cargo test -p ipop-system-tests --test ladder -- --ignored --nocapture"]
fn all_rungs() {
    let wanted = std::env::var("IPOP_LADDER").unwrap_or_else(|_| "1".to_owned());
    let seconds = std::env::var("IPOP_LADDER_SECONDS").map_or(600, |text| text.parse().unwrap());
    let kinds = [("cubic", 1), ("bbr", 1), ("bbr", 64)];
    let kinds = kinds.map(|(congestion, count)| Streams { congestion, count });
    println!("| rung | up | streams | through the link | bare underlay |");
    for loss in LOSSES {
        for rtt_ms in RTTS_MS {
            let name = format!("{:.0}%/{rtt_ms}", loss * 100.0);
            if wanted == "1" || wanted.split(' ').any(|word| word == name) {
                let patience = Duration::from_secs(seconds);
                show(&name, BYTES, &climb(loss, rtt_ms, BYTES, &kinds, true, patience));
            }
        }
    }
}
