//! Handshake pairs in virtual time, over a network that loses, reorders and repeats.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipop_crypto::{
    Cipher, HANDSHAKE_DATAGRAM_LEN_MAX, HANDSHAKE_TIME_MAX, Handshake, HandshakeConfig,
    HandshakeError, HandshakeId, Identity, OVERHEAD_LEN, Offer, Output, RefusedInput, Role,
    Session,
};
use ipop_wire::{Header, Kind, LinkIndex, Part};
use proptest::prelude::*;
use zeroize::Zeroizing;

const LATENCY: Duration = Duration::from_millis(15);

/// SplitMix64: enough for choosing what gets lost.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

fn config(role: Role, seed: u8, peer_seed: u8) -> HandshakeConfig {
    let identity = |seed| Identity::generate(&[seed; 32]);
    HandshakeConfig {
        role,
        id: HandshakeId(99),
        identity: Arc::new(identity(seed)),
        peer: identity(peer_seed).fingerprint(),
        path_secret: Zeroizing::new([5; 32]),
        offer: Offer {
            version: 1,
            link_index: LinkIndex(1000 + u32::from(seed)),
            lanes: 2,
            mtu: 1400 + u16::from(seed),
            ciphers: vec![(Cipher::Aes256Gcm, 60), (Cipher::ChaCha20Poly1305, 400)],
        },
        rtt: Some(LATENCY * 2),
    }
}

#[derive(Default)]
struct End {
    session: Option<Box<Session>>,
    failure: Option<HandshakeError>,
    sent: usize,
    refused: Vec<RefusedInput>,
}

/// What the network does to a datagram: the delays after which copies arrive.
type Fate = Box<dyn FnMut(usize, &[u8]) -> Vec<Duration>>;

struct Pair {
    now: Instant,
    machines: [Handshake; 2],
    ends: [End; 2],
    /// By arrival, then by order of sending; the number is the receiving end.
    in_flight: BTreeMap<(Instant, u64), (usize, Vec<u8>)>,
    sequence: u64,
    fate: Fate,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Pair {
    fn new(client: HandshakeConfig, server: HandshakeConfig) -> Self {
        let now = Instant::now();
        Pair {
            now,
            machines: [Handshake::new(client, now), Handshake::new(server, now)],
            ends: Default::default(),
            in_flight: BTreeMap::new(),
            sequence: 0,
            fate: Box::new(|_, _| vec![LATENCY]),
        }
    }

    fn good() -> Self {
        Pair::new(config(Role::Client, 1, 2), config(Role::Server, 2, 1))
    }

    fn collect(&mut self) {
        for from in [CLIENT, SERVER] {
            while let Some(output) = self.machines[from].poll_output() {
                match output {
                    Output::Transmit(datagram) => {
                        assert!(datagram.len() <= HANDSHAKE_DATAGRAM_LEN_MAX);
                        self.ends[from].sent += 1;
                        for delay in (self.fate)(from, &datagram) {
                            self.sequence += 1;
                            let key = (self.now + delay, self.sequence);
                            self.in_flight.insert(key, (1 - from, datagram.clone()));
                        }
                    }
                    Output::Established(session) => {
                        assert!(self.ends[from].session.replace(session).is_none());
                    }
                    Output::Failed(error) => {
                        assert!(self.ends[from].failure.replace(error).is_none());
                    }
                }
            }
        }
    }

    /// Runs until nothing is due any more.
    fn run(&mut self) -> Duration {
        let start = self.now;
        self.collect();
        loop {
            let arrival = self.in_flight.keys().next().map(|(at, _)| *at);
            let timeouts = self.machines.iter().filter_map(Handshake::poll_timeout);
            let Some(next) = timeouts.chain(arrival).min() else { return self.now - start };
            self.now = self.now.max(next);
            assert!(self.now - start < Duration::from_secs(60), "the pair never comes to rest");
            while let Some(entry) = self.in_flight.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let (to, datagram) = entry.remove();
                if let Err(refused) = self.machines[to].handle_input(self.now, &datagram) {
                    self.ends[to].refused.push(refused);
                }
            }
            for machine in &mut self.machines {
                machine.handle_timeout(self.now);
            }
            self.collect();
        }
    }

