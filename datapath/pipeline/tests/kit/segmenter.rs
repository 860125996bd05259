//! What a kernel does with a frame from a tap, written from its behaviour and not from ours: the
//! rules of acceptance, segmentation, and completion of checksums. It parses with indices alone.

use ipop_wire::vnet::{CsumState, GsoType};

use super::Written;

/// Panics when a kernel would refuse the frame (`virtio_net_hdr_to_skb` and its callers).
pub fn assert_kernel_takes(written: &Written) {
    let Written { vnet, frame } = written;
    assert!(frame.len() >= 14, "shorter than an Ethernet header");
    assert!(usize::from(vnet.header_len) <= frame.len(), "header length beyond the frame");
    if let CsumState::Needed(csum) = vnet.csum {
        let end = usize::from(csum.start) + usize::from(csum.offset) + 2;
        assert!(end <= frame.len(), "checksum beyond the frame");
    }
    if vnet.gso_type == GsoType::None {
        return;
    }
    assert!(vnet.gso_size > 0, "no segment size");
    assert!(matches!(vnet.csum, CsumState::Needed(_)), "a super-segment without a checksum start");
    let at = offsets(frame);
    let is_reduced = at.is_tcp && frame[at.transport + 13] & 0x80 != 0;
    assert!(is_reduced || !vnet.has_ecn, "ECN without the flag");
    let payload_len = frame.len() - at.payload;
    assert!(payload_len > usize::from(vnet.gso_size), "a super-segment of one segment");
    if vnet.gso_type == GsoType::Udp {
        assert!(payload_len <= usize::from(vnet.gso_size) * 64, "too many datagrams");
    }
}

struct Offsets {
    network: usize,
    transport: usize,
    payload: usize,
    is_v6: bool,
    is_tcp: bool,
}

impl Offsets {
    /// Of IPv4 only, where nothing else stands in front of the transport header.
    fn ipv4_header<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        &frame[self.network..self.transport]
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn offsets(frame: &[u8]) -> Offsets {
    let mut network = 14;
    while matches!(u16_at(frame, network - 2), 0x8100 | 0x88a8) {
        network += 4;
    }
    let is_v6 = frame[network] >> 4 == 6;
    let (mut protocol, mut transport) = if is_v6 {
        (frame[network + 6], network + 40)
    } else {
        (frame[network + 9], network + usize::from(frame[network] & 15) * 4)
    };
    while is_v6 && matches!(protocol, 0 | 60) {
        (protocol, transport) =
            (frame[transport], transport + 8 + usize::from(frame[transport + 1]) * 8);
    }
    let is_tcp = protocol == 6;
    assert!(is_tcp || protocol == 17);
    let transport_len = if is_tcp { usize::from(frame[transport + 12] >> 4) * 4 } else { 8 };
    Offsets { network, transport, payload: transport + transport_len, is_v6, is_tcp }
}

pub fn headers_len(frame: &[u8]) -> usize {
    offsets(frame).payload
}

pub fn word_sum(bytes: &[u8]) -> u32 {
    let mut sum = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

pub fn folded(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The full sum over pseudo header and transport of a finished packet; 0xffff when it is right.
fn transport_sum(frame: &[u8]) -> u16 {
    let at = offsets(frame);
    let addresses =
        if at.is_v6 { at.network + 8..at.network + 40 } else { at.network + 12..at.network + 20 };
    let len = frame.len() - at.transport;
    let pseudo = word_sum(&frame[addresses]) + len as u32 + if at.is_tcp { 6 } else { 17 };
    folded(pseudo + word_sum(&frame[at.transport..]))
}

/// Panics unless every length and checksum of a finished packet is right.
pub fn assert_correct(frame: &[u8]) {
    let at = offsets(frame);
    if at.is_v6 {
        assert_eq!(usize::from(u16_at(frame, at.network + 4)), frame.len() - at.network - 40);
    } else {
        assert_eq!(usize::from(u16_at(frame, at.network + 2)), frame.len() - at.network);
        assert_eq!(folded(word_sum(at.ipv4_header(frame))), 0xffff, "IPv4 header");
    }
    if !at.is_tcp {
        assert_eq!(usize::from(u16_at(frame, at.transport + 4)), frame.len() - at.transport);
    }
    assert_eq!(transport_sum(frame), 0xffff, "transport checksum");
}

/// Cuts a frame as a kernel would before it hands the packets on: numbered, flagged, with complete
/// checksums, each verified.
pub fn segment(written: &Written) -> Vec<Vec<u8>> {
    let frame = &written.frame;
    let CsumState::Needed(csum) = written.vnet.csum else { return vec![frame.clone()] };
    let at = offsets(frame);
    assert_eq!(usize::from(csum.start), at.transport);
    let field = at.transport + usize::from(csum.offset);
    let payload = &frame[at.payload..];
    let size = match written.vnet.gso_type {
        GsoType::None => payload.len().max(1),
        _ => usize::from(written.vnet.gso_size),
    };
    let count = payload.len().div_ceil(size).max(1);
    let mut segments = Vec::new();
    for number in 0..count {
        let start = number * size;
        let piece = &payload[start..(start + size).min(payload.len())];
        let mut packet = [&frame[..at.payload], piece].concat();
        let (ip_len, len) = (packet.len() - at.network, packet.len() - at.transport);
        if at.is_v6 {
            put_u16(&mut packet, at.network + 4, (ip_len - 40) as u16);
        } else {
            put_u16(&mut packet, at.network + 2, ip_len as u16);
            let id = u16_at(frame, at.network + 4).wrapping_add(number as u16);
            put_u16(&mut packet, at.network + 4, id);
            put_u16(&mut packet, at.network + 10, 0);
            let sum = !folded(word_sum(at.ipv4_header(&packet)));
            put_u16(&mut packet, at.network + 10, sum);
        }
        if at.is_tcp {
            let sequence = u32::from_be_bytes(frame[at.transport + 4..][..4].try_into().unwrap());
            let sequence = sequence.wrapping_add(start as u32).to_be_bytes();
            packet[at.transport + 4..][..4].copy_from_slice(&sequence);
            if number > 0 {
                packet[at.transport + 13] &= !0x80;
            }
            if number + 1 < count {
                packet[at.transport + 13] &= !0x09;
            }
        } else {
            put_u16(&mut packet, at.transport + 4, len as u16);
        }
        // The field held the sum of the pseudo header for the whole: take its length out, put the
        // packet's in, add the rest. If the field was wrong, so is the result.
        let old_len = (frame.len() - at.transport) as u16;
        let pseudo = u32::from(u16_at(frame, field)) + u32::from(!old_len) + len as u32;
        put_u16(&mut packet, field, 0);
        let sum = !folded((pseudo & 0xffff) + (pseudo >> 16) + word_sum(&packet[at.transport..]));
        put_u16(&mut packet, field, sum);
        assert_correct(&packet);
        segments.push(packet);
    }
    segments
}

/// Sets to zero what may differ between equal packets: the identification of one that cannot be
/// fragmented, and the header checksum with it.
pub fn without_meaningless_id(mut frame: Vec<u8>) -> Vec<u8> {
    let at = offsets(&frame);
    if !at.is_v6 && u16_at(&frame, at.network + 6) == 0x4000 {
        put_u16(&mut frame, at.network + 4, 0);
        put_u16(&mut frame, at.network + 10, 0);
    }
    frame
}
