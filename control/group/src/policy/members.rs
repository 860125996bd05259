//! Members come, change and go; addresses and routes follow.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use ipop_signal::{Fingerprint, Happening, Member, OverlayAddress, PeerAddress};

use super::{GroupVpn, Notice};
use crate::peer::{DEPARTURE_GRACE, OFFER_PATIENCE, Peer};
use crate::routes::winners;

impl GroupVpn {
    pub(super) fn on_happening(&mut self, now: Instant, happening: Happening) {
        match happening {
            Happening::Online { address } => {
                self.own_address = Some(address);
                self.on_online(now);
            }
            // Links live on: their members are not reported as left.
            Happening::Offline { .. } => {
                self.own_address = None;
                self.recall_now(now);
            }
            Happening::MemberAppeared(member) | Happening::MemberChanged(member) => {
                self.on_member(now, member);
            }
            Happening::MemberLeft(address) => self.on_member_left(now, &address),
            Happening::Offered { from, session, credentials, fingerprint, candidates } => {
                self.on_offered(now, from, session, (credentials, fingerprint, candidates));
            }
            Happening::Answered { from, session, credentials, fingerprint, candidates } => {
                self.on_answered(now, &from, &session, (credentials, fingerprint, candidates));
            }
            Happening::Candidates { from, session, candidates, end } => {
                self.on_candidates(&from, &session, candidates, end);
            }
            Happening::ByeReceived { from, session, reason } => {
                self.on_bye(now, &from, &session, reason);
            }
            Happening::DeliveryFailed { to, session, .. } => {
                self.on_delivery_failed(now, &to, &session);
            }
            Happening::Reached { rtt, .. } => self.server_rtt = rtt,
            // The controller resolves the names and says `Input::Servers`; it ends on `Fatal`.
            Happening::IceServers(_) | Happening::Fatal { .. } => {}
        }
    }

    fn on_member(&mut self, now: Instant, mut member: Member) {
        let Some(own) = &self.own else { return };
        if member.fingerprint == own.fingerprint {
            if self.own_address.as_ref().is_some_and(|address| *address != member.address) {
                self.notice(Notice::Impostor(member.name));
            }
            return;
        }
        let invitation = member.invitation.take();
        self.replace_in_memory(&member);
        let fingerprint = member.fingerprint;
        self.members.insert(member.address.clone(), fingerprint);
        let regular = self.offers_to(&fingerprint);
        let peer = self.peers.entry(fingerprint).or_insert_with(|| Peer::new(fingerprint));
        let is_new = !peer.present;
        peer.present = true;
        peer.departure = None;
        peer.member = Some(member);
        let before = std::mem::replace(&mut peer.invitation, invitation);
        self.settle_addresses();
        if is_new {
            self.link_up(now, fingerprint, regular);
        } else {
            let before = before.map(|before| before.candidates).unwrap_or_default();
            self.hear_invitation(&fingerprint, &before);
        }
    }

