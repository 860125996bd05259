//! What is measured between each two nodes: first ping, round trip, path, throughput.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::failure::Failure;
use crate::icmp::Pinger;
use crate::snapshot::Snapshot;

use super::say;
use super::stage::{Node, Stage};

/// Pause between the pings that wait for a link.
const PING_PAUSE: Duration = Duration::from_millis(10);
/// Pings of which the median is shown.
const RTT_PINGS: usize = 11;
const TRAFFIC_PORT: u16 = 5201;

/// Two nodes and what was seen between them.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Pair {
    /// Names of both.
    pub names: [String; 2],
    /// NAT kinds of both.
    pub nats: [String; 2],
    /// `direct` or `relayed`, as the first node sees it.
    pub path: Option<String>,
    /// Seconds from the later process start to the first answered ping.
    pub first_ping: Option<f64>,
    /// Median round trip, milliseconds.
    pub rtt_ms: Option<f64>,
    /// TCP throughput from the first to the second, Gbit/s.
    pub gbit_s: Option<f64>,
    #[serde(skip)]
    ends: [usize; 2],
}

/// Pings every pair from the start until it answers.
pub(super) fn first_pings(
    stage: &mut Stage,
    patience: Duration,
    stop: &Arc<AtomicBool>,
    bar: &ProgressBar,
) -> Result<Vec<Pair>, Failure> {
    let mut pairs = all_pairs(stage.nodes());
    let deadline = Instant::now() + patience;
    let nodes = stage.nodes();
    let goes_on = {
        let stop = stop.clone();
        move || !stop.load(Ordering::Relaxed) && Instant::now() < deadline
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = pairs
            .iter_mut()
            .enumerate()
            .map(|(index, pair)| {
                let goes_on = goes_on.clone();
                scope.spawn(move || {
                    wait_for_ping(nodes, pair, index, goes_on);
                    if let Some(seconds) = pair.first_ping {
                        let [a, b] = &pair.names;
                        say(bar, &format!("  {a} and {b} linked after {seconds:.2} s"));
                    }
                })
            })
            .collect();
        for thread in threads {
            let _ = thread.join();
        }
    });
    if stop.load(Ordering::Relaxed) {
        return Err(Failure::failed("stopped"));
    }
    if let Some(words) = stage.dead_node() {
        return Err(Failure::failed(format!("a node ended on its own: {words}")));
    }
    Ok(pairs)
}

/// Reads from the first node's link table how the pairs are linked.
pub(super) fn paths(stage: &Stage, pairs: &mut [Pair]) {
    for pair in pairs {
        let [a, b] = pair.ends.map(|index| &stage.nodes()[index]);
        let snapshot = Snapshot::read(&a.name).ok();
        let link = snapshot.and_then(|snapshot| snapshot.link_to(&b.name));
        pair.path = link.and_then(|link| link.path);
    }
}

/// Runs the traffic test of each pair, one after the other.
pub(super) fn traffic(
    stage: &Stage,
    pairs: &mut [Pair],
    time: Duration,
    stop: &AtomicBool,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    for pair in pairs.iter_mut().filter(|pair| pair.first_ping.is_some()) {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::failed("stopped"));
        }
        bar.set_message(format!("traffic from {} to {}", pair.names[0], pair.names[1]));
        let [a, b] = pair.ends.map(|index| &stage.nodes()[index]);
        pair.gbit_s = transfer(a, b, time, stop).ok();
    }
    Ok(())
}

fn all_pairs(nodes: &[Node]) -> Vec<Pair> {
    let ends = (0..nodes.len()).flat_map(|a| (a + 1..nodes.len()).map(move |b| [a, b]));
    ends.map(|ends| Pair {
        names: ends.map(|index| nodes[index].name.clone()),
        nats: ends.map(|index| nodes[index].site.nat.to_string()),
        path: None,
        first_ping: None,
        rtt_ms: None,
        gbit_s: None,
        ends,
    })
    .collect()
}

fn wait_for_ping(
    nodes: &[Node],
    pair: &mut Pair,
    index: usize,
    goes_on: impl Fn() -> bool + Send + 'static,
) {
    let [a, b] = pair.ends.map(|index| &nodes[index]);
    let started = a.started.max(b.started);
    let identifier = u16::try_from(index).unwrap_or(u16::MAX);
    let ends = [a, b].map(|node| IpAddr::from(node.overlay));
    let answered = a.site.node.inside(move || Ok(ping_until(ends, identifier, goes_on)));
    if let (Ok(Some((at, rtt))), Some(started)) = (answered, started) {
        pair.first_ping = Some(at.saturating_duration_since(started).as_secs_f64());
        pair.rtt_ms = Some(rtt.as_secs_f64() * 1e3);
    }
}

/// When the first ping was answered, and the median round trip of those after it.
fn ping_until(
    [source, target]: [IpAddr; 2],
    identifier: u16,
    goes_on: impl Fn() -> bool,
) -> Option<(Instant, Duration)> {
    let mut pinger = loop {
        // The address appears with the overlay interface; pings from another one would go astray.
        if let Ok(pinger) = Pinger::open_from(Some(source), target, identifier) {
            break pinger;
        }
        if !goes_on() {
            return None;
        }
        std::thread::sleep(PING_PAUSE);
    };
    let first = pinger.until_answered(PING_PAUSE, goes_on).ok().flatten()?;
    Some((first, median_rtt(&mut pinger)))
}

fn median_rtt(pinger: &mut Pinger) -> Duration {
    let pings = (0..RTT_PINGS).filter_map(|_| pinger.ping(Duration::from_secs(1)).ok().flatten());
    let mut times: Vec<_> = pings.collect();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Sends from `a` to `b` as fast as TCP goes; Gbit/s as the receiver saw them.
fn transfer(
    a: &Node,
    b: &Node,
    time: Duration,
    stop: &AtomicBool,
) -> Result<f64, ipop_lab::LabError> {
    let address = SocketAddr::from((b.overlay, TRAFFIC_PORT));
    let listener = b.site.node.inside(move || TcpListener::bind(address))?;
    let stream = a.site.node.inside(move || {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        // The kernel's own default may be another one, and figures are compared under CUBIC.
        let _ = socket2::SockRef::from(&stream).set_tcp_congestion(b"cubic");
        // A link that breaks in the middle shall not hold the lab up.
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        Ok(stream)
    })?;
    let system = |source| ipop_lab::LabError::System { what: "traffic test".to_owned(), source };
    let receiver = std::thread::spawn(move || receive(&listener));
    send(stream, time, stop).map_err(system)?;
    match receiver.join() {
        Ok(result) => result.map_err(system),
        Err(_) => Err(system(std::io::Error::other("the receiving thread panicked"))),
    }
}

fn send(mut stream: TcpStream, time: Duration, stop: &AtomicBool) -> std::io::Result<()> {
    let block = vec![0x5a; 256 * 1024];
    let end = Instant::now() + time;
    while Instant::now() < end && !stop.load(Ordering::Relaxed) {
        stream.write_all(&block)?;
    }
    stream.shutdown(std::net::Shutdown::Write)
}

fn receive(listener: &TcpListener) -> std::io::Result<f64> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut block = vec![0; 256 * 1024];
    let start = Instant::now();
    let mut total = 0u64;
    loop {
        let length = stream.read(&mut block)?;
        if length == 0 {
            break;
        }
        total += length as u64;
    }
    Ok(total as f64 * 8e-9 / start.elapsed().as_secs_f64())
}