    fn sessions(&mut self) -> [Box<Session>; 2] {
        let [client, server] = &mut self.ends;
        assert_eq!((&client.failure, &server.failure), (&None, &None));
        [client, server].map(|end| end.session.take().expect("established"))
    }
}

/// Both ends have the same keys for each lane and direction, and no two keys are alike.
fn assert_keys_agree(sessions: &mut [Box<Session>; 2], now: Instant) {
    let [client, server] = sessions;
    assert_eq!(client.cipher(), server.cipher());
    assert_eq!(client.lane_count(), server.lane_count());
    let lanes = client.lane_count();
    let mut client: Vec<_> = (0..lanes).filter_map(|lane| client.take_lane(lane, now)).collect();
    let mut server: Vec<_> = (0..lanes).filter_map(|lane| server.take_lane(lane, now)).collect();
    assert_eq!((client.len(), server.len()), (usize::from(lanes), usize::from(lanes)));
    let header = Header {
        kind: Kind::Data,
        epoch: 0,
        lane: 0,
        part: Part::WHOLE,
        receiver: LinkIndex(0),
        counter: 0,
    };
    for lane in 0..client.len() {
        let mut sealed = [vec![0; OVERHEAD_LEN + 4], vec![0; OVERHEAD_LEN + 4]];
        client[lane].0.seal(header, b"ping", b"", &mut sealed[0]).expect("fits");
        server[lane].0.seal(header, b"pong", b"", &mut sealed[1]).expect("fits");
        let mut out = [0; 64];
        for other in (0..client.len()).filter(|other| *other != lane) {
            let header = Header::parse(&sealed[0]).expect("ours");
            assert!(server[other].1.open(now, &header, &sealed[0], &mut out).is_err());
        }
        let header = Header::parse(&sealed[0]).expect("ours");
        assert!(client[lane].1.open(now, &header, &sealed[0], &mut out).is_err(), "reflected");
        assert_eq!(server[lane].1.open(now, &header, &sealed[0], &mut out), Ok(4));
        assert_eq!(&out[..4], b"ping");
        let header = Header::parse(&sealed[1]).expect("ours");
        assert_eq!(client[lane].1.open(now, &header, &sealed[1], &mut out), Ok(4));
        assert_eq!(&out[..4], b"pong");
    }
}

#[test]
fn a_calm_network_costs_one_round_trip_and_seven_datagrams() {
    let mut pair = Pair::good();
    let took = pair.run();
    assert_eq!(took, LATENCY * 4, "two flights and an acknowledgement");
    // ClientHello in two, the last flight; ServerHello and the rest in three, the acknowledgement.
    assert_eq!((pair.ends[CLIENT].sent, pair.ends[SERVER].sent), (3, 4));
    let mut sessions = pair.sessions();
    for (session, peer) in sessions.iter().zip([2u8, 1]) {
        assert_eq!(session.peer(), Identity::generate(&[peer; 32]).fingerprint());
        assert_eq!(session.peer_link_index(), LinkIndex(1000 + u32::from(peer)));
        assert_eq!(session.peer_mtu(), 1400 + u16::from(peer));
        assert_eq!(session.cipher(), Cipher::Aes256Gcm);
        assert_eq!((session.version(), session.lane_count()), (1, 2));
    }
    assert_keys_agree(&mut sessions, pair.now);
    assert!(sessions[0].take_lane(0, pair.now).is_none(), "a lane's keys are handed out once");
}

