//! Laws of the codec: what is encoded decodes to itself, what decodes encodes to itself, nothing
//! that arrives makes it panic, and no record outgrows the ring's records.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use ipop_steer::limits::*;
use ipop_steer::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn text(len_max: usize) -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..=len_max).prop_map(move |chars| {
        let mut text = String::new();
        for c in chars.into_iter().filter(|c| *c != '\0') {
            if text.len() + c.len_utf8() <= len_max {
                text.push(c);
            }
        }
        text
    })
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    (0..all.len()).prop_map(|index| all[index])
}

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    any::<[u8; 32]>().prop_map(Fingerprint)
}

fn endpoint() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>(), any::<u32>()).prop_map(|(ip, port, scope)| match ip {
        IpAddr::V4(v4) => (v4, port).into(),
        IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, scope).into(),
    })
}

fn network() -> impl Strategy<Value = (IpAddr, u8)> {
    (any::<IpAddr>(), 0..=128u8)
        .prop_map(|(ip, prefix)| (ip, prefix.min(if ip.is_ipv4() { 32 } else { 128 })))
}

prop_compose! {
    fn candidate()(
        component: u16,
        kind in one_of(CandidateKind::ALL),
        address in endpoint(),
        related in option::of(endpoint()),
        priority: u32,
        foundation in text(FOUNDATION_LEN_MAX),
    ) -> Candidate {
        Candidate { component, kind, address, related, priority, foundation }
    }
}

prop_compose! {
    fn credentials()(ufrag in text(UFRAG_LEN_MAX), pwd in text(PWD_LEN_MAX)) -> IceCredentials {
        IceCredentials { ufrag, pwd }
    }
}

prop_compose! {
    fn turn_server()(
        address in endpoint(),
        transport in one_of(TurnTransport::ALL),
        name in text(SERVER_NAME_LEN_MAX),
        username in text(TURN_USERNAME_LEN_MAX),
        password in text(TURN_PASSWORD_LEN_MAX),
    ) -> TurnServer {
        TurnServer { address, transport, name, username, password }
    }
}

prop_compose! {
    fn path()(
        kind in one_of(PathKind::ALL), local in endpoint(), remote in endpoint(), rtt_us: u32,
    ) -> PathInfo {
        PathInfo { kind, local, remote, rtt_us }
    }
}

