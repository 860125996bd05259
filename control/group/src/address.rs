//! Overlay addresses: how a node gets one, and who keeps it when two claim the same.
//!
//! A derived address is a function of fingerprint and attempt alone, so a node that comes back has
//! the address that it had. Of two claims for one address a configured one beats a derived one;
//! among equals the lower fingerprint keeps it. Both ends evaluate the same rule on the same
//! announcements, so they agree without talking about it. The loser of a derived address derives
//! the next one; the loser of a configured one has to be told: a person chose it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipop_signal::{Fingerprint, Origin, OverlayAddress};

/// Where a node's overlay addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressPlan {
    /// IPv4: the address that the configuration names, or the prefix to derive one in.
    v4: Choice,
    /// IPv6, likewise.
    v6: Choice,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Fixed(IpAddr, u8),
    Within(IpAddr, u8),
}

/// An address or prefix that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The prefix leaves no room for hosts, or is longer than the address.
    #[error("prefix length {prefix} of {address}: use 1 to {max}, so that there is room for hosts")]
    Prefix {
        /// The address.
        address: IpAddr,
        /// Its prefix length.
        prefix: u8,
        /// The longest that is of use.
        max: u8,
    },
    /// The address is the network's own, its broadcast address, or of no use for a host.
    #[error("{0} cannot be a host's address in its network: choose another one")]
    NotAHost(IpAddr),
}

impl AddressPlan {
    /// A configured IPv4 address, and an IPv6 address derived in `prefix6` (a /64).
    ///
    /// # Errors
    /// [`PlanError`] when no host can have that address.
    pub fn fixed(address: Ipv4Addr, prefix: u8, prefix6: Ipv6Addr) -> Result<Self, PlanError> {
        check_prefix(address, prefix)?;
        let network = u32::from(address) & mask(prefix);
        let host = u32::from(address) - network;
        let unusable = address.is_multicast() || address.is_loopback() || address.is_unspecified();
        if unusable || (prefix < 31 && (host == 0 || host == !mask(prefix))) {
            return Err(PlanError::NotAHost(address.into()));
        }
        Ok(Self {
            v4: Choice::Fixed(address.into(), prefix),
            v6: Choice::Within(prefix6.into(), 64),
        })
    }

    /// Addresses derived in `network`/`prefix` and in `prefix6` (a /64).
    ///
    /// # Errors
    /// [`PlanError`] when the prefix has no room.
    pub fn derived(network: Ipv4Addr, prefix: u8, prefix6: Ipv6Addr) -> Result<Self, PlanError> {
        check_prefix(network, prefix)?;
        let network = Ipv4Addr::from(u32::from(network) & mask(prefix));
        Ok(Self {
            v4: Choice::Within(network.into(), prefix),
            v6: Choice::Within(prefix6.into(), 64),
        })
    }

    /// Replaces the derived IPv6 address by a configured one.
    ///
    /// # Errors
    /// [`PlanError`] when no host can have that address.
    pub fn with_v6(mut self, address: Ipv6Addr, prefix: u8) -> Result<Self, PlanError> {
        if !(1..=127).contains(&prefix) {
            return Err(PlanError::Prefix { address: address.into(), prefix, max: 127 });
        }
        if address.is_multicast() || address.is_loopback() || address.is_unspecified() {
            return Err(PlanError::NotAHost(address.into()));
        }
        self.v6 = Choice::Fixed(address.into(), prefix);
        Ok(self)
    }

    /// The first claims of the node with `fingerprint`.
    pub(crate) fn claims(&self, fingerprint: &Fingerprint) -> Vec<OverlayAddress> {
        [self.v4, self.v6].map(|choice| claim(choice, fingerprint, 0)).into()
    }

    /// The next claim of `fingerprint` after `lost`; a configured address has no next.
    pub(crate) fn next(
        &self,
        lost: &OverlayAddress,
        fingerprint: &Fingerprint,
    ) -> Option<OverlayAddress> {
        let choice = if lost.address.is_ipv4() { self.v4 } else { self.v6 };
        matches!(choice, Choice::Within(..))
            .then(|| claim(choice, fingerprint, lost.attempt.wrapping_add(1)))
    }
}

/// The IPv6 prefix of the group called `group`: a unique local /64 (RFC 4193) from its name.
pub fn group_prefix6(group: &str) -> Ipv6Addr {
    let hash = group.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let id = mix(hash) >> 8;
    Ipv6Addr::from((0xfd_u128 << 120) | (u128::from(id) << 64))
}

/// Whether the claim `(a, by)` beats the claim `(b, other)` to the same address.
pub(crate) fn beats(
    a: (&OverlayAddress, &Fingerprint),
    b: (&OverlayAddress, &Fingerprint),
) -> bool {
    let rank = |(claim, fingerprint): (&OverlayAddress, &Fingerprint)| {
        (claim.origin != Origin::Fixed, *fingerprint)
    };
    rank(a) < rank(b)
}

