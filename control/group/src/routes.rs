//! Which member each overlay address leads to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipop_signal::{Fingerprint, OverlayAddress};
use ipop_steer::Command;

use crate::address::beats;
use crate::convert::to_steer;

/// The winner of each address among `claims`.
pub(crate) fn winners<'a>(
    claims: impl Iterator<Item = (&'a OverlayAddress, &'a Fingerprint)>,
) -> BTreeMap<IpAddr, (&'a OverlayAddress, &'a Fingerprint)> {
    let mut winners = BTreeMap::new();
    for claim in claims {
        winners
            .entry(claim.0.address)
            .and_modify(|best| {
                if beats(claim, *best) {
                    *best = claim;
                }
            })
            .or_insert(claim);
    }
    winners
}

/// The routes that the datapath has been told of.
#[derive(Debug, Default)]
pub(crate) struct Routes(BTreeMap<IpAddr, Fingerprint>);

impl Routes {
    /// Makes the datapath's routes equal `wanted`; returns the commands that are needed for it.
    pub(crate) fn update(&mut self, wanted: BTreeMap<IpAddr, Fingerprint>) -> Vec<Command> {
        let gone = self.0.keys().filter(|address| !wanted.contains_key(address));
        let mut commands: Vec<_> = gone.map(|address| remove(*address)).collect();
        let new = wanted.iter().filter(|(address, peer)| self.0.get(address) != Some(peer));
        commands.extend(new.map(|(address, peer)| add(*address, peer)));
        self.0 = wanted;
        commands
    }

    /// Forgets the routes of a link that is closed: the datapath does so by itself.
    pub(crate) fn forget(&mut self, peer: &Fingerprint) {
        self.0.retain(|_, owner| owner != peer);
    }

    /// Forgets all: the datapath may not have them, so the next update says them again.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

fn add(address: IpAddr, peer: &Fingerprint) -> Command {
    Command::AddRoute { peer: to_steer(peer), address, prefix: host_prefix(address) }
}

fn remove(address: IpAddr) -> Command {
    Command::RemoveRoute { address, prefix: host_prefix(address) }
}

fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
