//! Which frames belong to a capture: the peer's on the overlay, and what its link's sockets send
//! and get on the networks below. What was right once stays right: a link that moves is followed
//! by what is added.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ipop_wire::channel::ChannelData;
use ipop_wire::{Header, Kind, Protocol, mac_of};

use super::frame::Datagram;
use crate::snapshot::{Link, Snapshot};

/// One end of a link, as its datagrams are addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Far {
    /// The peer, or our relay.
    address: SocketAddr,
    /// The relay's channel of the peer.
    channel: Option<u16>,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Scope {
    /// All links and servers, not one peer's.
    is_all: bool,
    /// Hardware address of the peer on the overlay.
    mac: Option<[u8; 6]>,
    /// UDP ports of the node, the first worker's first.
    ports: Vec<u16>,
    fars: BTreeSet<Far>,
}

impl Scope {
    /// What belongs to all links.
    pub fn all() -> Self {
        Self { is_all: true, ..Self::default() }
    }

    /// What belongs to the link with the peer of this fingerprint.
    pub fn of(fingerprint: &[u8; 32]) -> Self {
        Self { mac: Some(mac_of(fingerprint)), ..Self::default() }
    }

    /// Adds what is known of the node by now, and of the peer's link.
    pub fn learn(&mut self, snapshot: &Snapshot, link: Option<&Link>) {
        for family in ["udp_v4", "udp_v6"] {
            let text = snapshot.datapath.get(family).map_or("", String::as_str);
            let list = text.trim_start_matches("port ").split(',').next().unwrap_or_default();
            for port in list.split_whitespace().filter_map(|port| port.parse().ok()) {
                if !self.ports.contains(&port) {
                    self.ports.push(port);
                }
            }
        }
        let Some(link) = link else { return };
        let far = match (link.relay, link.relay_channel) {
            (Some(address), channel) => Some(Far { address, channel }),
            _ => link.remote_end().map(|address| Far { address, channel: None }),
        };
        self.fars.extend(far);
    }

    /// Whether a frame of the overlay's interface belongs to it: to or from the peer, or of ours
    /// to everybody.
    pub fn has_inner(&self, frame: &[u8], is_outgoing: bool) -> bool {
        let Some(mac) = self.mac else { return true };
        let Some(ends) = frame.first_chunk::<12>() else { return false };
        let is_to_all = is_outgoing && ends[0] & 1 == 1;
        is_to_all || ends[..6] == mac || ends[6..] == mac
    }

    /// Whether a datagram below the overlay belongs to it.
    pub fn has_outer(&self, datagram: &Datagram, payload: &[u8], is_outgoing: bool) -> bool {
        let (ours, theirs) = match is_outgoing {
            true => (datagram.source, datagram.destination),
            false => (datagram.destination, datagram.source),
        };
        let is_fragment = ours.port() == 0;
        if !is_fragment && !self.ports.contains(&ours.port()) {
            return false;
        }
        let on_first_lane = self.ports.first() == Some(&ours.port());
        let is_of = |far: &Far| {
            let same_ip = far.address.ip() == theirs.ip();
            // Other lanes' ports are not known, but no other socket of ours uses theirs.
            let same_port = is_fragment || !on_first_lane || far.address.port() == theirs.port();
            same_ip && same_port && far.channel.is_none_or(|channel| is_in(channel, payload))
        };
        (self.is_all && !is_fragment) || self.fars.iter().any(is_of)
    }
}

fn is_in(channel: u16, payload: &[u8]) -> bool {
    payload.is_empty() || ChannelData::parse(payload).is_ok_and(|data| data.number == channel)
}

/// What a datagram below the overlay is, for people; nothing if it is none of ours.
pub fn describe(payload: &[u8]) -> String {
    match payload.first().map(|first| Protocol::of(*first)) {
        Some(Protocol::TurnChannel) => match ChannelData::parse(payload) {
            Ok(data) => {
                let inside = describe(data.payload);
                format!("TURN channel {:#06x}: {inside}", data.number)
            }
            Err(_) => String::new(),
        },
        Some(Protocol::Ipop) => Header::parse(payload).map_or_else(|_| String::new(), of_header),
        _ => String::new(),
    }
}

