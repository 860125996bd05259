//! The chain of epochs: one secret per direction and lane, moved forward by HKDF.
//!
//! ```text
//! chain(0) = TLS exporter                     one per (lane, direction)
//! key(n)   = HKDF-Expand(chain(n), "ipop lane key")    AEAD key of epoch n
//! iv(n)    = HKDF-Expand(chain(n), "ipop lane iv")     xor-ed with the counter
//! chain(n+1) = HKDF-Expand(chain(n), "ipop lane next") chain(n) is wiped
//! ```
//! Whoever learns chain(n) learns nothing about the epochs before n.

use aws_lc_rs::hkdf::{self, HKDF_SHA256, Prk};
use zeroize::{Zeroize, Zeroizing};

use crate::cipher::Cipher;
use crate::lane_key::{IV_LEN, LaneKey};

/// Length in bytes of a [`ChainSecret`].
pub const CHAIN_SECRET_LEN: usize = 32;

const KEY_LEN_MAX: usize = 32;

/// The secret from which one epoch's key and the next epoch's secret come. Wiped when dropped.
pub struct ChainSecret([u8; CHAIN_SECRET_LEN]);

impl ChainSecret {
    /// Takes exporter output as the secret of epoch 0.
    #[must_use]
    pub fn new(secret: [u8; CHAIN_SECRET_LEN]) -> Self {
        ChainSecret(secret)
    }

    /// A secret that `fill` writes in place, so that no copy of it stays on the stack.
    pub(crate) fn fill<E>(fill: impl FnOnce(&mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = ChainSecret([0; CHAIN_SECRET_LEN]);
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// The secret of the following epoch.
    #[must_use]
    pub(crate) fn next(&self) -> ChainSecret {
        let mut next = ChainSecret([0; CHAIN_SECRET_LEN]);
        self.expand(b"ipop lane next", &mut next.0);
        next
    }

    /// The AEAD key of this epoch.
    pub(crate) fn key(&self, cipher: Cipher) -> LaneKey {
        let mut bytes = Zeroizing::new([0u8; KEY_LEN_MAX]);
        let key = &mut bytes[..cipher.key_len()];
        self.expand(b"ipop lane key", key);
        let mut iv = [0u8; IV_LEN];
        self.expand(b"ipop lane iv", &mut iv);
        LaneKey::new(cipher, key, iv)
    }

    fn expand(&self, label: &[u8], out: &mut [u8]) {
        struct Length(usize);
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        Prk::new_less_safe(HKDF_SHA256, &self.0)
            .expand(&[label], Length(out.len()))
            .and_then(|okm| okm.fill(out))
            .expect("HKDF-SHA256 expands to at most 8160 bytes, and 32 is the most asked for");
    }
}

impl Drop for ChainSecret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for ChainSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChainSecret(..)")
    }
}
