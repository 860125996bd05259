//! A node with what the engine would put around it: sockets and workers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ipop_crypto::{Cipher, Fingerprint, Identity, OVERHEAD_LEN, OpenError};
use ipop_link::{
    ControlInput, Datagram, Event, InstallLane, LanePorts, LinkState, LinkStatus, Node, NodeConfig,
    Output, Path, Refused, Trace,
};
use ipop_wire::{Header, Kind, LinkIndex, Part, Protocol};

/// Bytes of a ChannelData header.
const CHANNEL_HEADER_LEN: usize = 4;

pub struct Machine {
    pub node: Node,
    pub fingerprint: Fingerprint,
    pub hosts: Vec<SocketAddr>,
    /// What our interface takes: bytes of UDP payload.
    pub datagram_len_max: usize,
    /// Which router it is behind.
    pub router: usize,
    pub lanes: BTreeMap<LinkIndex, InstallLane>,
    /// The lanes besides the first.
    pub more_lanes: BTreeMap<(LinkIndex, u8), InstallLane>,
    pub active: BTreeMap<Fingerprint, LinkIndex>,
    pub events: Vec<(Instant, Event)>,
    /// Steps of its links.
    pub traces: Vec<Trace>,
    /// Frames that came, by peer.
    pub frames: Vec<(Fingerprint, Vec<u8>)>,
    pub refused: Vec<Refused>,
    pub not_opened: Vec<OpenError>,
    /// Sealed datagrams for which there was no lane.
    pub unknown: usize,
    /// When a sealed datagram came last, by our index.
    pub heard: BTreeMap<LinkIndex, Instant>,
    /// How often the path was probed.
    pub probes: usize,
    /// Connections that bridges were asked for.
    pub connections: Vec<(SocketAddr, SocketAddr)>,
    /// How often lanes were installed.
    pub installed: usize,
    /// Datagrams that wait to be put on the wire: source, destination, data.
    pub sending: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// Datagrams that get as far as its router: source, destination.
    pub knocks: Vec<(SocketAddr, SocketAddr)>,
    /// How often a first lane was left without a path that it had.
    pub pathless: usize,
}

impl Machine {
    pub fn new(seed: u8, router: usize, hosts: Vec<SocketAddr>, lanes: u8, now: Instant) -> Self {
        Self::of_run((seed, 0), router, hosts, lanes, now)
    }

    /// A machine whose node was started so many times before.
    pub fn of_run(
        (seed, run): (u8, u8),
        router: usize,
        hosts: Vec<SocketAddr>,
        lanes: u8,
        now: Instant,
    ) -> Self {
        let port = hosts[0].port();
        let lanes = (1..lanes).map(|lane| LanePorts { v4: port + u16::from(lane), v6: 0 });
        let identity = Arc::new(Identity::generate(&[seed; 32]));
        let fingerprint = identity.fingerprint();
        let mut node = Node::new(NodeConfig {
            identity,
            ciphers: vec![(Cipher::Aes128Gcm, 100), (Cipher::ChaCha20Poly1305, 300)],
            lanes: lanes.collect(),
            mtu: 1400,
            rehandshake_after: ipop_link::REHANDSHAKE_AFTER,
            seed: [seed ^ 0x80 ^ (run << 4); 32],
        });
        node.set_hosts(now, &hosts);
        Machine {
            node,
            fingerprint,
            hosts,
            datagram_len_max: 1472,
            router,
            lanes: BTreeMap::new(),
            more_lanes: BTreeMap::new(),
            active: BTreeMap::new(),
            events: Vec::new(),
            traces: Vec::new(),
            frames: Vec::new(),
            refused: Vec::new(),
            not_opened: Vec::new(),
            unknown: 0,
            heard: BTreeMap::new(),
            probes: 0,
            connections: Vec::new(),
            installed: 0,
            sending: Vec::new(),
            knocks: Vec::new(),
            pathless: 0,
        }
    }

