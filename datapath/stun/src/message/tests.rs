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
