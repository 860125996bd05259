//! Which sends are segmented by the kernel, and to whom.

use std::net::IpAddr;

use crate::port::{DATAGRAM_LEN_MAX, Destination, SEGMENTS_MAX};

/// Peers remembered as unreachable by segmentation before it is given up for all.
const REFUSED_MAX: usize = 32;

/// The segment size to tell the kernel: 0 for a lone datagram; `None` outside the limits of
/// [`crate::Port::send`].
pub(crate) fn segmentation(len: usize, segment_size: usize) -> Option<u16> {
    if len == 0 || len > DATAGRAM_LEN_MAX {
        return None;
    }
    if segment_size == 0 || segment_size >= len {
        return Some(0);
    }
    let count = len.div_ceil(segment_size);
    u16::try_from(segment_size).ok().filter(|_| count <= SEGMENTS_MAX)
}

/// Where segmented sends do not work: routes through IPsec, or devices without checksums.
#[derive(Debug, Default)]
pub(crate) struct Segmentation {
    refused: Vec<IpAddr>,
    off: bool,
}

impl Segmentation {
    pub(crate) fn is_off(&self) -> bool {
        self.off
    }

    pub(crate) fn is_refused(&self, destination: &Destination) -> bool {
        self.off || self.refused.contains(&destination.remote.ip())
    }

    pub(crate) fn refuse(&mut self, peer: IpAddr) {
        if self.refused.len() == REFUSED_MAX {
            self.off = true;
        } else if !self.refused.contains(&peer) {
            self.refused.push(peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segmentation_is_told_only_when_there_is_any() {
        assert_eq!(segmentation(0, 0), None);
        assert_eq!(segmentation(1400, 0), Some(0));
        assert_eq!(segmentation(1400, 1400), Some(0));
        assert_eq!(segmentation(1401, 1400), Some(1400));
        assert_eq!(segmentation(64 * 1000, 1000), Some(1000));
        assert_eq!(segmentation(64 * 1000 + 1, 1000), None, "65 segments");
        assert_eq!(segmentation(65_507, 65_000), Some(65_000));
        assert_eq!(segmentation(65_508, 0), None);
    }

    #[test]
    fn it_is_refused_per_peer_until_there_are_too_many() {
        let peer = |n: u8| Destination {
            remote: ([10, 0, 0, n], 1).into(),
            local_ip: [0, 0, 0, 0].into(),
            local_port: 0,
        };
        let mut segmentation = Segmentation::default();
        segmentation.refuse(peer(1).remote.ip());
        assert!(segmentation.is_refused(&peer(1)));
        assert!(!segmentation.is_refused(&peer(2)));
        for n in 2..=33 {
            segmentation.refuse(peer(n).remote.ip());
        }
        assert!(segmentation.is_refused(&peer(200)));
    }
}