    /// Does what the node wants done.
    pub fn drain(&mut self, now: Instant) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Transmit { local, remote, data } => {
                    assert!(self.has_socket(&local), "sent from {local}");
                    assert!(data.len() <= 1300, "{} bytes", data.len());
                    self.sending.push((local, remote, data));
                }
                Output::Knock { local, remote, .. } => {
                    assert!(self.has_socket(&local), "sent from {local}");
                    self.knocks.push((local, remote));
                }
                // Sockets of its own are more than this machine has.
                Output::Open { .. } | Output::CloseIdle => {}
                Output::InstallLane(lane) => {
                    self.installed += 1;
                    let (index, number) = (lane.index, lane.lane);
                    let before = match number {
                        0 => self.lanes.insert(index, *lane),
                        _ => self.more_lanes.insert((index, number), *lane),
                    };
                    assert!(before.is_none(), "an index is reused");
                }
                Output::SetPath { index, lane, path } => {
                    let before = std::mem::replace(&mut self.lane(index, lane).path, path);
                    self.pathless += usize::from(lane == 0 && before.is_some() && path.is_none());
                }
                Output::Activate { peer, index } => {
                    assert_eq!(self.lanes.get(&index).expect("installed").peer, peer);
                    self.active.insert(peer, index);
                }
                Output::SendControl { index, data } => self.seal(index, Kind::Control, &data),
                Output::SendOnLane { index, lane, local, remote, channel, data } => {
                    let datagram = seal(self.lane(index, lane), Kind::Control, &data);
                    self.sending.push((local, remote, in_channel(channel, datagram)));
                }
                Output::SendProbe { index, data } => {
                    self.probes += 1;
                    self.probe(now, index, &data);
                }
                Output::RemoveSession { index } => {
                    self.lanes.remove(&index).expect("installed");
                    self.more_lanes.retain(|(of, _), _| *of != index);
                    self.active.retain(|_, active| *active != index);
                }
                Output::ConnectServer { bridge, to } => self.connections.push((bridge, to)),
                Output::Event(event) => self.events.push((now, event)),
                Output::Trace { trace, .. } => self.traces.push(trace),
            }
        }
    }

    /// What is too long for our interface is refused at once.
    fn probe(&mut self, now: Instant, index: LinkIndex, data: &[u8]) {
        let channel = self.lanes[&index].path.is_some_and(|path| path.channel.is_some());
        let prefix = if channel { CHANNEL_HEADER_LEN } else { 0 };
        let len = OVERHEAD_LEN + data.len() + prefix;
        match len > self.datagram_len_max {
            true => self.node.handle_too_big(now, index, len as u16),
            false => self.seal(index, Kind::Control, data),
        }
    }

    /// What the engine does twice a second while there is traffic both ways.
    pub fn report_traffic(&mut self, now: Instant, peer: Fingerprint) {
        self.report_load(now, peer, 1000);
    }

    /// The same, and it was so much.
    pub fn report_load(&mut self, now: Instant, peer: Fingerprint, bytes: u64) {
        let Some(index) = self.active.get(&peer).copied() else { return };
        let heard = self.heard.get(&index).copied();
        let is_receiving = heard.is_some_and(|at| now < at + std::time::Duration::from_millis(500));
        let traffic = ipop_link::Traffic { is_sending: true, is_receiving, bytes, heard };
        self.node.note_traffic(now, index, traffic);
    }

    /// The longest datagram that the path of the active session is known to carry.
    pub fn datagram_len(&self, peer: Fingerprint) -> Option<u16> {
        let index = self.active.get(&peer)?;
        Some(self.lanes.get(index)?.path?.datagram_len)
    }

    /// Sends a frame over the link's active session; false if there is none.
    pub fn send_frame(&mut self, peer: Fingerprint, frame: &[u8]) -> bool {
        let Some(index) = self.active.get(&peer).copied() else { return false };
        self.seal(index, Kind::Data, frame);
        true
    }

    fn seal(&mut self, index: LinkIndex, kind: Kind, payload: &[u8]) {
        let lane = self.lane(index, 0);
        let datagram = seal(lane, kind, payload);
        let Some(Path { local, remote, channel, .. }) = lane.path else { return };
        self.sending.push((local, remote, in_channel(channel, datagram)));
    }

    fn lane(&mut self, index: LinkIndex, lane: u8) -> &mut InstallLane {
        let found = match lane {
            0 => self.lanes.get_mut(&index),
            _ => self.more_lanes.get_mut(&(index, lane)),
        };
        found.expect("installed")
    }

    /// Whether one of its sockets has this address: a host's, or a lane's behind it.
    pub fn has_socket(&self, address: &SocketAddr) -> bool {
        let host = self.hosts.iter().find(|host| host.ip() == address.ip());
        host.is_some_and(|host| (host.port()..host.port() + 8).contains(&address.port()))
    }

    /// Paths of the lanes besides the first in the active session.
    pub fn lane_paths(&self, peer: Fingerprint) -> Vec<Option<Path>> {
        let Some(index) = self.active.get(&peer) else { return Vec::new() };
        let lanes = self.more_lanes.iter().filter(|((of, _), _)| of == index);
        lanes.map(|(_, lane)| lane.path).collect()
    }

    /// Takes a datagram as a worker does: sealed ones are opened, the rest is the node's.
    pub fn receive(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, data: &[u8]) {
        self.take(now, local, remote, data);
        self.drain(now);
    }

    fn take(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, data: &[u8]) {
        let inner = match Protocol::of(data[0]) {
            Protocol::TurnChannel => data.get(CHANNEL_HEADER_LEN..).unwrap_or_default(),
            _ => data,
        };
        let channel = (inner.len() != data.len()).then(|| u16::from_be_bytes([data[0], data[1]]));
        let on = (local, remote, channel);
        match Header::parse(inner) {
            Ok(header) if header.kind != Kind::Handshake => self.open(now, on, &header, inner),
            _ => {
                let input = Datagram { local, remote, data };
                if let Err(refused) = self.node.handle_input(now, input) {
                    self.refused.push(refused);
                }
            }
        }
    }

    fn open(
        &mut self,
        now: Instant,
        (local, remote, channel): (SocketAddr, SocketAddr, Option<u16>),
        header: &Header,
        datagram: &[u8],
    ) {
        self.heard.insert(header.receiver, now);
        let lane = match header.lane {
            0 => self.lanes.get_mut(&header.receiver),
            lane => self.more_lanes.get_mut(&(header.receiver, lane)),
        };
        let Some(lane) = lane else {
            self.unknown += 1;
            return;
        };
        let mut plaintext = vec![0; datagram.len()];
        match lane.opener.open(now, header, datagram, &mut plaintext) {
            Ok(length) => {
                plaintext.truncate(length);
                if header.kind == Kind::Control {
                    let (index, lane, data) = (header.receiver, header.lane, &*plaintext);
                    let input =
                        ControlInput { index, lane, local: Some(local), remote, channel, data };
                    let taken = self.node.handle_control(now, input);
                    taken.expect("a session with a lane is known");
                } else {
                    self.frames.push((lane.peer, plaintext));
                }
            }
            Err(error) => self.not_opened.push(error),
        }
    }

    pub fn status(&self, peer: Fingerprint) -> Option<LinkStatus> {
        self.node.links().find(|status| status.peer == peer)
    }

    pub fn state(&self, peer: Fingerprint) -> Option<LinkState> {
        self.status(peer).map(|status| status.state)
    }

    /// The states that were told, in order.
    pub fn told(&self) -> Vec<LinkState> {
        let states = self.events.iter().filter_map(|(_, event)| match event {
            Event::Link(status) => Some(status.state),
            _ => None,
        });
        let mut states: Vec<_> = states.collect();
        states.dedup();
        states
    }

    /// Why links failed.
    pub fn reasons(&self) -> Vec<&str> {
        let reasons = self.events.iter().filter_map(|(_, event)| match event {
            Event::Link(status) if status.state == LinkState::Failed => Some(&*status.reason),
            _ => None,
        });
        reasons.collect()
    }
}

fn in_channel(channel: Option<u16>, datagram: Vec<u8>) -> Vec<u8> {
    let Some(channel) = channel else { return datagram };
    let len = (datagram.len() as u16).to_be_bytes();
    [&channel.to_be_bytes()[..], &len, &datagram].concat()
}

fn seal(lane: &mut InstallLane, kind: Kind, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        kind,
        epoch: 0,
        lane: lane.lane,
        part: Part::WHOLE,
        receiver: lane.peer_index,
        counter: 0,
    };
    let mut datagram = vec![0; OVERHEAD_LEN + payload.len()];
    lane.sealer.seal(header, payload, b"", &mut datagram).expect("fits");
    datagram
}
