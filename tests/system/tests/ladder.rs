//! Cables that lose much, in bursts, and are long: links come up, stay as they are, and carry TCP.
//!
//! A rung is a share of frames that the first machine's cable loses each way, and a round trip.
//! Four frames are lost in a row, on average, as by a radio that fades; a cable that was quiet for
//! a tenth of a second has forgotten, so that whoever sends again after a pause meets no more than
//! that share, and TCP does not wait for frames of its own to end a burst.
//!
//! A short form runs always. The ignored test climbs all rungs, or some, as `IPOP_LADDER` names
//! them ("10%/100 25%/400"), with `IPOP_LADDER_SEEDS` cables each and `IPOP_LADDER_STREAMS` streams
//! ("1 16"), and compares each with the bare underlay, unless `IPOP_LADDER_BARE` is 0: how long it
//! takes is TCP's business, and printed. What takes longer than `IPOP_LADDER_SECONDS` is given up.
//! The link's session, keys, lanes, path and the path's length have to stay as they are.
//!
//! Bare TCP needs luck where a quarter is lost: of four tries to send something again after a
//! pause, and to hear that it came, almost two fail, and each doubles the pause, so that a stream
//! may stand still for minutes. The link sends what is sparse more than once there, and has to show
//! it.

#![allow(missing_docs, clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use ipop_lab::{Impairment, Nat};
use ipop_system_tests::{Node, Stage, eventually};
use rustix::net::sockopt::set_tcp_congestion;
use serde_json::Value;

const MIB: usize = 1 << 20;
const BYTES: usize = 10 * MIB;
/// Frames lost in a row, on average, and how long a cable remembers that it was losing.
const BURST: f64 = 4.0;
const MEMORY: Duration = Duration::from_millis(100);
/// A cable that loses as much is certainly noticed.
const LOSSY: f64 = 0.2;
/// How often somebody looks.
const SOON: Duration = Duration::from_millis(20);

/// Losses each way, and the round trip in milliseconds.
const LOSSES: [f64; 6] = [0.01, 0.05, 0.1, 0.15, 0.2, 0.25];
const RTTS_MS: [u64; 3] = [20, 100, 400];

/// How often a frame is lost, and how long a round trip takes.
#[derive(Clone, Copy, Debug)]
struct Rung {
    loss: f64,
    rtt_ms: u64,
    seed: u64,
}

impl Rung {
    fn name(self) -> String {
        format!("{:.0}%/{}", self.loss * 100.0, self.rtt_ms)
    }

    /// Two machines, of which the first has a cable that is lossy and long, linked directly with
    /// all lanes; and how long that took.
    fn link(self) -> (Stage, Duration) {
        let mut stage = Stage::prosody();
        let Rung { loss, rtt_ms, seed } = self;
        let delay = Duration::from_millis(rtt_ms / 2);
        let (burst, memory) = (BURST, MEMORY);
        let bad = Impairment { delay, loss, burst, memory, seed, ..Impairment::default() };
        stage.add_site(Nat::None, bad);
        stage.add_site(Nat::None, Impairment::default());
        let start = Instant::now();
        for number in 0..2 {
            let config = stage.config(number);
            stage.start(number, &config);
        }
        stage.nodes.iter().for_each(|node| node.wait_for(1, 120));
        let up = start.elapsed();
        let (a, b) = stage.pair();
        let cores = std::thread::available_parallelism().unwrap().get() as u64;
        let is_whole =
            |link: Value| link["path"] == "direct" && link["lanes"].as_u64() == Some(cores);
        eventually("a direct path and all lanes", Duration::from_secs(60), || {
            is_whole(a.link_to(b)) && is_whole(b.link_to(a))
        });
        (stage, up)
    }
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

/// Times and bytes through the link and, where that was asked for, without it.
type Compared = [Option<Carried>; 2];

/// Sends `bytes` at a rung, and looks after the link meanwhile. Tells as well when it was up.
fn climb(
    rung: Rung,
    streams: Streams,
    bytes: usize,
    patience: Duration,
    with_bare: bool,
) -> (f64, Compared) {
    let (stage, up) = rung.link();
    let (a, b) = stage.pair();
    let session = || a.row(b).map(|row| row.session);
    let (before, since) = (session(), unix_us());
    let inner = (a.namespace(), b.namespace(), b.v4());
    let cable = || frames(&stage);
    let mut marks = vec![cable()];
    let inner = streams.transfer(&inner, bytes, patience);
    marks.push(cable());
    let bare = (a.namespace(), b.namespace(), stage.sites[1].address.into());
    let bare = with_bare.then(|| streams.transfer(&bare, bytes, patience));
    marks.push(cable());
    for (what, mark) in ["link", "bare"].iter().zip(marks.windows(2)) {
        let [lost, all] = [0, 1].map(|number| mark[1][number] - mark[0][number]);
        let share = lost as f64 / all.max(1) as f64 * 100.0;
        println!("    {}: {what}: {all} frames on the cable, {share:.1} % lost", rung.name());
    }
    assert!(a.is_linked_to(b) && b.is_linked_to(a));
    if rung.loss >= LOSSY {
        assert_repeats(a, b);
    }
    assert_eq!(session(), before, "the link stays the same one");
    for node in [a, b] {
        let changes = changes(node, since);
        println!("    {}: drops: {}; {changes:?}", rung.name(), node.status()["drops"]);
        assert!(changes.is_empty(), "{}", rung.name());
    }
    (up.as_secs_f64(), [Some(inner), bare])
}

/// Both ends know what cable it is, and say things more than once.
fn assert_repeats(a: &Node, b: &Node) {
    eventually("both ends repeat what is sparse", Duration::from_secs(60), || {
        let _ = a.command("ping").args(["-c1", "-W1", &b.v4().to_string()]).output();
        let repeats = |node: &Node, peer: &Node| {
            node.link_to(peer)["lossy"] == true && node.counter("datagrams_repeated") > 0
        };
        repeats(a, b) && repeats(b, a)
    });
}

/// What the first machine's cable lost so far, and was given, frames of both ways.
fn frames(stage: &Stage) -> [u64; 2] {
    let faults = stage.sites[0].wire.as_ref().unwrap().faults();
    let [lost, delivered] =
        [&faults.lost, &faults.delivered].map(|count| count.load(Ordering::Relaxed));
    [lost, lost + delivered]
}

fn unix_us() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_micros()).unwrap()
}

