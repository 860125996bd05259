//! Two nodes, a sink that accounts for every slot, frames of all kinds, and a software segmenter
//! that knows nothing of the pipeline.
#![allow(dead_code, clippy::unwrap_used)]

pub mod frames;
pub mod network;
pub mod segmenter;
pub mod traffic;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::time::Instant;

use ipop_crypto::{ChainSecret, Cipher, Opener, Sealer};
use ipop_pipeline::{
    Config, Drop, LinkEntry, Path, Pipeline, SEND_LEN_MAX, SLOT_LEN, SendRun, Sink, Source, ToAgent,
};
use ipop_wire::{LinkIndex, VNET_HEADER_LEN, VirtioNetHeader};
use proptest::prelude::ProptestConfig;

pub const MAC_A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
pub const MAC_B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
pub const MAC_C: [u8; 6] = [2, 0, 0, 0, 0, 0xc];
pub const IP_A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const IP_B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub const IP_C: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
pub const IP6_A: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
pub const IP6_B: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

pub const INDEX_AT_A: LinkIndex = LinkIndex(0xa000_0001);
pub const INDEX_AT_B: LinkIndex = LinkIndex(0xb000_0001);

/// A failing case is printed, and not kept in a file. `PROPTEST_CASES` asks for more of them.
pub fn cases(cases: u32) -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let cases = wanted.unwrap_or(cases);
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_global_rejects: cases * 10,
        ..ProptestConfig::default()
    }
}

pub type Node = Pipeline<Box<[u8]>>;

/// A frame for the tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub vnet: VirtioNetHeader,
    pub frame: Vec<u8>,
}

impl Written {
    /// The frame as a tap would give it.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.vnet.emit()[..], &self.frame].concat()
    }
}

/// What the agent was told, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Stun(Vec<u8>),
    TurnChannel(Vec<u8>),
    Handshake(Option<u16>, Vec<u8>),
    Control(LinkIndex, Option<u16>, Vec<u8>),
    NoRoute(IpAddr),
}

/// Lends a bounded number of slots and keeps copies of what came out.
pub struct Memory {
    free: Vec<Box<[u8]>>,
    pub slots: usize,
    pub sends: Vec<(Vec<u8>, SendRun)>,
    pub writes: Vec<Written>,
    pub told: Vec<Told>,
    /// Frames for the first worker.
    pub handed: Vec<Vec<u8>>,
}

impl Memory {
    pub fn new(slots: usize) -> Memory {
        Memory::with_slot_len(slots, SLOT_LEN)
    }

    pub fn with_slot_len(slots: usize, slot_len: usize) -> Memory {
        let free = vec![vec![0xee; slot_len].into(); slots];
        let (sends, writes, told, handed) = Default::default();
        Memory { free, slots, sends, writes, told, handed }
    }

    /// All slots came back.
    pub fn is_whole(&self) -> bool {
        self.free.len() == self.slots
    }

    /// All datagrams of all sends, one by one.
    pub fn take_datagrams(&mut self) -> Vec<Vec<u8>> {
        let sends = std::mem::take(&mut self.sends);
        let chunks = |(bytes, run): &(Vec<u8>, SendRun)| {
            bytes.chunks(run.segment_size).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        sends.iter().flat_map(chunks).collect()
    }
}

impl Sink for Memory {
    type Slot = Box<[u8]>;

    fn reserve(&mut self) -> Option<Box<[u8]>> {
        self.free.pop()
    }

    fn discard(&mut self, slot: Box<[u8]>) {
        self.free.push(slot);
    }

    fn send(&mut self, slot: Box<[u8]>, run: SendRun) {
        assert!(run.len > 0 && run.len <= SEND_LEN_MAX);
        assert!(run.segment_size > 0 && run.segment_size <= run.len);
        assert!(run.len.div_ceil(run.segment_size) <= 64);
        self.sends.push((slot[..run.len].to_vec(), run));
        self.free.push(slot);
    }

    fn write_tap(&mut self, slot: Box<[u8]>, range: Range<usize>) {
        let bytes = &slot[range];
        let vnet = VirtioNetHeader::parse(bytes).expect("a virtio-net header");
        let written = Written { vnet, frame: bytes[VNET_HEADER_LEN..].to_vec() };
        segmenter::assert_kernel_takes(&written);
        self.writes.push(written);
        self.free.push(slot);
    }

    fn hand_over(&mut self, tap_frame: &[u8]) {
        self.handed.push(tap_frame.to_vec());
    }

