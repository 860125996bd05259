//! GHASH (NIST SP 800-38D, section 6.4): a polynomial over GF(2^128) at the point `H`.
//!
//! The standard numbers bits from the left. A block that is read backwards has them in the order
//! of the carry-less multiplication, and stands for a polynomial modulo
//! `g = x^128 + x^127 + x^126 + x^121 + 1`. The standard's product of two blocks is then
//! `a * b * x^-127 mod g`. Keys are kept times `x`, so what is left to do behind a multiplication
//! is to divide by `x^128`: twice, the lowest 64 bits are made zero by adding a multiple of `g`,
//! and dropped (Montgomery's reduction). The middle of `g` is all that this multiplies with.
//!
//! Many blocks are summed before one reduction, each times the power of `H` for its place.

use core::arch::x86_64::{
    __m128i, __m256i, _mm_clmulepi64_si128, _mm_set_epi64x, _mm_setzero_si128, _mm_shuffle_epi8,
    _mm_shuffle_epi32, _mm_xor_si128, _mm256_castsi256_si128, _mm256_clmulepi64_epi128,
    _mm256_extracti128_si256, _mm256_setr_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8,
    _mm256_shuffle_epi32, _mm256_xor_si256, _mm256_zextsi128_si256,
};

use zeroize::Zeroize;

use super::{BLOCK, VECTOR, WIDE, bytes_of, load, load_block};

/// The most blocks that are summed before a reduction: a wide piece and the lengths.
pub(super) const SUM_MAX: usize = WIDE / BLOCK + 1;

/// `H` to `H^17` times `x`, the highest first, so that blocks and powers lie in the same order.
/// Behind the last is a zero, for sums of an odd number of blocks.
#[repr(align(32))]
pub(super) struct Powers {
    powers: [u8; (SUM_MAX + 1) * BLOCK],
    /// Of each, both halves added, in both halves.
    folded: [u8; (SUM_MAX + 1) * BLOCK],
}

impl Powers {
    /// Of the hash key, a block of zeros encrypted.
    #[target_feature(enable = "avx2,pclmulqdq")]
    pub(super) fn of(hash_key: __m128i) -> Powers {
        let hash_key = times_x(backwards(hash_key));
        let mut powers = [0; (SUM_MAX + 1) * BLOCK];
        let mut folded = powers;
        let mut power = hash_key;
        for at in (0..SUM_MAX * BLOCK).step_by(BLOCK).rev() {
            powers[at..][..BLOCK].copy_from_slice(&bytes_of(power));
            let halves = _mm_xor_si128(power, _mm_shuffle_epi32::<0b01_00_11_10>(power));
            folded[at..][..BLOCK].copy_from_slice(&bytes_of(halves));
            power = multiply(power, hash_key);
        }
        Powers { powers, folded }
    }

    /// For the first of `count` blocks that are left, and the one behind it.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn pair(&self, count: usize) -> [__m256i; 2] {
        let at = (SUM_MAX - count) * BLOCK;
        let pair = self.powers[at..].first_chunk::<VECTOR>().expect("count is at least one");
        let folded = self.folded[at..].first_chunk::<VECTOR>().expect("count is at least one");
        [load(pair), load(folded)]
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn first(&self) -> __m128i {
        let at = (SUM_MAX - 1) * BLOCK;
        load_block(self.powers[at..].first_chunk::<BLOCK>().expect("there is a first power"))
    }
}

impl Drop for Powers {
    fn drop(&mut self) {
        self.powers.zeroize();
        self.folded.zeroize();
    }
}

/// The hash of what came so far, backwards.
pub(super) struct Hash<'powers> {
    powers: &'powers Powers,
    value: __m128i,
}

impl<'powers> Hash<'powers> {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn new(powers: &'powers Powers) -> Self {
        Hash { powers, value: _mm_setzero_si128() }
    }

    /// A few whole blocks, the last of them filled up with zeros.
    #[inline]
    #[target_feature(enable = "avx2,pclmulqdq")]
    pub(super) fn update_slowly(&mut self, bytes: &[u8]) {
        let (whole, rest) = bytes.as_chunks::<BLOCK>();
        let mut last = [0; BLOCK];
        last[..rest.len()].copy_from_slice(rest);
        for block in whole.iter().chain((!rest.is_empty()).then_some(&last)) {
            let sum = _mm_xor_si128(self.value, backwards(load_block(block)));
            self.value = multiply(sum, self.powers.first());
        }
    }