fn command() -> impl Strategy<Value = Command> {
    let peer = fingerprint;
    prop_oneof![
        (vec(network(), 0..=INTERFACE_ADDRESSES_MAX), any::<u16>())
            .prop_map(|(addresses, mtu)| Command::ConfigureInterface { addresses, mtu }),
        (
            vec(endpoint(), 0..=STUN_SERVERS_MAX),
            vec(turn_server(), 0..=TURN_SERVERS_MAX),
            text(CA_FILE_LEN_MAX),
        )
            .prop_map(|(stun, turn, ca_file)| Command::SetIceServers {
                stun,
                turn,
                ca_file
            }),
        (
            (peer(), text(NAME_LEN_MAX), any::<bool>(), any::<u16>()),
            (any::<u64>(), credentials(), option::of(credentials())),
        )
            .prop_map(
                |((peer, name, controlling, head_start_ms), (session, local, remote))| {
                    Command::OpenLink {
                        peer,
                        name,
                        controlling,
                        head_start_ms,
                        session,
                        local,
                        remote,
                    }
                }
            ),
        (peer(), any::<u64>(), credentials()).prop_map(|(peer, session, credentials)| {
            Command::SetRemote { peer, session, credentials }
        }),
        (peer(), any::<u64>(), candidate()).prop_map(|(peer, session, candidate)| {
            Command::AddRemoteCandidate { peer, session, candidate }
        }),
        (peer(), any::<u64>())
            .prop_map(|(peer, session)| Command::EndOfCandidates { peer, session }),
        peer().prop_map(|peer| Command::CloseLink { peer }),
        (peer(), network()).prop_map(|(peer, (address, prefix))| Command::AddRoute {
            peer,
            address,
            prefix
        }),
        network().prop_map(|(address, prefix)| Command::RemoveRoute { address, prefix }),
        Just(Command::Snapshot),
        (peer(), vec(any::<u8>(), 0..=WORDS_LEN_MAX))
            .prop_map(|(peer, words)| Command::Say { peer, words }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    (any::<u64>(), command()).prop_map(|(sequence, command)| Request { sequence, command })
}

fn event() -> impl Strategy<Value = Event> {
    let readable = || text(TEXT_LEN_MAX);
    prop_oneof![
        (fingerprint(), any::<[u8; 6]>(), text(NAME_LEN_MAX))
            .prop_map(|(fingerprint, mac, interface)| Event::Ready { fingerprint, mac, interface }),
        candidate().prop_map(|candidate| Event::LocalCandidate { candidate }),
        Just(Event::GatheringDone),
        (endpoint(), readable())
            .prop_map(|(address, text)| Event::IceServerFailed { address, text }),
        (fingerprint(), any::<u64>(), one_of(LinkState::ALL), option::of(path()), readable())
            .prop_map(|(peer, session, state, path, reason)| {
                Event::LinkState { peer, session, state, path, reason }
            }),
        any::<IpAddr>().prop_map(|address| Event::NoRoute { address }),
        any::<u64>().prop_map(|sequence| Event::Done { sequence }),
        (any::<u64>(), one_of(RefusalReason::ALL), readable())
            .prop_map(|(sequence, reason, text)| Event::Refused { sequence, reason, text }),
        any::<u64>().prop_map(|count| Event::Lost { count }),
        Just(Event::NetworkMoved),
        (fingerprint(), vec(any::<u8>(), 0..=WORDS_LEN_MAX))
            .prop_map(|(peer, words)| Event::Said { peer, words }),
    ]
}

prop_compose! {
    fn choice()(since_ms: u64, cause in one_of(Cause::ALL), is_peers: bool) -> Choice {
        Choice { since_ms, cause, is_peers }
    }
}

prop_compose! {
    fn outcome()(
        local_kind in one_of(CandidateKind::ALL),
        remote_kind in one_of(CandidateKind::ALL),
        is_ipv4: bool,
        last_failure in option::of(one_of(Cause::ALL)),
        [error, pairs, working, failed]: [u16; 4],
        checks: u32,
    ) -> Outcome {
        Outcome {
            local_kind, remote_kind, is_ipv4, last_failure, error, pairs, working, failed, checks,
        }
    }
}

fn traced_end() -> impl Strategy<Value = Option<TracedEnd>> {
    let end = (option::of(one_of(CandidateKind::ALL)), endpoint());
    option::of(end.prop_map(|(kind, address)| TracedEnd { kind, address }))
}

prop_compose! {
    fn trace()(
        (at_us, session, number) in any::<(u64, u64, u64)>(),
        peer in fingerprint(),
        step in one_of(Step::ALL),
        (local, remote) in (traced_end(), traced_end()),
        cause in option::of(one_of(Cause::ALL)),
        text in text(TRACE_TEXT_LEN_MAX),
    ) -> TraceRecord {
        TraceRecord { at_us, peer, session, step, local, remote, cause, number, text }
    }
}

fn encoded_trace(trace: &TraceRecord) -> Vec<u8> {
    let mut record = Vec::new();
    trace.encode(&mut record).expect("generated within the limits");
    record
}

fn row_numbers() -> impl Strategy<Value = LinkRow> {
    (fingerprint(), any::<[u64; 8]>(), any::<(u32, u32, u8, u16, bool)>()).prop_map(
        |(
            peer,
            [session, established_ms, last_heard_ms, rest @ ..],
            (rtt_us, epoch, lanes, mtu, is_lossy),
        )| {
            let [bytes_in, bytes_out, packets_in, packets_out, drops] = rest;
            let mut row = LinkRow { is_lossy, ..LinkRow::new(peer, session) };
            (row.rtt_us, row.epoch, row.lanes, row.mtu) = (rtt_us, epoch, lanes, mtu);
            (row.established_ms, row.last_heard_ms, row.drops) =
                (established_ms, last_heard_ms, drops);
            (row.bytes_in, row.bytes_out) = (bytes_in, bytes_out);
            (row.packets_in, row.packets_out) = (packets_in, packets_out);
            row
        },
    )
}

prop_compose! {
    fn row()(
        numbers in row_numbers(),
        state in one_of(LinkState::ALL),
        path in option::of(one_of(PathKind::ALL)),
        local_kind in option::of(one_of(CandidateKind::ALL)),
        remote_kind in option::of(one_of(CandidateKind::ALL)),
        cipher in option::of(one_of(Cipher::ALL)),
        (local, remote) in (option::of(endpoint()), option::of(endpoint())),
        addresses in vec(network(), 0..=ROW_ADDRESSES_MAX),
        (name, reason) in (text(NAME_LEN_MAX), text(ROW_REASON_LEN_MAX)),
        relay in option::of((endpoint(), any::<u16>())),
        (choice, outcomes) in (option::of(choice()), vec(outcome(), 0..=ROW_OUTCOMES_MAX)),
    ) -> LinkRow {
        LinkRow {
            state, path, local_kind, remote_kind, cipher, local, remote, addresses, name, reason,
            relay, choice, outcomes, ..numbers
        }
    }
}

fn encoded(event: &Event) -> Vec<u8> {
    let mut record = Vec::new();
    event.encode(&mut record).expect("generated within the limits");
    record
}

fn encoded_request(request: &Request) -> Vec<u8> {
    let mut record = Vec::new();
    request.encode(&mut record).expect("generated within the limits");
    record
}

/// A record after one byte was overwritten, and perhaps the end cut off.
fn damaged(mut record: Vec<u8>, at: prop::sample::Index, byte: u8, cut: bool) -> Vec<u8> {
    let at = at.index(record.len());
    record[at] = byte;
    if cut {
        record.truncate(at);
    }
    record
}

proptest! {
    #[test]
    fn requests_round_trip(request in request()) {
        let record = encoded_request(&request);
        prop_assert!(record.len() <= RECORD_LEN_MAX);
        prop_assert_eq!(Request::sequence_of(&record), Some(request.sequence));
        prop_assert_eq!(Request::decode(&record), Ok(request));
    }

    #[test]
    fn events_round_trip(event in event()) {
        let record = encoded(&event);
        prop_assert!(record.len() <= RECORD_LEN_MAX);
        prop_assert_eq!(Event::decode(&record), Ok(event));
    }

    #[test]
    fn rows_round_trip(row in row()) {
        prop_assert_eq!(LinkRow::parse(&row.emit()), Ok(row));
    }

    #[test]
    fn traces_round_trip(trace in trace()) {
        let record = encoded_trace(&trace);
        prop_assert!(record.len() <= TraceRecord::LEN_MAX);
        prop_assert_eq!(TraceRecord::decode(&record), Ok(trace));
    }

    #[test]
    fn a_damaged_trace_has_one_encoding_or_none(
        trace in trace(), at: prop::sample::Index, byte: u8, cut: bool,
    ) {
        let record = damaged(encoded_trace(&trace), at, byte, cut);
        if let Ok(trace) = TraceRecord::decode(&record) {
            prop_assert_eq!(encoded_trace(&trace), record);
        }
    }

    #[test]
    fn every_beginning_of_a_record_is_refused(
        request in request(), event in event(), trace in trace(),
    ) {
        let record = encoded_trace(&trace);
        for len in 0..record.len() {
            prop_assert!(TraceRecord::decode(&record[..len]).is_err());
        }
        let record = encoded_request(&request);
        for len in 0..record.len() {
            prop_assert!(Request::decode(&record[..len]).is_err());
        }
        let record = encoded(&event);
        for len in 0..record.len() {
            prop_assert!(Event::decode(&record[..len]).is_err());
        }
    }

    #[test]
    fn a_damaged_request_has_one_encoding_or_none(
        request in request(), at: prop::sample::Index, byte: u8, cut: bool,
    ) {
        let record = damaged(encoded_request(&request), at, byte, cut);
        if let Ok(request) = Request::decode(&record) {
            prop_assert_eq!(encoded_request(&request), record);
        }
    }

    #[test]
    fn a_damaged_event_has_one_encoding_or_none(
        event in event(), at: prop::sample::Index, byte: u8, cut: bool,
    ) {
        let record = damaged(encoded(&event), at, byte, cut);
        if let Ok(event) = Event::decode(&record) {
            prop_assert_eq!(encoded(&event), record);
        }
    }

    #[test]
    fn a_damaged_row_has_one_encoding_or_none(row in row(), at: prop::sample::Index, byte: u8) {
        let mut bytes = row.emit();
        bytes[at.index(LinkRow::LEN)] = byte;
        if let Ok(row) = LinkRow::parse(&bytes) {
            prop_assert_eq!(row.emit(), bytes);
        }
    }

    #[test]
    fn noise_never_panics(noise in vec(any::<u8>(), 0..900)) {
        let _ = Request::decode(&noise);
        let _ = Event::decode(&noise);
        let _ = TraceRecord::decode(&noise);
        if let Some(row) = noise.first_chunk() {
            let _ = LinkRow::parse(row);
        }
    }

    #[test]
    fn a_row_keeps_what_has_room(name in text(200), reason in text(400), more in network()) {
        let mut row = LinkRow::new(Fingerprint([7; 32]), 1);
        row.addresses = vec![more; ROW_ADDRESSES_MAX + 3];
        (row.name, row.reason) = (name, reason);
        let kept = LinkRow::parse(&row.emit()).expect("a cut row is still a row");
        prop_assert!(row.name.starts_with(&kept.name));
        prop_assert!(row.reason.starts_with(&kept.reason));
        prop_assert_eq!(&kept.addresses[..], &row.addresses[..ROW_ADDRESSES_MAX]);
    }
}

/// The longest command there is: every list full, every text at its limit.
#[test]
fn the_largest_record_fits() {
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, 3478));
    let server = TurnServer {
        address: v6,
        transport: TurnTransport::Tls,
        name: "n".repeat(SERVER_NAME_LEN_MAX),
        username: "u".repeat(TURN_USERNAME_LEN_MAX),
        password: "p".repeat(TURN_PASSWORD_LEN_MAX),
    };
    let servers = Command::SetIceServers {
        stun: vec![v6; STUN_SERVERS_MAX],
        turn: vec![server; TURN_SERVERS_MAX],
        ca_file: "f".repeat(CA_FILE_LEN_MAX),
    };
    let interface = Command::ConfigureInterface {
        addresses: vec![(v6.ip(), 64); INTERFACE_ADDRESSES_MAX],
        mtu: u16::MAX,
    };
    for command in [servers, interface] {
        let record = encoded_request(&Request { sequence: u64::MAX, command });
        assert!(record.len() <= RECORD_LEN_MAX, "{} bytes", record.len());
    }
}

