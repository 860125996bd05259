//! The arithmetic of SCRAM (RFC 5802 section 3, with SHA-256 RFC 7677).
//!
//! Both ends prove that they know the password and neither shows it. What is proven is tied to
//! `exchange`, the AuthMessage of the RFC: the client's first message without its header, the
//! challenge, and the client's last message without its proof, joined by commas.

mod message;

pub use message::{Challenge, Malformed, escaped_name, field, text_of, unescaped_name};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::{digest, hmac, pbkdf2};
use std::num::NonZeroU32;

/// The hash function of a mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-1, which RFC 6120 requires everybody to know.
    Sha1,
    /// SHA-256.
    Sha256,
}

/// A password, stretched: what a client computes once per login. Whoever has it can log in.
pub struct SaltedPassword {
    hash: Hash,
    bytes: Vec<u8>,
}

/// What a server needs to check a client and to prove itself; it does not suffice to log in.
pub struct ServerKeys {
    hash: Hash,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl SaltedPassword {
    /// Stretches a password that was prepared by SASLprep. Takes time in proportion to `rounds`.
    pub fn new(hash: Hash, password: &str, salt: &[u8], rounds: NonZeroU32) -> Self {
        Self { hash, bytes: hash.stretch(password.as_bytes(), salt, rounds) }
    }

    /// The client's proof.
    pub fn proof(&self, exchange: &str) -> Vec<u8> {
        let client_key = self.client_key();
        let stored_key = self.hash.digest(&client_key);
        xor(&client_key, &self.hash.hmac(&stored_key, exchange.as_bytes()))
    }

    /// What a server has to keep.
    pub fn server_keys(&self) -> ServerKeys {
        let stored_key = self.hash.digest(&self.client_key());
        let server_key = self.hash.hmac(&self.bytes, b"Server Key");
        ServerKeys { hash: self.hash, stored_key, server_key }
    }

    fn client_key(&self) -> Vec<u8> {
        self.hash.hmac(&self.bytes, b"Client Key")
    }
}

impl ServerKeys {
    /// Whether a proof shows that its client knows the password. The time this takes does not
    /// depend on how much of it is right.
    pub fn accept(&self, exchange: &str, proof: &[u8]) -> bool {
        let signature = self.hash.hmac(&self.stored_key, exchange.as_bytes());
        if proof.len() != signature.len() {
            return false;
        }
        let stored_key = self.hash.digest(&xor(proof, &signature));
        verify_slices_are_equal(&stored_key, &self.stored_key).is_ok()
    }

    /// The server's signature, its proof that it knows the password too. Clients compute it to
    /// compare.
    pub fn signature(&self, exchange: &str) -> Vec<u8> {
        self.hash.hmac(&self.server_key, exchange.as_bytes())
    }
}

impl Hash {
    /// The hash of the mechanism of that name, without `-PLUS`.
    pub fn of_mechanism(name: &str) -> Option<Self> {
        [Self::Sha1, Self::Sha256].into_iter().find(|hash| hash.mechanism() == name)
    }

    /// The mechanism's name, without `-PLUS`.
    pub fn mechanism(self) -> &'static str {
        match self {
            Self::Sha1 => "SCRAM-SHA-1",
            Self::Sha256 => "SCRAM-SHA-256",
        }
    }

    fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), data).as_ref().to_vec()
    }

    fn digest(self, data: &[u8]) -> Vec<u8> {
        let algorithm = match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
        };
        digest::digest(algorithm, data).as_ref().to_vec()
    }

    fn stretch(self, password: &[u8], salt: &[u8], rounds: NonZeroU32) -> Vec<u8> {
        let (algorithm, len) = match self {
            Self::Sha1 => (pbkdf2::PBKDF2_HMAC_SHA1, 20),
            Self::Sha256 => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        };
        let mut salted = vec![0; len];
        pbkdf2::derive(algorithm, rounds, salt, password, &mut salted);
        salted
    }
}

fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter().zip(right).map(|(left, right)| left ^ right).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD as BASE64;

    /// The exchange printed in RFC 5802 section 5.
    const EXCHANGE: &str = "n=user,r=fyko+d2lbbFgONRv9qkxdawL,\
         r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096,\
         c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j";

    fn salted(hash: Hash) -> SaltedPassword {
        let salt = BASE64.decode("QSXCR+Q6sek8bf92").unwrap();
        SaltedPassword::new(hash, "pencil", &salt, NonZeroU32::new(4096).unwrap())
    }

    #[test]
    fn proof_and_signature_are_those_of_the_rfc() {
        let salted = salted(Hash::Sha1);
        assert_eq!(BASE64.encode(salted.proof(EXCHANGE)), "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=");
        let signature = salted.server_keys().signature(EXCHANGE);
        assert_eq!(BASE64.encode(signature), "rmF9pqV8S7suAoZWja4dJRkFsKQ=");
    }

    #[test]
    fn a_proof_holds_for_its_exchange_and_no_other() {
        for hash in [Hash::Sha1, Hash::Sha256] {
            let keys = salted(hash).server_keys();
            let mut proof = salted(hash).proof(EXCHANGE);
            assert!(keys.accept(EXCHANGE, &proof));
            assert!(!keys.accept("another", &proof));
            assert!(!keys.accept(EXCHANGE, &proof[1..]));
            assert!(!keys.accept(EXCHANGE, &[]));
            proof[0] ^= 1;
            assert!(!keys.accept(EXCHANGE, &proof));
        }
    }

    #[test]
    fn mechanisms_are_found_by_name() {
        for hash in [Hash::Sha1, Hash::Sha256] {
            assert_eq!(Hash::of_mechanism(hash.mechanism()), Some(hash));
        }
        assert_eq!(Hash::of_mechanism("SCRAM-SHA-1-PLUS"), None);
    }
}
