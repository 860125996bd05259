//! The way of a message: wide pieces of [`WIDE`] bytes straight from where they lie to where they
//! go, then what is left, which lies in a buffer in between together with the lengths that the
//! hash ends with.

use core::arch::x86_64::{__m128i, __m256i, _mm_testz_si128, _mm_xor_si128, _mm256_setzero_si256};

use super::aes::Counter;
use super::ghash::{Hash, SUM_MAX};
use super::{BLOCK, Key, VECTOR, VECTORS, WIDE, bytes_of, load, load_block, store};
use crate::{NONCE_LEN, TAG_LEN};

/// Vectors of what is left, with the lengths.
const REST_VECTORS: usize = SUM_MAX.div_ceil(2);

/// What is left of a message, in whole vectors, filled up with zeros.
type Rest = [u8; REST_VECTORS * VECTOR];

/// A message under way, in either direction.
struct Way<'key, const ROUNDS: usize> {
    key: &'key Key<ROUNDS>,
    counter: Counter,
    hash: Hash<'key>,
    /// What the tag is hidden by.
    mask: __m128i,
}

impl<'key, const ROUNDS: usize> Way<'key, ROUNDS> {
    #[inline]
    #[target_feature(enable = "aes,pclmulqdq,avx2,vaes,vpclmulqdq")]
    fn begin(key: &'key Key<ROUNDS>, nonce: &[u8; NONCE_LEN], aad: &[u8]) -> Self {
        let mut hash = Hash::new(&key.powers);
        hash.update_slowly(aad);
        let mask = key.rounds.encrypt(&Counter::tag_block(nonce));
        Way { key, counter: Counter::new(nonce), hash, mask }
    }

    #[inline]
    #[target_feature(enable = "aes,pclmulqdq,avx2,vaes,vpclmulqdq")]
    fn seal_wide(&mut self, from: &[u8; WIDE], to: &mut [u8; WIDE]) {
        let sealed = self.key.rounds.crypt(&mut self.counter, vectors(from));
        put(sealed, to);
        self.hash.update(&sealed, WIDE / BLOCK);
    }

    #[inline]
    #[target_feature(enable = "aes,pclmulqdq,avx2,vaes,vpclmulqdq")]
    fn open_wide(&mut self, from: &[u8; WIDE], to: &mut [u8; WIDE]) {
        let sealed = vectors(from);
        self.hash.update(&sealed, WIDE / BLOCK);
        put(self.key.rounds.crypt(&mut self.counter, sealed), to);
    }

    /// Encrypts or decrypts the vectors that `length` bytes are in.
    #[inline]
    #[target_feature(enable = "aes,pclmulqdq,avx2,vaes,vpclmulqdq")]
    fn crypt_rest(&mut self, rest: &mut Rest, length: usize) {
        let (vectors, _) = rest.as_chunks_mut::<VECTOR>();
        for bytes in &mut vectors[..length.div_ceil(VECTOR)] {
            let [vector] = self.key.rounds.crypt(&mut self.counter, [load(bytes)]);
            store(bytes, vector);
        }
    }

    /// Hashes the last `length` bytes of what is sealed, and the lengths; makes the tag.
    #[inline]
    #[target_feature(enable = "aes,pclmulqdq,avx2,vaes,vpclmulqdq")]
    fn finish(mut self, rest: &mut Rest, length: usize, aad: usize, message: usize) -> __m128i {
        let blocks = length.div_ceil(BLOCK);
        let lengths = &mut rest[blocks * BLOCK..][..BLOCK];
        lengths[..8].copy_from_slice(&(aad as u64 * 8).to_be_bytes());
        lengths[8..].copy_from_slice(&(message as u64 * 8).to_be_bytes());
        let mut loaded = [_mm256_setzero_si256(); REST_VECTORS];
        let count = blocks + 1;
        let used = count.div_ceil(2);
        for (vector, bytes) in loaded[..used].iter_mut().zip(rest.as_chunks::<VECTOR>().0) {
            *vector = load(bytes);
        }
        self.hash.update(&loaded[..used], count);
        _mm_xor_si128(self.mask, self.hash.finish())
    }
}