fn claim(choice: Choice, fingerprint: &Fingerprint, attempt: u32) -> OverlayAddress {
    match choice {
        Choice::Fixed(address, prefix) => {
            OverlayAddress { address, prefix, origin: Origin::Fixed, attempt: 0 }
        }
        Choice::Within(network, prefix) => OverlayAddress {
            address: derive(network, prefix, fingerprint, attempt),
            prefix,
            origin: Origin::Derived,
            attempt,
        },
    }
}

fn derive(network: IpAddr, prefix: u8, fingerprint: &Fingerprint, attempt: u32) -> IpAddr {
    let mut seed = [0; 8];
    seed.copy_from_slice(&fingerprint.0[..8]);
    let number = mix(u64::from_be_bytes(seed).wrapping_add(mix(u64::from(attempt))));
    match network {
        IpAddr::V4(network) => {
            // Neither the network's own address nor its broadcast address.
            let hosts = u64::from(!mask(prefix)).saturating_sub(1).max(1);
            let host = 1 + u32::try_from(number % hosts).unwrap_or(0);
            Ipv4Addr::from(u32::from(network) | host).into()
        }
        IpAddr::V6(network) => {
            // Interface identifier 0 is the routers' anycast address (RFC 4291 section 2.6.1).
            Ipv6Addr::from(u128::from(network) | u128::from(number.max(1))).into()
        }
    }
}

/// SplitMix64's finaliser: spreads what differs in few bits over all of them.
fn mix(mut number: u64) -> u64 {
    number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn check_prefix(address: Ipv4Addr, prefix: u8) -> Result<(), PlanError> {
    if (1..=30).contains(&prefix) {
        return Ok(());
    }
    Err(PlanError::Prefix { address: address.into(), prefix, max: 30 })
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(prefix: u8) -> AddressPlan {
        AddressPlan::derived(Ipv4Addr::new(10, 77, 0, 0), prefix, group_prefix6("g")).unwrap()
    }

    #[test]
    fn addresses_that_no_host_can_have_are_refused() {
        let prefix6 = group_prefix6("g");
        for (address, prefix) in [("10.77.0.0", 24), ("10.77.0.255", 24), ("224.0.0.1", 24)] {
            let result = AddressPlan::fixed(address.parse().unwrap(), prefix, prefix6);
            assert!(matches!(result, Err(PlanError::NotAHost(_))), "{address}");
        }
        for prefix in [0, 31, 32, 40] {
            assert!(AddressPlan::derived(Ipv4Addr::new(10, 0, 0, 0), prefix, prefix6).is_err());
        }
    }

    #[test]
    fn the_group_prefix_is_unique_local_and_differs_by_name() {
        let prefix = group_prefix6("cluster@conference.lab.test");
        assert_eq!(prefix.octets()[0], 0xfd);
        assert_eq!(prefix.octets()[8..], [0; 8]);
        assert_ne!(prefix, group_prefix6("other@conference.lab.test"));
    }

    proptest! {
        #[test]
        fn derived_addresses_are_hosts_of_the_network(
            bytes in any::<[u8; 32]>(), attempt in any::<u32>(), prefix in 1u8..=30,
        ) {
            let plan = plan(prefix);
            let fingerprint = Fingerprint(bytes);
            let mut lost = plan.claims(&fingerprint)[0];
            lost.attempt = attempt;
            let next = plan.next(&lost, &fingerprint).unwrap();
            let IpAddr::V4(address) = next.address else { panic!("IPv4 stays IPv4") };
            let network = Ipv4Addr::new(10, 77, 0, 0);
            let host = u32::from(address) & !mask(prefix);
            prop_assert_eq!(u32::from(address) & mask(prefix), u32::from(network) & mask(prefix));
            prop_assert!(host != 0 && host != !mask(prefix));
            prop_assert_eq!(Some(next), plan.next(&lost, &fingerprint));
        }

        #[test]
        fn of_two_claims_exactly_one_wins(
            a in any::<[u8; 32]>(), b in any::<[u8; 32]>(), fixed in any::<(bool, bool)>(),
        ) {
            prop_assume!(a != b);
            let claim = |fixed| OverlayAddress {
                address: Ipv4Addr::new(10, 77, 0, 1).into(),
                prefix: 24,
                origin: if fixed { Origin::Fixed } else { Origin::Derived },
                attempt: 0,
            };
            let (a, b) = (Fingerprint(a), Fingerprint(b));
            let (x, y) = (claim(fixed.0), claim(fixed.1));
            prop_assert!(beats((&x, &a), (&y, &b)) != beats((&y, &b), (&x, &a)));
        }
    }
}
