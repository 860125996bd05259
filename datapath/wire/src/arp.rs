//! ARP for IPv4 over Ethernet (RFC 826): views, and the reply to a request.

use std::net::Ipv4Addr;

use zerocopy::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Malformed;
use crate::ethernet::{self, ETHERNET_LEN, EthernetRepr, Mac};

/// Bytes of an ARP packet for IPv4 over Ethernet.
pub const ARP_LEN: usize = 28;

/// Bytes of an Ethernet frame that holds only an ARP packet.
pub const ARP_FRAME_LEN: usize = ETHERNET_LEN + ARP_LEN;

/// What an ARP packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Debug)]
#[repr(C)]
struct Layout {
    hardware: U16,
    protocol: U16,
    hardware_len: u8,
    protocol_len: u8,
    operation: U16,
    sender_mac: Mac,
    sender_ip: [u8; 4],
    target_mac: Mac,
    target_ip: [u8; 4],
}

const _: () = assert!(size_of::<Layout>() == ARP_LEN);

/// An ARP packet that was checked.
#[derive(Clone, Copy, Debug)]
pub struct Arp<'a> {
    layout: &'a Layout,
    operation: Operation,
}

impl<'a> Arp<'a> {
    /// Checks an ARP packet; Ethernet padding may follow it.
    pub fn parse(packet: &'a [u8]) -> Result<Arp<'a>, Malformed> {
        let (layout, _) = Layout::ref_from_prefix(packet).map_err(|_| Malformed::Truncated)?;
        let format = (
            layout.hardware.get(),
            layout.protocol.get(),
            layout.hardware_len,
            layout.protocol_len,
        );
        if format != (1, ethernet::IPV4, 6, 4) {
            return Err(Malformed::Unsupported);
        }
        let operation = match layout.operation.get() {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(Malformed::Unsupported),
        };
        Ok(Arp { layout, operation })
    }

    /// Request or reply.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// Hardware address that the sender claims.
    pub fn sender_mac(&self) -> Mac {
        self.layout.sender_mac
    }

    /// IPv4 address that the sender claims; unspecified in a probe (RFC 5227).
    pub fn sender_ip(&self) -> Ipv4Addr {
        self.layout.sender_ip.into()
    }

    /// Hardware address of the target; meaningless in a request.
    pub fn target_mac(&self) -> Mac {
        self.layout.target_mac
    }

    /// Address asked for, or the receiver's.
    pub fn target_ip(&self) -> Ipv4Addr {
        self.layout.target_ip.into()
    }
}

/// An ARP packet as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpRepr {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's hardware address.
    pub sender_mac: Mac,
    /// The sender's IPv4 address.
    pub sender_ip: Ipv4Addr,
    /// The target's hardware address.
    pub target_mac: Mac,
    /// The target's IPv4 address.
    pub target_ip: Ipv4Addr,
}

impl ArpRepr {
    /// The packet of a view.
    pub fn of(view: &Arp<'_>) -> ArpRepr {
        ArpRepr {
            operation: view.operation,
            sender_mac: view.sender_mac(),
            sender_ip: view.sender_ip(),
            target_mac: view.target_mac(),
            target_ip: view.target_ip(),
        }
    }

    /// The answer to this request: `mac` has the address asked for.
    pub fn reply(&self, mac: Mac) -> ArpRepr {
        ArpRepr {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        }
    }

    /// The packet's bytes.
    pub fn emit(&self) -> [u8; ARP_LEN] {
        let layout = Layout {
            hardware: 1.into(),
            protocol: ethernet::IPV4.into(),
            hardware_len: 6,
            protocol_len: 4,
            operation: match self.operation {
                Operation::Request => 1.into(),
                Operation::Reply => 2.into(),
            },
            sender_mac: self.sender_mac,
            sender_ip: self.sender_ip.octets(),
            target_mac: self.target_mac,
            target_ip: self.target_ip.octets(),
        };
        zerocopy::transmute!(layout)
    }

    /// The packet in an Ethernet frame from `source` to `destination`.
    pub fn emit_frame(&self, source: Mac, destination: Mac) -> [u8; ARP_FRAME_LEN] {
        let mut frame = [0; ARP_FRAME_LEN];
        let (header, packet) = frame.split_at_mut(ETHERNET_LEN);
        EthernetRepr { destination, source, vlan: None, ethertype: ethernet::ARP }.emit(header);
        packet.copy_from_slice(&self.emit());
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::Ethernet;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn emitted_packets_parse_to_themselves(
            is_reply: bool, sender_mac: Mac, sender_ip: [u8; 4], target_mac: Mac,
            target_ip: [u8; 4],
        ) {
            let operation = if is_reply { Operation::Reply } else { Operation::Request };
            let repr = ArpRepr {
                operation, sender_mac, sender_ip: sender_ip.into(),
                target_mac, target_ip: target_ip.into(),
            };
            let frame = repr.emit_frame(sender_mac, target_mac);
            let ethernet = Ethernet::parse(&frame).expect("emitted");
            prop_assert_eq!(ethernet.ethertype(), ethernet::ARP);
            let view = Arp::parse(ethernet.payload()).expect("emitted");
            prop_assert_eq!(ArpRepr::of(&view), repr);
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Arp::parse(&bytes);
        }
    }

    #[test]
    fn a_reply_turns_the_request_round() {
        let request = ArpRepr {
            operation: Operation::Request,
            sender_mac: [2; 6],
            sender_ip: Ipv4Addr::new(10, 0, 0, 1),
            target_mac: [0; 6],
            target_ip: Ipv4Addr::new(10, 0, 0, 9),
        };
        let reply = request.reply([9; 6]);
        assert_eq!((reply.sender_mac, reply.sender_ip), ([9; 6], request.target_ip));
        assert_eq!((reply.target_mac, reply.target_ip), ([2; 6], request.sender_ip));
    }
}