    pub(super) fn link_up(&mut self, now: Instant, fingerprint: Fingerprint, regular: bool) {
        let Some(peer) = self.peers.get_mut(&fingerprint) else { return };
        if peer.is_busy() {
            return;
        }
        let was_linked = self.own_address.is_none() && self.memory.get(&fingerprint).is_some();
        if !was_linked && self.accept_invitation(now, fingerprint) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&fingerprint) else { return };
        if regular || was_linked {
            self.offer(now, fingerprint);
        } else {
            peer.next_offer = Some(now + OFFER_PATIENCE);
        }
    }

    fn on_member_left(&mut self, now: Instant, address: &PeerAddress) {
        let Some(fingerprint) = self.members.remove(address) else { return };
        let Some(peer) = self.peers.get_mut(&fingerprint) else { return };
        // The same node may be in the room again under another address already.
        if peer.member.as_ref().is_none_or(|member| member.address != *address) {
            return;
        }
        peer.present = false;
        peer.next_offer = None;
        if peer.carries() {
            peer.departure = Some(now + DEPARTURE_GRACE);
            // Who is in the room and claims the same address has it now.
            self.settle_addresses();
        } else {
            self.close(fingerprint);
        }
        // Routes stay with the link: the addresses of a node that only lost its server are still
        // its own. They go with `close`.
    }

    /// Keeps or changes this node's claims, and routes every address to its winner.
    pub(super) fn settle_addresses(&mut self) {
        let Some(own) = &self.own else { return };
        let fingerprint = own.fingerprint;
        let mut claims = own.addresses.clone();
        let mut changed = false;
        let mut lost = Vec::new();
        for claim in &mut claims {
            // The address space is finite, so this ends even where all of it is taken.
            for _ in 0..1024 {
                let Some(by) = self.winner_over(claim, &fingerprint) else { break };
                let Some(next) = self.config.plan.next(claim, &fingerprint) else {
                    lost.push((*claim, by));
                    break;
                };
                *claim = next;
                changed = true;
            }
        }
        if changed {
            if let Some(own) = &mut self.own {
                own.addresses = claims;
            }
            self.configure();
            self.announce();
        }
        self.complain(lost);
        self.update_routes();
    }

    /// Tells people once of each configured address that somebody else keeps.
    fn complain(&mut self, lost: Vec<(OverlayAddress, String)>) {
        for (address, by) in &lost {
            if !self.lost.iter().any(|(before, _)| before == address) {
                self.notice(Notice::AddressTaken { address: *address, by: by.clone() });
            }
        }
        self.lost = lost;
    }

    /// The name of the member that has a better claim to this node's `claim`.
    fn winner_over(&self, claim: &OverlayAddress, own: &Fingerprint) -> Option<String> {
        // Without the room, who is linked was there before.
        let is_away = self.own_address.is_none();
        let is_rival = |peer: &&Peer| peer.present || (is_away && peer.carries());
        let present = self.peers.values().filter(is_rival);
        let rivals = present.filter_map(|peer| peer.member.as_ref());
        rivals
            .filter(|member| {
                let same = member.addresses.iter().filter(|a| a.address == claim.address);
                same.into_iter().any(|theirs| {
                    crate::address::beats((theirs, &member.fingerprint), (claim, own))
                })
            })
            .map(|member| member.name.clone())
            .next()
    }

    fn update_routes(&mut self) {
        let Some(own) = &self.own else { return };
        let own_claims = own.addresses.iter().map(|claim| (claim, &own.fingerprint));
        let claims_of = |present: bool| {
            let peers = self.peers.values().filter(move |peer| peer.present == present);
            let members = peers.filter_map(|peer| peer.member.as_ref());
            members.flat_map(|m| m.addresses.iter().map(move |a| (a, &m.fingerprint)))
        };
        // Who is in the room keeps an address from whoever has left, whatever else speaks for them.
        let mut best = winners(own_claims.chain(claims_of(true)));
        for (address, claim) in winners(claims_of(false)) {
            best.entry(address).or_insert(claim);
        }
        let wanted: BTreeMap<IpAddr, Fingerprint> = best
            .into_iter()
            .filter(|(_, (_, owner))| **owner != own.fingerprint)
            .map(|(address, (_, owner))| (address, *owner))
            .collect();
        let linked = |peer: &Fingerprint| {
            self.peers.get(peer).is_some_and(|p| p.session.is_some() || p.is_busy())
        };
        let wanted = wanted.into_iter().filter(|(_, peer)| linked(peer)).collect();
        for command in self.routes.update(wanted) {
            self.command(command);
        }
    }

    /// Whether this node is the one of the two that offers.
    pub(super) fn offers_to(&self, peer: &Fingerprint) -> bool {
        self.own.as_ref().is_some_and(|own| own.fingerprint > *peer)
    }
}
