//! IPv6 neighbour discovery (RFC 4861): solicitations, and the advertisement that answers one.

use std::net::Ipv6Addr;

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ethernet::{self, ETHERNET_LEN, EthernetRepr, Mac};
use crate::ipv6::{IPV6_LEN, Ipv6, Ipv6Repr, upper_layer};
use crate::{Malformed, checksum};

/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// Bytes of an advertisement that names a hardware address.
pub const ADVERTISEMENT_LEN: usize = size_of::<Message>() + size_of::<LinkLayerOption>();

/// Bytes of an Ethernet frame that holds such an advertisement.
pub const ADVERTISEMENT_FRAME_LEN: usize = ETHERNET_LEN + IPV6_LEN + ADVERTISEMENT_LEN;

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const SOLICITED: u32 = 1 << 30;
const OVERRIDE: u32 = 1 << 29;
/// Neighbour discovery that crossed a router is void (RFC 4861 section 3.1).
const HOP_LIMIT: u8 = 255;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
struct Message {
    kind: u8,
    code: u8,
    checksum: U16,
    flags: U32,
    target: [u8; 16],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
struct LinkLayerOption {
    kind: u8,
    words: u8,
    mac: Mac,
}

const _: () = assert!(size_of::<Message>() == 24 && size_of::<LinkLayerOption>() == 8);

/// What a neighbour message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Who has the target address?
    Solicitation,
    /// The target address is here.
    Advertisement,
}

/// A neighbour solicitation or advertisement that was checked (RFC 4861 section 7.1; its checksum
/// was not).
#[derive(Clone, Copy, Debug)]
pub struct Neighbour<'a> {
    ip: Ipv6<'a>,
    message: &'a Message,
    meaning: Meaning,
    mac: Option<Mac>,
}

impl<'a> Neighbour<'a> {
    /// Checks an IPv6 packet; `Unsupported` when it is something else than these two messages.
    pub fn parse(packet: &'a [u8]) -> Result<Neighbour<'a>, Malformed> {
        let ip = Ipv6::parse(packet)?;
        let upper = upper_layer(ip.header().next_header, ip.payload());
        let upper = upper.filter(|upper| upper.protocol == ICMPV6).ok_or(Malformed::Unsupported)?;
        let (message, options) = Message::ref_from_prefix(&ip.payload()[upper.offset..])
            .map_err(|_| Malformed::Unsupported)?;
        let (meaning, option) = match message.kind {
            SOLICITATION => (Meaning::Solicitation, SOURCE_LINK_LAYER),
            ADVERTISEMENT => (Meaning::Advertisement, TARGET_LINK_LAYER),
            _ => return Err(Malformed::Unsupported),
        };
        let is_group = message.target[0] == 0xff;
        if message.code != 0 || ip.header().hop_limit != HOP_LIMIT || is_group {
            return Err(Malformed::BadValue);
        }
        let mac = find_option(options, option)?;
        Ok(Neighbour { ip, message, meaning, mac })
    }

    /// Solicitation or advertisement.
    pub fn meaning(&self) -> Meaning {
        self.meaning
    }

    /// Sender; unspecified when it is still checking whether the target address is free.
    pub fn source(&self) -> Ipv6Addr {
        self.ip.source()
    }

    /// Receiver.
    pub fn destination(&self) -> Ipv6Addr {
        self.ip.destination()
    }

    /// Address asked for or advertised.
    pub fn target(&self) -> Ipv6Addr {
        self.message.target.into()
    }

    /// Hardware address of the sender of a solicitation, or of an advertised target, if it says.
    pub fn mac(&self) -> Option<Mac> {
        self.mac
    }
}

fn find_option(mut options: &[u8], kind: u8) -> Result<Option<Mac>, Malformed> {
    let mut found = None;
    while let [this, words, ..] = *options {
        let (option, rest) = options
            .split_at_checked(usize::from(words) * 8)
            .filter(|_| words != 0)
            .ok_or(Malformed::BadLength)?;
        if this == kind && found.is_none() {
            found = LinkLayerOption::ref_from_bytes(option).ok().map(|option| option.mac);
        }
        options = rest;
    }
    Ok(found)
}

/// An advertisement as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdvertisementRepr {
    /// Address advertised; also the sender.
    pub target: Ipv6Addr,
    /// Hardware address of the target.
    pub mac: Mac,
    /// Receiver and its hardware address; `None` for everybody, unsolicited.
    pub solicitor: Option<(Ipv6Addr, Mac)>,
}

