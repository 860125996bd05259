//! AES (FIPS 197): round keys, and the key stream of counter mode.

use core::arch::x86_64::{
    __m128i, __m256i, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_cvtsi128_si32, _mm_set1_epi32,
    _mm_setzero_si128, _mm_xor_si128, _mm256_add_epi32, _mm256_aesenc_epi128,
    _mm256_aesenclast_epi128, _mm256_broadcastsi128_si256, _mm256_setr_epi32, _mm256_shuffle_epi8,
    _mm256_xor_si256,
};

use zeroize::Zeroize;

use super::ghash::reversal;
use super::{BLOCK, VECTORS, load, load_block};
use crate::NONCE_LEN;

/// The most rounds that there are.
const ROUNDS_MAX: usize = 14;

/// The keys of all rounds, each twice: a vector has two blocks.
#[repr(align(32))]
pub(super) struct RoundKeys<const ROUNDS: usize>([[u8; 2 * BLOCK]; ROUNDS_MAX + 1]);

impl<const ROUNDS: usize> RoundKeys<ROUNDS> {
    /// The key expansion of FIPS 197, section 5.2.
    #[target_feature(enable = "aes,avx2")]
    pub(super) fn expand(key: &[u8]) -> Self {
        let key_words = key.len() / 4;
        debug_assert_eq!(key_words + 6, ROUNDS, "rounds and key belong together");
        let mut words = [0_u32; 4 * (ROUNDS_MAX + 1)];
        for (word, bytes) in words.iter_mut().zip(key.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        let mut round_constant = 1_u32;
        for at in key_words..4 * (ROUNDS + 1) {
            let before = words[at - 1];
            let mixed = match at % key_words {
                0 => {
                    // Of a word that lies in memory backwards.
                    let mixed = substitute(before).rotate_right(8) ^ round_constant;
                    round_constant = (round_constant << 1) ^ (0x11b * (round_constant >> 7));
                    mixed
                }
                4 if key_words > 6 => substitute(before),
                _ => before,
            };
            words[at] = words[at - key_words] ^ mixed;
        }
        let mut keys = [[0; 2 * BLOCK]; ROUNDS_MAX + 1];
        for (key, words) in keys.iter_mut().zip(words.chunks_exact(4)) {
            for (at, bytes) in key.chunks_exact_mut(4).enumerate() {
                bytes.copy_from_slice(&words[at % 4].to_le_bytes());
            }
        }
        words.zeroize();
        RoundKeys(keys)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn of_round(&self, round: usize) -> __m128i {
        load_block(self.0[round].first_chunk().expect("it has two blocks"))
    }

    /// One block.
    #[inline]
    #[target_feature(enable = "aes,avx2")]
    pub(super) fn encrypt(&self, block: &[u8; BLOCK]) -> __m128i {
        let mut state = _mm_xor_si128(load_block(block), self.of_round(0));
        for round in 1..ROUNDS {
            state = _mm_aesenc_si128(state, self.of_round(round));
        }
        _mm_aesenclast_si128(state, self.of_round(ROUNDS))
    }

    /// `data` in this many vectors with the next of the key stream.
    #[inline]
    #[target_feature(enable = "avx2,vaes")]
    pub(super) fn crypt<const COUNT: usize>(
        &self,
        counter: &mut Counter,
        data: [__m256i; COUNT],
    ) -> [__m256i; COUNT] {
        const { assert!(COUNT <= VECTORS) };
        let first = load(&self.0[0]);
        let mut states = data;
        for state in &mut states {
            *state = _mm256_xor_si256(counter.next(), first);
        }
        for key in &self.0[1..ROUNDS] {
            let key = load(key);
            for state in &mut states {
                *state = _mm256_aesenc_epi128(*state, key);
            }
            together(&mut states);
        }
        let last = load(&self.0[ROUNDS]);
        for (state, data) in states.iter_mut().zip(data) {
            // The last thing a round does is to add its key: the data may come with that.
            *state = _mm256_aesenclast_epi128(*state, _mm256_xor_si256(last, data));
        }
        states
    }
}

impl<const ROUNDS: usize> Drop for RoundKeys<ROUNDS> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Lets no state be a round ahead of the others: the compiler would compute one after the other,
/// each waiting for itself, to spare registers.
#[inline]
#[target_feature(enable = "avx2")]
fn together<const COUNT: usize>(states: &mut [__m256i; COUNT]) {
    let Ok(states) = <&mut [__m256i; VECTORS]>::try_from(states.as_mut_slice()) else { return };
    // SAFETY: there is no instruction.
    unsafe {
        core::arch::asm!(
            "/* {} {} {} {} {} {} {} {} */",
            inout(ymm_reg) states[0],
            inout(ymm_reg) states[1],
            inout(ymm_reg) states[2],
            inout(ymm_reg) states[3],
            inout(ymm_reg) states[4],
            inout(ymm_reg) states[5],
            inout(ymm_reg) states[6],
            inout(ymm_reg) states[7],
            options(pure, nomem, nostack, preserves_flags)
        );
    }
}

/// The substitution of FIPS 197 for each byte of a word.
#[inline]
#[target_feature(enable = "aes,avx2")]
fn substitute(word: u32) -> u32 {
    // A round also shifts rows, which is nothing to four columns that are equal.
    let columns = _mm_set1_epi32(word.cast_signed());
    _mm_cvtsi128_si32(_mm_aesenclast_si128(columns, _mm_setzero_si128())).cast_unsigned()
}

/// The counter blocks of a message, two at a time.
pub(super) struct Counter {
    /// Backwards, so that the count is a word.
    next: __m256i,
}

impl Counter {
    /// The first block with this nonce: what it encrypts to hides the tag.
    #[inline]
    pub(super) fn tag_block(nonce: &[u8; NONCE_LEN]) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..NONCE_LEN].copy_from_slice(nonce);
        block[BLOCK - 1] = 1;
        block
    }

    /// Begins with the second block, the message's first.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn new(nonce: &[u8; NONCE_LEN]) -> Counter {
        let both = _mm256_broadcastsi128_si256(load_block(&Self::tag_block(nonce)));
        let backwards = _mm256_shuffle_epi8(both, reversal());
        Counter { next: _mm256_add_epi32(backwards, _mm256_setr_epi32(1, 0, 0, 0, 2, 0, 0, 0)) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn next(&mut self) -> __m256i {
        let blocks = _mm256_shuffle_epi8(self.next, reversal());
        self.next = _mm256_add_epi32(self.next, _mm256_setr_epi32(2, 0, 0, 0, 2, 0, 0, 0));
        blocks
    }
}