    /// The first `count` blocks of these vectors; a block behind them is zero.
    #[inline]
    #[target_feature(enable = "avx2,pclmulqdq,vpclmulqdq")]
    pub(super) fn update(&mut self, vectors: &[__m256i], count: usize) {
        debug_assert!(count <= SUM_MAX && count.div_ceil(2) == vectors.len());
        let mut sum = Sum::new();
        let first = _mm256_zextsi128_si256(self.value);
        // The first one last: only it has to wait for what came before.
        for (at, vector) in vectors.iter().enumerate().rev() {
            let mut blocks = _mm256_shuffle_epi8(*vector, reversal());
            if at == 0 {
                blocks = _mm256_xor_si256(blocks, first);
            }
            sum.add(blocks, self.powers.pair(count - 2 * at));
        }
        self.value = sum.reduce();
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn finish(self) -> __m128i {
        backwards(self.value)
    }
}

/// Products before their reduction: 128 bits from bit 0, from bit 64, and from bit 128.
struct Sum {
    low: __m256i,
    middle: __m256i,
    high: __m256i,
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new() -> Sum {
        let zero = _mm256_setzero_si256();
        Sum { low: zero, middle: zero, high: zero }
    }

    #[inline]
    #[target_feature(enable = "avx2,vpclmulqdq")]
    fn add(&mut self, blocks: __m256i, [powers, folded_powers]: [__m256i; 2]) {
        let folded = _mm256_xor_si256(blocks, _mm256_shuffle_epi32::<0b01_00_11_10>(blocks));
        let low = _mm256_clmulepi64_epi128::<0x00>(blocks, powers);
        let high = _mm256_clmulepi64_epi128::<0x11>(blocks, powers);
        let middle = _mm256_clmulepi64_epi128::<0x00>(folded, folded_powers);
        self.low = _mm256_xor_si256(self.low, low);
        self.high = _mm256_xor_si256(self.high, high);
        self.middle = _mm256_xor_si256(self.middle, middle);
    }

    #[inline]
    #[target_feature(enable = "avx2,pclmulqdq")]
    fn reduce(self) -> __m128i {
        let (low, high) = (folded(self.low), folded(self.high));
        // What the halves' product has too much (Karatsuba).
        let middle = _mm_xor_si128(folded(self.middle), _mm_xor_si128(low, high));
        reduced(low, middle, high)
    }
}

/// Both halves of a vector, added.
#[inline]
#[target_feature(enable = "avx2")]
fn folded(vector: __m256i) -> __m128i {
    _mm_xor_si128(_mm256_castsi256_si128(vector), _mm256_extracti128_si256::<1>(vector))
}

/// The sum modulo `g` and divided by `x^128`.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
fn reduced(low: __m128i, middle: __m128i, high: __m128i) -> __m128i {
    let divided = _mm_xor_si128(middle, divided_by_half(low));
    _mm_xor_si128(high, divided_by_half(divided))
}

/// Divided by `x^64` modulo `g`.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
fn divided_by_half(value: __m128i) -> __m128i {
    let middle_of_g = _mm_set_epi64x(0, MIDDLE_OF_G);
    let added = _mm_clmulepi64_si128::<0x00>(value, middle_of_g);
    // The low half, added at `x^128` too, comes to lie above the high one.
    _mm_xor_si128(_mm_shuffle_epi32::<0b01_00_11_10>(value), added)
}

/// `g` without its ends, from bit 64: `x^63 + x^62 + x^57`.
const MIDDLE_OF_G: i64 = 0xc2_u64.rotate_right(8).cast_signed();

/// The product divided by `x^128`.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq")]
fn multiply(a: __m128i, b: __m128i) -> __m128i {
    let low = _mm_clmulepi64_si128::<0x00>(a, b);
    let high = _mm_clmulepi64_si128::<0x11>(a, b);
    let middle =
        _mm_xor_si128(_mm_clmulepi64_si128::<0x01>(a, b), _mm_clmulepi64_si128::<0x10>(a, b));
    reduced(low, middle, high)
}

/// The value times `x` modulo `g`.
#[target_feature(enable = "avx2")]
fn times_x(value: __m128i) -> __m128i {
    let value = u128::from_le_bytes(bytes_of(value));
    let g = (MIDDLE_OF_G.cast_unsigned() as u128) << 64 | 1;
    // Without a branch: the value is a key.
    let doubled = (value << 1) ^ (g & (value >> 127).wrapping_neg());
    load_block(&doubled.to_le_bytes())
}

/// A block's bytes from the last to the first.
#[inline]
#[target_feature(enable = "avx2")]
fn backwards(block: __m128i) -> __m128i {
    _mm_shuffle_epi8(block, _mm256_castsi256_si128(reversal()))
}

/// What puts the bytes of both blocks backwards.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn reversal() -> __m256i {
    _mm256_setr_epi8(
        15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, //
        15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0,
    )
}