/// Seals; `out` is as long as message and tag.
#[target_feature(enable = "aes,pclmulqdq,avx2,vaes,vpclmulqdq")]
pub(super) fn seal<const ROUNDS: usize>(
    key: &Key<ROUNDS>,
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    message: [&[u8]; 2],
    out: &mut [u8],
) {
    let mut way = Way::begin(key, nonce, aad);
    let (out, tag) = out.split_at_mut(out.len() - TAG_LEN);
    let total = out.len();

    let (wide, mut payload) = message[0].as_chunks::<WIDE>();
    let mut extra = message[1];
    let (wide_out, _) = out.as_chunks_mut::<WIDE>();
    for (from, to) in wide.iter().zip(wide_out) {
        way.seal_wide(from, to);
    }
    let mut out = &mut out[wide.len() * WIDE..];
    let mut rest: Rest = [0; _];
    let mut length = gather(&mut rest, [&mut payload, &mut extra]);
    while length == WIDE {
        let (to, behind) =
            out.split_first_chunk_mut::<WIDE>().expect("it is as long as what is left");
        way.seal_wide(rest.first_chunk().expect("it is longer"), to);
        out = behind;
        rest = [0; _];
        length = gather(&mut rest, [&mut payload, &mut extra]);
    }
    way.crypt_rest(&mut rest, length);
    out.copy_from_slice(&rest[..length]);
    rest[length..].fill(0);
    let made = way.finish(&mut rest, length, aad.len(), total);
    tag.copy_from_slice(&bytes_of(made));
}

/// Opens; `out` is as long as `sealed`. Returns whether the tag is right.
#[target_feature(enable = "aes,pclmulqdq,avx2,vaes,vpclmulqdq")]
pub(super) fn open<const ROUNDS: usize>(
    key: &Key<ROUNDS>,
    nonce: &[u8; NONCE_LEN],
    aad: &[u8],
    sealed: &[u8],
    tag: &[u8; TAG_LEN],
    out: &mut [u8],
) -> bool {
    let mut way = Way::begin(key, nonce, aad);
    let (wide, left) = sealed.as_chunks::<WIDE>();
    let (wide_out, out) = out.as_chunks_mut::<WIDE>();
    for (from, to) in wide.iter().zip(wide_out) {
        way.open_wide(from, to);
    }
    let mut rest: Rest = [0; _];
    rest[..left.len()].copy_from_slice(left);
    let mut opened = rest;
    way.crypt_rest(&mut opened, left.len());
    out.copy_from_slice(&opened[..left.len()]);
    let made = way.finish(&mut rest, left.len(), aad.len(), sealed.len());
    let difference = _mm_xor_si128(made, load_block(tag));
    _mm_testz_si128(difference, difference) == 1
}

/// Moves at most [`WIDE`] bytes from the front of two places to that of `rest`; returns how many.
#[inline]
fn gather(rest: &mut Rest, places: [&mut &[u8]; 2]) -> usize {
    let mut length = 0;
    for place in places {
        let (front, behind) = place.split_at(place.len().min(WIDE - length));
        rest[length..][..front.len()].copy_from_slice(front);
        length += front.len();
        *place = behind;
    }
    length
}

#[inline]
#[target_feature(enable = "avx2")]
fn vectors(bytes: &[u8; WIDE]) -> [__m256i; VECTORS] {
    let mut vectors = [_mm256_setzero_si256(); VECTORS];
    for (vector, bytes) in vectors.iter_mut().zip(bytes.as_chunks::<VECTOR>().0) {
        *vector = load(bytes);
    }
    vectors
}

#[inline]
#[target_feature(enable = "avx2")]
fn put(vectors: [__m256i; VECTORS], bytes: &mut [u8; WIDE]) {
    for (vector, bytes) in vectors.into_iter().zip(bytes.as_chunks_mut::<VECTOR>().0) {
        store(bytes, vector);
    }
}