#[test]
fn what_is_too_long_is_refused_and_leaves_nothing() {
    let open = Request {
        sequence: 1,
        command: Command::OpenLink {
            peer: Fingerprint([1; 32]),
            name: "n".repeat(NAME_LEN_MAX + 1),
            controlling: true,
            head_start_ms: 0,
            session: 1,
            local: IceCredentials { ufrag: "u".into(), pwd: "p".into() },
            remote: None,
        },
    };
    let mut out = b"before".to_vec();
    let error = EncodeError::TooLong { field: "name", len: NAME_LEN_MAX + 1, max: NAME_LEN_MAX };
    assert_eq!(open.encode(&mut out), Err(error));
    assert_eq!(out, b"before");

    let address = IpAddr::from([10, 0, 0, 0]);
    let route = Request { sequence: 1, command: Command::RemoveRoute { address, prefix: 33 } };
    assert_eq!(route.encode(&mut out), Err(EncodeError::PrefixTooLong { prefix: 33 }));
}

#[test]
fn readable_texts_are_cut_between_characters() {
    let text = "é".repeat(TEXT_LEN_MAX);
    let event = Event::Refused { sequence: 1, reason: RefusalReason::Busy, text };
    let Ok(Event::Refused { text, .. }) = Event::decode(&encoded(&event)) else { panic!() };
    assert_eq!(text, "é".repeat(TEXT_LEN_MAX / 2));
}

