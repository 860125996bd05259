//! What tells a sender that its packets are too large for the path: ICMP "fragmentation needed"
//! (RFC 792, RFC 1191 section 4) and ICMPv6 Packet Too Big (RFC 4443 section 3.2).
//!
//! ```text
//! IPv4: | 3 | 4 | checksum | 0 (16 bits) | MTU (16 bits) | front of the packet
//! IPv6: | 2 | 0 | checksum |        MTU (32 bits)        | front of the packet
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ipv4::{IPV4_LEN, Ipv4, Ipv4Header, Ipv4Repr};
use crate::ipv6::{IPV6_LEN, Ipv6, Ipv6Header, Ipv6Repr, upper_layer};
use crate::neighbour::ICMPV6;
use crate::{Malformed, checksum};

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;

/// Whatever a path carries, no IPv4 sender is told less: every host takes packets of this size
/// (RFC 791 section 3.1), and Linux stops asking about paths below 552.
pub const MTU_MIN_V4: u16 = 576;

/// No IPv6 sender is told less (RFC 8200 section 5).
pub const MTU_MIN_V6: u16 = 1280;

/// Bytes that the longest message has, its IP header included.
pub const TOO_BIG_LEN_MAX: usize = MTU_MIN_V6 as usize;

const UNREACHABLE: u8 = 3;
const FRAGMENTATION_NEEDED: u8 = 4;
const PACKET_TOO_BIG: u8 = 2;
/// Errors of ICMP (RFC 792): unreachable, source quench, redirect, time exceeded, parameter
/// problem.
const ERRORS_V4: [u8; 5] = [UNREACHABLE, 4, 5, 11, 12];
/// ICMPv6 messages below are errors (RFC 4443 section 2.1).
const ERRORS_V6_END: u8 = 128;
/// Redirects are answered as little as errors (RFC 4443 section 2.4 e).
const REDIRECT_V6: u8 = 137;
/// Messages of the network itself go first (RFC 1812 section 4.3.2.5).
const INTERNETWORK_CONTROL: u8 = 0xc0;
const HOPS: u8 = 64;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct Message {
    kind: u8,
    code: u8,
    checksum: U16,
    /// The high half is unused by IPv4.
    mtu: U32,
}

const MESSAGE_LEN: usize = size_of::<Message>();
const _: () = assert!(MESSAGE_LEN == 8);

/// Sender and receiver, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Ends {
    /// Most bytes of an IP packet that holds a message.
    fn len_max(self) -> usize {
        match self {
            Ends::V4(..) => usize::from(MTU_MIN_V4),
            Ends::V6(..) => TOO_BIG_LEN_MAX,
        }
    }

    fn header_len(self) -> usize {
        match self {
            Ends::V4(..) => IPV4_LEN,
            Ends::V6(..) => IPV6_LEN,
        }
    }
}

/// A message that was checked, its checksum too.
#[derive(Clone, Copy, Debug)]
pub struct TooBig<'a> {
    ends: Ends,
    mtu: u32,
    quoted: &'a [u8],
}

impl<'a> TooBig<'a> {
    /// Checks an IP packet; `Unsupported` when it is something else than these two messages.
    pub fn parse(packet: &'a [u8]) -> Result<TooBig<'a>, Malformed> {
        let version = packet.first().ok_or(Malformed::Truncated)? >> 4;
        let (ends, payload, pseudo) = if version == 4 {
            let ip = Ipv4::parse(packet)?;
            if ip.header().protocol != ICMP || ip.header().is_fragment() {
                return Err(Malformed::Unsupported);
            }
            (Ends::V4(ip.source(), ip.destination()), ip.payload(), 0)
        } else {
            let ip = Ipv6::parse(packet)?;
            if ip.header().next_header != ICMPV6 {
                return Err(Malformed::Unsupported);
            }
            let (source, destination) = (ip.source(), ip.destination());
            let len = ip.payload().len() as u32;
            let pseudo = checksum::pseudo_v6(&source, &destination, ICMPV6, len);
            (Ends::V6(source, destination), ip.payload(), pseudo)
        };
        let (message, quoted) =
            Message::ref_from_prefix(payload).map_err(|_| Malformed::Truncated)?;
        let mtu = message.mtu.get();
        let mtu = match (ends, message.kind, message.code) {
            (Ends::V4(..), UNREACHABLE, FRAGMENTATION_NEEDED) => mtu & 0xffff,
            (Ends::V6(..), PACKET_TOO_BIG, _) => mtu,
            _ => return Err(Malformed::Unsupported),
        };
        if checksum::add(pseudo, checksum::sum(payload)) != 0xffff {
            return Err(Malformed::BadValue);
        }
        Ok(TooBig { ends, mtu, quoted })
    }

    /// The largest packet that passes, in bytes.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// The front of the packet that is too large.
    pub fn quoted(&self) -> &'a [u8] {
        self.quoted
    }

