//! Two machines, joined by a plain cable or by the overlay.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use ipop_lab::{
    Impairment, Internet, InternetConfig, Namespace, Nat, PacketSocket, RawFrame, Site, Wire,
};
use ipop_system_tests::headers::on_wire;
use ipop_system_tests::{Hub, Node};

/// MTU of the overlay, and of the plain cables, bytes.
pub const MTU: u16 = 1400;

/// How long a frame may take; longer only when something is wrong.
const PATIENCE: Duration = Duration::from_secs(2);
/// What every queue on the way has room for, bytes.
const BURST_BYTES: usize = 128 << 10;
/// How long to listen for what should not come.
const QUIET: Duration = Duration::from_millis(100);

/// One end.
#[derive(Clone, Debug)]
pub struct End {
    pub namespace: PathBuf,
    pub interface: &'static str,
    pub mac: [u8; 6],
    pub v4: IpAddr,
    pub v6: IpAddr,
}

/// Two ends; frames cross from the first to the second.
#[derive(Clone, Debug)]
pub struct Link {
    pub ends: [End; 2],
}

/// Two machines on a cable; a veth pair, or a wire that loses frames.
pub struct Plain {
    ends: [End; 2],
    _wire: Option<Wire>,
    _machines: [Namespace; 2],
}

/// Two linked nodes.
pub struct Overlay {
    ends: [End; 2],
    _nodes: [Node; 2],
    _hub: Hub,
    _sites: [Site; 2],
    _internet: Internet,
}

impl Link {
    /// The other way.
    pub fn turned(&self, turns: bool) -> Self {
        let [a, b] = self.ends.clone();
        Self { ends: if turns { [b, a] } else { [a, b] } }
    }

    /// Sends frames, so many at once or fewer where they are long, and returns the packets that
    /// came.
    pub fn cross(&self, frames: &[RawFrame], burst: usize) -> Vec<Vec<u8>> {
        let [from, to] = self.ends.each_ref();
        let sender = PacketSocket::open(&from.namespace, from.interface).unwrap();
        let mut receiver = PacketSocket::open(&to.namespace, to.interface).unwrap();
        let mut packets = Vec::new();
        let mut expected = 0;
        let (mut count, mut bytes) = (0, 0);
        for frame in frames {
            if count == burst || bytes > BURST_BYTES {
                while packets.len() < expected && receive(&mut receiver, PATIENCE, &mut packets) {}
                (count, bytes) = (0, 0);
            }
            let addressed = self.addressed(frame);
            sender.send(&addressed).unwrap_or_else(|error| panic!("{error}: {addressed:?}"));
            (count, bytes) = (count + 1, bytes + frame.bytes.len());
            expected += on_wire(frame).len();
        }
        while packets.len() < expected && receive(&mut receiver, PATIENCE, &mut packets) {}
        while receive(&mut receiver, QUIET, &mut packets) {}
        packets
    }

    /// The frame with the hardware addresses of this link; groups stay.
    fn addressed(&self, frame: &RawFrame) -> RawFrame {
        let mut frame = frame.clone();
        if frame.bytes[0] & 1 == 0 {
            frame.bytes[..6].copy_from_slice(&self.ends[1].mac);
        }
        frame.bytes[6..12].copy_from_slice(&self.ends[0].mac);
        frame
    }
}

fn receive(socket: &mut PacketSocket, patience: Duration, packets: &mut Vec<Vec<u8>>) -> bool {
    let Some(frame) = socket.next(false, patience).unwrap() else { return false };
    if !is_background(&frame) {
        packets.extend(on_wire(&frame));
    }
    true
}

/// What hosts say on each link for themselves: ARP, neighbour discovery, group membership.
pub fn is_background(frame: &RawFrame) -> bool {
    const HOP_BY_HOP: u8 = 0;
    const ICMPV6: u8 = 58;
    let bytes = &frame.bytes;
    let kind = match bytes.get(12..14) {
        Some([0x08, 0x06]) => return true,
        Some([0x86, 0xdd]) if bytes.len() > 62 => match (bytes[20], bytes[54]) {
            (ICMPV6, kind) => kind,
            (HOP_BY_HOP, ICMPV6) => bytes[62],
            _ => return false,
        },
        _ => return false,
    };
    matches!(kind, 130..=137 | 143)
}

impl Plain {
    pub fn new(cable: Option<Impairment>) -> Self {
        let machines = ["plain1", "plain2"].map(|label| Namespace::create(label).unwrap());
        let [a, b] = &machines;
        let wire = cable.map(|cable| Wire::join((a, "cable"), (b, "cable"), cable).unwrap());
        if wire.is_none() {
            let peer = format!("peer name cable netns {}", b.name());
            a.ip(&format!("link add cable type veth {peer}")).unwrap();
        }
        let ends = [(a, 1), (b, 2)].map(|(machine, number)| {
            machine.ip(&format!("address add 192.0.2.{number}/24 dev cable")).unwrap();
            machine.ip(&format!("address add 2001:db8::{number}/64 dev cable nodad")).unwrap();
            machine.ip(&format!("link set cable mtu {MTU} up")).unwrap();
            End {
                namespace: machine.path(),
                interface: "cable",
                mac: machine.mac("cable").unwrap(),
                v4: Ipv4Addr::new(192, 0, 2, number).into(),
                v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
            }
        });
        Self { ends, _wire: wire, _machines: machines }
    }

    pub fn link(&self) -> Link {
        Link { ends: self.ends.clone() }
    }
}

impl Overlay {
    /// `further` are words for `ipop up`; the first node's underlay has the cable.
    pub fn new(further: &str, cable: Impairment) -> Self {
        let mut internet = Internet::build(InternetConfig::default()).unwrap();
        let hub = Hub::new(internet.hub(), internet.hub_address());
        let cables = [cable, Impairment::default()];
        let sites = cables.map(|cable| internet.add_site(Nat::None, cable).unwrap());
        let mtu = if further.contains("--mtu") { String::new() } else { format!("--mtu {MTU}") };
        let words = format!("--interface ipop0 {mtu} {further}");
        let nodes = sites.each_ref().map(|site| Node::join_with(&site.node, &hub.ticket(), &words));
        for node in &nodes {
            node.wait_for(1, 30);
        }
        let [a, b] = [0, 1].map(|number| End {
            namespace: nodes[number].namespace(),
            interface: "ipop0",
            mac: sites[number].node.mac("ipop0").unwrap(),
            v4: nodes[number].v4(),
            v6: nodes[number].v6(),
        });
        let ends = [a, b];
        Self { ends, _nodes: nodes, _hub: hub, _sites: sites, _internet: internet }
    }

    pub fn link(&self) -> Link {
        Link { ends: self.ends.clone() }
    }
}
