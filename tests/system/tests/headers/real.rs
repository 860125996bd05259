//! Real traffic between two ends, and what passes their interfaces meanwhile.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ipop_lab::{PacketSocket, RawFrame, run};
use ipop_system_tests::soak::exchange;
use socket2::{Domain, Socket, Type};

use crate::link::{End, Link, MTU, is_background};

const BYTES: u64 = 1 << 20;
const DATAGRAMS: u64 = 300;
/// How long an interface is listened to after the last frame.
const QUIET: Duration = Duration::from_millis(200);

/// Streams, datagrams and pings both ways, by both IP versions, with TCP set in several ways.
pub fn traffic(link: &Link) {
    for (seed, [timestamps, sack, ecn]) in [[1, 1, 1], [0, 1, 0], [1, 0, 2]].into_iter().enumerate()
    {
        for end in &link.ends {
            for (name, value) in [("timestamps", timestamps), ("sack", sack), ("ecn", ecn)] {
                inside(end, &format!("sysctl -qw net.ipv4.tcp_{name}={value}"));
            }
        }
        for turns in [false, true] {
            let link = link.turned(turns);
            let [from, to] = link.ends.each_ref();
            for address in [to.v4, to.v6] {
                let ends = [from.namespace.as_path(), to.namespace.as_path()];
                let sums = exchange(ends, address, MTU, (BYTES, DATAGRAMS), seed as u64);
                assert!(sums.is_right(), "{sums:?}");
                marked_stream(from, to, address);
                for words in ["-s 1 -t 3 -Q 0x2c", "-s 1372", "-s 5000 -Q 1"] {
                    ping(from, &format!("{words} {address}"));
                }
            }
            ping(from, &format!("-R {}", to.v4));
        }
    }
}

fn ping(from: &End, words: &str) {
    // What is lost on the way is not this test's matter.
    let line = format!("ip netns exec {} ping -n -c 3 -i 0.02 -W 1 {words}", name(from));
    let _ = run(&line);
}

fn name(end: &End) -> String {
    end.namespace.file_name().unwrap().to_string_lossy().into_owned()
}

fn inside(end: &End, line: &str) {
    run(&format!("ip netns exec {} {line}", name(end))).unwrap();
}

/// A stream whose packets are marked: time to live, traffic class, urgent data.
fn marked_stream(from: &End, to: &End, address: IpAddr) {
    let any_port = SocketAddr::new(address, 0);
    let listener = ipop_lab::inside(&to.namespace, move || TcpListener::bind(any_port)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut stream = ipop_lab::inside(&from.namespace, move || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv4() {
            socket.set_tos_v4(0x48)?;
            socket.set_ttl_v4(33)?;
        } else {
            socket.set_tclass_v6(0x48)?;
            socket.set_unicast_hops_v6(33)?;
        }
        socket.connect(&address.into())?;
        Ok(socket)
    })
    .unwrap();
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.len()
    });
    stream.write_all(&[1; 50_000]).unwrap();
    stream.send_out_of_band(&[2]).unwrap();
    stream.write_all(&[3; 50_000]).unwrap();
    drop(stream);
    assert_eq!(receiver.join().unwrap(), 100_000);
}

/// What arrives at the second end and what arrives at the first while `work` runs.
pub fn record(link: &Link, work: impl FnOnce()) -> [Vec<RawFrame>; 2] {
    let ends = [(&link.ends[1], false), (&link.ends[0], false)];
    let captured = capture(&ends, work);
    captured.try_into().unwrap()
}

/// For each way, what leaves the one end and what arrives at the other while `work` runs.
pub fn capture_ends(link: &Link, work: impl FnOnce()) -> [[Vec<RawFrame>; 2]; 2] {
    let [a, b] = link.ends.each_ref();
    let captured = capture(&[(a, true), (b, false), (b, true), (a, false)], work);
    let [a, b, c, d] = captured.try_into().unwrap();
    [[a, b], [c, d]]
}