    /// Who says so.
    pub fn source(&self) -> IpAddr {
        match self.ends {
            Ends::V4(source, _) => source.into(),
            Ends::V6(source, _) => source.into(),
        }
    }

    /// Who is told.
    pub fn destination(&self) -> IpAddr {
        match self.ends {
            Ends::V4(_, destination) => destination.into(),
            Ends::V6(_, destination) => destination.into(),
        }
    }
}

/// A message as a value: what the sender of one packet is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBigRepr<'a> {
    ends: Ends,
    mtu: u16,
    quoted: &'a [u8],
}

impl<'a> TooBigRepr<'a> {
    /// The answer to an IP packet of which one datagram carries `carried` bytes; it comes from
    /// where the packet was going. `None` if its sender is not to be told: the packet is none that
    /// is too large, may be fragmented on the way, is itself about an error, or has no single
    /// sender or receiver (RFC 1122 section 3.2.2, RFC 4443 section 2.4 e).
    ///
    /// Of a packet that is cut short, what there is is quoted.
    pub fn answer(packet: &'a [u8], carried: u16) -> Option<TooBigRepr<'a>> {
        let (mtu, answer) = match packet.first()? >> 4 {
            4 => (carried.max(MTU_MIN_V4), answer_v4 as fn(&[u8], u16) -> Option<Ends>),
            6 => (carried.max(MTU_MIN_V6), answer_v6 as _),
            _ => return None,
        };
        let ends = answer(packet, mtu)?;
        let room = ends.len_max() - ends.header_len() - MESSAGE_LEN;
        Some(TooBigRepr { ends, mtu, quoted: &packet[..packet.len().min(room)] })
    }

    /// What a message says, `None` if its MTU is beyond what IP packets have.
    pub fn of(view: &TooBig<'a>) -> Option<TooBigRepr<'a>> {
        let (ends, quoted) = (view.ends, view.quoted);
        Some(TooBigRepr { ends, mtu: u16::try_from(view.mtu).ok()?, quoted })
    }

    /// Who is told about the way to whom: the ends of the packet that is too large.
    pub fn told(&self) -> (IpAddr, IpAddr) {
        match self.ends {
            Ends::V4(source, destination) => (destination.into(), source.into()),
            Ends::V6(source, destination) => (destination.into(), source.into()),
        }
    }

    /// Bytes of the message with its IP header, at most [`TOO_BIG_LEN_MAX`].
    pub fn packet_len(&self) -> usize {
        self.ends.header_len() + MESSAGE_LEN + self.quoted.len()
    }

    /// Writes the message with its IP header to the front of `out`, which holds
    /// [`packet_len`](Self::packet_len) bytes or more.
    pub fn emit(&self, out: &mut [u8]) {
        let payload_len = MESSAGE_LEN + self.quoted.len();
        let (kind, code) = match self.ends {
            Ends::V4(..) => (UNREACHABLE, FRAGMENTATION_NEEDED),
            Ends::V6(..) => (PACKET_TOO_BIG, 0),
        };
        let mtu = u32::from(self.mtu).into();
        let mut message = Message { kind, code, checksum: 0.into(), mtu };
        let (header, body) = out.split_at_mut(self.ends.header_len());
        let pseudo = self.emit_header(header, payload_len as u16);
        // The message is of even length, so the sums of both may be added.
        let sum = checksum::add(checksum::sum(message.as_bytes()), checksum::sum(self.quoted));
        message.checksum.set(!checksum::add(pseudo, sum));
        body[..MESSAGE_LEN].copy_from_slice(message.as_bytes());
        body[MESSAGE_LEN..payload_len].copy_from_slice(self.quoted);
    }

    /// Writes the IP header; returns the sum of the pseudo header, which ICMP of IPv4 has not.
    fn emit_header(&self, out: &mut [u8], payload_len: u16) -> u16 {
        match self.ends {
            Ends::V4(source, destination) => {
                let header = Ipv4Repr {
                    source,
                    destination,
                    protocol: ICMP,
                    tos: INTERNETWORK_CONTROL,
                    ttl: HOPS,
                    id: 0,
                    dont_fragment: true,
                    payload_len,
                };
                out.copy_from_slice(&header.emit());
                0
            }
            Ends::V6(source, destination) => {
                let header = Ipv6Repr {
                    source,
                    destination,
                    next_header: ICMPV6,
                    traffic_class: INTERNETWORK_CONTROL,
                    flow_label: 0,
                    hop_limit: HOPS,
                    payload_len,
                };
                out.copy_from_slice(&header.emit());
                checksum::pseudo_v6(&source, &destination, ICMPV6, u32::from(payload_len))
            }
        }
    }
}

/// The answer's ends, if there is to be one.
fn answer_v4(packet: &[u8], mtu: u16) -> Option<Ends> {
    let (header, _) = Ipv4Header::ref_from_prefix(packet).ok()?;
    if header.total_len.get() <= mtu || !header.is_atomic() {
        return None;
    }
    let is_error = header.protocol == ICMP
        && packet.get(header.header_len()).is_none_or(|kind| ERRORS_V4.contains(kind));
    let (source, destination) = (Ipv4Addr::from(header.source), header.destination.into());
    let is_single = |ip: Ipv4Addr| {
        !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast())
    };
    let may_tell = !is_error && is_single(source) && is_single(destination);
    may_tell.then_some(Ends::V4(destination, source))
}

/// See [`answer_v4`].
fn answer_v6(packet: &[u8], mtu: u16) -> Option<Ends> {
    let (header, behind) = Ipv6Header::ref_from_prefix(packet).ok()?;
    if IPV6_LEN + usize::from(header.payload_len.get()) <= usize::from(mtu) {
        return None;
    }
    // Errors are never so long that they have to be fragmented, so a fragment is none.
    let is_error = upper_layer(header.next_header, behind).is_some_and(|upper| {
        let kind = behind.get(upper.offset);
        upper.protocol == ICMPV6
            && kind.is_none_or(|kind| *kind < ERRORS_V6_END || *kind == REDIRECT_V6)
    });
    let (source, destination) = (Ipv6Addr::from(header.source), header.destination.into());
    let is_single = |ip: Ipv6Addr| !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast());
    let may_tell = !is_error && is_single(source) && is_single(destination);
    may_tell.then_some(Ends::V6(destination, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp::TCP;
    use crate::udp::UDP;
    use proptest::prelude::*;

    const V4: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];
    const V6: [Ipv6Addr; 2] =
        [Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)];

