//! Connections whose user is not known yet: bounded, in all and for each address.
//!
//! It takes no password to be one, so whoever holds many places must not hold them all: no single
//! address can keep others from logging in.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Strangers at a time.
const ALL_MAX: usize = 1024;
/// Of one address, or of one IPv6 network of 64 bits. A lab's nodes may all come at once from one.
const SHARE_MAX: usize = 512;

/// Who waits at the door.
#[derive(Clone, Default)]
pub(crate) struct Strangers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One place at the door, given back when dropped.
pub(crate) struct Place {
    strangers: Strangers,
    origin: IpAddr,
}

impl Strangers {
    /// A place for a connection from an address, if there is one.
    pub(crate) fn enter(&self, remote: IpAddr) -> Option<Place> {
        let origin = origin_of(remote);
        let mut counts = self.lock();
        let all: usize = counts.values().sum();
        let share = counts.get(&origin).copied().unwrap_or_default();
        if all >= ALL_MAX || share >= SHARE_MAX {
            return None;
        }
        counts.insert(origin, share + 1);
        Some(Place { strangers: self.clone(), origin })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.strangers.lock();
        if let Some(share) = counts.get_mut(&self.origin) {
            *share -= 1;
            if *share == 0 {
                counts.remove(&self.origin);
            }
        }
    }
}

/// What one host can choose its addresses from.
fn origin_of(remote: IpAddr) -> IpAddr {
    match remote.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_takes_all_places_and_places_come_back() {
        let strangers = Strangers::default();
        let enter = |ip: &str| strangers.enter(ip.parse().unwrap());
        let mut places: Vec<_> = (0..SHARE_MAX).map(|_| enter("192.0.2.1").unwrap()).collect();
        assert!(enter("192.0.2.1").is_none() && enter("::ffff:192.0.2.1").is_none());
        let of_network = |host: usize| format!("2001:db8::{host:x}");
        places.extend((0..ALL_MAX - SHARE_MAX).map(|host| enter(&of_network(host)).unwrap()));
        assert!(enter("2001:db8::1").is_none() && enter("192.0.2.2").is_none());
        places.pop();
        assert!(enter("192.0.2.2").is_some());
        drop(places);
        assert!(strangers.lock().is_empty());
    }
}
