//! A frame on a wire: what a tap with offloads gives and takes, cut into single datagrams so that
//! each may suffer for itself, and joined again.
//!
//! ```text
//! | virtio-net header, 10 bytes | Ethernet 14 | IPv4 or IPv6 | UDP 8 | payload ... |
//!                                              ^ sum_start           one datagram, or several
//! ```

use std::io::{self, IoSlice, Read, Write};

/// Bytes of `struct virtio_net_hdr` (VIRTIO 1.2 section 5.1.6), as a tap has it by default.
const VNET_LEN: usize = 10;
/// The largest frame a tap gives: 64 KiB of packet behind its Ethernet header.
const FRAME_BYTES: usize = 65_536 + ETHERNET_LEN;
const ETHERNET_LEN: usize = 14;
const UDP_LEN: usize = 8;
/// Where a UDP header has its checksum.
const UDP_SUM: u16 = 6;
/// Datagrams that every kernel with UDP segmentation takes as one.
const JOINED_MAX: usize = 64;
/// Bytes of IP packet that joined datagrams stay below.
const JOINED_BYTES: usize = 65_000;

const NEEDS_SUM: u8 = 1;
const GSO_UDP_L4: u8 = 5;

/// What a tap says about a frame besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Offload {
    /// The checksum at `sum_start + sum_offset` holds the pseudo header's sum only.
    needs_sum: bool,
    gso_type: u8,
    header_len: u16,
    /// Payload bytes of each datagram of several.
    segment_len: u16,
    sum_start: u16,
    sum_offset: u16,
}

impl Offload {
    fn parse(bytes: &[u8; VNET_LEN]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            needs_sum: bytes[0] & NEEDS_SUM != 0,
            gso_type: bytes[1],
            header_len: word(2),
            segment_len: word(4),
            sum_start: word(6),
            sum_offset: word(8),
        }
    }

    fn emit(self) -> [u8; VNET_LEN] {
        let mut bytes = [0; VNET_LEN];
        bytes[0] = if self.needs_sum { NEEDS_SUM } else { 0 };
        bytes[1] = self.gso_type;
        let words = [self.header_len, self.segment_len, self.sum_start, self.sum_offset];
        for (place, word) in bytes[2..].chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// Whether the frame has a UDP checksum to be completed: nothing has touched it yet.
    fn is_udp(&self) -> bool {
        self.needs_sum && self.sum_offset == UDP_SUM
    }
}

/// One frame, as it flies.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    offload: Offload,
    bytes: Vec<u8>,
}

/// Memory that frames are read into.
pub(super) struct Reading(Vec<u8>);

impl Reading {
    pub(super) fn new() -> Self {
        Self(vec![0; VNET_LEN + FRAME_BYTES])
    }

    /// Takes the next frame from a tap, as single datagrams; an error when there is none.
    pub(super) fn take(&mut self, mut tap: impl Read, frames: &mut Vec<Frame>) -> io::Result<()> {
        let length = tap.read(&mut self.0)?;
        let Some((vnet, bytes)) = self.0[..length].split_first_chunk() else { return Ok(()) };
        let offload = Offload::parse(vnet);
        match offload.gso_type {
            GSO_UDP_L4 => cut(offload, bytes, frames),
            _ => frames.push(Frame { offload, bytes: bytes.to_vec() }),
        }
        Ok(())
    }
}

/// Cuts several datagrams of one size apart. What is no such thing is left out.
fn cut(offload: Offload, bytes: &[u8], frames: &mut Vec<Frame>) {
    let payload_start = usize::from(offload.sum_start) + UDP_LEN;
    let Some((headers, payload)) = bytes.split_at_checked(payload_start) else { return };
    let single = Offload { gso_type: 0, segment_len: 0, header_len: 0, ..offload };
    let datagrams = payload.chunks(usize::from(offload.segment_len).max(1));
    for (number, datagram) in datagrams.enumerate() {
        let mut bytes = [headers, datagram].concat();
        describe(&mut bytes, usize::from(offload.sum_start), number as u16);
        frames.push(Frame { offload: single, bytes });
    }
}