#[test]
fn three_hundred_bad_networks() {
    let mut slowest = Duration::ZERO;
    for seed in 0..300 {
        let mut pair = Pair::good();
        let mut random = Random(seed);
        let loss = random.next() % 35;
        pair.fate = Box::new(move |_, _| {
            let copies = if random.percent(20) { 2 } else { 1 };
            (0..copies)
                .filter_map(|_| {
                    let delay = LATENCY + Duration::from_micros(random.next() % 120_000);
                    (!random.percent(loss)).then_some(delay)
                })
                .collect()
        });
        slowest = slowest.max(pair.run());
        for end in &pair.ends {
            assert_eq!(end.failure, None, "seed {seed}");
            assert!(end.sent < 60, "seed {seed}: {} datagrams", end.sent);
        }
        let mut sessions = pair.sessions();
        assert_keys_agree(&mut sessions, pair.now);
    }
    assert!(slowest < HANDSHAKE_TIME_MAX + Duration::from_secs(1), "{slowest:?}");
}

/// Loses the datagrams of one end with these numbers, counted from 0.
fn lose(from: usize, numbers: &[usize]) -> Fate {
    let numbers = numbers.to_vec();
    let mut count = [0; 2];
    Box::new(move |sender, _| {
        let number = count[sender];
        count[sender] += 1;
        if sender == from && numbers.contains(&number) { vec![] } else { vec![LATENCY] }
    })
}

#[test]
fn each_single_datagram_may_be_lost() {
    for (from, number) in
        [(CLIENT, 0), (CLIENT, 1), (CLIENT, 2), (SERVER, 0), (SERVER, 1), (SERVER, 2), (SERVER, 3)]
    {
        let mut pair = Pair::good();
        pair.fate = lose(from, &[number]);
        let took = pair.run();
        assert!(took <= LATENCY * 4 + Duration::from_millis(200), "{from} {number}: {took:?}");
        assert_keys_agree(&mut pair.sessions(), pair.now);
    }
}

#[test]
fn a_path_of_576_bytes_costs_a_retransmission_of_each_end() {
    let mut pair = Pair::good();
    pair.fate = Box::new(|_, data| if data.len() > 576 - 28 { vec![] } else { vec![LATENCY] });
    let took = pair.run();
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert_keys_agree(&mut pair.sessions(), pair.now);
}

#[test]
fn a_lost_last_flight_is_repeated_until_it_is_acknowledged() {
    let mut pair = Pair::good();
    pair.fate = lose(CLIENT, &[2, 3, 4]);
    pair.run();
    assert_keys_agree(&mut pair.sessions(), pair.now);
    // The same when it arrives and the acknowledgements get lost.
    let mut pair = Pair::good();
    pair.fate = lose(SERVER, &[3, 4, 5]);
    pair.run();
    assert_eq!(pair.ends[CLIENT].sent, 3 + 3);
    assert_eq!(pair.machines[CLIENT].poll_timeout(), None);
    assert_keys_agree(&mut pair.sessions(), pair.now);
}

#[test]
fn silence_ends_in_a_reason() {
    let mut pair = Pair::good();
    pair.fate = Box::new(|_, _| vec![]);
    assert_eq!(pair.run(), HANDSHAKE_TIME_MAX);
    for end in &pair.ends {
        assert_eq!(end.failure, Some(HandshakeError::TimedOut { heard: false }));
        assert!(end.sent < 60, "{} datagrams into the void", end.sent);
    }
    // Only one way works.
    let mut pair = Pair::good();
    pair.fate = Box::new(|from, _| if from == CLIENT { vec![LATENCY] } else { vec![] });
    pair.run();
    assert_eq!(pair.ends[CLIENT].failure, Some(HandshakeError::TimedOut { heard: false }));
    assert_eq!(pair.ends[SERVER].failure, Some(HandshakeError::TimedOut { heard: true }));
}

#[test]
fn a_client_that_is_not_the_announced_one_is_refused() {
    // 3 poses as 1 towards 2.
    let mut pair = Pair::new(config(Role::Client, 3, 2), config(Role::Server, 2, 1));
    pair.run();
    assert!(pair.ends[SERVER].session.is_none());
    assert_eq!(pair.ends[SERVER].failure, Some(HandshakeError::WrongFingerprint));
    assert_eq!(pair.ends[CLIENT].failure, Some(HandshakeError::Refused(49)));
}