impl AdvertisementRepr {
    /// The advertisement in a packet whose frame went to `destination`, else `None`. What names
    /// no hardware address, or another sender than its target, has no repr.
    pub fn of(view: &Neighbour<'_>, destination: Mac) -> Option<AdvertisementRepr> {
        let mac = view.mac?;
        if view.meaning != Meaning::Advertisement || view.source() != view.target() {
            return None;
        }
        let is_solicited = view.message.flags.get() & SOLICITED != 0;
        let solicitor = is_solicited.then_some((view.destination(), destination));
        Some(AdvertisementRepr { target: view.target(), mac, solicitor })
    }

    /// The whole Ethernet frame, checksum included.
    pub fn emit_frame(&self) -> [u8; ADVERTISEMENT_FRAME_LEN] {
        let (destination, destination_mac) = self.solicitor.unwrap_or((ALL_NODES, ALL_NODES_MAC));
        let ip = Ipv6Repr {
            source: self.target,
            destination,
            next_header: ICMPV6,
            traffic_class: 0,
            flow_label: 0,
            hop_limit: HOP_LIMIT,
            payload_len: ADVERTISEMENT_LEN as u16,
        };
        let flags = if self.solicitor.is_some() { SOLICITED | OVERRIDE } else { OVERRIDE };
        let mut message = Message {
            kind: ADVERTISEMENT,
            code: 0,
            checksum: 0.into(),
            flags: flags.into(),
            target: self.target.octets(),
        };
        let option = LinkLayerOption { kind: TARGET_LINK_LAYER, words: 1, mac: self.mac };
        let pseudo =
            checksum::pseudo_v6(&ip.source, &destination, ICMPV6, ADVERTISEMENT_LEN as u32);
        let body =
            checksum::add(checksum::sum(message.as_bytes()), checksum::sum(option.as_bytes()));
        message.checksum.set(!checksum::add(pseudo, body));

        let mut frame = [0; ADVERTISEMENT_FRAME_LEN];
        let (ethernet, packet) = frame.split_at_mut(ETHERNET_LEN);
        let header = EthernetRepr {
            destination: destination_mac,
            source: self.mac,
            vlan: None,
            ethertype: ethernet::IPV6,
        };
        header.emit(ethernet);
        packet[..IPV6_LEN].copy_from_slice(&ip.emit());
        packet[IPV6_LEN..][..24].copy_from_slice(message.as_bytes());
        packet[IPV6_LEN + 24..].copy_from_slice(option.as_bytes());
        frame
    }
}

/// A solicitation as a value: what a host asks, for tests and for probing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SolicitationRepr {
    /// Sender; unspecified while it checks whether `target` is free.
    pub source: Ipv6Addr,
    /// The sender's hardware address; not told when the source is unspecified.
    pub mac: Mac,
    /// Address asked for.
    pub target: Ipv6Addr,
}

