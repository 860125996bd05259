//! Changing the headers of a super-segment so that they describe a piece of it, or more than it
//! was.

use std::ops::Range;

use ipop_wire::checksum;
use ipop_wire::ipv4::Ipv4Header;
use ipop_wire::ipv6::Ipv6Header;
use ipop_wire::layout::{IpVersion, Layout, Transport};
use ipop_wire::tcp::{self, TcpHeader};
use ipop_wire::udp::UdpHeader;
use zerocopy::FromBytes;

/// Makes the headers of a super-segment with `whole` payload bytes describe only `part` of them:
/// lengths, sequence number, flags, identification, IPv4 checksum, and the pseudo header's sum in
/// the transport checksum. `part` begins at a segment's front.
pub(crate) fn narrow(
    headers: &mut [u8],
    layout: &Layout,
    whole: usize,
    part: Range<usize>,
    gso_size: usize,
) {
    // The kernel numbers the packets of a super-segment one by one.
    let segments_before = (part.start / gso_size.max(1)) as u16;
    set_payload_len(headers, layout, whole, part.len(), segments_before);
    if layout.transport == Transport::Udp {
        return;
    }
    let Some(tcp) = tcp_header(headers, layout) else { return };
    tcp.sequence.set(tcp.sequence.get().wrapping_add(part.start as u32));
    if part.start > 0 {
        tcp.flags &= !tcp::CWR;
    }
    if part.end < whole {
        tcp.flags &= !(tcp::FIN | tcp::PSH);
    }
}

/// Changes all length fields from `old` to `new` payload bytes, and what sums them up: the IPv4
/// header checksum, and a transport checksum that is still the pseudo header's sum.
pub(crate) fn set_payload_len(
    headers: &mut [u8],
    layout: &Layout,
    old: usize,
    new: usize,
    id_step: u16,
) {
    let ip_len = layout.ip_headers_len() + new;
    let packet = &mut headers[usize::from(layout.network_start)..];
    match layout.version {
        IpVersion::V4 => {
            if let Ok((ip, _)) = Ipv4Header::mut_from_prefix(packet) {
                ip.set_len_and_id(ip_len as u16, ip.id.get().wrapping_add(id_step));
            }
        }
        IpVersion::V6 => {
            if let Ok((ip, _)) = Ipv6Header::mut_from_prefix(packet) {
                ip.payload_len.set((ip_len - size_of::<Ipv6Header>()) as u16);
            }
        }
    }
    let before = (layout.transport_len() + old) as u16;
    let after = (layout.transport_len() + new) as u16;
    match layout.transport {
        Transport::Tcp => {
            if let Some(tcp) = tcp_header(headers, layout) {
                tcp.checksum.set(checksum::replace(tcp.checksum.get(), before, after));
            }
        }
        Transport::Udp => {
            if let Some(udp) = udp_header(headers, layout) {
                udp.length.set(after);
                udp.checksum.set(checksum::replace(udp.checksum.get(), before, after));
            }
        }
    }
}

/// Puts the pseudo header's sum into the transport checksum, for `payload_len` bytes of payload:
/// from now on the checksum is still to be completed. Not for packets with a routing header.
pub(crate) fn set_pseudo_sum(headers: &mut [u8], layout: &Layout, payload_len: usize) {
    let length = (layout.transport_len() + payload_len) as u32;
    let protocol = match layout.transport {
        Transport::Tcp => tcp::TCP,
        Transport::Udp => ipop_wire::udp::UDP,
    };
    let packet = &headers[usize::from(layout.network_start)..];
    let sum = match layout.version {
        IpVersion::V4 => Ipv4Header::ref_from_prefix(packet).ok().map(|(ip, _)| {
            let (source, destination) = (ip.source.into(), ip.destination.into());
            checksum::pseudo_v4(source, destination, protocol, length as u16)
        }),
        IpVersion::V6 => Ipv6Header::ref_from_prefix(packet).ok().map(|(ip, _)| {
            let (source, destination) = (ip.source.into(), ip.destination.into());
            checksum::pseudo_v6(&source, &destination, protocol, length)
        }),
    };
    let Some(sum) = sum else { return };
    match layout.transport {
        Transport::Tcp => {
            if let Some(tcp) = tcp_header(headers, layout) {
                tcp.checksum.set(sum);
            }
        }
        Transport::Udp => {
            if let Some(udp) = udp_header(headers, layout) {
                udp.checksum.set(sum);
            }
        }
    }
}

/// The TCP header that `layout` says is there.
#[inline]
pub(crate) fn tcp_header<'a>(headers: &'a mut [u8], layout: &Layout) -> Option<&'a mut TcpHeader> {
    let bytes = headers.get_mut(usize::from(layout.transport_start)..)?;
    Some(TcpHeader::mut_from_prefix(bytes).ok()?.0)
}

#[inline]
fn udp_header<'a>(headers: &'a mut [u8], layout: &Layout) -> Option<&'a mut UdpHeader> {
    let bytes = headers.get_mut(usize::from(layout.transport_start)..)?;
    Some(UdpHeader::mut_from_prefix(bytes).ok()?.0)
}
