//! Where the attributes that cover or carry raw bytes stand in a message.
//!
//! The codec hands out values, not places; an integrity check needs the bytes before its
//! attribute, and relayed data shall be used where it lies.

use std::ops::Range;

/// Bytes of the header that stands before the attributes (RFC 8489 section 5).
pub const HEADER_LEN: usize = 20;
/// Bytes of an attribute's type and length.
pub(super) const ATTRIBUTE_HEADER_LEN: usize = 4;

pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const DATA: u16 = 0x0013;
const REALM: u16 = 0x0014;
const NONCE: u16 = 0x0015;
pub(super) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
pub(super) const FINGERPRINT: u16 = 0x8028;

/// Types that a list of unknown ones may have.
const UNKNOWN_TYPES_MAX: usize = 64;

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
    /// it exactly, if one stands behind FINGERPRINT, or if one is absurdly long.
    ///
    /// Like the codec it takes the first of a kind, and of the attributes behind an integrity
    /// attribute only a stronger one and FINGERPRINT (RFC 8489 section 14.5).
    pub fn of(message: &[u8]) -> Option<Self> {
        let mut layout = Self::default();
        let mut walk = Walk { message, at: HEADER_LEN };
        for (kind, value) in &mut walk {
            if layout.fingerprint.is_some() || !is_bounded(kind, &message[value.clone()]) {
                return None;
            }
            layout.note(kind, value);
        }
        (walk.at == message.len()).then_some(layout)
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

/// Whether a value is short enough to be given to the codec, which takes long for some that no
/// honest sender makes: quadratic time for a list of types, 80 µs for a nonce of 760 bytes.
fn is_bounded(kind: u16, value: &[u8]) -> bool {
    match kind {
        // Fewer than 128 characters (RFC 8489 sections 14.9 and 14.10).
        REALM | NONCE => value.iter().filter(|byte| **byte & 0xc0 != 0x80).count() < 128,
        UNKNOWN_ATTRIBUTES => value.len() <= 2 * UNKNOWN_TYPES_MAX,
        _ => true,
    }
}

/// Types and places of values, in order, up to the first attribute that does not fit.
struct Walk<'a> {
    message: &'a [u8],
    /// Behind the last attribute that fits.
    at: usize,
}

impl Iterator for Walk<'_> {
    type Item = (u16, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at + ATTRIBUTE_HEADER_LEN;
        let header = self.message.get(self.at..start)?;
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let end = start + length.next_multiple_of(4);
        if end > self.message.len() {
            return None;
        }
        self.at = end;
        Some((kind, start..start + length))
    }
}

/// Whether the attributes fill `message` exactly and each holds to `rule`, given its type and
/// value; also those behind an integrity attribute.
pub(crate) fn every_attribute(message: &[u8], rule: impl Fn(u16, &[u8]) -> bool) -> bool {
    let mut walk = Walk { message, at: HEADER_LEN };
    let held = walk.all(|(kind, value)| message.get(value).is_some_and(|v| rule(kind, v)));
    held && walk.at == message.len()
}

/// The bytes before the attribute whose value is `value`, and what the length field says when the
/// message ends with that attribute.
pub(super) fn covered(message: &[u8], value: &Range<usize>) -> Option<(usize, u16)> {
    let end = value.start.checked_sub(ATTRIBUTE_HEADER_LEN)?;
    let length = value.end.checked_sub(HEADER_LEN)?;
    message.get(..end)?;
    Some((end, u16::try_from(length).ok()?))
}
