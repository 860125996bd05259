//! The overlay interface's settings.

use std::net::IpAddr;
use std::time::Instant;

use ipop_uring::{DATAGRAM_LEN_MAX, SEGMENTS_MAX, Tap, TapError};
use ipop_wire::SEAL_OVERHEAD;

use crate::auto_mtu::{self, AutoMtu};

/// Packets that the interface queues for the worker: at 400,000 a second, what comes while another
/// program has its core for three of the scheduler's slices.
const QUEUE_LEN: u32 = 4000;
/// Geometry and channel header, on top of the seal's own bytes.
const PART_OVERHEAD: usize = 16;

/// The overlay interface and what it was set to.
pub(crate) struct Interface {
    tap: Tap,
    mtu: u16,
    /// Until somebody chooses an MTU.
    auto: Option<AutoMtu>,
    addresses: Vec<(IpAddr, u8)>,
}

impl Interface {
    /// Sets an interface up that has just been made; with an MTU of 0 that follows the links.
    pub(crate) fn set_up(mut tap: Tap, mtu: u16) -> Result<Self, TapError> {
        tap.set_queue_len(QUEUE_LEN)?;
        let auto = (mtu == 0).then(AutoMtu::new);
        let mtu = auto.as_ref().map_or(mtu, AutoMtu::mtu);
        let mut interface = Self { tap, mtu: 0, auto, addresses: Vec::new() };
        interface.set_mtu(mtu)?;
        interface.tap.set_up(true)?;
        Ok(interface)
    }

    /// Gives it these addresses and no others, and an MTU; 0 leaves that as it is.
    pub(crate) fn configure(
        &mut self,
        addresses: &[(IpAddr, u8)],
        mtu: u16,
    ) -> Result<(), TapError> {
        if mtu != 0 {
            self.auto = None;
            if mtu != self.mtu {
                self.set_mtu(mtu)?;
            }
        }
        let gone: Vec<_> =
            self.addresses.iter().copied().filter(|a| !addresses.contains(a)).collect();
        for (address, prefix) in gone {
            self.tap.remove_address(address, prefix)?;
            self.addresses.retain(|a| *a != (address, prefix));
        }
        for (address, prefix) in addresses {
            if self.addresses.contains(&(*address, *prefix)) {
                continue;
            }
            match self.tap.add_address(*address, *prefix) {
                // A machine without IPv6 still has the IPv4 overlay.
                Err(error @ TapError::NoIpv6 { .. }) => tracing::warn!("{error}"),
                result => result?,
            }
            self.addresses.push((*address, *prefix));
        }
        Ok(())
    }

    /// Lets an MTU that nobody has chosen follow what the widest link carries, if it is time;
    /// whether it did.
    pub(crate) fn follow(&mut self, now: Instant, widest: Option<u16>) -> Result<bool, TapError> {
        let Some(auto) = &mut self.auto else { return Ok(false) };
        if !auto.follow(now, widest) {
            return Ok(false);
        }
        let mtu = auto.mtu();
        self.set_mtu(mtu).map(|()| true)
    }

    /// The interface's name.
    pub(crate) fn name(&self) -> &str {
        self.tap.name()
    }

    /// Frames that the kernel dropped for want of room, if it says.
    pub(crate) fn overflows(&self) -> Option<u64> {
        self.tap.overflows()
    }

    /// The kernel's number of it.
    pub(crate) fn index(&self) -> u32 {
        self.tap.index()
    }

    /// Whether the MTU follows the links.
    pub(crate) fn is_auto(&self) -> bool {
        self.auto.is_some()
    }

    /// Largest packet, bytes.
    pub(crate) fn mtu(&self) -> u16 {
        self.mtu
    }

    /// What frames may leave undone.
    pub(crate) fn offloads(&self) -> ipop_uring::Offloads {
        self.tap.offloads()
    }

    fn set_mtu(&mut self, mtu: u16) -> Result<(), TapError> {
        self.tap.set_mtu(mtu)?;
        let segments = gso_segments_max(mtu);
        self.tap.set_gso_segments_max(u32::try_from(segments).unwrap_or(1))?;
        self.mtu = mtu;
        Ok(())
    }
}

/// Segments that a super-segment of the host may have, so that it is one send, one receive and one
/// write: what the kernel then makes of 64 KiB fits a datagram of that many parts.
///
/// The limit counts segments of all connections, also of those with small ones: to a member on a
/// narrow path, or opened before the MTU grew. So it is never that of wide ones, which end at
/// 64 KiB anyway.
fn gso_segments_max(mtu: u16) -> usize {
    let part = usize::from(mtu.min(auto_mtu::START)) + SEAL_OVERHEAD + PART_OVERHEAD;
    (DATAGRAM_LEN_MAX / part).clamp(1, SEGMENTS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wide_interface_cuts_no_narrow_connection_short() {
        assert_eq!(gso_segments_max(1400), 45);
        assert_eq!(gso_segments_max(8928), 45);
        assert!(gso_segments_max(1280) > 45);
    }
}
