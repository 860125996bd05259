//! No bytes, from anybody, make a parser or a machine panic, loop, or grow.

// Helpers fail as tests do.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_stun::behaviour::{Discovery, DiscoveryConfig, DiscoveryOutput};
use ipop_stun::server::{Alternates, BindingServer};
use ipop_stun::{
    Algorithm, Attribute, BindingClient, BindingConfig, BindingOutput, Builder, ChannelData, Class,
    Credential, ErrorCode, Family, Input, Integrity, Key, Message, Method, PasswordAlgorithms,
    TransactionId, TurnClient, TurnConfig, TurnOutput,
};
use proptest::collection::vec;
use proptest::prelude::*;

const SERVER: &str = "198.18.0.20:3478";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Reads everything there is to read.
fn read(message: &Message<'_>) -> usize {
    let texts = [message.username(), message.realm(), message.nonce(), message.software()];
    let addresses = [
        message.alternate_server(),
        message.mapped_address(),
        message.xor_peer_address(),
        message.xor_relayed_addresses().first().copied(),
        message.response_origin(),
        message.other_address(),
    ];
    let _ = (message.class(), message.method(), message.transaction(), message.error());
    let _ = (message.priority(), message.ice_controlled(), message.ice_controlling());
    let _ = (message.lifetime_seconds(), message.requested_transport(), message.channel_number());
    let _ = (message.change_request(), message.use_candidate(), message.unknown_attributes());
    let _ = message.password_algorithms().and_then(|offered| offered.choose());
    let _ = message.verify(&Key::short_term("password").unwrap());
    texts.iter().flatten().map(|text| text.len()).sum::<usize>()
        + addresses.iter().flatten().count()
        + message.unknown_required().len()
        + message.data_range().map_or(0, |range| range.len())
}

/// A header that fits, in front of attributes of types that are mostly known.
fn framed() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        0x0001_u16, 0x0003, 0x0006, 0x0008, 0x0009, 0x000a, 0x000c, 0x000d, 0x0012, 0x0013, 0x0014,
        0x0015, 0x0016, 0x0017, 0x0018, 0x0019, 0x001a, 0x001c, 0x001d, 0x001e, 0x0020, 0x0022,
        0x0024, 0x0025, 0x0026, 0x0027, 0x8000, 0x8001, 0x8002, 0x8004, 0x8022, 0x8023, 0x8028,
        0x8029, 0x802a, 0x802b, 0x802c,
    ]);
    let kind = prop_oneof![9 => known, 1 => any::<u16>()];
    let value = prop_oneof![
        vec(any::<u8>(), 0..40),
        vec(prop::sample::select(b"obMatJos2\\\" \tA\x00\x01\x7f\xc3\xa9\xff".to_vec()), 0..40),
        prop::sample::select(vec![vec![0; 4], vec![0; 8], vec![0; 20], vec![0; 32]]),
        vec(any::<u8>(), 4).prop_map(|port| [&[0, 1][..], &port[..2], &[1, 2, 3, 4]].concat()),
    ];
    (any::<[u8; 2]>(), any::<[u8; 12]>(), vec((kind, value), 0..8), -4..5_i32).prop_map(
        |(kind, id, attributes, error)| {
            let mut bytes = vec![kind[0] & 3, kind[1], 0, 0, 0x21, 0x12, 0xa4, 0x42];
            bytes.extend_from_slice(&id);
            for (kind, value) in attributes {
                bytes.extend_from_slice(&kind.to_be_bytes());
                bytes.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
                bytes.extend_from_slice(&value);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            let length = i32::try_from(bytes.len() - 20).unwrap() + if error == 4 { 4 } else { 0 };
            bytes[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            bytes
        },
    )
}

fn anything() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..200), framed()]
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(Into::into),
        any::<([u16; 8], u16)>()
            .prop_map(|(ip, port)| SocketAddr::new(std::net::Ipv6Addr::from(ip).into(), port))
    ]
}