    fn to_agent(&mut self, item: ToAgent<'_>) {
        self.told.push(match item {
            ToAgent::Stun { datagram, .. } => Told::Stun(datagram.to_vec()),
            ToAgent::TurnChannel { datagram, .. } => Told::TurnChannel(datagram.to_vec()),
            ToAgent::Handshake { channel, body, .. } => Told::Handshake(channel, body.to_vec()),
            ToAgent::Control { link, channel, body, .. } => {
                Told::Control(link, channel, body.to_vec())
            }
            ToAgent::NoRoute(address) => Told::NoRoute(address),
        });
    }
}

pub fn source() -> Source {
    let [remote, local] = [1, 2].map(|last| SocketAddr::from(([192, 0, 2, last], 4000)));
    Source { remote, local }
}

pub fn direct(datagram_len: u16) -> Path {
    Path { channel: None, datagram_len, is_settled: true, is_lossy: false }
}

/// Payload bytes of a super-segment that fit one datagram of the path.
pub fn room(path: Path, original: &Written) -> usize {
    let prefix = if path.channel.is_some() { 4 } else { 0 };
    let headers = segmenter::headers_len(&original.frame);
    // Header and tag, relay's prefix, inner headers, geometry; an untagged Ethernet header stays.
    let is_tagged = matches!(original.frame[12..14], [0x81, 0x00] | [0x88, 0xa8]);
    let elided = if is_tagged { 0 } else { 14 };
    usize::from(path.datagram_len) - 32 - prefix - (headers - elided) - 12
}

/// One end of the link between a and b: `to_us` and `to_them` name its secrets.
pub fn link(ours: LinkIndex, theirs: LinkIndex, peer_mac: [u8; 6], path: Path) -> LinkEntry {
    let secret = |index: LinkIndex| ChainSecret::new([index.0 as u8 ^ (index.0 >> 24) as u8; 32]);
    LinkEntry {
        index: ours,
        peer_index: theirs,
        lane: 0,
        peer_mac,
        sealer: Sealer::new(Cipher::Aes128Gcm, &secret(theirs), Instant::now()),
        opener: Opener::new(Cipher::Aes128Gcm, &secret(ours)),
        path: Some(path),
        is_sending: true,
    }
}

/// A and B with one link, which A sends on by `path`.
pub struct Pair {
    pub a: Node,
    pub b: Node,
    pub a_out: Memory,
    pub b_out: Memory,
    pub now: Instant,
}

impl Pair {
    pub fn new(path: Path) -> Pair {
        Pair::with_config(path, Config::new(MAC_B, 1500))
    }

    pub fn with_config(path: Path, config_b: Config) -> Pair {
        let mut a = Node::new(Config::new(MAC_A, 1500), &[IP_A.into(), IP6_A.into()]);
        let mut b = Node::new(config_b, &[IP_B.into(), IP6_B.into()]);
        a.install_link(link(INDEX_AT_A, INDEX_AT_B, MAC_B, path));
        b.install_link(link(INDEX_AT_B, INDEX_AT_A, MAC_A, path));
        for (address, prefix) in [(IP_B.into(), 32), (IP6_B.into(), 128)] {
            a.add_route(address, prefix, MAC_B);
        }
        for (address, prefix) in [(IP_A.into(), 32), (IP6_A.into(), 128)] {
            b.add_route(address, prefix, MAC_A);
        }
        let (a_out, b_out) = (Memory::new(48), Memory::new(48));
        Pair { a, b, a_out, b_out, now: Instant::now() }
    }

    /// One batch of frames into A; what it sends, datagram by datagram.
    pub fn seal(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.seal_to_sends(frames);
        self.a_out.take_datagrams()
    }

    /// One batch of frames into A; its sends stay in its sink.
    pub fn seal_to_sends(&mut self, frames: &[Vec<u8>]) {
        for frame in frames {
            self.a.egress(self.now, frame, &mut self.a_out);
        }
        self.a.flush_egress(&mut self.a_out);
        assert!(self.a_out.is_whole(), "a slot was lost");
    }

    /// One batch of datagrams into B, each received alone.
    pub fn open(&mut self, datagrams: &[Vec<u8>]) -> Vec<Written> {
        for datagram in datagrams {
            self.b.ingress(self.now, datagram, datagram.len(), source(), &mut self.b_out);
        }
        self.flush()
    }

    /// Ends B's batch; what it wrote to its tap.
    pub fn flush(&mut self) -> Vec<Written> {
        self.b.flush_ingress(self.now, &mut self.b_out);
        assert!(self.b_out.is_whole(), "a slot was lost");
        std::mem::take(&mut self.b_out.writes)
    }

    /// A batch all the way, each send received in one piece.
    pub fn carry(&mut self, frames: &[Vec<u8>]) -> Vec<Written> {
        self.seal_to_sends(frames);
        for (bytes, run) in std::mem::take(&mut self.a_out.sends) {
            self.b.ingress(self.now, &bytes, run.segment_size, source(), &mut self.b_out);
        }
        self.flush()
    }

    pub fn drops(&self) -> u64 {
        self.a.counters().drops.iter().chain(&self.b.counters().drops).sum()
    }

    pub fn drops_at_b(&self, reason: Drop) -> u64 {
        self.b.counters().drops_by(reason)
    }
}
