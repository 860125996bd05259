//! Frames as the kernel shows them become frames as they are on the cable: datagrams that it left
//! to the network card to cut are cut, checksums are completed, VLAN tags that it took off are put
//! back.

use std::net::{IpAddr, SocketAddr};

use ipop_packets::Offload;
use ipop_wire::checksum::{add, pseudo_v4, pseudo_v6, sum};

/// Bytes of an Ethernet header without a tag.
pub const ETHERNET_LEN: usize = 14;
/// Bytes of both hardware addresses in front of it.
const ADDRESSES_LEN: usize = 12;
const UDP_LEN: usize = 8;
const UDP: u8 = 17;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const FRAGMENT: u8 = 44;

/// The ends of a datagram, and where it is in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it; port 0 in fragments behind the first, which do not tell it.
    pub source: SocketAddr,
    /// Whom to.
    pub destination: SocketAddr,
    /// Where the UDP header begins, bytes from the front of the frame.
    udp_at: usize,
}

impl Datagram {
    /// The datagram in an Ethernet frame; `None` if there is none.
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let protocol = u16::from_be_bytes(*frame.get(12..)?.first_chunk()?);
        let (source, destination, udp_at, is_first) = match protocol {
            IPV4 => ends_v4(frame.get(ETHERNET_LEN..)?)?,
            IPV6 => ends_v6(frame.get(ETHERNET_LEN..)?)?,
            _ => return None,
        };
        let udp_at = udp_at + ETHERNET_LEN;
        let port = |at: usize| {
            let bytes = frame.get(udp_at + at..)?.first_chunk()?;
            Some(u16::from_be_bytes(*bytes))
        };
        let (from, to) = if is_first { (port(0)?, port(2)?) } else { (0, 0) };
        let (source, destination) =
            (SocketAddr::new(source, from), SocketAddr::new(destination, to));
        Some(Self { source, destination, udp_at })
    }

    /// What it carries; empty for what is no first fragment.
    pub fn payload<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        match self.source.port() {
            0 => &[],
            _ => frame.get(self.udp_at + UDP_LEN..).unwrap_or_default(),
        }
    }
}

type Ends = (IpAddr, IpAddr, usize, bool);

fn ends_v4(packet: &[u8]) -> Option<Ends> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let (source, destination) = (address_v4(header, 12)?, address_v4(header, 16)?);
    let is_first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
    let len = usize::from(header[0] & 0x0f) * 4;
    (header[9] == UDP && len >= 20).then_some((source, destination, len, is_first))
}

fn address_v4(header: &[u8], at: usize) -> Option<IpAddr> {
    Some(IpAddr::from(*header.get(at..)?.first_chunk::<4>()?))
}

fn ends_v6(packet: &[u8]) -> Option<Ends> {
    let header: &[u8; 40] = packet.first_chunk()?;
    let address = |at: usize| Some(IpAddr::from(*header.get(at..)?.first_chunk::<16>()?));
    let (source, destination) = (address(8)?, address(24)?);
    match header[6] {
        UDP => Some((source, destination, 40, true)),
        FRAGMENT => {
            let fragment: &[u8; 8] = packet.get(40..)?.first_chunk()?;
            let is_first = u16::from_be_bytes([fragment[2], fragment[3]]) & 0xfff8 == 0;
            (fragment[0] == UDP).then_some((source, destination, 48, is_first))
        }
        _ => None,
    }
}

/// The frame with a VLAN tag behind its hardware addresses: protocol and control information.
pub fn tagged(frame: &[u8], (protocol, control): (u16, u16)) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(frame.len().min(ADDRESSES_LEN));
    [addresses, &protocol.to_be_bytes(), &control.to_be_bytes(), rest].concat()
}

/// Completes the checksum that the kernel left to the card.
pub fn complete(frame: &mut [u8], offload: &Offload) {
    let Some((start, at)) = offload.checksum else { return };
    // The field holds the sum of the pseudo header.
    let Some(total) = frame.get(start..).map(sum) else { return };
    if let Some(field) = frame.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *field = transmitted(!total).to_be_bytes();
    }
}