    fn v4(protocol: u8, dont_fragment: bool, len: u16) -> Vec<u8> {
        let [source, destination] = V4;
        let payload_len = len - IPV4_LEN as u16;
        let (tos, ttl, id) = (0, 64, 7);
        let repr =
            Ipv4Repr { source, destination, protocol, tos, ttl, id, dont_fragment, payload_len };
        let mut packet = repr.emit().to_vec();
        packet.resize(usize::from(len), 0x5a);
        packet
    }

    fn v6(next_header: u8, len: u16) -> Vec<u8> {
        let [source, destination] = V6;
        let payload_len = len - IPV6_LEN as u16;
        let (traffic_class, flow_label, hop_limit) = (0, 0, 64);
        let repr = Ipv6Repr {
            source,
            destination,
            next_header,
            traffic_class,
            flow_label,
            hop_limit,
            payload_len,
        };
        let mut packet = repr.emit().to_vec();
        packet.resize(usize::from(len), 0x5a);
        packet
    }

    fn emitted(repr: &TooBigRepr<'_>) -> Vec<u8> {
        let mut bytes = vec![0xee; repr.packet_len()];
        repr.emit(&mut bytes);
        bytes
    }

    /// Byte by byte, as RFC 792 with RFC 1191 draw it.
    #[test]
    fn fragmentation_needed_has_the_bytes_of_the_rfcs() {
        let packet = v4(UDP, true, 1400);
        let repr = TooBigRepr::answer(&packet, 1228).expect("told");
        let bytes = emitted(&repr);
        let (header, message) = bytes.split_at(IPV4_LEN);
        assert_eq!(bytes.len(), 576);
        assert_eq!((header[0], header[9]), (0x45, 1));
        assert_eq!((&header[12..16], &header[16..20]), (&[10, 77, 0, 2][..], &[10, 77, 0, 1][..]));
        assert_eq!((message[0], message[1], &message[4..8]), (3, 4, &[0, 0, 0x04, 0xcc][..]));
        assert_eq!(message[8..], packet[..548]);
        assert_eq!(checksum::sum(message), 0xffff);
        assert!(Ipv4::parse(&bytes).expect("IPv4").has_good_checksum());
    }

