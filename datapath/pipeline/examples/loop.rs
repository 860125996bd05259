//! How fast one core seals and opens 64 KiB super-segments, and small frames in bundles: the whole
//! packet path without a kernel.
//!
//! `cargo run --release -p ipop-pipeline --example loop [seconds] [aes128|aes256|chacha]`

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::time::{Duration, Instant};

use ipop_crypto::{ChainSecret, Cipher, Opener, Sealer};
use ipop_pipeline::{
    Config, LinkEntry, Path, Pipeline, SLOT_LEN, SendRun, Sink, Source, ToAgent, Total,
};
use ipop_wire::checksum::pseudo_v4;
use ipop_wire::ethernet::{EthernetRepr, IPV4};
use ipop_wire::ipv4::Ipv4Repr;
use ipop_wire::tcp::{ACK, TCP, TCP_CHECKSUM_OFFSET, TcpRepr};
use ipop_wire::udp::{UDP, UDP_CHECKSUM_OFFSET, UdpRepr};
use ipop_wire::vnet::{Csum, CsumState, GsoType};
use ipop_wire::{LinkIndex, VirtioNetHeader};

const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 2];
const IP_A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const IP_B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const MSS: u16 = 1376;
const SEGMENTS: u16 = 44;
const SMALL: u16 = 64;
const SMALL_BATCH: usize = 64;

/// Slots that go round, and the last send.
#[derive(Default)]
struct Slots {
    free: Vec<Box<[u8]>>,
    sent: Vec<(Box<[u8]>, SendRun)>,
}

impl Sink for Slots {
    type Slot = Box<[u8]>;

    fn reserve(&mut self) -> Option<Box<[u8]>> {
        self.free.pop()
    }

    fn discard(&mut self, slot: Box<[u8]>) {
        self.free.push(slot);
    }

    fn send(&mut self, slot: Box<[u8]>, run: SendRun) {
        self.sent.push((slot, run));
    }

    fn write_tap(&mut self, slot: Box<[u8]>, range: Range<usize>) {
        black_box(&slot[range]);
        self.free.push(slot);
    }

    fn hand_over(&mut self, _: &[u8]) {}