impl SolicitationRepr {
    /// The whole Ethernet frame, to the target's solicited-node group.
    pub fn emit_frame(&self) -> Vec<u8> {
        let t = self.target.octets();
        let group =
            Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, t[13], t[14], t[15]]);
        let mut body =
            Message { kind: SOLICITATION, code: 0, checksum: 0.into(), flags: 0.into(), target: t }
                .as_bytes()
                .to_vec();
        if !self.source.is_unspecified() {
            let option = LinkLayerOption { kind: SOURCE_LINK_LAYER, words: 1, mac: self.mac };
            body.extend_from_slice(option.as_bytes());
        }
        let pseudo = checksum::pseudo_v6(&self.source, &group, ICMPV6, body.len() as u32);
        let sum = !checksum::add(pseudo, checksum::sum(&body));
        body[2..4].copy_from_slice(&sum.to_be_bytes());
        let ip = Ipv6Repr {
            source: self.source,
            destination: group,
            next_header: ICMPV6,
            traffic_class: 0,
            flow_label: 0,
            hop_limit: HOP_LIMIT,
            payload_len: body.len() as u16,
        };
        let mut frame = vec![0; ETHERNET_LEN];
        let destination = [0x33, 0x33, 0xff, t[13], t[14], t[15]];
        let ethertype = ethernet::IPV6;
        EthernetRepr { destination, source: self.mac, vlan: None, ethertype }.emit(&mut frame);
        frame.extend_from_slice(&ip.emit());
        frame.extend_from_slice(&body);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::Ethernet;
    use proptest::prelude::*;

    fn checksum_is_good(packet: &[u8]) -> bool {
        let ip = Ipv6::parse(packet).expect("IPv6");
        let len = ip.payload().len() as u32;
        let pseudo = checksum::pseudo_v6(&ip.source(), &ip.destination(), ICMPV6, len);
        checksum::add(pseudo, checksum::sum(ip.payload())) == 0xffff
    }

    fn any_unicast() -> impl Strategy<Value = Ipv6Addr> {
        any::<[u8; 15]>().prop_map(|rest| {
            let mut octets = [0xfd; 16];
            octets[1..].copy_from_slice(&rest);
            octets.into()
        })
    }

    proptest! {
        #[test]
        fn emitted_advertisements_parse_to_themselves(
            target in any_unicast(), mac: Mac, asker in any_unicast(), asker_mac: Mac, asked: bool,
        ) {
            let repr = AdvertisementRepr {
                target, mac, solicitor: asked.then_some((asker, asker_mac)),
            };
            let frame = repr.emit_frame();
            let ethernet = Ethernet::parse(&frame).expect("emitted");
            prop_assert_eq!((ethernet.source(), ethernet.ethertype()), (mac, ethernet::IPV6));
            prop_assert!(checksum_is_good(ethernet.payload()));
            let view = Neighbour::parse(ethernet.payload()).expect("emitted");
            prop_assert_eq!(AdvertisementRepr::of(&view, ethernet.destination()), Some(repr));
        }

        #[test]
        fn emitted_solicitations_parse_to_themselves(
            source in any_unicast(), mac: Mac, target in any_unicast(), probing: bool,
        ) {
            let source = if probing { Ipv6Addr::UNSPECIFIED } else { source };
            let frame = SolicitationRepr { source, mac, target }.emit_frame();
            let ethernet = Ethernet::parse(&frame).expect("emitted");
            prop_assert!(ethernet::is_group(&ethernet.destination()));
            prop_assert!(checksum_is_good(ethernet.payload()));
            let view = Neighbour::parse(ethernet.payload()).expect("emitted");
            prop_assert_eq!(view.meaning(), Meaning::Solicitation);
            prop_assert_eq!((view.source(), view.target()), (source, target));
            prop_assert_eq!(view.mac(), (!probing).then_some(mac));
        }

        #[test]
        fn nothing_panics(flips in proptest::collection::vec((0..86usize, any::<u8>()), 0..20),
                          cut in 0..=72usize) {
            let target = Ipv6Addr::LOCALHOST;
            let repr = AdvertisementRepr { target, mac: [2; 6], solicitor: None };
            let mut frame = repr.emit_frame();
            for (at, byte) in flips {
                frame[at] = byte;
            }
            let _ = Neighbour::parse(&frame[ETHERNET_LEN..][..cut]);
        }
    }
}