#[test]
fn passwords_stay_out_of_logs() {
    let credentials = IceCredentials { ufrag: "ufrag".into(), pwd: "secret".into() };
    let address = SocketAddr::from(([192, 0, 2, 1], 3478));
    let server = TurnServer {
        address,
        transport: TurnTransport::Udp,
        name: String::new(),
        username: "user".into(),
        password: "secret".into(),
    };
    assert!(!format!("{credentials:?} {server:?}").contains("secret"));
}

/// The layout itself, pinned: a change has to change [`WORDS_VERSION`] too.
#[test]
fn bytes_of_a_request_are_pinned() {
    let record = encoded_request(&Request {
        sequence: 0x0102,
        command: Command::AddRoute {
            peer: Fingerprint([0xaa; 32]),
            address: IpAddr::from([10, 77, 0, 0]),
            prefix: 24,
        },
    });
    let mut pinned = vec![2, 1, 0, 0, 0, 0, 0, 0, 8];
    pinned.extend([0xaa; 32]);
    pinned.extend([4, 10, 77, 0, 0, 24]);
    assert_eq!(record, pinned);
    assert_eq!(WORDS_VERSION, 6);
}

#[test]
fn offsets_of_a_row_are_pinned() {
    let mut row = LinkRow::new(Fingerprint([0xaa; 32]), 9);
    row.rtt_us = 7;
    row.drops = 5;
    row.remote = Some(SocketAddr::from(([192, 0, 2, 1], 0x0102)));
    row.addresses = vec![(IpAddr::from([10, 77, 0, 9]), 32)];
    row.name = "bob".into();
    row.relay = Some((SocketAddr::from(([192, 0, 2, 9], 3478)), 0x4001));
    row.choice = Some(Choice { since_ms: 3, cause: Cause::Better, is_peers: true });
    let bytes = row.emit();
    assert_eq!((bytes[32], bytes[48], bytes[104]), (9, 7, 5));
    assert_eq!(bytes[136..148], [4, 0, 2, 1, 0, 0, 0, 0, 192, 0, 2, 1]);
    assert_eq!(bytes[160..168], [4, 32, 0, 0, 10, 77, 0, 9]);
    assert_eq!((bytes[240], &bytes[248..251]), (3, &b"bob"[..]));
    assert_eq!((bytes[472], bytes[496..498].to_vec()), (4, vec![0x01, 0x40]));
    assert_eq!(bytes[504..516], [3, 0, 0, 0, 0, 0, 0, 0, 11, 1, 0, 0]);
}
