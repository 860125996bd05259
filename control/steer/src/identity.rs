//! Who a node is.

use std::fmt;
use std::str::FromStr;

use crate::codec::{DecodeError, Reader, Writer};

/// SHA-256 of a node's SubjectPublicKeyInfo: its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// The text was not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 64 hexadecimal digits")]
pub struct FingerprintError;

impl Fingerprint {
    pub(crate) fn put(&self, to: &mut Writer<'_>) {
        to.bytes(&self.0);
    }

    pub(crate) fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(from.array()?))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digits = text.as_bytes();
        let mut fingerprint = [0; 32];
        if digits.len() != 2 * fingerprint.len() {
            return Err(FingerprintError);
        }
        for (byte, pair) in fingerprint.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Ok(Self(fingerprint))
    }
}

fn digit(ascii: u8) -> Result<u8, FingerprintError> {
    let value = char::from(ascii).to_digit(16).ok_or(FingerprintError)?;
    u8::try_from(value).map_err(|_| FingerprintError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trip() {
        let fingerprint = Fingerprint(std::array::from_fn(|i| (i * 7) as u8));
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
    }

    #[test]
    fn bad_text_is_refused() {
        for text in ["", "00", &"0g".repeat(32), &"é".repeat(32), &"0".repeat(66)] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError));
        }
    }
}
