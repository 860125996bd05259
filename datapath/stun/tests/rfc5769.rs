//! The test vectors of RFC 5769, all four, and that of RFC 8489 appendix B.1.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use ipop_stun::{
    Algorithm, Attribute, Builder, Class, Integrity, IntegrityError, Key, Message, Method,
    ParseError, TransactionId,
};

const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";
const ID: TransactionId =
    TransactionId([0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae]);
const LONG_TERM_ID: TransactionId =
    TransactionId([0x78, 0xad, 0x34, 0x33, 0xc6, 0xad, 0x72, 0xc0, 0x29, 0xda, 0x41, 0x2e]);
/// "マトリックス".
const MATRIX: &str = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn request() -> Vec<u8> {
    bytes(
        "00010058 2112a442 b7e7a701 bc34d686 fa87dfae
         80220010 5354554e 20746573 7420636c 69656e74
         00240004 6e0001ff
         80290008 932ff9b1 51263b36
         00060009 6576746a 3a683676 59202020
         00080014 9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2
         80280004 e57a3bcf",
    )
}

fn response_v4() -> Vec<u8> {
    bytes(
        "0101003c 2112a442 b7e7a701 bc34d686 fa87dfae
         8022000b 74657374 20766563 746f7220
         00200008 0001a147 e112a643
         00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7
         80280004 c07d4c96",
    )
}

fn response_v6() -> Vec<u8> {
    bytes(
        "01010048 2112a442 b7e7a701 bc34d686 fa87dfae
         8022000b 74657374 20766563 746f7220
         00200014 0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9
         00080014 a382954e 4be67bf1 1784c97c 8292c275 bfe3ed41
         80280004 c8fb0b4c",
    )
}

fn long_term_request() -> Vec<u8> {
    bytes(
        "00010060 2112a442 78ad3433 c6ad72c0 29da412e
         00060012 e3839ee3 8388e383 aae38383 e382afe3 82b90000
         0015001c 662f2f34 39396b39 35346436 4f4c3334 6f4c3946 53547679 36347341
         0014000b 6578616d 706c652e 6f726700
         00080014 f6702465 6dd64a3e 02b8e071 2e85c9a2 8ca89666",
    )
}

#[test]
fn sample_request() {
    let bytes = request();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, Method::Binding));
    assert_eq!(message.transaction(), ID);
    assert_eq!(message.software(), Some("STUN test client"));
    assert_eq!(message.priority(), Some(0x6e00_01ff));
    assert_eq!(message.ice_controlled(), Some(0x932f_f9b1_5126_3b36));
    assert_eq!(message.username(), Some("evtj:h6vY"));
    assert!(message.has_fingerprint());
    let key = Key::short_term(PASSWORD).unwrap();
    assert_eq!(message.verify(&key), Ok(Integrity::Sha1));
    assert_eq!(message.verify(&Key::short_term("x").unwrap()), Err(IntegrityError::Mismatch));
}

#[test]
fn sample_responses() {
    let key = Key::short_term(PASSWORD).unwrap();
    let v6 = "[2001:db8:1234:5678:11:2233:4455:6677]:32853";
    for (bytes, mapped) in [(response_v4(), "192.0.2.1:32853"), (response_v6(), v6)] {
        let message = Message::parse(&bytes).unwrap();
        assert_eq!((message.class(), message.method()), (Class::Success, Method::Binding));
        assert_eq!(message.transaction(), ID);
        assert_eq!(message.software(), Some("test vector"));
        assert_eq!(message.mapped_address(), Some(mapped.parse::<SocketAddr>().unwrap()));
        assert!(message.has_fingerprint());
        assert_eq!(message.verify(&key), Ok(Integrity::Sha1));
    }
}

/// The vector's password is given before its preparation; U+00AD is forbidden by the profile of
/// RFC 8489 that replaced SASLprep, hence its prepared form.
#[test]
fn sample_request_with_long_term_authentication() {
    let bytes = long_term_request();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!((message.class(), message.method()), (Class::Request, Method::Binding));
    assert_eq!(message.transaction(), LONG_TERM_ID);
    assert_eq!(message.username(), Some(MATRIX));
    assert_eq!(message.nonce(), Some("f//499k954d6OL34oL9FSTvy64sA"));
    assert_eq!(message.realm(), Some("example.org"));
    assert!(!message.has_fingerprint());
    let key = Key::long_term(MATRIX, "example.org", "TheMatrIX", Algorithm::Md5).unwrap();
    assert_eq!(message.verify(&key), Ok(Integrity::Sha1));
}

/// Padding of this vector is zero, so ours must be the same to the last bit.
#[test]
fn the_long_term_request_is_built_bit_for_bit() {
    let key = Key::long_term(MATRIX, "example.org", "TheMatrIX", Algorithm::Md5).unwrap();
    let built = Builder::request(Method::Binding, LONG_TERM_ID)
        .with(Attribute::Username(MATRIX.into()))
        .with(Attribute::Nonce("f//499k954d6OL34oL9FSTvy64sA".into()))
        .with(Attribute::Realm("example.org".into()))
        .integrity(&key)
        .build()
        .unwrap();
    assert_eq!(built, long_term_request());
}

#[test]
fn sample_request_of_rfc_8489_with_sha256() {
    let bytes = bytes(
        "00010090 2112a442 78ad3433 c6ad72c0 29da412e
         001e0020 4a3cf38f ef6992bd a952c678 0417da0f 24819415 569e60b2 05c46e41 407f1704
         00150029 6f624d61 744a6f73 32414141 43662f2f 3439396b 39353464 364f4c33 346f4c39
                  46535476 79363473 41000000
         0014000b 6578616d 706c652e 6f726700
         001d0004 00020000
         001c0020 b5c7bf00 5b6c52a2 1c51c5e8 92f81924 136296cb 927c4314 9309278c c6518e65",
    );
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.nonce(), Some("obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA"));
    let key = Key::long_term(MATRIX, "example.org", "TheMatrIX", Algorithm::Sha256).unwrap();
    assert_eq!(message.verify(&key), Ok(Integrity::Sha256));
}

#[test]
fn every_flipped_bit_is_seen() {
    let key = Key::short_term(PASSWORD).unwrap();
    for vector in [request(), response_v4(), response_v6()] {
        for bit in 0..vector.len() * 8 {
            let mut bytes = vector.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let checked = Message::parse(&bytes).is_ok_and(|m| m.has_fingerprint());
            assert!(!checked, "bit {bit} passes the FINGERPRINT");
            let unprotected = bytes.len() - 8;
            bytes.truncate(unprotected);
            bytes[3] = bytes[3].wrapping_sub(8);
            if bit / 8 < unprotected {
                let authentic = Message::parse(&bytes).is_ok_and(|m| m.verify(&key).is_ok());
                assert!(!authentic, "bit {bit} passes the integrity check");
            }
        }
    }
    let mut bytes = request();
    bytes[40] ^= 1;
    assert_eq!(Message::parse(&bytes).unwrap_err(), ParseError::Fingerprint);
}
