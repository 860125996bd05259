//! What the links' machine wants: datagrams to the sockets, keys and paths to the worker, events
//! to the controller.

use std::net::{IpAddr, SocketAddr};

use ipop_ice::KNOCK_HOP_LIMIT;
use ipop_link::{Event as LinkEvent, InstallLane, LinkState, LinkStatus, Output};
use ipop_pipeline as pipeline;
use ipop_steer::{Counter, DropReason, Event};
use ipop_uring::{Destination, SendError, UdpSocket};
use ipop_wire::mac_of;

use super::Agent;
use crate::exchange::ToWorker;
use crate::steering::{candidate_out, link_state};

impl Agent {
    /// Carries out all that the links' machine wants by now.
    pub(super) fn carry_out(&mut self) {
        while let Some(output) = self.parts.node.poll_output() {
            match output {
                Output::Transmit { local, remote, data } => {
                    self.transmit(local, remote, |socket, to| socket.send(&data, to));
                }
                Output::Knock { local, remote, data } => {
                    let send =
                        |socket: &UdpSocket, to: &_| socket.send_near(&data, KNOCK_HOP_LIMIT, to);
                    self.transmit(local, remote, send);
                }
                Output::Open { base, remote, data } => {
                    if let Err(error) = self.spares.open(base.ip(), remote, &data) {
                        // One of many.
                        tracing::debug!("no socket towards {remote}: {error}");
                    }
                }
                Output::CloseIdle => self.spares.close_idle(),
                Output::InstallLane(lane) => self.install(*lane),
                Output::SetPath { index, lane, path } => {
                    if lane == 0 {
                        self.channels.insert(index.0, path.and_then(|path| path.channel));
                    }
                    let path = path.map(|path| (lane_path(&path), destination(&path)));
                    self.order(lane, ToWorker::SetPath { index, path });
                }
                Output::Activate { peer, index } => {
                    self.order_all(|| ToWorker::Activate { index, mac: mac_of(&peer.0) });
                }
                Output::SendControl { index, data } => {
                    let channel = self.channels.get(&index.0).copied().flatten();
                    let order = ToWorker::SendControl { index, channel, to: None, data };
                    self.order(0, order);
                }
                Output::SendOnLane { index, lane, local, remote, channel, data } => {
                    let to = Some(between(local, remote));
                    self.order(lane, ToWorker::SendControl { index, channel, to, data });
                }
                Output::SendProbe { index, data } => {
                    let channel = self.channels.get(&index.0).copied().flatten();
                    self.order(0, ToWorker::SendProbe { index, channel, data });
                }
                Output::RemoveSession { index } => {
                    self.forget_session(index);
                    self.order_all(|| ToWorker::Remove(index));
                }
                Output::ConnectServer { bridge, to } => self.connect_server(bridge, to),
                Output::Event(event) => self.tell(event),
                Output::Trace { peer, session, trace } => {
                    self.parts.journal.write(peer, session, &trace);
                }
            }
        }
    }

    fn transmit(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        send: impl FnOnce(&UdpSocket, &Destination) -> Result<(), SendError>,
    ) {
        let sockets = self.parts.all_sockets();
        let mut of_family = sockets.filter_map(|sockets| sockets.of(&remote.ip()));
        let own = of_family.find(|socket| socket.port() == local.port());
        let Some(socket) = own.or_else(|| self.spares.socket(local.port())) else { return };
        if let Err(error) = send(socket, &between(local, remote)) {
            // Every such datagram is repeated; what never works shows as a failed check.
            tracing::debug!("to {remote}: {error}");
            self.parts.counters.add(DropReason::SendFailed.slot(), 1);
        }
    }

    fn install(&mut self, lane: InstallLane) {
        self.sessions.insert(lane.index.0, lane.peer);
        if lane.lane == 0 {
            self.channels.insert(lane.index.0, lane.path.and_then(|path| path.channel));
        }
        let entry = pipeline::LinkEntry {
            index: lane.index,
            peer_index: lane.peer_index,
            lane: lane.lane,
            peer_mac: mac_of(&lane.peer.0),
            sealer: lane.sealer,
            opener: lane.opener,
            path: lane.path.as_ref().map(lane_path),
            is_sending: false,
        };
        let destination = lane.path.as_ref().map(destination);
        if entry.lane == 0 {
            self.parts.counters.add(Counter::HandshakesCompleted.slot(), 1);
        }
        self.order(entry.lane, ToWorker::Install(Box::new(entry), destination));
    }

    fn tell(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::LocalCandidate(candidate) => {
                self.publish(&Event::LocalCandidate { candidate: candidate_out(&candidate) });
            }
            LinkEvent::GatheringDone => self.publish(&Event::GatheringDone),
            LinkEvent::ServerFailed { address, text } => {
                self.complain(&format!("STUN/TURN server {address}: {text}"));
                self.publish(&Event::IceServerFailed { address, text });
            }
            LinkEvent::Link(status) => self.on_link(&status),
            LinkEvent::Words { peer, words } => {
                self.publish(&Event::Said { peer: ipop_steer::Fingerprint(peer.0), words });
            }
        }
    }

    fn on_link(&mut self, status: &LinkStatus) {
        if status.state == LinkState::Failed {
            let name = self.peers.get(&status.peer).map_or("?", |peer| peer.name.as_str());
            self.complain(&format!("link to {name} failed: {}", status.reason));
        }
        self.show_link(status);
        self.publish(&link_state(status));
    }
}

fn lane_path(path: &ipop_link::Path) -> pipeline::Path {
    let ipop_link::Path { channel, datagram_len, is_len_settled, is_lossy, .. } = *path;
    pipeline::Path { channel, datagram_len, is_settled: is_len_settled, is_lossy }
}

fn destination(path: &ipop_link::Path) -> Destination {
    between(path.local, path.remote)
}

fn between(local: SocketAddr, remote: SocketAddr) -> Destination {
    Destination { remote, local_ip: source(local.ip(), &remote), local_port: local.port() }
}

/// The source address to ask the kernel for; its own choice when ours is of no use.
fn source(ip: IpAddr, remote: &SocketAddr) -> IpAddr {
    if ip.is_ipv4() == remote.is_ipv4() {
        return ip;
    }
    match remote {
        SocketAddr::V4(_) => IpAddr::from([0; 4]),
        SocketAddr::V6(_) => IpAddr::from([0; 16]),
    }
}
