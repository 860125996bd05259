//! The pipeline between a tap and a socket that are memory.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::time::Instant;

use ipop_crypto::{ChainSecret, Cipher, Opener, Sealer};
use ipop_pipeline::{
    Config, Drop, LinkEntry, Path, Pipeline, SLOT_LEN, SendRun, Sink, Source, ToAgent, Total,
};
use ipop_wire::LinkIndex;
use ipop_wire::ethernet::Mac;

use crate::Work;
use crate::cases::{Case, IP_A, IP_B, MAC_A, MAC_B, udp_frame};

/// Links of a node among which [`Route`] finds one.
const LINKS: u8 = 64;
/// Output slots: more than any case has in use at once.
const SLOTS: usize = 32;

type Slot = Box<[u8]>;
type Node = Pipeline<Slot>;

/// Slots that go round, and what was sent last.
pub(crate) struct Slots {
    free: Vec<Slot>,
    pub(crate) sent: Vec<(Slot, SendRun)>,
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self { free: vec![vec![0; SLOT_LEN].into(); SLOTS], sent: Vec::with_capacity(SLOTS) }
    }

    fn recycle(&mut self) {
        self.free.extend(self.sent.drain(..).map(|(slot, _)| slot));
    }
}

impl Sink for Slots {
    type Slot = Slot;

    fn reserve(&mut self) -> Option<Slot> {
        self.free.pop()
    }

    fn discard(&mut self, slot: Slot) {
        self.free.push(slot);
    }

    fn send(&mut self, slot: Slot, run: SendRun) {
        self.sent.push((slot, run));
    }

    fn write_tap(&mut self, slot: Slot, range: Range<usize>) {
        black_box(&slot[range]);
        self.free.push(slot);
    }

    fn hand_over(&mut self, _: &[u8]) {}

    fn to_agent(&mut self, _: ToAgent<'_>) {}
}

fn link(number: u8, peer_mac: Mac, cipher: Cipher, path: Option<Path>) -> LinkEntry {
    let secret = ChainSecret::new([7; 32]);
    LinkEntry {
        index: LinkIndex(u32::from(number)),
        peer_index: LinkIndex(u32::from(number)),
        lane: 0,
        peer_mac,
        sealer: Sealer::new(cipher, &secret, Instant::now()),
        opener: Opener::new(cipher, &secret),
        path,
        is_sending: true,
    }
}

fn node(case: Case, cipher: Cipher, mac: Mac, peer_mac: Mac, ip: Ipv4Addr) -> Node {
    let mut node = Node::new(Config::new(mac, case.mtu()), &[ip.into()]);
    let path = Path {
        channel: None,
        datagram_len: case.datagram_len(),
        is_settled: true,
        is_lossy: false,
    };
    node.install_link(link(1, peer_mac, cipher, Some(path)));
    let peer_ip = if ip == IP_A { IP_B } else { IP_A };
    node.add_route(peer_ip.into(), 32, peer_mac);
    node
}

fn assert_no_drops(node: &Node) {
    assert_eq!(node.counters().drops.iter().sum::<u64>(), 0, "nothing is dropped");
}

/// Tap frames become sealed datagrams.
pub(crate) struct Egress {
    node: Node,
    frames: Vec<Vec<u8>>,
    pub(crate) slots: Slots,
    now: Instant,
}

impl Egress {
    pub(crate) fn new(case: Case, cipher: Cipher) -> Self {
        let node = node(case, cipher, MAC_A, MAC_B, IP_A);
        Self { node, frames: case.frames(), slots: Slots::new(), now: Instant::now() }
    }
}

impl Work for Egress {
    fn prepare(&mut self) {
        self.slots.recycle();
    }

    fn work(&mut self) {
        for frame in &self.frames {
            self.node.egress(self.now, frame, &mut self.slots);
        }
        self.node.flush_egress(&mut self.slots);
    }

    fn verify(&self) {
        assert_no_drops(&self.node);
    }
}

/// What egress sent becomes frames for the other end's tap.
pub(crate) struct Ingress {
    peer: Egress,
    node: Node,
    slots: Slots,
    source: Source,
}

impl Ingress {
    pub(crate) fn new(case: Case, cipher: Cipher) -> Self {
        let node = node(case, cipher, MAC_B, MAC_A, IP_B);
        let source =
            Source { remote: ([127, 0, 0, 1], 1).into(), local: ([127, 0, 0, 1], 2).into() };
        Self { peer: Egress::new(case, cipher), node, slots: Slots::new(), source }
    }
}

impl Work for Ingress {
    fn prepare(&mut self) {
        self.peer.prepare();
        self.peer.work();
    }

    fn work(&mut self) {
        for (slot, run) in &self.peer.slots.sent {
            let buffer = &slot[..run.len];
            self.node.ingress(
                self.peer.now,
                buffer,
                run.segment_size,
                self.source,
                &mut self.slots,
            );
        }
        self.node.flush_ingress(self.peer.now, &mut self.slots);
    }

    fn verify(&self) {
        self.peer.verify();
        assert_no_drops(&self.node);
        let bytes = |node: &Node, total| node.counters().total(total);
        let sent = bytes(&self.peer.node, Total::TapBytesIn);
        assert!(bytes(&self.node, Total::TapBytesOut) > sent / 2, "frames arrive");
    }
}

/// A frame finds its link among many, and ends there.
pub(crate) struct Route {
    node: Node,
    frames: Vec<Vec<u8>>,
    slots: Slots,
    now: Instant,
    rounds: u64,
}

impl Route {
    pub(crate) fn new(case: Case, cipher: Cipher) -> Self {
        let mut node = Node::new(Config::new(MAC_A, case.mtu()), &[IP_A.into()]);
        let mac = |number: u8| [2, number.wrapping_mul(37), 9, 0, 0, number];
        for number in 0..LINKS {
            node.install_link(link(number, mac(number), cipher, None));
            node.add_route(Ipv4Addr::new(10, 77, 1, number).into(), 32, mac(number));
        }
        let len = case.payload_len() as u16;
        // Every frame goes to another peer, in no order.
        let order = (0..case.packets()).map(|at| (at * 27 % usize::from(LINKS)) as u8);
        let frames = order.map(|number| udp_frame(mac(number), len)).collect();
        Self { node, frames, slots: Slots::new(), now: Instant::now(), rounds: 0 }
    }
}

impl Work for Route {
    fn prepare(&mut self) {
        self.rounds += 1;
    }

    fn work(&mut self) {
        for frame in &self.frames {
            self.node.egress(self.now, frame, &mut self.slots);
        }
    }

    fn verify(&self) {
        let expected = self.rounds * self.frames.len() as u64;
        assert_eq!(self.node.counters().drops_by(Drop::LinkNotUp), expected);
    }
}