/// What passes each of these interfaces, in or out, while `work` runs.
fn capture(ends: &[(&End, bool)], work: impl FnOnce()) -> Vec<Vec<RawFrame>> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let listening: Vec<_> = ends
            .iter()
            .map(|(end, is_outgoing)| {
                let mut socket = PacketSocket::open(&end.namespace, end.interface).unwrap();
                let is_over = &is_over;
                scope.spawn(move || listen(&mut socket, *is_outgoing, is_over))
            })
            .collect();
        work();
        is_over.store(true, Ordering::Release);
        listening.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

fn listen(socket: &mut PacketSocket, is_outgoing: bool, is_over: &AtomicBool) -> Vec<RawFrame> {
    let mut frames = Vec::new();
    loop {
        match socket.next(is_outgoing, QUIET).unwrap() {
            Some(frame) if is_background(&frame) => {}
            Some(frame) => frames.push(frame),
            None if is_over.load(Ordering::Acquire) => return frames,
            None => {}
        }
    }
}

/// How often a row of packets has what the comparison is about.
#[derive(Debug, Default)]
pub struct Seen {
    timestamps: usize,
    segment_sizes: usize,
    selective: usize,
    urgent: usize,
    fins: usize,
    pushes: usize,
    ecn_marks: usize,
    marked: usize,
    fragments: usize,
    pings: usize,
    ipv6: usize,
}

impl Seen {
    /// Whether it is worth comparing.
    pub fn is_rich(&self, is_lossy: bool) -> bool {
        let always = [
            self.timestamps,
            self.segment_sizes,
            self.urgent,
            self.fins,
            self.pushes,
            self.ecn_marks,
            self.marked,
            self.fragments,
            self.pings,
            self.ipv6,
        ];
        always.iter().all(|count| *count > 0) && (!is_lossy || self.selective > 0)
    }
}

/// Looks through packets of untagged IP.
pub fn seen(packets: &[Vec<u8>]) -> Seen {
    const TIMESTAMPS: u8 = 8;
    const SACK: u8 = 5;
    const SEGMENT_SIZE: u8 = 2;
    let mut seen = Seen::default();
    let count = |counter: &mut usize, is_so: bool| *counter += usize::from(is_so);
    for packet in packets {
        let is_v6 = packet[14] >> 4 == 6;
        count(&mut seen.ipv6, is_v6);
        let (protocol, start) = if is_v6 {
            (packet[20], 54)
        } else {
            (packet[23], 14 + usize::from(packet[14] & 15) * 4)
        };
        let is_fragment = if is_v6 { protocol == 44 } else { packet[20] & 0x3f != 0 };
        count(&mut seen.fragments, is_fragment);
        count(&mut seen.pings, matches!(protocol, 1 | 58));
        if protocol != 6 {
            continue;
        }
        let hops = if is_v6 { packet[21] } else { packet[22] };
        count(&mut seen.marked, hops == 33);
        let mark = if is_v6 { packet[15] >> 4 } else { packet[15] };
        count(&mut seen.ecn_marks, mark & 3 != 0);
        let flags = packet[start + 13];
        count(&mut seen.fins, flags & 1 != 0);
        count(&mut seen.pushes, flags & 8 != 0);
        count(&mut seen.urgent, flags & 0x20 != 0);
        let end = start + usize::from(packet[start + 12] >> 4) * 4;
        let kinds = option_kinds(&packet[start + 20..end]);
        count(&mut seen.timestamps, kinds.contains(&TIMESTAMPS));
        count(&mut seen.selective, kinds.contains(&SACK));
        count(&mut seen.segment_sizes, kinds.contains(&SEGMENT_SIZE));
    }
    seen
}

fn option_kinds(mut options: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let Some(kind) = options.first().filter(|kind| **kind != 0) {
        kinds.push(*kind);
        let len = if *kind == 1 { 1 } else { options.get(1).map_or(1, |len| usize::from(*len)) };
        options = options.get(len.max(1)..).unwrap_or_default();
    }
    kinds
}
