//! The figures of one way, one step for each.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::instance::RunDir;

use super::cpu::datapath_seconds;
use super::packets::Asker;
use super::report::{Figures, RoundTrip};
use super::streams;
use super::words::{Conversation, Moved, Ports, Reply, Request, Secret, Underlay, VERSION, Way};

/// Steps of one way.
pub const STEPS: u64 = 8;

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a reply may take beyond the time that was asked for.
const REPLY_PATIENCE: Duration = Duration::from_secs(30);
/// Packets that are under way when a flood ends arrive within.
const SETTLE: Duration = Duration::from_millis(200);

/// A session with a peer that serves.
pub struct Steps {
    /// The peer's ports on the overlay.
    pub overlay: Ports,
    /// Those beside it.
    pub underlay: Underlay,
    /// Of each figure.
    pub time: Duration,
    instance: RunDir,
    conversation: Conversation,
    secret: Secret,
}

/// What came of the steps of one way.
#[derive(Default)]
pub struct Measured {
    /// Those that could be measured.
    pub figures: Figures,
    /// Why some are missing: the first reason.
    pub missing: Option<String>,
}

impl Measured {
    /// The value, or none and why.
    fn keep<T>(&mut self, what: &str, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.missing.get_or_insert_with(|| format!("{what}: {error}"));
                None
            }
        }
    }
}

