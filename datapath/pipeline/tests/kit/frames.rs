//! Frames as a host gives them to a tap.

use ipop_wire::checksum::{pseudo_v4, pseudo_v6};
use ipop_wire::ethernet::{EthernetRepr, IPV4, IPV6};
use ipop_wire::ipv4::Ipv4Repr;
use ipop_wire::ipv6::Ipv6Repr;
use ipop_wire::tcp::{TCP, TcpRepr};
use ipop_wire::udp::{UDP, UdpRepr};
use ipop_wire::vnet::{Csum, CsumState, GsoType};
use ipop_wire::{VirtioNetHeader, tcp};

use super::{IP_A, IP_B, IP6_A, IP6_B, MAC_A, MAC_B, Written, segmenter};

/// Hop-by-hop or destination options, which are padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// 0 or 60.
    pub protocol: u8,
    /// Words of 8 bytes behind the first.
    pub words: u8,
}

/// What a TCP or UDP frame from A to B is made of.
#[derive(Clone, Debug)]
pub struct Shape {
    pub is_v6: bool,
    pub is_tcp: bool,
    pub vlan: Option<u16>,
    /// A service tag (802.1ad) in front of the other.
    pub service_vlan: Option<u16>,
    /// Words of options behind the IPv4 header.
    pub ip_option_words: usize,
    pub option_words: usize,
    /// Byte that TCP options consist of.
    pub option: u8,
    pub window: u16,
    /// Differentiated services and ECN.
    pub tos: u8,
    /// Extension headers in front of the transport header (IPv6).
    pub extensions: Vec<Extension>,
    pub flags: u8,
    pub sequence: u32,
    pub id: u16,
    pub dont_fragment: bool,
    pub payload_len: usize,
    pub fill: u8,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            is_v6: false,
            is_tcp: true,
            vlan: None,
            service_vlan: None,
            ip_option_words: 0,
            option_words: 3,
            option: 1,
            window: 512,
            tos: 2,
            extensions: Vec::new(),
            flags: tcp::ACK,
            sequence: 0xffff_f000,
            id: 0xfff0,
            dont_fragment: true,
            payload_len: 100,
            fill: 1,
        }
    }
}

impl Shape {
    pub fn udp(payload_len: usize, fill: u8) -> Shape {
        Shape { is_tcp: false, payload_len, fill, ..Shape::default() }
    }

    pub fn payload(&self) -> Vec<u8> {
        let fill = usize::from(self.fill);
        (0..self.payload_len).map(|at| (at / 3 + at * fill + fill) as u8).collect()
    }

    fn ethernet(&self) -> EthernetRepr {
        let ethertype = if self.is_v6 { IPV6 } else { IPV4 };
        EthernetRepr { destination: MAC_B, source: MAC_A, vlan: self.vlan, ethertype }
    }

    fn protocol(&self) -> u8 {
        if self.is_tcp { TCP } else { UDP }
    }

    /// What follows the fixed IP header in front of the transport header.
    fn behind_ip(&self) -> Vec<u8> {
        if !self.is_v6 {
            return vec![1; self.ip_option_words * 4];
        }
        let mut bytes = Vec::new();
        for (number, extension) in self.extensions.iter().enumerate() {
            let next = self.extensions.get(number + 1);
            let next = next.map_or(self.protocol(), |next| next.protocol);
            // PadN over all the rest.
            let padding = extension.words * 8 + 4;
            bytes.extend([next, extension.words, 1, padding]);
            bytes.resize(bytes.len() + usize::from(padding), 0);
        }
        bytes
    }

    /// Bytes that the length field of the IP header counts besides the payload.
    fn counted_headers(&self) -> usize {
        let transport = if self.is_tcp { 20 + self.option_words * 4 } else { 8 };
        self.behind_ip().len() + transport + if self.is_v6 { 0 } else { 20 }
    }