fn attribute() -> impl Strategy<Value = Attribute> {
    let word = "[a-zA-Z0-9:+/._-]{1,60}";
    prop_oneof![
        word.prop_map(Attribute::Username),
        word.prop_map(Attribute::Realm),
        word.prop_map(Attribute::Nonce),
        "[ -~]{0,100}".prop_map(Attribute::Software),
        (300..700_u16, "[ -~]{0,60}")
            .prop_map(|(code, reason)| Attribute::ErrorCode(ErrorCode { code, reason })),
        address().prop_map(Attribute::XorMappedAddress),
        address().prop_map(Attribute::MappedAddress),
        address().prop_map(Attribute::XorPeerAddress),
        address().prop_map(Attribute::XorRelayedAddress),
        address().prop_map(Attribute::AlternateServer),
        address().prop_map(Attribute::ResponseOrigin),
        address().prop_map(Attribute::OtherAddress),
        any::<u32>().prop_map(Attribute::Priority),
        Just(Attribute::UseCandidate),
        any::<u64>().prop_map(Attribute::IceControlled),
        any::<u64>().prop_map(Attribute::IceControlling),
        any::<u32>().prop_map(Attribute::LifetimeSeconds),
        Just(Attribute::RequestedTransportUdp),
        any::<u16>().prop_map(Attribute::ChannelNumber),
        vec(any::<u8>(), 0..300).prop_map(Attribute::Data),
        any::<(bool, bool)>().prop_map(|(ip, port)| Attribute::ChangeRequest { ip, port }),
        Just(Attribute::PasswordAlgorithms(PasswordAlgorithms::new(&[
            Algorithm::Sha256,
            Algorithm::Md5
        ]))),
        Just(Attribute::PasswordAlgorithm(Algorithm::Sha256)),
        Just(Attribute::RequestedAddressFamily(Family::V6)),
        Just(Attribute::AdditionalAddressFamilyV6),
        any::<bool>().prop_map(Attribute::EvenPort),
        Just(Attribute::DontFragment),
    ]
}

/// Whether `message` says what `attribute` says.
fn says(bytes: &[u8], message: &Message<'_>, attribute: &Attribute) -> bool {
    match attribute {
        Attribute::Username(text) => message.username() == Some(text),
        Attribute::Realm(text) => message.realm() == Some(text),
        Attribute::Nonce(text) => message.nonce() == Some(text),
        Attribute::Software(text) => message.software() == Some(text),
        Attribute::ErrorCode(error) => message.error().as_ref() == Some(error),
        Attribute::XorMappedAddress(a) => message.xor_mapped_address() == Some(*a),
        Attribute::MappedAddress(a) => message.plain_mapped_address() == Some(*a),
        Attribute::XorPeerAddress(a) => message.xor_peer_address() == Some(*a),
        Attribute::XorRelayedAddress(a) => message.xor_relayed_addresses().contains(a),
        Attribute::AlternateServer(a) => message.alternate_server() == Some(*a),
        Attribute::ResponseOrigin(a) => message.response_origin() == Some(*a),
        Attribute::OtherAddress(a) => message.other_address() == Some(*a),
        Attribute::Priority(n) => message.priority() == Some(*n),
        Attribute::UseCandidate => message.use_candidate(),
        Attribute::IceControlled(n) => message.ice_controlled() == Some(*n),
        Attribute::IceControlling(n) => message.ice_controlling() == Some(*n),
        Attribute::LifetimeSeconds(n) => message.lifetime_seconds() == Some(*n),
        Attribute::RequestedTransportUdp => message.requested_transport() == Some(17),
        Attribute::RequestedAddressFamily(family) => {
            message.requested_address_family() == Some(*family)
        }
        Attribute::AdditionalAddressFamilyV6 => {
            message.additional_address_family() == Some(Family::V6)
        }
        Attribute::ChannelNumber(n) => message.channel_number() == Some(*n),
        Attribute::Data(data) => message.data_range().is_some_and(|r| bytes[r] == data[..]),
        Attribute::ChangeRequest { ip, port } => message.change_request() == Some((*ip, *port)),
        Attribute::PasswordAlgorithms(list) => message.password_algorithms().as_ref() == Some(list),
        _ => true,
    }
}

fn turn_client(now: Instant) -> TurnClient {
    let credential = Credential::new("u", "p").unwrap();
    TurnClient::new(TurnConfig::new(at(SERVER), credential), [1; 32], now)
}