    /// Byte by byte, as RFC 4443 section 3.2 draws it.
    #[test]
    fn packet_too_big_has_the_bytes_of_the_rfc() {
        let packet = v6(TCP, 1401);
        let repr = TooBigRepr::answer(&packet, 1300).expect("told");
        let bytes = emitted(&repr);
        let (header, message) = bytes.split_at(IPV6_LEN);
        assert_eq!(bytes.len(), 1280);
        assert_eq!((header[0] >> 4, header[6]), (6, 58));
        assert_eq!((&header[8..24], &header[24..40]), (&V6[1].octets()[..], &V6[0].octets()[..]));
        assert_eq!((message[0], message[1], &message[4..8]), (2, 0, &[0, 0, 0x05, 0x14][..]));
        assert_eq!(message[8..], packet[..1232]);
        let pseudo = checksum::pseudo_v6(&V6[1], &V6[0], 58, message.len() as u32);
        assert_eq!(checksum::add(pseudo, checksum::sum(message)), 0xffff);
    }

    #[test]
    fn nobody_is_told_less_than_a_family_needs() {
        let told =
            |packet: &[u8], carried| TooBigRepr::answer(packet, carried).map(|repr| repr.mtu);
        assert_eq!(told(&v4(UDP, true, 577), 400), Some(576));
        assert_eq!(told(&v4(UDP, true, 576), 400), None);
        assert_eq!(told(&v6(UDP, 1281), 400), Some(1280));
        assert_eq!(told(&v6(UDP, 1280), 400), None);
        assert_eq!(told(&v4(UDP, true, 9000), 8000), Some(8000));
        assert_eq!(told(&v4(UDP, true, 8000), 8000), None);
    }

    #[test]
    fn who_must_not_be_told_is_not() {
        let told = |packet: &[u8]| TooBigRepr::answer(packet, 1300).is_some();
        assert!(!told(&v4(UDP, false, 1400)), "may be fragmented");
        let changed = |mut packet: Vec<u8>, at: usize, bytes: &[u8]| {
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            packet
        };
        let whole = v4(UDP, true, 1400);
        assert!(told(&whole));
        assert!(!told(&changed(whole.clone(), 6, &[0x40, 1])), "a later fragment");
        for address in [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]] {
            assert!(!told(&changed(whole.clone(), 12, &address)), "from {address:?}");
            assert!(!told(&changed(whole.clone(), 16, &address)), "to {address:?}");
        }
        for (kind, is_told) in [(0, true), (8, true), (3, false), (5, false), (11, false)] {
            assert_eq!(told(&changed(v4(ICMP, true, 1400), IPV4_LEN, &[kind])), is_told, "{kind}");
        }
        let whole = v6(UDP, 1400);
        assert!(told(&whole));
        for address in [Ipv6Addr::UNSPECIFIED, Ipv6Addr::LOCALHOST, [0xff; 16].into()] {
            assert!(!told(&changed(whole.clone(), 8, &address.octets())), "from {address}");
            assert!(!told(&changed(whole.clone(), 24, &address.octets())), "to {address}");
        }
        for (kind, is_told) in [(128, true), (1, false), (2, false), (137, false)] {
            assert_eq!(told(&changed(v6(ICMPV6, 1400), IPV6_LEN, &[kind])), is_told, "{kind}");
        }
        assert!(told(&v6(44, 1400)), "an IPv6 sender's own fragments are too large");
    }

    proptest! {
        #[test]
        fn emitted_messages_parse_to_themselves(
            len in 1281..=9000u16, cut in 40..=9000usize, carried: u16, is_v6: bool,
        ) {
            let mut packet = if is_v6 { v6(UDP, len) } else { v4(UDP, true, len) };
            packet.truncate(cut);
            if let Some(repr) = TooBigRepr::answer(&packet, carried) {
                let bytes = emitted(&repr);
                prop_assert!(bytes.len() <= TOO_BIG_LEN_MAX);
                let view = TooBig::parse(&bytes).expect("emitted");
                prop_assert_eq!(TooBigRepr::of(&view), Some(repr));
                prop_assert_eq!((view.destination(), view.source()), repr.told());
                prop_assert!(view.mtu() < u32::from(len) && packet.starts_with(view.quoted()));
            } else {
                let min = if is_v6 { MTU_MIN_V6 } else { MTU_MIN_V4 };
                prop_assert!(len <= carried.max(min));
            }
        }

        #[test]
        fn nothing_panics(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200), first in any::<bool>(),
            flips in proptest::collection::vec((0..80usize, any::<u8>()), 0..4), carried: u16,
        ) {
            if let Some(front) = bytes.first_mut() {
                *front = if first { 0x45 } else { 0x60 };
            }
            let mut message = emitted(&TooBigRepr::answer(&v6(UDP, 1300), 0).expect("told"));
            for (at, byte) in flips {
                message[at] = byte;
            }
            for packet in [&bytes, &message] {
                let _ = TooBig::parse(packet);
                if let Some(repr) = TooBigRepr::answer(packet, carried) {
                    emitted(&repr);
                }
            }
        }
    }
}
