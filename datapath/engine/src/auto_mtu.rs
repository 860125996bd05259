//! The overlay interface's MTU where nobody has chosen one: what one datagram of the widest link
//! carries. Senders that use a narrower link are told so by the worker, each for itself, so one bad
//! path costs nobody else anything; and what is sent larger is cut, so a choice is never wrong,
//! only less good.
//!
//! It grows at once, since connections keep for life what they begin with, and shrinks late, since
//! paths change back. Where there is no link, nothing changes.

use std::time::{Duration, Instant};

use ipop_link::{LinkState, LinkStatus};
use ipop_wire::SEAL_OVERHEAD;
use ipop_wire::channel::CHANNEL_PREFIX_LEN;
use ipop_wire::geometry::GEOMETRY_LEN;

/// What passes a 1500-byte underlay of either family, through a relay too: the MTU until a link has
/// found what its path carries.
pub(crate) const START: u16 = 1400;
/// With less, the kernel takes IPv6 off the interface (RFC 8200 section 5).
const MIN: u16 = 1280;
/// What jumbo frames are made for; what is beyond gains nothing.
const MAX: u16 = 9000;

/// How long a shorter length has to last.
const LOWER_AFTER: Duration = Duration::from_secs(10);

/// The largest inner IP packet that one datagram of a link carries, in bytes; `None` while nothing
/// is known for sure.
pub(crate) fn carried(link: &LinkStatus) -> Option<u16> {
    let is_known = link.state == LinkState::Up && link.is_len_settled;
    let prefix = if link.relay.is_some() { CHANNEL_PREFIX_LEN } else { 0 };
    let overhead = SEAL_OVERHEAD + GEOMETRY_LEN + prefix;
    link.datagram_len.filter(|_| is_known)?.checked_sub(overhead as u16)
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct AutoMtu {
    mtu: u16,
    /// Which shorter one there should be, and since when.
    shorter: Option<(u16, Instant)>,
}

impl AutoMtu {
    /// Before there is a link.
    pub(crate) fn new() -> Self {
        Self { mtu: START, shorter: None }
    }

    /// What the interface should have, bytes of IP packet.
    pub(crate) fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Takes what the widest link carries by now; whether the MTU is another one.
    pub(crate) fn follow(&mut self, now: Instant, widest: Option<u16>) -> bool {
        let Some(wanted) = widest.map(|len| len.clamp(MIN, MAX)) else { return false };
        let shorter = self.shorter.take().filter(|(shorter, _)| *shorter == wanted);
        let since = shorter.map_or(now, |(_, since)| since);
        if wanted < self.mtu && now < since + LOWER_AFTER {
            self.shorter = Some((wanted, since));
            return false;
        }
        std::mem::replace(&mut self.mtu, wanted) != wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(500);

    /// How long it takes until the MTU changes, within half a minute.
    fn change(auto: &mut AutoMtu, now: &mut Instant, widest: Option<u16>) -> Option<Duration> {
        let start = *now;
        for _ in 0..60 {
            if auto.follow(*now, widest) {
                return Some(*now - start);
            }
            *now += STEP;
        }
        None
    }

    #[test]
    fn it_grows_at_once_and_shrinks_late() {
        let (mut auto, mut now) = (AutoMtu::new(), Instant::now());
        assert_eq!((auto.mtu(), change(&mut auto, &mut now, None)), (START, None));
        assert_eq!(change(&mut auto, &mut now, Some(1428)), Some(Duration::ZERO));
        assert_eq!((auto.mtu(), change(&mut auto, &mut now, Some(1428))), (1428, None));
        assert_eq!(change(&mut auto, &mut now, Some(1350)), Some(LOWER_AFTER));
        assert_eq!(auto.mtu(), 1350);
    }

    #[test]
    fn it_stays_within_what_kernels_and_networks_take() {
        let (mut auto, mut now) = (AutoMtu::new(), Instant::now());
        assert!(change(&mut auto, &mut now, Some(504)).is_some());
        assert_eq!(auto.mtu(), 1280);
        assert!(change(&mut auto, &mut now, Some(65_000)).is_some());
        assert_eq!(auto.mtu(), 9000);
    }

    #[test]
    fn what_does_not_last_changes_nothing() {
        let (mut auto, mut now) = (AutoMtu::new(), Instant::now());
        assert!(change(&mut auto, &mut now, Some(8900)).is_some());
        for _ in 0..20 {
            for (widest, steps) in [(Some(1428), 19), (None, 30), (Some(8900), 1), (Some(504), 9)] {
                for _ in 0..steps {
                    assert!(!auto.follow(now, widest));
                    now += STEP;
                }
            }
        }
        assert_eq!(auto.mtu(), 8900);
    }
}