    /// The longest payload that the length field can say.
    pub fn payload_len_max(&self) -> usize {
        usize::from(u16::MAX) - self.counted_headers()
    }

    fn transport(&self) -> Vec<u8> {
        let header_len = if self.is_tcp { 20 + self.option_words * 4 } else { 8 };
        let len = header_len + self.payload_len;
        let protocol = self.protocol();
        let checksum = if self.is_v6 {
            pseudo_v6(&IP6_A, &IP6_B, protocol, len as u32)
        } else {
            pseudo_v4(IP_A, IP_B, protocol, len as u16)
        };
        let payload_len = self.payload_len as u16;
        if !self.is_tcp {
            return UdpRepr { source: 7, destination: 9, payload_len, checksum }.emit().to_vec();
        }
        let options = vec![self.option; self.option_words * 4];
        let header = TcpRepr {
            source: 5201,
            destination: 40000,
            sequence: self.sequence,
            acknowledgement: 77,
            flags: self.flags,
            window: self.window,
            checksum,
            urgent: 0,
            options: &options,
        };
        let mut bytes = vec![0; header_len];
        header.emit(&mut bytes);
        bytes
    }

    /// Headers, up to the payload, with the checksum still to be completed; and where it is.
    fn headers(&self) -> (Vec<u8>, Csum) {
        let mut bytes = vec![0; self.ethernet().header_len()];
        self.ethernet().emit(&mut bytes);
        if let Some(tag) = self.service_vlan {
            let [high, low] = tag.to_be_bytes();
            bytes.splice(12..12, [0x88, 0xa8, high, low]);
        }
        let (behind_ip, transport) = (self.behind_ip(), self.transport());
        let payload_len = (behind_ip.len() + transport.len() + self.payload_len) as u16;
        if self.is_v6 {
            let ip = Ipv6Repr {
                source: IP6_A,
                destination: IP6_B,
                next_header: self.extensions.first().map_or(self.protocol(), |e| e.protocol),
                traffic_class: self.tos,
                flow_label: 0x12345,
                hop_limit: 64,
                payload_len,
            };
            bytes.extend(ip.emit());
            bytes.extend(behind_ip);
        } else {
            let ip = Ipv4Repr {
                source: IP_A,
                destination: IP_B,
                protocol: self.protocol(),
                tos: self.tos,
                ttl: 64,
                id: self.id,
                dont_fragment: self.dont_fragment,
                payload_len,
            };
            let start = bytes.len();
            bytes.extend(ip.emit());
            bytes.extend(behind_ip);
            set_ipv4_header_len(&mut bytes[start..]);
        }
        let start = bytes.len() as u16;
        bytes.extend(transport);
        (bytes, Csum { start, offset: if self.is_tcp { 16 } else { 6 } })
    }

    /// A lone frame.
    pub fn frame(&self) -> Written {
        let (mut frame, csum) = self.headers();
        let header_len = frame.len() as u16;
        frame.extend(self.payload());
        let csum = CsumState::Needed(csum);
        Written { vnet: VirtioNetHeader { csum, header_len, ..Default::default() }, frame }
    }

    /// A super-segment.
    pub fn super_segment(&self, gso_size: u16, has_ecn: bool) -> Written {
        let mut written = self.frame();
        written.vnet.gso_type = match (self.is_tcp, self.is_v6) {
            (false, _) => GsoType::Udp,
            (true, false) => GsoType::Tcp4,
            (true, true) => GsoType::Tcp6,
        };
        written.vnet.has_ecn = has_ecn;
        written.vnet.gso_size = gso_size;
        written
    }
}

/// Makes an IPv4 header, options included, as long as it is.
fn set_ipv4_header_len(header: &mut [u8]) {
    header[0] = 0x40 | (header.len() / 4) as u8;
    header[10..12].fill(0);
    let sum = segmenter::word_sum(header);
    header[10..12].copy_from_slice(&(!segmenter::folded(sum)).to_be_bytes());
}