#[test]
fn a_server_that_is_not_the_announced_one_is_refused() {
    // 1 expects 2 and gets 3.
    let mut pair = Pair::new(config(Role::Client, 1, 2), config(Role::Server, 3, 1));
    pair.run();
    assert!(pair.ends.iter().all(|end| end.session.is_none()));
    assert_eq!(pair.ends[CLIENT].failure, Some(HandshakeError::WrongFingerprint));
    assert_eq!(pair.ends[SERVER].failure, Some(HandshakeError::Refused(49)));
}

#[test]
fn a_lost_alert_is_repeated() {
    let mut pair = Pair::new(config(Role::Client, 3, 2), config(Role::Server, 2, 1));
    pair.fate = lose(SERVER, &[3, 4]);
    pair.run();
    assert_eq!(pair.ends[CLIENT].failure, Some(HandshakeError::Refused(49)));
}

#[test]
fn who_does_not_know_the_path_secret_gets_no_answer() {
    let mut stranger = config(Role::Client, 1, 2);
    stranger.path_secret = Zeroizing::new([6; 32]);
    let mut pair = Pair::new(stranger, config(Role::Server, 2, 1));
    pair.run();
    assert_eq!(pair.ends[SERVER].sent, 0);
    assert!(pair.ends[SERVER].refused.iter().all(|refused| *refused == RefusedInput::Forged));
    assert!(!pair.machines[SERVER].has_heard_peer());
}

#[test]
fn a_server_is_only_made_for_an_authentic_first_datagram() {
    let now = Instant::now();
    let server = || config(Role::Server, 2, 1);
    let mut client = Handshake::new(config(Role::Client, 1, 2), now);
    let mut flight: Vec<_> = std::iter::from_fn(|| client.poll_output())
        .map(|output| match output {
            Output::Transmit(datagram) => datagram,
            other => panic!("{other:?}"),
        })
        .collect();
    // Any piece of the first flight will do; the id is the client's.
    for datagram in &flight {
        let made = Handshake::accept(server(), now, datagram).expect("authentic");
        assert_eq!(made.id(), HandshakeId(99));
        assert!(made.has_heard_peer());
    }
    let mut stranger = server();
    stranger.path_secret = Zeroizing::new([6; 32]);
    let refused = Handshake::accept(stranger, now, &flight[0]).expect_err("not his");
    assert_eq!(refused, RefusedInput::Forged);
    flight[0][17] = 1;
    let refused = Handshake::accept(server(), now, &flight[0]).expect_err("the second level");
    assert_eq!(refused, RefusedInput::OtherHandshake);
}

#[test]
fn offers_without_a_common_cipher_or_version_are_told_apart() {
    let mut server = config(Role::Server, 2, 1);
    server.offer.ciphers = vec![(Cipher::Aes128Gcm, 1)];
    let mut pair = Pair::new(config(Role::Client, 1, 2), server);
    pair.run();
    assert_eq!(pair.ends[CLIENT].failure, Some(HandshakeError::NoCommonCipher));
    assert!(pair.ends[SERVER].failure.is_some() && pair.ends[SERVER].session.is_none());

    let mut server = config(Role::Server, 2, 1);
    server.offer.version = 0;
    let mut pair = Pair::new(config(Role::Client, 1, 2), server);
    pair.run();
    assert_eq!(pair.ends[CLIENT].failure, Some(HandshakeError::NoCommonVersion(0)));
}

#[test]
fn the_lower_lane_count_and_the_cheaper_cipher_win() {
    let mut server = config(Role::Server, 2, 1);
    server.offer.lanes = 1;
    server.offer.version = 7;
    server.offer.ciphers = vec![(Cipher::Aes256Gcm, 9000), (Cipher::ChaCha20Poly1305, 900)];
    let mut pair = Pair::new(config(Role::Client, 1, 2), server);
    pair.run();
    let mut sessions = pair.sessions();
    for session in &sessions {
        assert_eq!(session.cipher(), Cipher::ChaCha20Poly1305);
        assert_eq!((session.version(), session.lane_count()), (1, 1));
    }
    assert_keys_agree(&mut sessions, pair.now);
}