/// A checksum of 0 says that there is none (RFC 768).
fn transmitted(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Hands over the datagrams of a frame with `datagram_len` bytes of payload each, as frames.
pub fn cut<E>(
    frame: &[u8],
    datagram: &Datagram,
    datagram_len: usize,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let payload_at = datagram.udp_at + UDP_LEN;
    let (Some(headers), Some(payload)) = (frame.get(..payload_at), frame.get(payload_at..)) else {
        return each(frame);
    };
    let mut one = Vec::with_capacity(payload_at + datagram_len);
    for (number, part) in payload.chunks(datagram_len.max(1)).enumerate() {
        one.clear();
        one.extend(headers);
        one.extend(part);
        restore_headers(&mut one, datagram, number as u16);
        each(&one)?;
    }
    Ok(())
}

/// Lengths, identification and checksums of the datagram with this number in its frame.
fn restore_headers(frame: &mut [u8], datagram: &Datagram, number: u16) {
    let Datagram { source, destination, udp_at } = *datagram;
    let (ip_len, udp_len) = ((frame.len() - ETHERNET_LEN) as u16, (frame.len() - udp_at) as u16);
    let (link_and_ip, udp) = frame.split_at_mut(udp_at);
    let ip = &mut link_and_ip[ETHERNET_LEN..];
    let pseudo = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(number);
            ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
            ip[4..6].copy_from_slice(&id.to_be_bytes());
            ip[10..12].fill(0);
            let checksum = !sum(ip);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
            pseudo_v4(source, destination, UDP, udp_len)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ip[4..6].copy_from_slice(&(ip_len - 40).to_be_bytes());
            pseudo_v6(&source, &destination, UDP, udp_len.into())
        }
        _ => return,
    };
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    udp[6..8].fill(0);
    let checksum = transmitted(!add(pseudo, sum(udp)));
    udp[6..8].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with a datagram whose lengths and checksums are yet to be filled in.
    fn raw(is_ipv4: bool, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        if is_ipv4 {
            frame.extend([8, 0, 0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, UDP, 0, 0]);
            frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, UDP, 64]);
            frame.extend([&[0xfd; 16][..], &[0xfe; 16]].concat());
        }
        frame.extend([0, 100, 0, 200, 0, 0, 0, 0]);
        frame.extend(payload);
        frame
    }

    fn assert_sound(frame: &[u8], payload: &[u8]) {
        let datagram = Datagram::parse(frame).unwrap();
        assert_eq!((datagram.source.port(), datagram.destination.port()), (100, 200));
        assert_eq!(datagram.payload(frame), payload);
        let udp = &frame[datagram.udp_at..];
        assert_eq!(usize::from(u16::from_be_bytes([udp[4], udp[5]])), udp.len());
        let pseudo = match (datagram.source.ip(), datagram.destination.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                assert_eq!(sum(&frame[14..34]), 0xffff, "the header's checksum");
                pseudo_v4(a, b, UDP, udp.len() as u16)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => pseudo_v6(&a, &b, UDP, udp.len() as u32),
            _ => panic!("mixed families"),
        };
        assert_eq!(add(pseudo, sum(udp)), 0xffff, "the datagram's checksum");
    }

    #[test]
    fn super_segments_are_cut_into_sound_datagrams() {
        let payload: Vec<u8> = (0..250).collect();
        for is_ipv4 in [true, false] {
            let frame = raw(is_ipv4, &payload);
            let datagram = Datagram::parse(&frame).unwrap();
            let mut parts = payload.chunks(100);
            let mut ids = Vec::new();
            let each = |one: &[u8]| {
                assert_sound(one, parts.next().unwrap());
                ids.push(one[19]);
                Ok::<_, ()>(())
            };
            cut(&frame, &datagram, 100, each).unwrap();
            assert_eq!(parts.next(), None);
            assert!(!is_ipv4 || ids == [9, 10, 11]);
        }
    }

    #[test]
    fn checksums_are_completed() {
        let mut frame = raw(true, b"hello");
        let datagram = Datagram::parse(&frame).unwrap();
        restore_headers(&mut frame, &datagram, 0);
        let whole = frame.clone();
        let pseudo = pseudo_v4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), UDP, 13);
        frame[40..42].copy_from_slice(&pseudo.to_be_bytes());
        let offload = Offload { checksum: Some((34, 40)), ..Offload::default() };
        complete(&mut frame, &offload);
        assert_eq!(frame, whole);
        for (start, at) in [(4000, 40), (34, 4000), (0, usize::from(u16::MAX))] {
            complete(&mut frame, &Offload { checksum: Some((start, at)), ..offload });
        }
    }

    #[test]
    fn a_tag_stands_behind_the_addresses() {
        let frame = raw(true, b"x");
        let tagged = tagged(&frame, (0x88a8, 0x2005));
        assert_eq!(tagged[..12], frame[..12]);
        assert_eq!(tagged[12..16], [0x88, 0xa8, 0x20, 0x05]);
        assert_eq!(tagged[16..], frame[12..]);
        assert_eq!(super::tagged(&[1], (0x8100, 1)), [1, 0x81, 0, 0, 1]);
    }

    #[test]
    fn anything_may_come() {
        let frame = raw(true, b"x");
        for len in 0..frame.len() {
            let datagram = Datagram::parse(&frame[..len]);
            assert!(datagram.is_none() || len >= 38, "{len}");
        }
        let mut later = frame.clone();
        later[21] = 7;
        let datagram = Datagram::parse(&later).unwrap();
        assert_eq!((datagram.source.port(), datagram.payload(&later)), (0, &[][..]));
    }
}