/// Makes the headers of a UDP frame true of its length, with the pseudo header's sum as checksum;
/// `id_step` is added to an IPv4 identification.
fn describe(bytes: &mut [u8], udp_start: usize, id_step: u16) {
    let udp_len = (bytes.len() - udp_start) as u16;
    let mut pseudo = udp_len.to_be_bytes().to_vec();
    pseudo.extend([0, 17]);
    if bytes[ETHERNET_LEN] >> 4 == 4 {
        pseudo.extend(&bytes[26..34]);
        let id = u16::from_be_bytes([bytes[18], bytes[19]]).wrapping_add(id_step);
        bytes[18..20].copy_from_slice(&id.to_be_bytes());
        set_ipv4_len(bytes, udp_start);
    } else {
        pseudo.extend(&bytes[22..54]);
        let length = (bytes.len() - ETHERNET_LEN - 40) as u16;
        bytes[18..20].copy_from_slice(&length.to_be_bytes());
    }
    bytes[udp_start + 4..][..2].copy_from_slice(&udp_len.to_be_bytes());
    let sum = !internet_checksum(&pseudo);
    bytes[udp_start + 6..][..2].copy_from_slice(&sum.to_be_bytes());
}

fn set_ipv4_len(bytes: &mut [u8], transport_start: usize) {
    let length = (bytes.len() - ETHERNET_LEN) as u16;
    bytes[16..18].copy_from_slice(&length.to_be_bytes());
    bytes[24..26].fill(0);
    let sum = internet_checksum(&bytes[ETHERNET_LEN..transport_start]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
}

impl Frame {
    /// Flips one bit of the UDP payload and leaves no checksum that would tell. Whether it could.
    pub(super) fn flip_bit(&mut self, choice: u64) -> bool {
        let Some(start) = self.udp_payload().filter(|start| *start < self.bytes.len()) else {
            return false;
        };
        let length = self.bytes.len() - start;
        let index = start + (choice >> 3) as usize % length;
        self.bytes[index] ^= 1 << (choice & 7);
        self.clear_udp_checksum(start);
        true
    }

    /// Shortens the UDP payload and repairs the lengths, so that the receiver's kernel lets it
    /// through. Whether it could.
    pub(super) fn cut_tail(&mut self, choice: u64) -> bool {
        let Some(start) = self.udp_payload().filter(|start| *start + 1 < self.bytes.len()) else {
            return false;
        };
        let kept = (choice as usize) % (self.bytes.len() - start);
        self.bytes.truncate(start + kept);
        describe(&mut self.bytes, start - UDP_LEN, 0);
        self.clear_udp_checksum(start);
        true
    }

    /// Where the UDP payload starts, if it is IPv4 with UDP.
    fn udp_payload(&self) -> Option<usize> {
        let is_ipv4 = self.bytes.get(12..14)? == [0x08, 0x00];
        let header = usize::from(*self.bytes.get(14)? & 0x0f) * 4;
        (is_ipv4 && *self.bytes.get(23)? == 17).then_some(ETHERNET_LEN + header + UDP_LEN)
    }

    /// A zero UDP checksum means "none" over IPv4 (RFC 768): the damage reaches the application.
    fn clear_udp_checksum(&mut self, payload: usize) {
        self.bytes[payload - 2..payload].fill(0);
        self.offload = Offload::default();
    }
}

/// Frames that are given to a tap as one: a single one, or UDP datagrams of one flow and one size,
/// of which the last may be shorter.
pub(super) struct Train {
    front: Frame,
    segment_len: usize,
    pub(super) count: usize,
    is_closed: bool,
}

impl Train {
    pub(super) fn new(front: Frame) -> Self {
        let headers = usize::from(front.offload.sum_start) + UDP_LEN;
        let segment_len = front.bytes.len().saturating_sub(headers);
        let is_closed = !front.offload.is_udp() || segment_len == 0;
        Self { front, segment_len, count: 1, is_closed }
    }

    /// Whether a card that joins datagrams would give `next` together with those before.
    pub(super) fn accepts(&self, next: &Frame) -> bool {
        let start = usize::from(self.front.offload.sum_start);
        let payload_len = next.bytes.len().saturating_sub(start + UDP_LEN);
        !self.is_closed
            && next.offload == self.front.offload
            && (1..=self.segment_len).contains(&payload_len)
            && self.count < JOINED_MAX
            && self.front.bytes.len() + payload_len <= JOINED_BYTES
            && has_same_flow(&self.front.bytes, &next.bytes, start)
    }

    /// Takes an accepted frame.
    pub(super) fn push(&mut self, next: &Frame) {
        let payload = &next.bytes[usize::from(self.front.offload.sum_start) + UDP_LEN..];
        self.is_closed = payload.len() < self.segment_len;
        self.front.bytes.extend_from_slice(payload);
        self.count += 1;
    }

    /// Gives it to a tap.
    pub(super) fn write(mut self, mut tap: impl Write) -> io::Result<()> {
        if self.count > 1 {
            let start = self.front.offload.sum_start;
            describe(&mut self.front.bytes, usize::from(start), 0);
            self.front.offload.gso_type = GSO_UDP_L4;
            self.front.offload.segment_len = self.segment_len as u16;
            self.front.offload.header_len = start + UDP_LEN as u16;
        }
        let vnet = self.front.offload.emit();
        tap.write_vectored(&[IoSlice::new(&vnet), IoSlice::new(&self.front.bytes)]).map(drop)
    }
}

/// Whether all headers are equal but for identification, lengths and checksums.
fn has_same_flow(a: &[u8], b: &[u8], udp_start: usize) -> bool {
    let is_same = |from: usize, to: usize| a.get(from..to) == b.get(from..to);
    let is_same_ip = match a.get(ETHERNET_LEN).map_or(0, |first| first >> 4) {
        4 => is_same(0, 16) && is_same(20, 24) && is_same(26, udp_start),
        6 => is_same(0, 18) && is_same(20, udp_start),
        _ => false,
    };
    is_same_ip && is_same(udp_start, udp_start + 4)
}

/// The Internet checksum (RFC 1071).
fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of UDP over IPv4 with these payload bytes, as a tap with offloads gives it.
    fn udp_frame(payload: &[u8]) -> Frame {
        let mut bytes = vec![0; ETHERNET_LEN + 20 + UDP_LEN];
        bytes[12..14].copy_from_slice(&[8, 0]);
        bytes[14] = 0x45;
        bytes[23] = 17;
        bytes.extend_from_slice(payload);
        describe(&mut bytes, 34, 0);
        let offload =
            Offload { needs_sum: true, sum_start: 34, sum_offset: UDP_SUM, ..Offload::default() };
        Frame { offload, bytes }
    }

    #[test]
    fn a_flipped_bit_is_in_the_payload_and_the_checksum_is_off() {
        let clean = udp_frame(&[0; 32]);
        let mut frame = clean.clone();
        assert!(frame.flip_bit(12_345));
        assert_eq!(frame.bytes[40..42], [0, 0]);
        assert!(!frame.offload.needs_sum);
        let pairs = frame.bytes[42..].iter().zip(&clean.bytes[42..]);
        assert_eq!(pairs.filter(|(a, b)| a != b).count(), 1);
    }

    #[test]
    fn a_cut_frame_has_true_lengths() {
        let mut frame = udp_frame(&[0; 32]);
        assert!(frame.cut_tail(7));
        assert_eq!(frame.bytes.len(), 42 + 7);
        assert_eq!(frame.bytes[16..18], 35u16.to_be_bytes());
        assert_eq!(frame.bytes[38..40], 15u16.to_be_bytes());
        assert_eq!(internet_checksum(&frame.bytes[14..34]), 0);
    }

    #[test]
    fn frames_of_other_protocols_are_left_alone() {
        let mut bytes = vec![0; 60];
        bytes[12..14].copy_from_slice(&[8, 6]);
        let mut arp = Frame { offload: Offload::default(), bytes: bytes.clone() };
        assert!(!arp.flip_bit(9) && !arp.cut_tail(9));
        assert_eq!(arp.bytes, bytes);
        assert!(!Train::new(arp.clone()).accepts(&arp));
    }

    #[test]
    fn what_was_joined_is_cut_into_the_same_datagrams() {
        let payloads = [[1; 100].as_slice(), &[2; 100], &[3; 40]];
        let frames: Vec<_> = payloads.iter().map(|payload| udp_frame(payload)).collect();
        let mut train = Train::new(frames[0].clone());
        for next in &frames[1..] {
            assert!(train.accepts(next));
            train.push(next);
        }
        assert!(!train.accepts(&frames[0]), "a shorter one is the last");
        let mut written = Vec::new();
        train.write(&mut written).unwrap();
        let mut back = Vec::new();
        Reading::new().take(&written[..], &mut back).unwrap();
        assert_eq!(back.len(), 3);
        for (number, (one, other)) in back.iter_mut().zip(&frames).enumerate() {
            assert_eq!(one.bytes[18..20], (number as u16).to_be_bytes(), "numbered one by one");
            one.bytes[18..20].fill(0);
            set_ipv4_len(&mut one.bytes, 34);
            assert_eq!((&one.bytes, one.offload), (&other.bytes, other.offload));
        }
    }

    #[test]
    fn another_flow_is_not_joined() {
        let (frame, mut other) = (udp_frame(&[1; 9]), udp_frame(&[2; 9]));
        other.bytes[35] = 1;
        assert!(!Train::new(frame.clone()).accepts(&other));
        assert!(!Train::new(frame).accepts(&udp_frame(&[1; 10])), "nor is a longer one");
    }
}
