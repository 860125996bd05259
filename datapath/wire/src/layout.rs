//! Where the headers of a TCP or UDP frame end: the few offsets that cutting, patching and joining
//! need, found once.

use zerocopy::FromBytes;

use crate::ethernet::{self, Ethernet};
use crate::ipv4::{IPV4_LEN, Ipv4Header};
use crate::ipv6::{IPV6_LEN, Ipv6Header, upper_layer};
use crate::tcp::{TCP, TCP_CHECKSUM_OFFSET, TCP_LEN, TcpHeader};
use crate::udp::{UDP, UDP_CHECKSUM_OFFSET, UDP_LEN};
use crate::vnet::{Csum, GsoType};

/// Version of the Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The protocols whose payload may be cut and joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A byte stream: payloads join where sequence numbers meet.
    Tcp,
    /// Datagrams: payloads of one size join.
    Udp,
}

/// The shape of an unfragmented TCP or UDP frame. All offsets count from the front of the frame,
/// and all headers named by them lie within the bytes that were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Version of the packet.
    pub version: IpVersion,
    /// What the packet carries.
    pub transport: Transport,
    /// Where the IP header begins.
    pub network_start: u16,
    /// Where the transport header begins.
    pub transport_start: u16,
    /// Where the payload begins: the length of all headers.
    pub payload_start: u16,
}

impl Layout {
    /// Finds the shape of a frame, or of its headers alone: no payload needs to be there, and no
    /// length field is believed. `None` for anything but unfragmented TCP and UDP.
    #[inline]
    pub fn of(frame: &[u8]) -> Option<Layout> {
        let ethernet = Ethernet::parse(frame).ok()?;
        let network_start = ethernet.header_len();
        let packet = ethernet.payload();
        let (version, protocol, network_len) = match ethernet.ethertype() {
            ethernet::IPV4 => {
                let (header, _) = Ipv4Header::ref_from_prefix(packet).ok()?;
                let is_sane = header.version_and_len >> 4 == 4 && header.header_len() >= IPV4_LEN;
                if !is_sane || header.is_fragment() {
                    return None;
                }
                (IpVersion::V4, header.protocol, header.header_len())
            }
            ethernet::IPV6 => {
                let (header, behind) = Ipv6Header::ref_from_prefix(packet).ok()?;
                if packet[0] >> 4 != 6 {
                    return None;
                }
                let upper = upper_layer(header.next_header, behind)?;
                (IpVersion::V6, upper.protocol, IPV6_LEN + upper.offset)
            }
            _ => return None,
        };
        let (transport, transport_len) = measure(protocol, packet.get(network_len..)?)?;
        let transport_start = network_start + network_len;
        let payload_start = transport_start + transport_len;
        if payload_start > frame.len() {
            return None;
        }
        Some(Layout {
            version,
            transport,
            network_start: network_start.try_into().ok()?,
            transport_start: transport_start.try_into().ok()?,
            payload_start: payload_start.try_into().ok()?,
        })
    }

    /// Bytes of all headers.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.payload_start)
    }

    /// Bytes of the transport header.
    #[inline]
    pub fn transport_len(&self) -> usize {
        usize::from(self.payload_start - self.transport_start)
    }

    /// Bytes from the IP header's front to the payload.
    #[inline]
    pub fn ip_headers_len(&self) -> usize {
        usize::from(self.payload_start - self.network_start)
    }

    /// Where the checksum to be completed stands.
    #[inline]
    pub fn csum(&self) -> Csum {
        let offset = match self.transport {
            Transport::Tcp => TCP_CHECKSUM_OFFSET,
            Transport::Udp => UDP_CHECKSUM_OFFSET,
        };
        Csum { start: self.transport_start, offset }
    }

    /// How a super-segment of this shape is cut.
    #[inline]
    pub fn gso_type(&self) -> GsoType {
        match (self.transport, self.version) {
            (Transport::Tcp, IpVersion::V4) => GsoType::Tcp4,
            (Transport::Tcp, IpVersion::V6) => GsoType::Tcp6,
            (Transport::Udp, _) => GsoType::Udp,
        }
    }

    /// Bytes of payload by the IP header's length field; `None` when that is shorter than the
    /// headers. `frame` is what the layout was found in.
    #[inline]
    pub fn payload_len(&self, frame: &[u8]) -> Option<usize> {
        let packet = frame.get(usize::from(self.network_start)..)?;
        let ip_len = match self.version {
            IpVersion::V4 => {
                usize::from(Ipv4Header::ref_from_prefix(packet).ok()?.0.total_len.get())
            }
            IpVersion::V6 => {
                let header = Ipv6Header::ref_from_prefix(packet).ok()?.0;
                IPV6_LEN + usize::from(header.payload_len.get())
            }
        };
        ip_len.checked_sub(self.ip_headers_len())
    }
}

/// The transport and the length of its header, which `segment` begins with.
#[inline]
fn measure(protocol: u8, segment: &[u8]) -> Option<(Transport, usize)> {
    match protocol {
        TCP => {
            let (header, _) = TcpHeader::ref_from_prefix(segment).ok()?;
            let len = header.header_len();
            (len >= TCP_LEN).then_some((Transport::Tcp, len))
        }
        UDP => Some((Transport::Udp, UDP_LEN)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::EthernetRepr;
    use crate::ipv4::Ipv4Repr;
    use crate::tcp::TcpRepr;
    use proptest::prelude::*;

    fn tcp_frame(vlan: Option<u16>, payload_len: u16) -> Vec<u8> {
        let ethernet =
            EthernetRepr { destination: [2; 6], source: [6; 6], vlan, ethertype: ethernet::IPV4 };
        let tcp = TcpRepr {
            source: 1,
            destination: 2,
            sequence: 3,
            acknowledgement: 4,
            flags: crate::tcp::ACK,
            window: 5,
            checksum: 6,
            urgent: 0,
            options: &[1; 12],
        };
        let ip = Ipv4Repr {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            protocol: TCP,
            tos: 0,
            ttl: 64,
            id: 9,
            dont_fragment: true,
            payload_len: 32 + payload_len,
        };
        let mut frame = vec![0; ethernet.header_len()];
        ethernet.emit(&mut frame);
        frame.extend(ip.emit());
        let start = frame.len();
        frame.resize(start + tcp.header_len(), 0);
        tcp.emit(&mut frame[start..]);
        frame.resize(frame.len() + usize::from(payload_len), 0xab);
        frame
    }

    #[test]
    fn offsets_are_found_behind_tags_and_options() {
        for (vlan, at) in [(None, 14), (Some(5), 18)] {
            let frame = tcp_frame(vlan, 100);
            let layout = Layout::of(&frame).expect("TCP");
            let starts = (layout.network_start, layout.transport_start, layout.payload_start);
            assert_eq!(starts, (at, at + 20, at + 52));
            assert_eq!(layout.payload_len(&frame), Some(100));
            assert_eq!(layout.csum(), Csum { start: at + 20, offset: 16 });
            assert_eq!(Layout::of(&frame[..layout.header_len()]), Some(layout));
            assert_eq!(Layout::of(&frame[..layout.header_len() - 1]), None);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(flips in proptest::collection::vec((0..70usize, any::<u8>()), 0..20),
                          cut in 0..=80usize) {
            let mut frame = tcp_frame(None, 14);
            for (at, byte) in flips {
                frame[at] = byte;
            }
            let frame = &frame[..cut];
            if let Some(layout) = Layout::of(frame) {
                prop_assert!(layout.header_len() <= frame.len());
                let _ = layout.payload_len(frame);
            }
        }
    }
}
