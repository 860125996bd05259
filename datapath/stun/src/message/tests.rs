use super::*;

const ID: TransactionId = TransactionId([7; 12]);

#[test]
fn a_check_of_ice_comes_back_as_it_was_built() {
    let key = Key::short_term("VOkJxbRl1RmTxUk/WvJxBt").unwrap();
    let bytes = Builder::request(Method::Binding, ID)
        .with(Attribute::Username("evtj:h6vY".into()))
        .with(Attribute::Priority(0x6e00_01ff))
        .with(Attribute::IceControlling(0x932f_f9b1_5126_3b36))
        .with(Attribute::UseCandidate)
        .integrity(&key)
        .fingerprint()
        .build()
        .unwrap();
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.class(), Class::Request);
    assert_eq!(message.method(), Method::Binding);
    assert_eq!(message.transaction(), ID);
    assert_eq!(message.username(), Some("evtj:h6vY"));
    assert_eq!(message.priority(), Some(0x6e00_01ff));
    assert_eq!(message.ice_controlling(), Some(0x932f_f9b1_5126_3b36));
    assert_eq!(message.ice_controlled(), None);
    assert!(message.use_candidate());
    assert!(message.has_fingerprint());
    assert_eq!(message.verify(&key), Ok(Integrity::Sha1));
    let other = Key::short_term("VOkJxbRl1RmTxUk/WvJxBu").unwrap();
    assert_eq!(message.verify(&other), Err(IntegrityError::Mismatch));
}

/// A header with the right length, in front of attributes given as (type, value).
fn raw(attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    bytes.extend_from_slice(&ID.0);
    for (kind, value) in attributes {
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let length = u16::try_from(bytes.len() - HEADER_LEN).unwrap();
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    bytes
}

#[test]
fn what_stands_behind_the_integrity_attribute_is_not_seen() {
    let key = Key::short_term("password").unwrap();
    let mut bytes = Builder::request(Method::Binding, ID)
        .with(Attribute::Priority(1))
        .integrity(&key)
        .build()
        .unwrap();
    let behind = raw(&[(0x0025, b""), (0x0006, b"mallory"), (0x7fff, b""), (0x0013, b"data")]);
    bytes.extend_from_slice(&behind[HEADER_LEN..]);
    let length = u16::try_from(bytes.len() - HEADER_LEN).unwrap();
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.verify(&key), Ok(Integrity::Sha1));
    assert_eq!(message.priority(), Some(1));
    assert!(!message.use_candidate());
    assert_eq!(message.username(), None);
    assert_eq!(message.data_range(), None);
    assert!(message.unknown_required().is_empty());
}

#[test]
fn the_stronger_integrity_attribute_decides() {
    let key = Key::short_term("password").unwrap();
    let mut bytes = Builder::request(Method::Binding, ID).integrity(&key).build().unwrap();
    bytes[3] += 36;
    bytes.extend_from_slice(&[0, 0x1c, 0, 32]);
    bytes.extend_from_slice(&[0; 32]);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.verify(&key), Err(IntegrityError::Mismatch));
}

#[test]
fn of_several_of_a_kind_the_first_counts() {
    let bytes = raw(&[(0x0024, &[0, 0, 0, 1]), (0x0024, &[0, 0, 0, 2])]);
    assert_eq!(Message::parse(&bytes).unwrap().priority(), Some(1));
    let bytes = raw(&[(0x0013, b"first"), (0x0013, b"second")]);
    let range = Message::parse(&bytes).unwrap().data_range().unwrap();
    assert_eq!(&bytes[range], b"first");
}

#[test]
fn fingerprint_is_right_and_last_or_the_message_is_refused() {
    let good = Builder::request(Method::Binding, ID).fingerprint().build().unwrap();
    assert!(Message::parse(&good).unwrap().has_fingerprint());
    let mut wrong = good.clone();
    wrong[27] ^= 1;
    assert_eq!(Message::parse(&wrong).unwrap_err(), ParseError::Fingerprint);
    let mut behind = good;
    behind.extend_from_slice(&[0, 0x25, 0, 0]);
    behind[3] += 4;
    assert!(matches!(Message::parse(&behind), Err(ParseError::Attribute(_))));
    let short = raw(&[(0x8028, &[1, 2])]);
    assert_eq!(Message::parse(&short).unwrap_err(), ParseError::Fingerprint);
}

#[test]
fn lengths_that_lie_are_refused() {
    let good = raw(&[(0x0024, &[0, 0, 0, 1])]);
    assert!(Message::parse(&good).is_ok());
    assert_eq!(Message::parse(&good[..27]).unwrap_err(), ParseError::NotStun);
    let longer = [&good[..], &[0; 4]].concat();
    assert_eq!(Message::parse(&longer).unwrap_err(), ParseError::NotStun);
    let mut beyond = good.clone();
    beyond[23] = 5;
    assert!(matches!(Message::parse(&beyond), Err(ParseError::Attribute(_))));
    let mut cookie = good.clone();
    cookie[4] ^= 1;
    assert_eq!(Message::parse(&cookie).unwrap_err(), ParseError::NotStun);
    let mut odd = good;
    odd.push(0);
    odd[3] += 1;
    assert_eq!(Message::parse(&odd).unwrap_err(), ParseError::NotStun);
}

#[test]
fn unknown_attributes_are_named_if_they_must_be_known() {
    let bytes = raw(&[(0x7fff, b"x"), (0xffff, b"x"), (0x001e, &[0; 32])]);
    assert_eq!(Message::parse(&bytes).unwrap().unknown_required(), [0x7fff, 0x001e]);
}

#[test]
fn what_cannot_be_carried_is_not_built() {
    let built = |attribute| Builder::request(Method::Binding, ID).with(attribute).build();
    let long = built(Attribute::Data(vec![0; 65_536]));
    assert_eq!(long, Err(BuildError::TooLong(20 + 4 + 65_536)));
    assert!(built(Attribute::Data(vec![0; 65_500])).is_ok());
    for attribute in [
        Attribute::Username("a\u{7}".into()),
        Attribute::Software("x".repeat(1000)),
        Attribute::ErrorCode(ErrorCode { code: 200, reason: String::new() }),
    ] {
        assert!(matches!(built(attribute), Err(BuildError::Value(_))));
    }
}

#[test]
fn a_key_shows_nothing_of_itself() {
    let key = Key::long_term("user", "realm", "pass", Algorithm::Sha256).unwrap();
    assert_eq!(format!("{key:?}"), "Key(..)");
    assert!(Key::short_term("").is_err());
}

/// Length and cookie tell STUN from what shares the socket with it.
#[test]
fn other_protocols_do_not_look_like_stun() {
    assert!(looks_like_stun(&raw(&[])));
    for first in [0x40, 0x80, 0xff] {
        let mut bytes = raw(&[]);
        bytes[0] = first;
        assert!(!looks_like_stun(&bytes));
    }
    assert!(!looks_like_stun(&[]));
}

#[test]
fn what_would_cost_too_much_to_read_is_refused() {
    for (kind, value) in
        [(0x0015, vec![b'a'; 128]), (0x0014, vec![b'a'; 128]), (0x0a, vec![0; 130])]
    {
        assert!(matches!(Message::parse(&raw(&[(kind, &value)])), Err(ParseError::Attribute(_))));
    }
    assert!(Message::parse(&raw(&[(0x0015, &[b'a'; 127])])).is_ok());
}