/// What happens to a TURN client.
#[derive(Debug, Clone)]
enum Event {
    /// Bytes from the server.
    Input(Vec<u8>),
    /// An answer to the last request, with these attributes.
    Answer(bool, Vec<Attribute>),
    /// Milliseconds.
    Wait(u64),
    Relay(SocketAddr),
    Bind(SocketAddr),
    Forget(SocketAddr),
    Probe,
    Close,
}

fn event() -> impl Strategy<Value = Event> {
    let peer = (1..4_u8).prop_map(|n| SocketAddr::new([192, 0, 2, n].into(), 6000));
    prop_oneof![
        2 => anything().prop_map(Event::Input),
        6 => (any::<bool>(), vec(attribute(), 0..5)).prop_map(|(ok, list)| Event::Answer(ok, list)),
        6 => (0..200_000_u64).prop_map(Event::Wait),
        2 => peer.clone().prop_map(Event::Relay),
        1 => peer.clone().prop_map(Event::Bind),
        1 => peer.prop_map(Event::Forget),
        1 => Just(Event::Probe),
        1 => Just(Event::Close),
    ]
}

/// Answers `request`, rightly signed if it was signed, with what a server needs and `extra`.
fn answer(request: &[u8], ok: bool, extra: Vec<Attribute>) -> Option<Vec<u8>> {
    let request = Message::parse(request).ok()?;
    let class = if ok { Class::Success } else { Class::Error };
    let mut response = Builder::new(class, request.method(), request.transaction());
    for attribute in extra {
        response = response.with(attribute);
    }
    if !request.has_integrity() {
        let error = ErrorCode { code: 401, reason: String::new() };
        response = Builder::new(Class::Error, request.method(), request.transaction())
            .with(Attribute::ErrorCode(error))
            .with(Attribute::Realm("r".into()))
            .with(Attribute::Nonce("n".into()));
        return response.build().ok();
    }
    response = response
        .with(Attribute::XorRelayedAddress(at("198.18.0.20:50000")))
        .with(Attribute::XorMappedAddress(at("203.0.113.1:4000")));
    let key = Key::long_term("u", "r", "p", Algorithm::Md5).unwrap();
    response.integrity(&key).build().ok()
}

