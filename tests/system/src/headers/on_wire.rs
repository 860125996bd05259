//! A super-segment as the packets that it stands for, with all checksums completed.

use ipop_lab::RawFrame;

const NEEDS_CSUM: u8 = 1;
const GSO_ECN: u8 = 0x80;
const GSO_UDP: u8 = 5;

const FIN: u8 = 1;
const PSH: u8 = 8;
const CWR: u8 = 0x80;

/// The packets of a frame as they cross a wire. The rules are those by which the kernel itself
/// segments (`tcp_gso_segment`, `__udp_gso_segment`, `inet_gso_segment`).
pub fn on_wire(frame: &RawFrame) -> Vec<Vec<u8>> {
    let word = |at: usize| usize::from(u16::from_ne_bytes([frame.vnet[at], frame.vnet[at + 1]]));
    let (gso_size, sum_start, sum_offset) = (word(4), word(6), word(8));
    let gso_type = frame.vnet[1] & !GSO_ECN;
    let mut packet = frame.bytes.clone();
    if gso_type == 0 {
        if frame.vnet[0] & NEEDS_CSUM != 0 {
            let is_udp = sum_offset == 6;
            complete(&mut packet, sum_start, sum_start + sum_offset, is_udp);
        }
        return vec![packet];
    }
    let is_udp = gso_type == GSO_UDP;
    let header_len =
        sum_start + if is_udp { 8 } else { usize::from(packet[sum_start + 12] >> 4) * 4 };
    let (headers, payload) = packet.split_at(header_len);
    let count = payload.len().div_ceil(gso_size);
    let segments = payload.chunks(gso_size).enumerate();
    let segment = |(number, part): (usize, &[u8])| {
        let mut packet = [headers, part].concat();
        let old_len = (frame.bytes.len() - sum_start) as u16;
        set_lengths(&mut packet, number as u16);
        if is_udp {
            let length = (packet.len() - sum_start) as u16;
            put(&mut packet, sum_start + 4, length);
        } else {
            set_tcp(&mut packet[sum_start..], number * gso_size, number == 0, number + 1 == count);
        }
        // The sum of the pseudo header has the length of the whole in it.
        let new_len = (packet.len() - sum_start) as u16;
        let at = sum_start + sum_offset;
        let seed = fold(u32::from(get(&packet, at)) + u32::from(!old_len) + u32::from(new_len));
        put(&mut packet, at, seed);
        complete(&mut packet, sum_start, at, is_udp);
        packet
    };
    segments.map(segment).collect()
}

/// Makes the IP header true of the packet, which is one of several: the kernel numbers them.
fn set_lengths(packet: &mut [u8], number: u16) {
    let start = network_start(packet);
    let len = packet.len() - start;
    if packet[start] >> 4 == 6 {
        put(packet, start + 4, (len - 40) as u16);
        return;
    }
    put(packet, start + 2, len as u16);
    let id = get(packet, start + 4).wrapping_add(number);
    put(packet, start + 4, id);
    put(packet, start + 10, 0);
    let header_len = usize::from(packet[start] & 15) * 4;
    let sum = !sum(&packet[start..start + header_len]);
    put(packet, start + 10, sum);
}

fn set_tcp(header: &mut [u8], offset: usize, is_first: bool, is_last: bool) {
    let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    header[4..8].copy_from_slice(&sequence.wrapping_add(offset as u32).to_be_bytes());
    if !is_last {
        header[13] &= !(FIN | PSH);
    }
    if !is_first {
        header[13] &= !CWR;
    }
}

/// Completes the checksum at `at`, which holds the pseudo header's sum.
fn complete(packet: &mut [u8], start: usize, at: usize, is_udp: bool) {
    let mut sum = !sum(&packet[start..]);
    if is_udp && sum == 0 {
        sum = 0xffff;
    }
    put(packet, at, sum);
}

/// Where the packet begins behind its Ethernet header and VLAN tags.
pub(super) fn network_start(packet: &[u8]) -> usize {
    let mut start = 14;
    while matches!(packet.get(start - 2..start), Some([0x81, 0] | [0x88, 0xa8])) {
        start += 4;
    }
    start
}

/// The one's complement sum of 16-bit words (RFC 1071), not complemented.
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    fold(words.sum())
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of a pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1): both have the same
/// words.
pub(super) fn pseudo_sum(addresses: &[u8], protocol: u8, len: usize) -> u16 {
    let len = len as u32;
    fold(u32::from(sum(addresses)) + u32::from(protocol) + (len >> 16) + (len & 0xffff))
}

pub(super) fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::super::craft::{V4, ethernet, tcp, transport_frame};
    use super::*;

    /// One's complement sum of pseudo header and segment: all ones when the checksum is right.
    fn is_right(packet: &[u8]) -> bool {
        let segment = &packet[34..];
        let pseudo = pseudo_sum(&packet[26..34], 6, segment.len());
        fold(u32::from(pseudo) + u32::from(sum(segment))) == 0xffff
    }

    #[test]
    fn segments_have_headers_of_their_own() {
        let header = tcp(0xffff_ffff, u16::from(FIN | PSH | CWR | 0x10), &[]);
        let ip = V4 { protocol: 6, id: 0xffff, ..V4::default() };
        let frame = transport_frame(&ethernet(0x0800), &ip.header(20 + 25), header, &[7; 25], 10);
        let packets = on_wire(&frame);
        let flags: Vec<_> = packets.iter().map(|packet| packet[47]).collect();
        assert_eq!(flags, [0x90, 0x10, 0x19]);
        let numbers: Vec<_> = packets.iter().map(|packet| get(packet, 18)).collect();
        assert_eq!(numbers, [0xffff, 0, 1]);
        let sequences: Vec<_> = packets.iter().map(|packet| packet[41]).collect();
        assert_eq!(sequences, [255, 9, 19]);
        let lengths: Vec<_> = packets.iter().map(|packet| get(packet, 16)).collect();
        assert_eq!(lengths, [50, 50, 45]);
        for packet in &packets {
            assert!(sum(&packet[14..34]) == 0xffff && is_right(packet));
        }
    }
}