/// A record of what was sent, by receiving end.
type Record = Rc<RefCell<Vec<(usize, Vec<u8>)>>>;

fn recorded(mut pair: Pair) -> (Pair, Vec<(usize, Vec<u8>)>) {
    let seen = Record::default();
    let record = seen.clone();
    pair.fate = Box::new(move |from, datagram| {
        record.borrow_mut().push((1 - from, datagram.to_vec()));
        vec![LATENCY]
    });
    pair.run();
    let seen = seen.borrow().clone();
    (pair, seen)
}

#[test]
fn each_flight_travels_at_its_level() {
    let (_, seen) = recorded(Pair::good());
    let levels = |receiver| {
        seen.iter().filter(move |(to, _)| *to == receiver).map(|(_, datagram)| datagram[17])
    };
    assert!(levels(SERVER).eq([0, 0, 1]));
    assert!(levels(CLIENT).eq([0, 0, 1, 1]));
}

#[test]
fn a_changed_level_is_not_authentic() {
    let (mut pair, seen) = recorded(Pair::good());
    for (to, mut datagram) in seen {
        datagram[17] ^= 1;
        let result = pair.machines[to].handle_input(pair.now, &datagram);
        assert_eq!(result, Err(RefusedInput::Forged));
    }
}

#[test]
fn a_datagram_of_an_earlier_handshake_changes_nothing() {
    let (_, seen) = recorded(Pair::good());
    let mut client = config(Role::Client, 1, 2);
    let mut server = config(Role::Server, 2, 1);
    client.id = HandshakeId(100);
    server.id = HandshakeId(100);
    let mut second = Pair::new(client, server);
    for (to, datagram) in &seen {
        assert_eq!(Handshake::id_of(datagram), Ok(HandshakeId(99)));
        let result = second.machines[*to].handle_input(second.now, datagram);
        assert_eq!(result, Err(RefusedInput::OtherHandshake));
    }
    second.run();
    assert_keys_agree(&mut second.sessions(), second.now);
}

#[test]
fn the_same_datagrams_again_only_get_acknowledgements() {
    let (mut pair, seen) = recorded(Pair::good());
    let before = pair.ends[CLIENT].sent + pair.ends[SERVER].sent;
    pair.fate = Box::new(|_, _| vec![]);
    for (to, datagram) in &seen {
        pair.machines[*to].handle_input(pair.now, datagram).expect("authentic");
    }
    pair.run();
    // One for each with bytes; none for acknowledgements, so two ends never chat for ever.
    let answers = pair.ends[CLIENT].sent + pair.ends[SERVER].sent - before;
    assert_eq!(answers, seen.len() - 1);
    assert_keys_agree(&mut pair.sessions(), pair.now);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn garbage_neither_panics_nor_disturbs(
        garbage in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..1300)), 0..40),
        shaped in proptest::collection::vec(
            (any::<bool>(), 0u8..3, 0u8..3, any::<[u8; 20]>()), 0..40),
    ) {
        let mut pair = Pair::good();
        pair.collect();
        let front = Header {
            kind: Kind::Handshake,
            epoch: 0,
            lane: 0,
            part: Part::WHOLE,
            receiver: LinkIndex(0),
            counter: 1,
        };
        let shaped = shaped.into_iter().map(|(to, level, kind, bytes)| {
            let id = 99u64.to_be_bytes();
            (to, [&front.emit()[..], &[1, level, kind, 0], &id, &bytes, &[0; 12]].concat())
        });
        for (to, datagram) in garbage.into_iter().chain(shaped) {
            // Early datagrams of the second level are kept unread, a few of them.
            let _ = pair.machines[usize::from(to)].handle_input(pair.now, &datagram);
        }
        pair.run();
        assert_keys_agree(&mut pair.sessions(), pair.now);
    }
}
