//! Every message is sealed as aws-lc seals it, opens again, and does not when a bit of it is
//! another one.

#![allow(missing_docs, clippy::unwrap_used)]

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use ipop_gcm::{Key, NONCE_LEN, Refused, TAG_LEN};
use proptest::collection::vec;
use proptest::prelude::*;

/// Ours, and theirs of the same key. Where there are no instructions there is nothing to compare.
struct Pair {
    ours: Key,
    theirs: LessSafeKey,
}

fn pair(key: &[u8]) -> Pair {
    let algorithm: &Algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
    let ours = Key::new(key).expect("this machine has VAES and VPCLMULQDQ, or is no place to test");
    Pair { ours, theirs: LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap()) }
}

impl Pair {
    fn check(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], payload: &[u8], extra: &[u8]) {
        let length = payload.len() + extra.len();
        let mut expected = vec![0; length + TAG_LEN];
        let (front, back) = expected.split_at_mut(payload.len());
        let theirs = Nonce::assume_unique_for_key(*nonce);
        self.theirs
            .seal_out_of_place_scatter(theirs, Aad::from(aad), payload, front, extra, back)
            .unwrap();

        let mut sealed = vec![0xa5; length + TAG_LEN];
        self.ours.seal(nonce, aad, [payload, extra], &mut sealed).unwrap();
        assert_eq!(sealed, expected, "{} and {} bytes", payload.len(), extra.len());

        let (sealed, tag) = sealed.split_at(length);
        let mut opened = vec![0xa5; length];
        self.ours.open(nonce, aad, sealed, tag, &mut opened).unwrap();
        assert_eq!(opened, [payload, extra].concat());
    }
}

fn bytes(count: usize, seed: u8) -> Vec<u8> {
    (0..count).map(|at| (at as u8).wrapping_mul(167) ^ seed).collect()
}

#[test]
fn messages_of_every_length_are_sealed_alike() {
    for key_len in [16, 32] {
        let pair = pair(&bytes(key_len, 3));
        for length in 0..1600 {
            pair.check(&[7; NONCE_LEN], &bytes(16, 1), &bytes(length, 2), &[]);
            pair.check(&[8; NONCE_LEN], &bytes(length % 40, 1), &bytes(length, 2), &bytes(70, 5));
        }
        for length in [8_900, 65_000, 70_001] {
            pair.check(&[9; NONCE_LEN], &bytes(16, 1), &bytes(length, 2), &bytes(70, 5));
        }
    }
}

/// Test case 4 of McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B.
#[test]
fn the_authors_vector_comes_out() {
    let hex = |text: &str| -> Vec<u8> {
        let digits: Vec<_> = text.chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    };
    let key = Key::new(&hex("feffe9928665731c6d6a8f9467308308")).unwrap();
    let nonce = hex("cafebabefacedbaddecaf888").try_into().unwrap();
    let aad = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
    let message = hex("d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39");
    let expected = hex("42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e\
         21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091\
         5bc94fbc3221a5db94fae95ae7121a47");
    let mut out = vec![0; expected.len()];
    key.seal(&nonce, &aad, [&message, &[]], &mut out).unwrap();
    assert_eq!(out, expected);
}

#[test]
fn what_was_changed_anywhere_is_refused_and_leaves_nothing() {
    let Pair { ours: key, .. } = pair(&bytes(16, 9));
    let (nonce, aad, message) = ([1; NONCE_LEN], bytes(16, 4), bytes(300, 6));
    let mut sealed = vec![0; message.len() + TAG_LEN];
    key.seal(&nonce, &aad, [&message, &[]], &mut sealed).unwrap();
    let refuses = |nonce: &[u8; NONCE_LEN], aad: &[u8], sealed: &[u8]| {
        let (sealed, tag) = sealed.split_at(message.len());
        let mut out = vec![0xa5; message.len()];
        let verdict = key.open(nonce, aad, sealed, tag, &mut out);
        verdict == Err(Refused) && out.iter().all(|byte| *byte == 0)
    };
    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(refuses(&nonce, &aad, &changed), "bit {bit}");
    }
    for bit in 0..aad.len() * 8 {
        let mut changed = aad.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(refuses(&nonce, &changed, &sealed), "bit {bit} of the header");
    }
    assert!(refuses(&nonce, &aad[1..], &sealed));
    assert!(refuses(&[2; NONCE_LEN], &aad, &sealed));
}

#[test]
fn wrong_lengths_are_refused() {
    let Pair { ours: key, .. } = pair(&bytes(32, 9));
    let nonce = [1; NONCE_LEN];
    for length in [0, 10, 10 + TAG_LEN - 1, 10 + TAG_LEN + 1] {
        assert_eq!(key.seal(&nonce, &[], [&[0; 10], &[]], &mut vec![0; length]), Err(Refused));
    }
    for (tag, out) in [(15, 10), (17, 10), (16, 9), (16, 11)] {
        let (tag, mut out) = (vec![0; tag], vec![0; out]);
        assert_eq!(key.open(&nonce, &[], &[0; 10], &tag, &mut out), Err(Refused));
    }
    for length in [0, 15, 17, 24, 31, 33] {
        assert!(Key::new(&vec![0; length]).is_none(), "{length} bytes are no key");
    }
}

proptest! {
    #[test]
    fn random_messages_are_sealed_alike(
        key in vec(any::<u8>(), 32),
        is_short in any::<bool>(),
        nonce in any::<[u8; NONCE_LEN]>(),
        aad in vec(any::<u8>(), 0..80),
        payload in vec(any::<u8>(), 0..3000),
        extra in vec(any::<u8>(), 0..800),
    ) {
        let key = if is_short { &key[..16] } else { &key };
        pair(key).check(&nonce, &aad, &payload, &extra);
    }
}
