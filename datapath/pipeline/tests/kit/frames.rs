//! Frames as a host gives them to a tap.

use ipop_wire::checksum::{pseudo_v4, pseudo_v6};
use ipop_wire::ethernet::{EthernetRepr, IPV4, IPV6};
use ipop_wire::ipv4::Ipv4Repr;
use ipop_wire::ipv6::Ipv6Repr;
use ipop_wire::tcp::{TCP, TcpRepr};
use ipop_wire::udp::{UDP, UdpRepr};
use ipop_wire::vnet::{Csum, CsumState, GsoType};
use ipop_wire::{VirtioNetHeader, tcp};
use proptest::prelude::*;

use super::{IP_A, IP_B, IP6_A, IP6_B, MAC_A, MAC_B, Written};

/// What a TCP or UDP frame from A to B is made of.
#[derive(Clone, Debug)]
pub struct Shape {
    pub is_v6: bool,
    pub is_tcp: bool,
    pub vlan: Option<u16>,
    pub option_words: usize,
    /// Byte that TCP options consist of.
    pub option: u8,
    pub window: u16,
    /// Differentiated services and ECN.
    pub tos: u8,
    /// Destination options in front of the transport header (IPv6).
    pub has_extension: bool,
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
            option_words: 3,
            option: 1,
            window: 512,
            tos: 2,
            has_extension: false,
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

    fn extension(&self) -> Vec<u8> {
        let protocol = if self.is_tcp { TCP } else { UDP };
        if self.is_v6 && self.has_extension {
            vec![protocol, 0, 1, 4, 0, 0, 0, 0]
        } else {
            Vec::new()
        }
    }

    fn transport(&self) -> Vec<u8> {
        let header_len = if self.is_tcp { 20 + self.option_words * 4 } else { 8 };
        let len = header_len + self.payload_len;
        let protocol = if self.is_tcp { TCP } else { UDP };
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
        let (extension, transport) = (self.extension(), self.transport());
        let payload_len = (extension.len() + transport.len() + self.payload_len) as u16;
        let protocol = if self.is_tcp { TCP } else { UDP };
        if self.is_v6 {
            let next_header = if extension.is_empty() { protocol } else { 60 };
            let ip = Ipv6Repr {
                source: IP6_A,
                destination: IP6_B,
                next_header,
                traffic_class: self.tos,
                flow_label: 0x12345,
                hop_limit: 64,
                payload_len,
            };
            bytes.extend(ip.emit());
        } else {
            let ip = Ipv4Repr {
                source: IP_A,
                destination: IP_B,
                protocol,
                tos: self.tos,
                ttl: 64,
                id: self.id,
                dont_fragment: self.dont_fragment,
                payload_len,
            };
            bytes.extend(ip.emit());
        }
        bytes.extend(extension);
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

/// A super-segment and its segment size.
pub fn any_super_segment() -> impl Strategy<Value = (Shape, u16, bool)> {
    let flags = prop_oneof![
        Just(tcp::ACK),
        Just(tcp::ACK | tcp::PSH),
        Just(tcp::ACK | tcp::FIN | tcp::PSH),
        Just(tcp::ACK | tcp::CWR | tcp::ECE),
        Just(tcp::ACK | tcp::CWR | tcp::PSH),
    ];
    let kinds = (any::<bool>(), any::<bool>(), proptest::option::of(1..4000u16), any::<bool>());
    let sizes = (200..1600usize, 2..45usize, 1..=1600usize);
    let numbers = (0..=10usize, any::<u32>(), any::<u16>(), any::<bool>(), any::<u8>());
    (kinds, flags, sizes, numbers).prop_map(|(kinds, flags, sizes, numbers)| {
        let (is_v6, is_tcp, vlan, has_extension) = kinds;
        let (gso_size, segments, last) = sizes;
        let (option_words, sequence, id, dont_fragment, fill) = numbers;
        let whole_segments = (segments - 1) * gso_size;
        let payload_len = (whole_segments + last.min(gso_size)).min(65_000);
        let shape = Shape {
            is_v6,
            is_tcp,
            vlan,
            option_words,
            has_extension,
            flags,
            sequence,
            id,
            dont_fragment,
            payload_len,
            fill,
            ..Shape::default()
        };
        (shape, gso_size as u16, is_tcp && flags & tcp::CWR != 0)
    })
}
