//! The chain of epochs: one secret per direction and lane, moved forward by HKDF.
//!
//! ```text
//! chain(0) = TLS exporter                     one per (lane, direction)
//! key(n)   = HKDF-Expand(chain(n), "ipop lane key")    AEAD key of epoch n
//! iv(n)    = HKDF-Expand(chain(n), "ipop lane iv")     96 bits, xor-ed with the counter
//! chain(n+1) = HKDF-Expand(chain(n), "ipop lane next") chain(n) is wiped
//! ```
//! Whoever learns chain(n) learns nothing about the epochs before n.

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{self, HKDF_SHA256, Prk};
use zeroize::Zeroize;

use crate::cipher::Cipher;

/// Length in bytes of a [`ChainSecret`].
pub const CHAIN_SECRET_LEN: usize = 32;

const IV_LEN: usize = 12;
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
        let algorithm = cipher.algorithm();
        let mut bytes = [0u8; KEY_LEN_MAX];
        let key_bytes = &mut bytes[..algorithm.key_len()];
        self.expand(b"ipop lane key", key_bytes);
        let key = UnboundKey::new(algorithm, key_bytes)
            .expect("the slice is as long as the algorithm says its key is");
        bytes.zeroize();
        let mut iv = [0u8; IV_LEN];
        self.expand(b"ipop lane iv", &mut iv);
        LaneKey { key: LessSafeKey::new(key), iv }
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

/// One epoch's AEAD key and IV. aws-lc wipes the key schedule; the IV is wiped here.
pub(crate) struct LaneKey {
    key: LessSafeKey,
    iv: [u8; IV_LEN],
}

impl LaneKey {
    /// Seals `payload` then `extra` as one message: ciphertexts to `sealed`, the second one and
    /// the tag to `extra_and_tag`. Lengths must fit exactly.
    #[inline]
    pub(crate) fn seal(
        &self,
        counter: u64,
        aad: &[u8],
        payload: &[u8],
        sealed: &mut [u8],
        extra: &[u8],
        extra_and_tag: &mut [u8],
    ) -> Result<(), ()> {
        let nonce = self.nonce(counter);
        let aad = Aad::from(aad);
        self.key
            .seal_out_of_place_scatter(nonce, aad, payload, sealed, extra, extra_and_tag)
            .map_err(drop)
    }

    /// Opens into `out`, which is as long as `sealed`. After an error `out` holds garbage.
    #[inline]
    pub(crate) fn open(
        &self,
        counter: u64,
        aad: &[u8],
        sealed: &[u8],
        tag: &[u8],
        out: &mut [u8],
    ) -> Result<(), ()> {
        let nonce = self.nonce(counter);
        self.key.open_separate_gather(nonce, Aad::from(aad), sealed, tag, out).map_err(drop)
    }

    #[inline]
    fn nonce(&self, counter: u64) -> Nonce {
        let mut nonce = self.iv;
        for (byte, count) in nonce[IV_LEN - 8..].iter_mut().zip(counter.to_be_bytes()) {
            *byte ^= count;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

impl Drop for LaneKey {
    fn drop(&mut self) {
        self.iv.zeroize();
    }
}