impl Steps {
    /// Begins a session with the peer at `address`.
    ///
    /// # Errors
    /// When nobody serves there, or the peer refuses.
    pub fn begin(instance: RunDir, address: SocketAddr, time: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_PATIENCE)?;
        let mut conversation = Conversation::new(stream, time + REPLY_PATIENCE)?;
        conversation.say(&Request::Begin { version: VERSION })?;
        match conversation.hear()? {
            Some(Reply::Begun { secret, overlay, underlay }) => {
                Ok(Self { overlay, underlay, time, instance, conversation, secret })
            }
            Some(Reply::Refused(why)) => Err(io::Error::other(why)),
            Some(other) => Err(unexpected(&other)),
            None => Err(io::Error::other("it hung up")),
        }
    }

    /// Goes through the steps of one way, with the peer at `ip`.
    pub fn measure(
        &mut self,
        way: Way,
        (ip, ports): (IpAddr, Ports),
        bar: &ProgressBar,
    ) -> Measured {
        let mut measured = Measured::default();
        let tcp = SocketAddr::new(ip, ports.tcp);
        let udp = SocketAddr::new(ip, ports.udp);
        let step = |what: &str| {
            bar.inc(1);
            bar.set_message(format!("{way}: {what}"));
        };
        step("round trip");
        let asker = measured.keep(&format!("UDP to {udp}"), self.asker(udp));
        // Without the secret it is not one of the streams to come.
        let opened = streams::open(tcp, 1, &Secret::default());
        let is_open = measured.keep(&format!("TCP to {tcp}"), opened).is_some();
        if let Some(mut asker) = asker {
            self.measure_packets(way, &mut asker, &mut measured, &step);
            if is_open {
                step("round trip under load");
                let loaded = self.loaded(way, tcp, &mut asker);
                measured.figures.round_trip_loaded = measured.keep("round trip", loaded).flatten();
            }
        }
        if is_open {
            self.measure_streams(way, tcp, &mut measured, &step);
        }
        measured
    }

    fn measure_packets(
        &mut self,
        way: Way,
        asker: &mut Asker,
        measured: &mut Measured,
        step: &impl Fn(&str),
    ) {
        let begin = Instant::now();
        let idle = asker.round_trips(|| begin.elapsed() < self.time);
        measured.figures.round_trip_idle = RoundTrip::of(idle);
        step("packets to the peer");
        let sent = self.packets_to(way, asker);
        measured.figures.packets_to_per_s = measured.keep("packets", sent);
        step("packets from the peer");
        let heard = self.packets_from(way, asker);
        measured.figures.packets_from_per_s = measured.keep("packets", heard);
    }

    fn measure_streams(
        &mut self,
        way: Way,
        address: SocketAddr,
        measured: &mut Measured,
        step: &impl Fn(&str),
    ) {
        let before = self.cpu_seconds();
        let mut bytes = 0;
        let mut rates = [const { None }; 4];
        for (rate, (count, from)) in
            rates.iter_mut().zip([(1, false), (1, true), (4, false), (4, true)])
        {
            let direction = if from { "from" } else { "to" };
            step(&format!("TCP {direction} the peer, streams: {count}"));
            let moved = match from {
                true => self.streams_from(way, address, count),
                false => self.streams_to(way, address, count),
            };
            let moved = measured.keep("TCP", moved);
            bytes += moved.map_or(0, |moved| moved.bytes);
            *rate = moved.map(|moved| moved.rate());
        }
        let after = self.cpu_seconds();
        let figures = &mut measured.figures;
        [
            figures.tcp_1_to_gbit_s,
            figures.tcp_1_from_gbit_s,
            figures.tcp_4_to_gbit_s,
            figures.tcp_4_from_gbit_s,
        ] = rates;
        // Beside the link the datapaths have no part.
        if way == Way::Overlay && bytes > 0 {
            let gib = bytes as f64 / f64::from(1 << 30);
            let cost = |end: usize| Some((after[end]? - before[end]?) / gib);
            [figures.cpu_here_s_per_gib, figures.cpu_peer_s_per_gib] = [cost(0), cost(1)];
        }
    }

    /// User and system time of the datapath here and at the peer so far.
    fn cpu_seconds(&mut self) -> [Option<f64>; 2] {
        let asked = self.conversation.say(&Request::Cpu).and_then(|()| self.reply());
        let peer = match asked {
            Ok(Reply::Cpu(seconds)) => seconds,
            _ => None,
        };
        [datapath_seconds(&self.instance), peer]
    }

    fn asker(&self, address: SocketAddr) -> io::Result<Asker> {
        let mut asker = Asker::open(address, self.secret)?;
        if asker.is_answered() { Ok(asker) } else { Err(io::Error::other("no answer")) }
    }

    fn streams_to(&mut self, way: Way, address: SocketAddr, count: u32) -> io::Result<Moved> {
        let milliseconds = self.milliseconds();
        self.conversation.say(&Request::Receive { way, streams: count, milliseconds })?;
        let opened = streams::open(address, count, &self.secret);
        let filled = opened.and_then(|opened| streams::fill(opened, self.time));
        let reply = self.reply();
        filled?;
        match reply? {
            Reply::Moved(moved) => Ok(moved),
            other => Err(unexpected(&other)),
        }
    }

    fn streams_from(&mut self, way: Way, address: SocketAddr, count: u32) -> io::Result<Moved> {
        let milliseconds = self.milliseconds();
        self.conversation.say(&Request::Send { way, streams: count, milliseconds })?;
        let opened = streams::open(address, count, &self.secret);
        let moved = opened.and_then(|opened| streams::empty(opened, self.time));
        let reply = self.reply();
        let moved = moved?;
        match reply? {
            Reply::Done => Ok(moved),
            other => Err(unexpected(&other)),
        }
    }

    fn packets_to(&mut self, way: Way, asker: &Asker) -> io::Result<f64> {
        self.count(way)?;
        let begin = Instant::now();
        asker.flood(self.time);
        let time = begin.elapsed().as_secs_f64();
        std::thread::sleep(SETTLE);
        Ok(self.count(way)? as f64 / time)
    }

    fn packets_from(&mut self, way: Way, asker: &mut Asker) -> io::Result<f64> {
        let milliseconds = self.milliseconds();
        self.conversation.say(&Request::Flood { way, milliseconds })?;
        let is_over = AtomicBool::new(false);
        let (count, reply) = std::thread::scope(|scope| {
            let counter = scope.spawn(|| asker.count(|| !is_over.load(Ordering::Relaxed)));
            let reply = self.reply();
            std::thread::sleep(SETTLE);
            is_over.store(true, Ordering::Relaxed);
            (counter.join().unwrap_or(Ok(0)), reply)
        });
        reply?;
        Ok(count? as f64 / self.time.as_secs_f64())
    }

    /// Round trips while a stream to the peer is filled.
    fn loaded(
        &mut self,
        way: Way,
        address: SocketAddr,
        asker: &mut Asker,
    ) -> io::Result<Option<RoundTrip>> {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let pinger = scope.spawn(|| asker.round_trips(|| !is_over.load(Ordering::Relaxed)));
            let moved = self.streams_to(way, address, 1);
            is_over.store(true, Ordering::Relaxed);
            let times = pinger.join().unwrap_or_default();
            moved.map(|_| RoundTrip::of(times))
        })
    }

    fn count(&mut self, way: Way) -> io::Result<u64> {
        self.conversation.say(&Request::Count { way })?;
        match self.reply()? {
            Reply::Packets(count) => Ok(count),
            other => Err(unexpected(&other)),
        }
    }

    fn reply(&mut self) -> io::Result<Reply> {
        match self.conversation.hear()? {
            Some(Reply::Refused(why)) => Err(io::Error::other(format!("the peer says: {why}"))),
            Some(reply) => Ok(reply),
            None => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    fn milliseconds(&self) -> u64 {
        u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX)
    }
}

fn unexpected(reply: &Reply) -> io::Error {
    io::Error::other(format!("the peer says what was not asked for: {reply:?}"))
}