/// More cases than usual, and as many as PROPTEST_CASES asks for.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases.max(1500), ..usual }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in anything()) {
        if let Ok(message) = Message::parse(&bytes) {
            prop_assert!(read(&message) <= bytes.len());
        }
        if let Ok(channel) = ChannelData::parse(&bytes) {
            prop_assert!(channel.range.end <= bytes.len());
        }
    }

    #[test]
    fn what_is_built_is_read_back(
        id in any::<[u8; 12]>(),
        attributes in vec(attribute(), 0..8),
        sha256 in any::<bool>(),
        fingerprint in any::<bool>(),
    ) {
        let key = Key::short_term("password").unwrap();
        let mut builder = Builder::request(Method::Binding, TransactionId(id));
        for attribute in &attributes {
            builder = builder.with(attribute.clone());
        }
        builder = if sha256 { builder.integrity_sha256(&key) } else { builder.integrity(&key) };
        if fingerprint {
            builder = builder.fingerprint();
        }
        let bytes = builder.build().unwrap();
        let message = Message::parse(&bytes).unwrap();
        prop_assert_eq!(message.transaction(), TransactionId(id));
        let kind = if sha256 { Integrity::Sha256 } else { Integrity::Sha1 };
        prop_assert_eq!(message.verify(&key), Ok(kind));
        prop_assert_eq!(message.has_fingerprint(), fingerprint);
        prop_assert_eq!(message.unknown_required(), Vec::<u16>::new());
        for (index, attribute) in attributes.iter().enumerate() {
            let same = |other: &Attribute| {
                std::mem::discriminant(other) == std::mem::discriminant(attribute)
            };
            if attributes.iter().position(same) == Some(index) {
                prop_assert!(says(&bytes, &message, attribute), "{attribute:?}");
            }
        }
    }

    #[test]
    fn a_changed_message_never_passes_for_the_original(
        attributes in vec(attribute(), 1..6),
        bit in any::<prop::sample::Index>(),
    ) {
        let key = Key::short_term("password").unwrap();
        let mut builder = Builder::request(Method::Binding, TransactionId([3; 12]));
        for attribute in attributes {
            builder = builder.with(attribute);
        }
        let mut bytes = builder.integrity(&key).build().unwrap();
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let authentic = Message::parse(&bytes).is_ok_and(|message| message.verify(&key).is_ok());
        prop_assert!(!authentic);
    }

    #[test]
    fn a_server_answers_with_little(bytes in anything(), from in address()) {
        let alternates =
            Alternates { primary: at(SERVER), other: at("198.18.0.21:3479") };
        for server in [
            BindingServer::new("ipop"),
            BindingServer::new("ipop").with_alternates(alternates),
        ] {
            if let Ok(answer) = server.answer(at(SERVER), from, &bytes) {
                prop_assert!(answer.data.len() <= 148, "{} bytes", answer.data.len());
            }
        }
    }

    #[test]
    fn clients_survive_any_answer(inputs in vec(anything(), 1..20)) {
        let mut now = Instant::now();
        let mut binding = BindingClient::new(BindingConfig::new(at(SERVER)), [1; 32], now);
        let mut discovery = Discovery::new(DiscoveryConfig::new(at(SERVER)), [1; 32], now);
        for mut data in inputs {
            now += Duration::from_millis(100);
            let mut ids = Vec::new();
            while let Some(output) = binding.poll_output() {
                if let BindingOutput::Transmit { data, .. } = output {
                    ids.push(data[8..20].to_vec());
                }
            }
            while let Some(output) = discovery.poll_output() {
                if let DiscoveryOutput::Transmit { data, .. } = output {
                    ids.push(data[8..20].to_vec());
                }
            }
            let _ = binding.handle_input(now, Input { remote: at(SERVER), data: &data });
            let _ = discovery.handle_input(now, Input { remote: at(SERVER), data: &data });
            if data.len() >= 20 {
                data[..2].copy_from_slice(&[1, 1]);
                for id in ids {
                    data[8..20].copy_from_slice(&id);
                    let _ = binding.handle_input(now, Input { remote: at(SERVER), data: &data });
                    let _ = discovery.handle_input(now, Input { remote: at(SERVER), data: &data });
                }
            }
            binding.handle_timeout(now);
            discovery.handle_timeout(now);
        }
    }

    /// Whatever happens, in whatever order: timers move on, and nothing grows.
    #[test]
    fn a_turn_client_survives_any_life(events in vec(event(), 1..60)) {
        let mut now = Instant::now();
        let mut client = turn_client(now);
        let mut last = Vec::new();
        for event in events {
            match event {
                Event::Input(data) => {
                    let _ = client.handle_input(now, Input { remote: at(SERVER), data: &data });
                }
                Event::Answer(ok, extra) => {
                    if let Some(data) = answer(&last, ok, extra) {
                        let _ = client.handle_input(now, Input { remote: at(SERVER), data: &data });
                    }
                }
                Event::Wait(milliseconds) => {
                    let end = now + Duration::from_millis(milliseconds);
                    let mut steps = 0;
                    while let Some(next) = client.poll_timeout() && next <= end {
                        now = now.max(next);
                        client.handle_timeout(now);
                        prop_assert!(client.poll_timeout().is_none_or(|next| next > now));
                        steps += 1;
                        prop_assert!(steps < 1000, "busy");
                    }
                    now = end;
                }
                Event::Relay(peer) => drop(client.relay(now, peer, b"payload")),
                Event::Bind(peer) => drop(client.bind(now, peer)),
                Event::Forget(peer) => client.forget(now, peer),
                Event::Probe => client.probe(now),
                Event::Close => client.close(now),
            }
            let mut outputs = 0;
            while let Some(output) = client.poll_output() {
                if let TurnOutput::Transmit { data, .. } = output {
                    last = data;
                }
                outputs += 1;
            }
            prop_assert!(outputs < 400, "{outputs} outputs of one event");
        }
    }
}
