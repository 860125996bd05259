//! NAT routers as RFC 4787 sorts them: mapping and filtering.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A mapping is forgotten when nothing was sent through it for this long.
const MAPPING_TIME: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No NAT, no filter.
    Public,
    /// One mapping for all remotes, open to all.
    FullCone,
    /// One mapping for all remotes, open to those it was used for.
    PortRestricted,
    /// A mapping for each remote, open to that remote.
    Symmetric,
    /// Lets nothing through but to a TURN server.
    OnlyTo(SocketAddr),
}

struct Mapping {
    inside: SocketAddr,
    outside: SocketAddr,
    used: Instant,
    remotes: BTreeSet<SocketAddr>,
}

pub struct Nat {
    pub kind: Kind,
    outside: IpAddr,
    next_port: u16,
    mappings: BTreeMap<(SocketAddr, Option<SocketAddr>), Mapping>,
}

impl Nat {
    pub fn new(kind: Kind, outside: IpAddr) -> Self {
        Nat { kind, outside, next_port: 20_000, mappings: BTreeMap::new() }
    }

    pub fn outside(&self) -> IpAddr {
        self.outside
    }

    /// Forgets everything, as a router does that was switched off and on: its ports change.
    pub fn restart(&mut self) {
        self.mappings.clear();
        self.next_port += 1000;
    }

    /// The source address outside of a datagram that leaves.
    pub fn leave(
        &mut self,
        now: Instant,
        inside: SocketAddr,
        remote: SocketAddr,
    ) -> Option<SocketAddr> {
        let key = match self.kind {
            Kind::Public => return Some(inside),
            Kind::OnlyTo(only) if only != remote => return None,
            Kind::OnlyTo(_) | Kind::FullCone | Kind::PortRestricted => (inside, None),
            Kind::Symmetric => (inside, Some(remote)),
        };
        self.mappings.retain(|_, mapping| now < mapping.used + MAPPING_TIME);
        let (outside, next_port) = (self.outside, &mut self.next_port);
        let mapping = self.mappings.entry(key).or_insert_with(|| {
            *next_port += 7;
            let outside = SocketAddr::new(outside, *next_port);
            Mapping { inside, outside, used: now, remotes: BTreeSet::new() }
        });
        mapping.used = now;
        mapping.remotes.insert(remote);
        Some(mapping.outside)
    }

    /// The destination inside of a datagram that arrives.
    pub fn enter(
        &mut self,
        now: Instant,
        outside: SocketAddr,
        remote: SocketAddr,
    ) -> Option<SocketAddr> {
        if self.kind == Kind::Public {
            return Some(outside);
        }
        let mut mappings = self.mappings.values();
        let mapping = mappings.find(|mapping| mapping.outside == outside)?;
        let is_alive = now < mapping.used + MAPPING_TIME;
        let is_open = self.kind == Kind::FullCone || mapping.remotes.contains(&remote);
        (is_alive && is_open).then_some(mapping.inside)
    }
}
