//! The traffic that stages are measured with: batches of frames as a tap gives them.

use std::net::Ipv4Addr;

use ipop_wire::VirtioNetHeader;
use ipop_wire::checksum::pseudo_v4;
use ipop_wire::ethernet::{EthernetRepr, IPV4, Mac};
use ipop_wire::ipv4::Ipv4Repr;
use ipop_wire::tcp::{ACK, TCP, TCP_CHECKSUM_OFFSET, TcpRepr};
use ipop_wire::udp::{UDP, UDP_CHECKSUM_OFFSET, UdpRepr};
use ipop_wire::vnet::{Csum, CsumState, GsoType};

pub(crate) const MAC_A: Mac = [2, 0, 0, 0, 0, 1];
pub(crate) const MAC_B: Mac = [2, 0, 0, 0, 0, 2];
pub(crate) const IP_A: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const IP_B: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// Where the transport header begins behind Ethernet and IPv4.
const TRANSPORT_START: u16 = 34;
/// Timestamps, as every Linux host sends them.
const TCP_OPTIONS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];

/// One batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// One UDP datagram of 64 bytes, alone in its batch: what latency is made of.
    Alone,
    /// 64 UDP datagrams of 64 bytes of one flow.
    Small,
    /// 44 TCP frames of 1348 bytes, each alone: forwarded traffic, or a tap without segmentation.
    Frames,
    /// A TCP super-segment of 44 segments of 1348 bytes: an inner MTU of 1400.
    Mss,
    /// A TCP super-segment of 7 segments of 8848 bytes: an inner MTU of 8900.
    Jumbo,
}

impl Case {
    /// All of them.
    pub const ALL: [Case; 5] = [Case::Alone, Case::Small, Case::Frames, Case::Mss, Case::Jumbo];

    /// What tables and the budget file call it.
    pub fn name(self) -> &'static str {
        match self {
            Case::Alone => "1 x 64 B",
            Case::Small => "64 x 64 B",
            Case::Frames => "44 lone 1348 B",
            Case::Mss => "44 x 1348 B",
            Case::Jumbo => "7 x 8848 B",
        }
    }

    /// Packets of a batch, as a network without segmentation would see them.
    pub fn packets(self) -> usize {
        match self {
            Case::Alone => 1,
            Case::Small => 64,
            Case::Frames | Case::Mss => 44,
            Case::Jumbo => 7,
        }
    }

    /// Payload bytes of each packet.
    pub fn payload_len(self) -> usize {
        match self {
            Case::Alone | Case::Small => 64,
            Case::Frames | Case::Mss => 1348,
            Case::Jumbo => 8848,
        }
    }

    /// Largest datagram of the path: an underlay of 1500 bytes, or of 9000.
    pub fn datagram_len(self) -> u16 {
        if self == Case::Jumbo { 8972 } else { 1472 }
    }

    /// The inner MTU.
    pub fn mtu(self) -> u16 {
        if self == Case::Jumbo { 8900 } else { 1400 }
    }

    /// The frames of a batch, each behind its virtio-net header.
    pub fn frames(self) -> Vec<Vec<u8>> {
        let (packets, len) = (self.packets(), self.payload_len() as u16);
        match self {
            Case::Alone | Case::Small => vec![udp_frame(MAC_B, len); packets],
            Case::Frames => {
                let sequence = |number: usize| number as u32 * u32::from(len);
                (0..packets).map(|number| tcp_frame(sequence(number), len, 0)).collect()
            }
            Case::Mss | Case::Jumbo => vec![tcp_frame(1, len * packets as u16, len)],
        }
    }
}

/// A UDP datagram for a peer.
pub(crate) fn udp_frame(destination: Mac, payload_len: u16) -> Vec<u8> {
    let checksum = pseudo_v4(IP_A, IP_B, UDP, 8 + payload_len);
    let udp = UdpRepr { source: 5201, destination: 40000, payload_len, checksum };
    let csum = Csum { start: TRANSPORT_START, offset: UDP_CHECKSUM_OFFSET };
    let vnet = VirtioNetHeader { csum: CsumState::Needed(csum), ..VirtioNetHeader::default() };
    frame(&vnet, destination, UDP, &udp.emit(), payload_len)
}

/// A TCP frame; a super-segment if `gso_size` is not 0.
fn tcp_frame(sequence: u32, payload_len: u16, gso_size: u16) -> Vec<u8> {
    let header_len = 20 + TCP_OPTIONS.len() as u16;
    let tcp = TcpRepr {
        source: 5201,
        destination: 40000,
        sequence,
        acknowledgement: 1,
        flags: ACK,
        window: 512,
        checksum: pseudo_v4(IP_A, IP_B, TCP, header_len + payload_len),
        urgent: 0,
        options: &TCP_OPTIONS,
    };
    let mut header = vec![0; tcp.header_len()];
    tcp.emit(&mut header);
    let csum = Csum { start: TRANSPORT_START, offset: TCP_CHECKSUM_OFFSET };
    let vnet = VirtioNetHeader {
        csum: CsumState::Needed(csum),
        gso_type: if gso_size == 0 { GsoType::None } else { GsoType::Tcp4 },
        has_ecn: false,
        header_len: TRANSPORT_START + header_len,
        gso_size,
    };
    frame(&vnet, MAC_B, TCP, &header, payload_len)
}

fn frame(
    vnet: &VirtioNetHeader,
    destination: Mac,
    protocol: u8,
    transport: &[u8],
    payload_len: u16,
) -> Vec<u8> {
    let ethernet = EthernetRepr { destination, source: MAC_A, vlan: None, ethertype: IPV4 };
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
    let start = frame.len();
    frame.resize(start + ethernet.header_len(), 0);
    ethernet.emit(&mut frame[start..]);
    frame.extend(ip.emit());
    frame.extend(transport);
    frame.extend((0..payload_len).map(|at| at as u8));
    frame
}
