//! A bundle: several whole small frames in the plaintext of one datagram, one record behind the
//! other until its end.
//!
//! ```text
//!  0               1               2               3
//! +---------------+---------------+---------------+---------------+
//! |        frame length           |     flags     |  csum offset  |
//! +---------------+---------------+---------------+---------------+
//! |        checksum start         |  frame ...
//! +---------------+---------------+---------------+---------------+
//! flags: 1 checksum needed, 2 checksum known valid, 4 Ethernet header elided
//! ```
//! `frame length` counts the bytes that travel; `checksum start` counts from the front of the whole
//! frame, an elided Ethernet header included.

use std::ops::Range;

use crate::Malformed;
use crate::flags::Flags;
use crate::vnet::{Csum, CsumState};

/// Bytes in front of each frame.
pub const RECORD_LEN: usize = 6;

/// What is told of one frame in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Bytes of the frame that travel.
    pub len: u16,
    /// What is known of the inner checksum; its offset is at most 255.
    pub csum: CsumState,
    /// The Ethernet header does not travel.
    pub is_ethernet_elided: bool,
}

impl Record {
    /// Whether a checksum's place can be told by a record at all.
    #[inline]
    pub const fn can_tell(csum: CsumState) -> bool {
        !matches!(csum, CsumState::Needed(Csum { offset: 256.., .. }))
    }

    /// Reads the 6 bytes.
    #[inline]
    pub fn parse(bytes: &[u8; RECORD_LEN]) -> Result<Record, Malformed> {
        let [l0, l1, bits, offset, s0, s1] = *bytes;
        let csum = Csum { start: u16::from_be_bytes([s0, s1]), offset: u16::from(offset) };
        let Flags { csum, is_ethernet_elided, has_ecn } = Flags::parse(bits, csum)?;
        if has_ecn {
            return Err(Malformed::Unsupported);
        }
        Ok(Record { len: u16::from_be_bytes([l0, l1]), csum, is_ethernet_elided })
    }

    /// The 6 bytes.
    #[inline]
    pub fn emit(&self) -> [u8; RECORD_LEN] {
        let Record { csum, is_ethernet_elided, .. } = *self;
        let (bits, place) = Flags { csum, is_ethernet_elided, has_ecn: false }.emit();
        let [l0, l1] = self.len.to_be_bytes();
        let [s0, s1] = place.start.to_be_bytes();
        [l0, l1, bits, place.offset as u8, s0, s1]
    }
}

/// The record at byte `at` of a bundle's plaintext and where its frame lies; the next record begins
/// where the frame ends. `None` at the end of the bundle.
#[inline]
pub fn record_at(plaintext: &[u8], at: usize) -> Result<Option<(Record, Range<usize>)>, Malformed> {
    let rest = plaintext.get(at..).ok_or(Malformed::Truncated)?;
    if rest.is_empty() {
        return Ok(None);
    }
    let front = rest.first_chunk().ok_or(Malformed::Truncated)?;
    let record = Record::parse(front)?;
    let start = at + RECORD_LEN;
    let end = start + usize::from(record.len);
    if end > plaintext.len() {
        return Err(Malformed::Truncated);
    }
    Ok(Some((record, start..end)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vnet::tests::any_csum;
    use proptest::prelude::*;

    fn any_record() -> impl Strategy<Value = Record> {
        (0..40u16, any_csum(), any::<bool>()).prop_map(|(len, mut csum, is_ethernet_elided)| {
            if let CsumState::Needed(csum) = &mut csum {
                csum.offset &= 0xff;
            }
            Record { len, csum, is_ethernet_elided }
        })
    }

    proptest! {
        #[test]
        fn emitted_bundles_parse_to_themselves(
            records in proptest::collection::vec(any_record(), 0..9),
        ) {
            let mut plaintext = Vec::new();
            for (fill, record) in records.iter().enumerate() {
                prop_assert!(Record::can_tell(record.csum));
                plaintext.extend(record.emit());
                plaintext.extend(vec![fill as u8; usize::from(record.len)]);
            }
            let (mut seen, mut at) = (Vec::new(), 0);
            while let Some((record, frame)) = record_at(&plaintext, at).expect("well-formed") {
                prop_assert_eq!(frame.len(), usize::from(record.len));
                prop_assert!(plaintext[frame.clone()].iter().all(|b| *b == seen.len() as u8));
                seen.push(record);
                at = frame.end;
            }
            prop_assert_eq!(seen, records);
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(0..20u8, 0..80)) {
            let mut at = 0;
            while let Ok(Some((_, frame))) = record_at(&bytes, at) {
                at = frame.end;
            }
        }
    }
}