fn of_header(header: Header) -> String {
    let Header { kind, epoch, lane, part, receiver, counter } = header;
    let what = match (kind, part.count) {
        (Kind::Handshake, _) => return format!("IPOP handshake, receiver {}", receiver.0),
        (Kind::Control, _) => "control".to_owned(),
        (Kind::Data, 0) => "bundle".to_owned(),
        (Kind::Data, 1) => "frame".to_owned(),
        (Kind::Data, count) => format!("part {} of {count}", part.index + 1),
    };
    format!("IPOP {what}, receiver {}, lane {lane}, epoch {epoch}, counter {counter}", receiver.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: [u8; 32] = [9; 32];

    fn datagram(from: (u8, u16), to: (u8, u16)) -> Datagram {
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, 17, 0, 0]);
        frame.extend([192, 0, 2, from.0, 192, 0, 2, to.0]);
        frame.extend([from.1.to_be_bytes(), to.1.to_be_bytes()].concat());
        frame.extend([0; 4]);
        Datagram::parse(&frame).unwrap()
    }

    fn scope(channel: Option<u16>) -> Scope {
        let mut scope = Scope::of(&PEER);
        scope.ports = vec![500, 501];
        scope.fars.insert(Far { address: ([192, 0, 2, 7], 700).into(), channel });
        scope
    }

    #[test]
    fn a_links_datagrams_are_those_between_its_ends_and_on_its_lanes() {
        let scope = scope(None);
        let has = |from, to, is_outgoing| scope.has_outer(&datagram(from, to), &[], is_outgoing);
        assert!(has((1, 500), (7, 700), true));
        assert!(has((7, 700), (1, 500), false));
        assert!(!has((7, 701), (1, 500), false), "somebody else behind the same router");
        assert!(has((7, 999), (1, 501), false), "another lane");
        assert!(!has((8, 700), (1, 500), false));
        assert!(!has((1, 53), (7, 700), true), "not our socket");
        assert!(!has((7, 700), (1, 500), true), "the wrong way round");
        let mut all = Scope::all();
        all.ports = vec![500];
        assert!(all.has_outer(&datagram((1, 500), (99, 3478)), &[], true));
        assert!(!all.has_outer(&datagram((1, 53), (99, 53)), &[], true));
    }

    #[test]
    fn through_a_relay_only_the_peers_channel_counts() {
        let scope = scope(Some(0x4001));
        let ends = datagram((1, 500), (7, 700));
        assert!(scope.has_outer(&ends, &[0x40, 1, 0, 1, 9], true));
        assert!(!scope.has_outer(&ends, &[0x40, 2, 0, 1, 9], true));
        assert!(!scope.has_outer(&ends, &[0, 1, 0, 0], true), "the allocation's own questions");
    }

    #[test]
    fn frames_of_the_peer_and_ours_to_everybody_are_inside() {
        let scope = scope(None);
        let (peer, other) = (mac_of(&PEER), mac_of(&[1; 32]));
        let frame = |to: [u8; 6], from: [u8; 6]| [to, from].concat();
        assert!(scope.has_inner(&frame(peer, other), true));
        assert!(scope.has_inner(&frame(other, peer), false));
        assert!(scope.has_inner(&frame([0xff; 6], other), true));
        assert!(!scope.has_inner(&frame([0xff; 6], other), false), "another member's");
        assert!(!scope.has_inner(&frame(other, other), true));
        assert!(!scope.has_inner(&[0; 5], true));
    }

    #[test]
    fn what_is_sealed_is_still_described() {
        let header = Header {
            kind: Kind::Data,
            epoch: 3,
            lane: 1,
            part: ipop_wire::Part { index: 1, count: 4 },
            receiver: ipop_wire::LinkIndex(7),
            counter: 99,
        };
        let sealed = [&header.emit()[..], &[0; 20]].concat();
        let text = "IPOP part 2 of 4, receiver 7, lane 1, epoch 3, counter 99";
        assert_eq!(describe(&sealed), text);
        let relayed = [&[0x40, 1, 0, sealed.len() as u8][..], &sealed].concat();
        assert_eq!(describe(&relayed), format!("TURN channel 0x4001: {text}"));
        assert_eq!(describe(&[0, 1, 0, 0]), "", "STUN is known to everybody");
        assert_eq!(describe(&[]), "");
    }
}
