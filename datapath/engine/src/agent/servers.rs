//! STUN and TURN servers as the controller names them, and the bridges to those that take a
//! connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use ipop_link::{TurnServer, TurnWay};
use ipop_shm::Ringer;
use ipop_steer::{self as steer, Counter, DropReason, TurnTransport};

use super::Agent;
use crate::bridge::{Bridge, BridgeConfig, BridgeEvent, BridgeTls};

/// What makes one bridge another one than the next.
#[derive(Clone, PartialEq, Eq)]
struct Place {
    address: SocketAddr,
    transport: TurnTransport,
    name: String,
    ca_file: String,
}

/// What a bridge tells, with its number.
type Told = (u64, BridgeEvent);

/// The bridges, and what they tell.
pub(super) struct Bridges {
    bridges: Vec<(u64, Place, Bridge)>,
    count: u64,
    ringer: Ringer,
    sender: Sender<Told>,
    events: Receiver<Told>,
}

impl Bridges {
    pub(super) fn new(ringer: Ringer) -> Self {
        let (sender, events) = channel();
        Self { bridges: Vec::new(), count: 0, ringer, sender, events }
    }

    /// The bridge to a place, which is made if there is none.
    fn to(&mut self, place: &Place, node: SocketAddr) -> std::io::Result<SocketAddr> {
        if let Some((.., bridge)) = self.bridges.iter().find(|(_, known, _)| known == place) {
            return Ok(bridge.address());
        }
        let ca_file = (!place.ca_file.is_empty()).then(|| PathBuf::from(&place.ca_file));
        let is_tls = place.transport == TurnTransport::Tls;
        let tls = is_tls.then(|| BridgeTls { name: place.name.clone(), ca_file });
        self.count += 1;
        let (number, sender, ringer) = (self.count, self.sender.clone(), self.ringer.clone());
        let bridge = Bridge::start(BridgeConfig { node, tls }, move |event| {
            // An agent that ends does not listen any more.
            let _ = sender.send((number, event));
            ringer.ring();
        })?;
        let address = bridge.address();
        self.bridges.push((number, place.clone(), bridge));
        Ok(address)
    }

    fn connect(&self, address: SocketAddr, to: SocketAddr) {
        let is_it = |(.., bridge): &&(u64, Place, Bridge)| bridge.address() == address;
        if let Some((.., bridge)) = self.bridges.iter().find(is_it) {
            bridge.connect(to);
        }
    }

    /// What a bridge tells, and which; `None` for one that is gone.
    fn take(&self) -> Option<(Option<SocketAddr>, BridgeEvent)> {
        let (number, event) = self.events.try_recv().ok()?;
        let mut bridges = self.bridges.iter();
        let bridge = bridges.find(|(known, ..)| *known == number);
        Some((bridge.map(|(.., bridge)| bridge.address()), event))
    }

    /// The machine has lost these addresses, or got others.
    pub(super) fn note_gone(&self, gone: &[IpAddr]) {
        self.bridges.iter().for_each(|(.., bridge)| bridge.note_gone(gone.to_vec()));
    }
}

impl Agent {
    pub(super) fn on_servers(
        &mut self,
        now: Instant,
        stun: &[SocketAddr],
        turn: Vec<steer::TurnServer>,
        ca_file: &str,
    ) {
        let places: Vec<_> = turn.iter().map(|server| place_of(server, ca_file)).collect();
        self.bridges.bridges.retain(|(_, place, _)| places.contains(place));
        let mut servers = Vec::new();
        for (server, place) in turn.into_iter().zip(places) {
            let way = match self.way_to(&place) {
                Ok(way) => way,
                Err(error) => {
                    let text = format!("no bridge to the TURN server {}: {error}", place.address);
                    self.complain(&text);
                    continue;
                }
            };
            let (address, username, password) = (server.address, server.username, server.password);
            servers.push(TurnServer { address, way, username, password });
        }
        self.parts.node.set_servers(now, stun, &servers);
    }

    fn way_to(&mut self, place: &Place) -> std::io::Result<TurnWay> {
        if place.transport == TurnTransport::Udp {
            return Ok(TurnWay::Udp);
        }
        let sockets = &self.parts.sockets;
        let v4 = sockets.v4().map(|socket| SocketAddr::from((Ipv4Addr::LOCALHOST, socket.port())));
        let v6 = sockets.v6().map(|socket| SocketAddr::from((Ipv6Addr::LOCALHOST, socket.port())));
        let local = v4.or(v6).ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        let bridge = self.bridges.to(place, local)?;
        Ok(TurnWay::Stream { bridge, local, is_tls: place.transport == TurnTransport::Tls })
    }

    pub(super) fn connect_server(&mut self, bridge: SocketAddr, to: SocketAddr) {
        self.bridges.connect(bridge, to);
    }

    /// Hears what bridges tell.
    pub(super) fn heed_bridges(&mut self, now: Instant) {
        while let Some((bridge, event)) = self.bridges.take() {
            let Some(bridge) = bridge else { continue };
            match event {
                BridgeEvent::Connected => self.parts.node.stream_connected(now, bridge),
                BridgeEvent::Lost(text) => self.parts.node.stream_lost(now, bridge, text),
            }
        }
    }

    /// Adds what bridges have counted.
    pub(super) fn count_bridges(&self) {
        for (.., bridge) in &self.bridges.bridges {
            let counts = bridge.take_counts();
            let slots = [
                (Counter::RelayConnections.slot(), counts.connected),
                (Counter::RelayConnectionsFailed.slot(), counts.failed),
                (DropReason::RelayFull.slot(), counts.full),
                (DropReason::UnknownProtocol.slot(), counts.malformed),
                (DropReason::SendFailed.slot(), counts.refused),
            ];
            for (slot, count) in slots.into_iter().filter(|(_, count)| *count > 0) {
                self.parts.counters.add(slot, count);
            }
        }
    }
}

fn place_of(server: &steer::TurnServer, ca_file: &str) -> Place {
    let (address, transport, name) = (server.address, server.transport, server.name.clone());
    Place { address, transport, name, ca_file: ca_file.to_owned() }
}
