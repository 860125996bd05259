//! Frames made by hand, for headers that no host would send by itself.

use ipop_lab::{RawFrame, VNET_LEN};

use super::on_wire::{network_start, pseudo_sum, put, sum};

/// An IPv4 header.
#[derive(Clone, Debug)]
pub struct V4 {
    /// Differentiated services and ECN.
    pub tos: u8,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// Of the payload.
    pub protocol: u8,
    /// Options, a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// Sender and receiver.
    pub addresses: [[u8; 4]; 2],
}

impl Default for V4 {
    fn default() -> Self {
        Self {
            tos: 0,
            id: 1,
            fragment: 0x4000,
            ttl: 64,
            protocol: 253,
            options: Vec::new(),
            addresses: [[192, 0, 2, 1], [192, 0, 2, 2]],
        }
    }
}

impl V4 {
    /// The header of a packet with so many bytes behind it.
    pub fn header(&self, payload_len: usize) -> Vec<u8> {
        let header_len = 20 + self.options.len();
        let mut header = vec![0x40 | (header_len / 4) as u8, self.tos];
        for word in [(header_len + payload_len) as u16, self.id, self.fragment] {
            header.extend(word.to_be_bytes());
        }
        header.extend([self.ttl, self.protocol, 0, 0]);
        header.extend(self.addresses.concat());
        header.extend(&self.options);
        let sum = !sum(&header);
        put(&mut header, 10, sum);
        header
    }
}

/// An IPv6 header with what extends it.
#[derive(Clone, Debug)]
pub struct V6 {
    /// Traffic class.
    pub class: u8,
    /// Flow label.
    pub flow: u32,
    /// Hop limit.
    pub hops: u8,
    /// Type and content of each extension header, without its first byte; a multiple of 8 bytes
    /// with it.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Of the payload.
    pub protocol: u8,
    /// Sender and receiver.
    pub addresses: [[u8; 16]; 2],
}

impl Default for V6 {
    fn default() -> Self {
        let address = |last| [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
        Self {
            class: 0,
            flow: 0,
            hops: 64,
            extensions: Vec::new(),
            protocol: 253,
            addresses: [address(1), address(2)],
        }
    }
}

impl V6 {
    /// All headers of a packet with so many bytes behind them.
    pub fn header(&self, payload_len: usize) -> Vec<u8> {
        let first = (6 << 28) | (u32::from(self.class) << 20) | self.flow;
        let kinds = self.extensions.iter().map(|(kind, _)| *kind).chain([self.protocol]);
        let mut kinds = kinds.collect::<Vec<_>>().into_iter();
        let mut behind = Vec::new();
        let mut header = first.to_be_bytes().to_vec();
        let own = kinds.next().unwrap_or_default();
        for ((_, content), next) in self.extensions.iter().zip(kinds) {
            behind.push(next);
            behind.extend(content);
        }
        header.extend(((behind.len() + payload_len) as u16).to_be_bytes());
        header.extend([own, self.hops]);
        header.extend(self.addresses.concat());
        header.extend(behind);
        header
    }
}

/// An Ethernet header; addresses are put in when it is sent.
pub fn ethernet(ethertype: u16) -> Vec<u8> {
    let mut header = vec![0; 12];
    header.extend(ethertype.to_be_bytes());
    header
}

/// A TCP header with its options, a multiple of 4 bytes; no checksum yet.
pub fn tcp(sequence: u32, flags: u16, options: &[u8]) -> Vec<u8> {
    let mut header = [5001_u16.to_be_bytes(), 80_u16.to_be_bytes()].concat();
    header.extend(sequence.to_be_bytes());
    header.extend(0x1234_5678_u32.to_be_bytes());
    let len = (20 + options.len()) as u16;
    header.extend(((len / 4) << 12 | flags).to_be_bytes());
    header.extend([0x10, 0x20, 0, 0, 0, 0]);
    header.extend(options);
    header
}

/// A UDP header for so many bytes of payload; no checksum yet.
pub fn udp(payload_len: usize) -> Vec<u8> {
    let mut header = [5001_u16.to_be_bytes(), 53_u16.to_be_bytes()].concat();
    header.extend(((8 + payload_len) as u16).to_be_bytes());
    header.extend([0, 0]);
    header
}

/// A TCP or UDP frame whose checksum is left to the card, and which is a super-segment where its
/// payload is longer than `gso_size`, which is not 0.
pub fn transport_frame(
    link: &[u8],
    network: &[u8],
    mut transport: Vec<u8>,
    payload: &[u8],
    gso_size: usize,
) -> RawFrame {
    let is_v6 = network[0] >> 4 == 6;
    let is_udp = transport.len() == 8;
    let (protocol, offset) = if is_udp { (17, 6) } else { (6, 16) };
    let addresses = if is_v6 { &network[8..40] } else { &network[12..20] };
    let seed = pseudo_sum(addresses, protocol, transport.len() + payload.len());
    put(&mut transport, offset, seed);
    let start = link.len() + network.len();
    let mut vnet = [0; VNET_LEN];
    vnet[0] = 1;
    let words = [start + transport.len(), 0, start, offset];
    for (place, word) in vnet[2..].chunks_exact_mut(2).zip(words) {
        place.copy_from_slice(&(word as u16).to_ne_bytes());
    }
    if payload.len() > gso_size {
        let has_cwr = !is_udp && transport[13] & 0x80 != 0;
        let kind = if is_udp {
            5
        } else if is_v6 {
            4
        } else {
            1
        };
        vnet[1] = kind | if has_cwr { 0x80 } else { 0 };
        vnet[4..6].copy_from_slice(&(gso_size as u16).to_ne_bytes());
    }
    let bytes = [link, network, &transport, payload].concat();
    debug_assert_eq!(network_start(&bytes), link.len());
    RawFrame { vnet, bytes }
}
