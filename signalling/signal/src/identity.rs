//! Who a peer is: the hash of its public key.

use std::fmt;
use std::str::FromStr;

/// SHA-256 of a node's Ed25519 SubjectPublicKeyInfo: the identity that a link is pinned to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

/// The text is not 32 bytes in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is 64 hexadecimal digits, with or without colons between the bytes")]
pub struct InvalidFingerprint;

impl Fingerprint {
    /// The node's UID: the first 160 bits in lower-case hexadecimal, 40 characters.
    pub fn uid_hex(&self) -> String {
        self.0[..20].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Upper-case hexadecimal with colons, as XEP-0320 and RFC 8122 write it.
    pub fn to_colon_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }
}

/// Lower-case hexadecimal, 64 characters.
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

/// Accepts both notations, in either case, white space around it ignored.
impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let text = text.trim().as_bytes();
        let stride = match text.len() {
            64 => 2,
            95 => 3,
            _ => return Err(InvalidFingerprint),
        };
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.chunks(stride)) {
            let (high, low) = (hex_digit(digits[0])?, hex_digit(digits[1])?);
            if digits.get(2).is_some_and(|separator| *separator != b':') {
                return Err(InvalidFingerprint);
            }
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

fn hex_digit(digit: u8) -> Result<u8, InvalidFingerprint> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(InvalidFingerprint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_notations_come_back(bytes in any::<[u8; 32]>()) {
            let fingerprint = Fingerprint(bytes);
            prop_assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
            prop_assert_eq!(fingerprint.to_colon_hex().parse(), Ok(fingerprint));
            prop_assert!(fingerprint.to_string().starts_with(&fingerprint.uid_hex()));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,100}") {
            let _ = text.parse::<Fingerprint>();
        }
    }
}
