//! Where the attributes that cover or carry raw bytes stand in a message.
//!
//! The codec hands out values, not places; an integrity check needs the bytes before its
//! attribute, and relayed data shall be used where it lies.

use std::ops::Range;

/// Bytes of the header that stands before the attributes (RFC 8489 section 5).
pub const HEADER_LEN: usize = 20;
const ATTRIBUTE_HEADER_LEN: usize = 4;

const MESSAGE_INTEGRITY: u16 = 0x0008;
const DATA: u16 = 0x0013;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
const FINGERPRINT: u16 = 0x8028;

/// Places of attributes, as offsets of their values from the start of the message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    pub integrity: Option<Range<usize>>,
    pub integrity_sha256: Option<Range<usize>>,
    pub fingerprint: Option<Range<usize>>,
    pub data: Option<Range<usize>>,
}

impl Layout {
    /// Walks the attributes of `message`, whose length field is right. `None` if they do not fill
    /// it exactly, or if an attribute stands behind FINGERPRINT.
    ///
    /// Like the codec it takes the first of a kind, and of the attributes behind an integrity
    /// attribute only a stronger one and FINGERPRINT (RFC 8489 section 14.5).
    pub fn of(message: &[u8]) -> Option<Self> {
        let mut layout = Self::default();
        let mut at = HEADER_LEN;
        while at < message.len() {
            if layout.fingerprint.is_some() {
                return None;
            }
            let header = message.get(at..at + ATTRIBUTE_HEADER_LEN)?;
            let kind = u16::from_be_bytes([header[0], header[1]]);
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let start = at + ATTRIBUTE_HEADER_LEN;
            let value = start..start + length;
            at = start + length.next_multiple_of(4);
            if at > message.len() {
                return None;
            }
            layout.note(kind, value);
        }
        Some(layout)
    }

    fn note(&mut self, kind: u16, value: Range<usize>) {
        let covered = self.integrity.is_some() || self.integrity_sha256.is_some();
        let place = match kind {
            MESSAGE_INTEGRITY if !covered => &mut self.integrity,
            MESSAGE_INTEGRITY_SHA256 => &mut self.integrity_sha256,
            FINGERPRINT => &mut self.fingerprint,
            DATA if !covered => &mut self.data,
            _ => return,
        };
        place.get_or_insert(value);
    }
}

/// The bytes before the attribute whose value is `value`, and what the length field says when the
/// message ends with that attribute.
pub(super) fn covered(message: &[u8], value: &Range<usize>) -> Option<(usize, u16)> {
    let end = value.start.checked_sub(ATTRIBUTE_HEADER_LEN)?;
    let length = value.end.checked_sub(HEADER_LEN)?;
    message.get(..end)?;
    Some((end, u16::try_from(length).ok()?))
}
