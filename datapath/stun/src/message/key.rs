//! Keys of the two credential mechanisms and the check of MESSAGE-INTEGRITY.

use aws_lc_rs::{constant_time, hmac};
use stun_rs::{AlgorithmId, HMACKey};
use thiserror::Error;

/// How a long-term key is derived from user name, realm and password (RFC 8489 section 18.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// MD5, the one every server knows.
    Md5,
    /// SHA-256, only when the server offers it in PASSWORD-ALGORITHMS.
    Sha256,
}

impl Algorithm {
    /// The number in the registry of RFC 8489 section 18.5.
    pub const fn number(self) -> u16 {
        match self {
            Self::Md5 => 1,
            Self::Sha256 => 2,
        }
    }
}

/// A name or password that the OpaqueString profile (RFC 8265) forbids, such as an empty one or
/// one with control characters.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("user name, realm or password is empty or has characters that STUN forbids: {0}")]
pub struct KeyError(String);

/// An HMAC key of the short-term or long-term mechanism (RFC 8489 section 9).
#[derive(Clone)]
pub struct Key {
    sha1: hmac::Key,
    sha256: hmac::Key,
}

impl Key {
    /// The short-term key of `password`, as ICE uses it (RFC 8489 section 9.1.1).
    pub fn short_term(password: &str) -> Result<Self, KeyError> {
        HMACKey::new_short_term(password)
            .map(|key| Self::of(&key))
            .map_err(|e| KeyError(e.to_string()))
    }

    /// The long-term key of a user in a realm, as TURN uses it (RFC 8489 section 9.2.2).
    pub fn long_term(
        username: &str,
        realm: &str,
        password: &str,
        algorithm: Algorithm,
    ) -> Result<Self, KeyError> {
        let id = match algorithm {
            Algorithm::Md5 => AlgorithmId::MD5,
            Algorithm::Sha256 => AlgorithmId::SHA256,
        };
        HMACKey::new_long_term(username, realm, password, stun_rs::Algorithm::from(id))
            .map(|key| Self::of(&key))
            .map_err(|e| KeyError(e.to_string()))
    }

    /// The value of MESSAGE-INTEGRITY behind `covered`, for messages the builder would not make.
    #[cfg(test)]
    pub(crate) fn hmac_sha1(&self, covered: &[u8]) -> Vec<u8> {
        hmac::sign(&self.sha1, covered).as_ref().to_vec()
    }

    fn of(codec: &HMACKey) -> Self {
        let sha1 = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, codec.as_bytes());
        let sha256 = hmac::Key::new(hmac::HMAC_SHA256, codec.as_bytes());
        Self { sha1, sha256 }
    }

    /// The HMAC of a message, whose length field already says that it ends behind the integrity
    /// attribute to come.
    pub(super) fn sign(&self, kind: Integrity, covered: &[u8]) -> hmac::Tag {
        hmac::sign(self.of_kind(kind), covered)
    }

    fn of_kind(&self, kind: Integrity) -> &hmac::Key {
        match kind {
            Integrity::Sha1 => &self.sha1,
            Integrity::Sha256 => &self.sha256,
        }
    }

    /// Whether `tag` is the HMAC of the message up to `covered`, with the length field standing
    /// as if the message ended behind the integrity attribute (RFC 8489 section 14.5). Takes the
    /// same time for every wrong tag.
    pub(super) fn matches(&self, kind: Integrity, covered: &[u8], length: u16, tag: &[u8]) -> bool {
        let (Some(kind_of_message), Some(rest)) = (covered.get(..2), covered.get(4..)) else {
            return false;
        };
        let mut context = hmac::Context::with_key(self.of_kind(kind));
        context.update(kind_of_message);
        context.update(&length.to_be_bytes());
        context.update(rest);
        constant_time::verify_slices_are_equal(context.sign().as_ref(), tag).is_ok()
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Which attribute protected a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Integrity {
    /// MESSAGE-INTEGRITY: HMAC-SHA-1.
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256.
    Sha256,
}

/// Why a message is not authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IntegrityError {
    /// It carries neither MESSAGE-INTEGRITY nor MESSAGE-INTEGRITY-SHA256.
    #[error("the message carries no integrity attribute")]
    Missing,
    /// It was made with another key, or changed on the way.
    #[error("the message's integrity attribute does not fit the key")]
    Mismatch,
}
