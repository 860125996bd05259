//! What the controller wants, one method for each command.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipop_crypto::Fingerprint;
use ipop_link::OpenLink;
use ipop_steer::{self as steer, Command, Event, IceCredentials, RefusalReason};
use ipop_wire::mac_of;

use super::{ANNOUNCE_AGAIN, Agent};
use crate::exchange::ToWorker;
use crate::steering::{Refusal, candidate_in, candidate_out, credentials, link_state, network};

impl Agent {
    pub(super) fn on_command(&mut self, now: Instant, command: Command) -> Result<(), Refusal> {
        let id = |peer: steer::Fingerprint| Fingerprint(peer.0);
        let node = &mut self.parts.node;
        match command {
            Command::ConfigureInterface { addresses, mtu } => self.on_configure(&addresses, mtu),
            Command::SetIceServers { stun, turn, ca_file } => {
                self.on_servers(now, &stun, turn, &ca_file);
                Ok(())
            }
            Command::OpenLink {
                peer,
                name,
                controlling,
                head_start_ms,
                session,
                local,
                remote,
            } => {
                let wish = OpenLink {
                    peer: id(peer),
                    session,
                    controlling,
                    head_start: Duration::from_millis(head_start_ms.into()),
                    local: credentials(local),
                    remote: remote.map(credentials),
                };
                self.on_open(now, wish, name)
            }
            Command::SetRemote { peer, session, credentials } => {
                self.on_remote(now, id(peer), session, credentials)
            }
            Command::AddRemoteCandidate { peer, session, candidate } => {
                Ok(node.add_remote_candidate(now, id(peer), session, candidate_in(candidate))?)
            }
            Command::EndOfCandidates { peer, session } => {
                Ok(node.end_of_candidates(now, id(peer), session)?)
            }
            Command::CloseLink { peer } => self.on_close(now, id(peer)),
            Command::AddRoute { peer, address, prefix } => {
                self.on_add_route(now, id(peer), address, prefix)
            }
            Command::RemoveRoute { address, prefix } => self.on_remove_route(address, prefix),
            Command::Snapshot => {
                self.on_snapshot();
                Ok(())
            }
            Command::Say { peer, words } => Ok(node.say(now, id(peer), words)?),
        }
    }

    fn on_configure(&mut self, addresses: &[(IpAddr, u8)], mtu: u16) -> Result<(), Refusal> {
        if mtu != 0 && mtu < 576 {
            let text = format!("MTU {mtu}: IPv4 needs 576 at least, IPv6 1280");
            return Err(Refusal::new(RefusalReason::InvalidArgument, text));
        }
        for (address, prefix) in addresses {
            network(*address, *prefix)?;
        }
        self.parts.interface.configure(addresses, mtu).map_err(|error| {
            self.complain(&error.to_string());
            Refusal::new(RefusalReason::InterfaceFailed, error)
        })?;
        self.parts.note.show_mtu(&self.parts.interface);
        let own: Vec<_> = addresses.iter().map(|(address, _)| *address).collect();
        self.order_all(|| ToWorker::SetOwnAddresses(own.clone()));
        Ok(())
    }

    fn on_open(&mut self, now: Instant, wish: OpenLink, name: String) -> Result<(), Refusal> {
        if wish.peer == self.parts.fingerprint {
            let text = "a link to this very node";
            return Err(Refusal::new(RefusalReason::OwnIdentity, text));
        }
        let peer = wish.peer;
        self.parts.node.open_link(now, wish)?;
        self.peers.entry(peer).or_default().name = name;
        Ok(())
    }

    fn on_remote(
        &mut self,
        now: Instant,
        peer: Fingerprint,
        session: u64,
        remote: IceCredentials,
    ) -> Result<(), Refusal> {
        Ok(self.parts.node.set_remote(now, peer, session, credentials(remote))?)
    }

    fn on_close(&mut self, now: Instant, peer: Fingerprint) -> Result<(), Refusal> {
        self.parts.node.close_link(now, peer, "the controller wants it")?;
        self.carry_out();
        if let Some(gone) = self.peers.remove(&peer) {
            for (address, prefix) in gone.routes {
                self.order_all(|| ToWorker::RemoveRoute { address, prefix });
            }
        }
        self.parts.rows.clear(&peer);
        Ok(())
    }

    fn on_add_route(
        &mut self,
        now: Instant,
        peer: Fingerprint,
        address: IpAddr,
        prefix: u8,
    ) -> Result<(), Refusal> {
        let route = network(address, prefix)?;
        if !self.peers.contains_key(&peer) {
            let text = "there is no link to that peer";
            return Err(Refusal::new(RefusalReason::UnknownLink, text));
        }
        for other in self.peers.values_mut() {
            other.routes.retain(|known| *known != route);
        }
        if let Some(owner) = self.peers.get_mut(&peer) {
            owner.routes.push(route);
        }
        let mac = mac_of(&peer.0);
        self.order_all(|| ToWorker::AddRoute { address, prefix, mac });
        self.announcements.push((now + ANNOUNCE_AGAIN, mac));
        Ok(())
    }

    fn on_remove_route(&mut self, address: IpAddr, prefix: u8) -> Result<(), Refusal> {
        let mut known = false;
        for peer in self.peers.values_mut() {
            let before = peer.routes.len();
            peer.routes.retain(|route| *route != (address, prefix));
            known |= peer.routes.len() != before;
        }
        if !known {
            let text = format!("there is no route {address}/{prefix}");
            return Err(Refusal::new(RefusalReason::UnknownRoute, text));
        }
        self.order_all(|| ToWorker::RemoveRoute { address, prefix });
        Ok(())
    }

    /// Says all that holds, for a controller that has just come.
    fn on_snapshot(&mut self) {
        let fingerprint = steer::Fingerprint(self.parts.fingerprint.0);
        let interface = self.parts.interface.name().to_owned();
        self.publish(&Event::Ready { fingerprint, mac: self.parts.mac, interface });
        let candidates = self.parts.node.local_candidates().iter().map(candidate_out);
        let candidates: Vec<_> = candidates.collect();
        for candidate in candidates {
            self.publish(&Event::LocalCandidate { candidate });
        }
        if self.parts.node.is_gathering_done() {
            self.publish(&Event::GatheringDone);
        }
        let links: Vec<_> = self.parts.node.links().map(|status| link_state(&status)).collect();
        for event in links {
            self.publish(&event);
        }
    }
}
