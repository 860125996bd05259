//! The way with VAES and VPCLMULQDQ.
//!
//! `unsafe` here is of two sorts. Vectors are loaded from and stored to arrays that are as long as
//! the vector ([`load`], [`store`]). And functions that are compiled for instructions which not
//! every processor has are called from those that are not: only with a [`Key`] at hand, which does
//! not exist without them.

mod aes;
mod ghash;
mod message;

use core::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm_storeu_si128, _mm256_loadu_si256, _mm256_storeu_si256,
};

use aes::RoundKeys;
use ghash::Powers;

use crate::{NONCE_LEN, TAG_LEN};

/// Bytes of a block of AES.
const BLOCK: usize = 16;
/// Bytes of a vector: two blocks.
const VECTOR: usize = 32;
/// Vectors that are encrypted at once: as many as hide how long an instruction takes.
const VECTORS: usize = 8;
/// Bytes that are encrypted at once.
const WIDE: usize = VECTOR * VECTORS;

/// A key of AES with this many rounds: 10 for 128 bits, 14 for 256.
pub(crate) struct Key<const ROUNDS: usize> {
    rounds: RoundKeys<ROUNDS>,
    powers: Powers,
}

impl<const ROUNDS: usize> Key<ROUNDS> {
    /// `key` is of the length that belongs to the rounds. `None` without the instructions.
    pub(crate) fn new(key: &[u8]) -> Option<Self> {
        let is_there = is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq");
        // SAFETY: all of the instructions have just been found.
        is_there.then(|| unsafe { Self::expand(key) })
    }

    #[target_feature(enable = "aes,pclmulqdq,avx2,vaes,vpclmulqdq")]
    fn expand(key: &[u8]) -> Self {
        let rounds = RoundKeys::expand(key);
        let powers = Powers::of(rounds.encrypt(&[0; BLOCK]));
        Key { rounds, powers }
    }

    /// As [`crate::Key::seal`]; the lengths are right.
    #[inline]
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        message: [&[u8]; 2],
        out: &mut [u8],
    ) {
        // SAFETY: `new` made this key, having found all of the instructions.
        unsafe { message::seal(self, nonce, aad, message, out) }
    }

    /// As [`crate::Key::open`]; the lengths are right. Whether the tag is, is told.
    #[inline]
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        sealed: &[u8],
        tag: &[u8; TAG_LEN],
        out: &mut [u8],
    ) -> bool {
        // SAFETY: `new` made this key, having found all of the instructions.
        unsafe { message::open(self, nonce, aad, sealed, tag, out) }
    }
}

/// Two blocks, from anywhere.
#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; VECTOR]) -> __m256i {
    // SAFETY: the array is as long as what is read, and the instruction takes any alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Two blocks, to anywhere.
#[inline]
#[target_feature(enable = "avx2")]
fn store(bytes: &mut [u8; VECTOR], vector: __m256i) {
    // SAFETY: the array is as long as what is written, and the instruction takes any alignment.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), vector) }
}

/// A block, from anywhere.
#[inline]
#[target_feature(enable = "avx2")]
fn load_block(bytes: &[u8; BLOCK]) -> __m128i {
    // SAFETY: the array is as long as what is read, and the instruction takes any alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// A block as bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes_of(block: __m128i) -> [u8; BLOCK] {
    let mut bytes = [0; BLOCK];
    // SAFETY: the array is as long as what is written, and the instruction takes any alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), block) };
    bytes
}
