//! The flag byte that geometry and bundle records share.

use crate::Malformed;
use crate::vnet::{Csum, CsumState};

const NEEDS_CSUM: u8 = 1 << 0;
const CSUM_VALID: u8 = 1 << 1;
const ETHERNET_ELIDED: u8 = 1 << 2;
const ECN: u8 = 1 << 3;
const KNOWN: u8 = NEEDS_CSUM | CSUM_VALID | ETHERNET_ELIDED | ECN;

/// What the bits say.
pub(crate) struct Flags {
    pub csum: CsumState,
    pub is_ethernet_elided: bool,
    pub has_ecn: bool,
}

impl Flags {
    #[inline]
    pub fn parse(bits: u8, csum: Csum) -> Result<Flags, Malformed> {
        if bits & !KNOWN != 0 {
            return Err(Malformed::Unsupported);
        }
        let csum = match (bits & NEEDS_CSUM != 0, bits & CSUM_VALID != 0) {
            (false, false) => CsumState::Unknown,
            (false, true) => CsumState::Valid,
            (true, false) => CsumState::Needed(csum),
            (true, true) => return Err(Malformed::BadValue),
        };
        let is_ethernet_elided = bits & ETHERNET_ELIDED != 0;
        Ok(Flags { csum, is_ethernet_elided, has_ecn: bits & ECN != 0 })
    }

    /// The bits, and the checksum's place (zeroes when there is none).
    #[inline]
    pub fn emit(&self) -> (u8, Csum) {
        let (mut bits, place) = match self.csum {
            CsumState::Unknown => (0, Csum::default()),
            CsumState::Valid => (CSUM_VALID, Csum::default()),
            CsumState::Needed(csum) => (NEEDS_CSUM, csum),
        };
        if self.is_ethernet_elided {
            bits |= ETHERNET_ELIDED;
        }
        if self.has_ecn {
            bits |= ECN;
        }
        (bits, place)
    }
}