/// Losses are no reason to do anything about a link: what was replaced, given up or sought again
/// since then, but for what the first search still found.
fn changes(node: &Node, since: u64) -> Vec<String> {
    const CHANGES: [&str; 7] = [
        "selected",
        "silent",
        "state",
        "closed",
        "lane_lost",
        "handshake_started",
        "keys_installed",
    ];
    let text = String::from_utf8(node.ipop("trace --for 0 --json").stdout).unwrap();
    let steps = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps: Vec<_> = steps.filter(|step| step["unix_us"].as_u64().unwrap() > since).collect();
    let mut longest = 0;
    let mut is_change = |step: &Value| match step["step"].as_str().unwrap() {
        "datagram_len" => {
            let before = std::mem::replace(&mut longest, step["number"].as_u64().unwrap());
            before > longest
        }
        name => CHANGES.contains(&name),
    };
    let changes = steps.iter().filter(|step| is_change(step));
    changes.map(|step| format!("{}: {}", step["step"], step["detail"])).collect()
}

/// One line of a table.
fn show(rung: Rung, streams: Streams, bytes: usize, (up, carried): (f64, Compared)) {
    let Streams { congestion, count } = streams;
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
    println!("| {} | {up:.1} s | {count} x {congestion} | {inner} | {bare} |", rung.name());
}

#[test]
fn links_come_up_and_carry_on_cables_that_lose_a_quarter() {
    let patience = Duration::from_secs(120);
    for (loss, rtt_ms, count, bytes) in
        [(0.05, 20, 1, BYTES), (0.15, 100, 16, BYTES), (0.25, 400, 16, 2 * MIB)]
    {
        let streams = Streams { congestion: "bbr", count };
        let rung = Rung { loss, rtt_ms, seed: rtt_ms };
        let (up, carried) = climb(rung, streams, bytes, patience, false);
        show(rung, streams, bytes, (up, carried));
        let (_, came) = carried[0].unwrap();
        assert_eq!(came, bytes / count * count);
    }
}

#[test]
#[ignore = "takes an hour; cargo test -p ipop-system-tests --test ladder -- --ignored --nocapture"]
fn all_rungs() {
    let number = |name, or| std::env::var(name).map_or(or, |text| text.parse().unwrap());
    let wanted = std::env::var("IPOP_LADDER").unwrap_or_else(|_| "1".to_owned());
    let patience = Duration::from_secs(number("IPOP_LADDER_SECONDS", 600));
    let with_bare = number("IPOP_LADDER_BARE", 1) != 0;
    let counts = std::env::var("IPOP_LADDER_STREAMS").unwrap_or_else(|_| "1 16".to_owned());
    let counts = counts.split(' ').map(|count| count.parse().unwrap());
    let streams: Vec<_> = counts.map(|count| Streams { congestion: "bbr", count }).collect();
    println!("| rung | up | streams | through the link | bare underlay |");
    for (loss, rtt_ms) in LOSSES.into_iter().flat_map(|loss| RTTS_MS.map(|rtt| (loss, rtt))) {
        for seed in 0..number("IPOP_LADDER_SEEDS", 1) {
            let rung = Rung { loss, rtt_ms, seed };
            if wanted != "1" && wanted.split(' ').all(|word| word != rung.name()) {
                continue;
            }
            for &streams in &streams {
                show(rung, streams, BYTES, climb(rung, streams, BYTES, patience, with_bare));
            }
        }
    }
}