    fn to_agent(&mut self, _: ToAgent<'_>) {}
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let cipher = match arguments.next().as_deref() {
        Some("aes256") => Cipher::Aes256Gcm,
        Some("chacha") => Cipher::ChaCha20Poly1305,
        _ => Cipher::Aes128Gcm,
    };
    let time = Duration::from_secs_f64(seconds);
    println!("{cipher:?}, {seconds} s each");
    run("super-segments", &[super_segment()], usize::from(SEGMENTS), cipher, time);
    let small: Vec<_> = (0..SMALL_BATCH).map(|_| small_frame()).collect();
    run("64 B datagrams", &small, SMALL_BATCH, cipher, time);
}

fn run(what: &str, batch: &[Vec<u8>], packets: usize, cipher: Cipher, time: Duration) {
    let (mut a, mut b) = (node(MAC_A, MAC_B, IP_A, cipher), node(MAC_B, MAC_A, IP_B, cipher));
    let source =
        Source { remote: ([127, 0, 0, 1], 1).into(), local: IpAddr::V4(Ipv4Addr::LOCALHOST) };
    let mut slots = Slots { free: vec![vec![0; SLOT_LEN].into(); 32], sent: Vec::new() };
    let (mut sealing, mut opening) = (Vec::new(), Vec::new());
    let mut mark = Instant::now();
    let end = mark + time;
    while mark < end {
        for frame in batch {
            a.egress(mark, frame, &mut slots);
        }
        a.flush_egress(&mut slots);
        let sealed = Instant::now();
        let mut sent = std::mem::take(&mut slots.sent);
        for (slot, run) in &sent {
            b.ingress(sealed, &slot[..run.len], run.segment_size, source, &mut slots);
        }
        b.flush_ingress(sealed, &mut slots);
        slots.free.extend(sent.drain(..).map(|(slot, _)| slot));
        slots.sent = sent;
        let opened = Instant::now();
        sealing.push(sealed - mark);
        opening.push(opened - sealed);
        mark = opened;
    }
    let bytes: usize = batch.iter().map(|frame| frame.len()).sum();
    let rounds = sealing.len() as u64;
    for (verb, times) in [("seal", &mut sealing), ("open", &mut opening)] {
        // The median: others use the machine too.
        times.sort_unstable();
        let nanoseconds = times[times.len() / 2].as_nanos() as f64;
        println!(
            "{what}: {verb} {:6.1} Gbit/s, {:6.1} ns per packet",
            bytes as f64 * 8.0 / nanoseconds,
            nanoseconds / packets as f64
        );
    }
    let written = b.counters().total(Total::TapFramesOut) / rounds;
    let sends = a.counters().total(Total::SendBatches) / rounds;
    println!("{what}: {packets} packets in {sends} sends, {written} tap writes");
    assert_eq!(b.counters().drops.iter().sum::<u64>(), 0, "nothing is dropped");
}

fn node(mac: [u8; 6], peer_mac: [u8; 6], ip: Ipv4Addr, cipher: Cipher) -> Pipeline<Box<[u8]>> {
    let mut pipeline = Pipeline::new(Config::new(mac, 1428), &[ip.into()]);
    let secret = ChainSecret::new([7; 32]);
    pipeline.install_link(LinkEntry {
        index: LinkIndex(1),
        peer_index: LinkIndex(1),
        lane: 0,
        peer_mac,
        sealer: Sealer::new(cipher, &secret, Instant::now()),
        opener: Opener::new(cipher, &secret),
        path: Some(Path { channel: None, datagram_len: 1472 }),
        is_sending: true,
    });
    let peer_ip = if ip == IP_A { IP_B } else { IP_A };
    pipeline.add_route(peer_ip.into(), 32, peer_mac);
    pipeline
}

fn super_segment() -> Vec<u8> {
    let payload_len = MSS * SEGMENTS;
    let tcp = TcpRepr {
        source: 5201,
        destination: 40000,
        sequence: 1,
        acknowledgement: 1,
        flags: ACK,
        window: 512,
        checksum: pseudo_v4(IP_A, IP_B, TCP, 32 + payload_len),
        urgent: 0,
        options: &[1; 12],
    };
    let mut header = vec![0; tcp.header_len()];
    tcp.emit(&mut header);
    let vnet = VirtioNetHeader {
        csum: CsumState::Needed(Csum { start: 34, offset: TCP_CHECKSUM_OFFSET }),
        gso_type: GsoType::Tcp4,
        has_ecn: false,
        header_len: 66,
        gso_size: MSS,
    };
    frame(&vnet, TCP, &header, payload_len)
}

fn small_frame() -> Vec<u8> {
    let checksum = pseudo_v4(IP_A, IP_B, UDP, 8 + SMALL);
    let udp = UdpRepr { source: 5201, destination: 40000, payload_len: SMALL, checksum };
    let vnet = VirtioNetHeader {
        csum: CsumState::Needed(Csum { start: 34, offset: UDP_CHECKSUM_OFFSET }),
        ..VirtioNetHeader::default()
    };
    frame(&vnet, UDP, &udp.emit(), SMALL)
}

fn frame(vnet: &VirtioNetHeader, protocol: u8, transport: &[u8], payload_len: u16) -> Vec<u8> {
    let ethernet = EthernetRepr { destination: MAC_B, source: MAC_A, vlan: None, ethertype: IPV4 };
    let ip = Ipv4Repr {
        source: IP_A,
        destination: IP_B,
        protocol,
        tos: 0,
        ttl: 64,
        id: 0,
        dont_fragment: true,
        payload_len: transport.len() as u16 + payload_len,
    };
    let mut frame = vnet.emit().to_vec();
    frame.resize(frame.len() + ethernet.header_len(), 0);
    ethernet.emit(&mut frame[12..]);
    frame.extend(ip.emit());
    frame.extend(transport);
    frame.extend((0..payload_len).map(|at| at as u8));
    frame
}
