mod families;
mod servers;

use super::*;
use crate::message::{Algorithm, Key, PasswordAlgorithms};

const SERVER: &str = "198.18.0.20:3478";
const RELAYED: &str = "198.18.0.20:50000";
const MAPPED: &str = "203.0.113.1:40000";
const PEER: &str = "192.0.2.7:6000";
const REALM: &str = "lab.test";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A client, a clock, and by hand the server's side.
struct Bench {
    start: Instant,
    now: Instant,
    client: TurnClient,
    /// Requests and indications not yet looked at.
    sent: VecDeque<Vec<u8>>,
    events: VecDeque<TurnOutput>,
    nonce: String,
    mapped: SocketAddr,
}

impl Bench {
    fn new() -> Self {
        Self::over(false)
    }

    fn over(is_stream: bool) -> Self {
        let start = Instant::now();
        let credential = Credential::new("u", "p").unwrap();
        let config = TurnConfig { is_stream, ..TurnConfig::new(at(SERVER), credential) };
        let mut bench = Self {
            start,
            now: start,
            client: TurnClient::new(config, [5; 32], start),
            sent: VecDeque::new(),
            events: VecDeque::new(),
            nonce: "n1".into(),
            mapped: at(MAPPED),
        };
        bench.drain();
        bench
    }

    /// With an allocation that stands.
    fn allocated() -> Self {
        let mut bench = Self::new();
        bench.allocate();
        bench
    }

    /// Grants the allocation that is being asked for.
    fn allocate(&mut self) {
        let bench = self;
        let request = bench.request(Method::Allocate);
        bench.answer(&bench.challenge(&request, 401));
        let request = bench.request(Method::Allocate);
        bench.answer(&bench.success(&request));
        let allocated =
            TurnOutput::Allocated { relayed: vec![at(RELAYED)], mapped: Some(bench.mapped) };
        assert_eq!(bench.events.pop_front(), Some(allocated));
    }

    fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                TurnOutput::Transmit { to, data } => {
                    assert_eq!(to, self.client.server());
                    self.sent.push_back(data);
                }
                event => self.events.push_back(event),
            }
        }
    }

    fn take(&mut self, data: &[u8]) -> Result<Received, Dropped> {
        let received =
            self.client.handle_input(self.now, Input { remote: self.client.server(), data });
        self.drain();
        received
    }

    fn answer(&mut self, data: &[u8]) {
        assert_eq!(self.take(data), Ok(Received::Nothing));
    }

    /// The next datagram, which must be of this method.
    fn request(&mut self, method: Method) -> Vec<u8> {
        let data = self.sent.pop_front().expect("nothing was sent");
        assert_eq!(Message::parse(&data).unwrap().method(), method);
        data
    }

    /// Lets time pass without an answer to anything, until `end` from the start.
    fn wait(&mut self, end: Duration) {
        while let Some(next) = self.client.poll_timeout()
            && next <= self.start + end
        {
            assert!(next >= self.now, "a timer in the past");
            self.now = next;
            self.client.handle_timeout(next);
            self.drain();
            assert!(
                self.client.poll_timeout() > Some(next) || self.client.poll_timeout().is_none()
            );
        }
        self.now = self.start + end;
    }

    /// Lets time pass, answering everything with success; tells what was asked and when.
    fn serve(&mut self, end: Duration) -> Vec<(u64, Method)> {
        let mut asked = Vec::new();
        loop {
            while let Some(data) = self.sent.pop_front() {
                let message = Message::parse(&data).unwrap();
                asked.push(((self.now - self.start).as_secs(), message.method()));
                if message.class() == Class::Request {
                    self.answer(&self.success(&data));
                }
            }
            match self.client.poll_timeout() {
                Some(next) if next <= self.start + end => self.now = next,
                _ => break,
            }
            self.client.handle_timeout(self.now);
            self.drain();
        }
        self.now = self.start + end;
        asked
    }

    fn key(&self) -> Key {
        Key::long_term("u", REALM, "p", Algorithm::Md5).unwrap()
    }

    /// As ejabberd does: without FINGERPRINT.
    fn challenge(&self, request: &[u8], code: u16) -> Vec<u8> {
        Builder::error(&Message::parse(request).unwrap(), code, "Unauthorized")
            .with(Attribute::Realm(REALM.into()))
            .with(Attribute::Nonce(self.nonce.clone()))
            .build()
            .unwrap()
    }

    fn error(&self, request: &[u8], code: u16) -> Vec<u8> {
        let message = Message::parse(request).unwrap();
        Builder::error(&message, code, "no").integrity(&self.key()).build().unwrap()
    }

    /// Checks the request as a server would, and grants it.
    fn success(&self, request: &[u8]) -> Vec<u8> {
        let message = Message::parse(request).unwrap();
        let response = Builder::success(&message).with(Attribute::XorMappedAddress(self.mapped));
        if message.method() == Method::Binding {
            return response.build().unwrap();
        }
        assert_eq!(message.username(), Some("u"));
        assert_eq!(message.realm(), Some(REALM));
        assert_eq!(message.nonce(), Some(self.nonce.as_str()));
        message.verify(&self.key()).unwrap();
        let response = match message.method() {
            Method::Allocate => response
                .with(Attribute::XorRelayedAddress(at(RELAYED)))
                .with(Attribute::LifetimeSeconds(600)),
            Method::Refresh => {
                response.with(Attribute::LifetimeSeconds(message.lifetime_seconds().unwrap()))
            }
            _ => response,
        };
        response.integrity(&self.key()).build().unwrap()
    }
}

fn indication(peer: &str, payload: &[u8]) -> Vec<u8> {
    Builder::new(Class::Indication, Method::Data, crate::TransactionId([1; 12]))
        .with(Attribute::XorPeerAddress(at(peer)))
        .with(Attribute::Data(payload.to_vec()))
        .build()
        .unwrap()
}

#[test]
fn the_first_request_is_bare_and_the_second_answers_the_challenge() {
    let mut bench = Bench::new();
    let request = bench.request(Method::Allocate);
    let message = Message::parse(&request).unwrap();
    assert_eq!(message.requested_transport(), Some(17));
    assert!(!message.has_integrity());
    assert_eq!(message.username(), None);
    bench.answer(&bench.challenge(&request, 401));
    let signed = bench.request(Method::Allocate);
    assert_ne!(Message::parse(&signed).unwrap().transaction(), message.transaction());
    bench.answer(&bench.success(&signed));
    assert_eq!(bench.client.relayed(), [at(RELAYED)]);
    assert!(bench.sent.is_empty());
}

#[test]
fn lost_requests_and_answers_are_repeated() {
    let mut bench = Bench::new();
    let first = bench.request(Method::Allocate);
    bench.wait(Duration::from_millis(500));
    assert_eq!(bench.request(Method::Allocate), first);
    bench.wait(Duration::from_millis(1500));
    assert_eq!(bench.request(Method::Allocate), first);
    bench.answer(&bench.challenge(&first, 401));
    let late = bench.take(&bench.challenge(&first, 401));
    assert_eq!(late, Err(Dropped::Unexpected), "the second copy of an answer");
    let signed = bench.request(Method::Allocate);
    bench.wait(Duration::from_millis(2000));
    assert_eq!(bench.request(Method::Allocate), signed);
    bench.answer(&bench.success(&signed));
    assert_eq!(bench.client.relayed(), [at(RELAYED)]);
}

#[test]
fn only_the_server_with_the_right_key_and_id_is_heard() {
    let mut bench = Bench::new();
    let request = bench.request(Method::Allocate);
    bench.answer(&bench.challenge(&request, 401));
    let request = bench.request(Method::Allocate);
    let good = bench.success(&request);
    let stranger = Input { remote: at("198.18.0.20:3479"), data: &good };
    assert_eq!(bench.client.handle_input(bench.now, stranger), Err(Dropped::Stranger));
    let mut other_id = good.clone();
    other_id[15] ^= 1;
    assert_eq!(bench.take(&other_id), Err(Dropped::Unexpected));
    let message = Message::parse(&request).unwrap();
    let unsigned = || {
        Builder::success(&message)
            .with(Attribute::XorRelayedAddress(at("198.51.100.66:6")))
            .with(Attribute::LifetimeSeconds(600))
    };
    let missing = Err(Dropped::Forged(crate::IntegrityError::Missing));
    assert_eq!(bench.take(&unsigned().build().unwrap()), missing);
    let wrong = Key::long_term("u", REALM, "x", Algorithm::Md5).unwrap();
    let mismatch = Err(Dropped::Forged(crate::IntegrityError::Mismatch));
    assert_eq!(bench.take(&unsigned().integrity(&wrong).build().unwrap()), mismatch);
    let quota = Builder::error(&message, 486, "no").build().unwrap();
    assert_eq!(bench.take(&quota), missing);
    assert_eq!(bench.client.relayed(), []);
    bench.answer(&good);
    assert_eq!(bench.client.relayed(), [at(RELAYED)]);
}

#[test]
fn a_wrong_password_is_not_tried_twice() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        let request = bench.request(Method::Allocate);
        bench.answer(&bench.challenge(&request, 401));
    }
    let failed = TurnOutput::Failed { error: TurnError::WrongCredential, retry_at: None };
    assert_eq!(bench.events.pop_front(), Some(failed));
    assert_eq!(bench.client.poll_timeout(), None);
    bench.wait(seconds(3600));
    assert!(bench.sent.is_empty() && bench.events.is_empty());
    bench.client.close(bench.now);
    assert_eq!(bench.client.poll_output(), Some(TurnOutput::Closed));
}

#[test]
fn a_stale_nonce_is_replaced_and_a_loop_of_them_ends() {
    let mut bench = Bench::allocated();
    bench.serve(seconds(119));
    bench.nonce = "n2".into();
    bench.wait(seconds(120));
    bench.sent.retain(|data| Message::parse(data).unwrap().method() != Method::Binding);
    let request = bench.request(Method::Refresh);
    bench.answer(&bench.challenge(&request, 438));
    let request = bench.request(Method::Refresh);
    bench.answer(&bench.success(&request));
    let asked = bench.serve(seconds(241));
    assert!(asked.contains(&(240, Method::Refresh)), "the nonce is kept: {asked:?}");

    let mut bench = Bench::new();
    let request = bench.request(Method::Allocate);
    bench.answer(&bench.challenge(&request, 401));
    let mut rounds = 0;
    while bench.events.is_empty() {
        let request = bench.request(Method::Allocate);
        bench.answer(&bench.challenge(&request, 438));
        rounds += 1;
    }
    assert_eq!(rounds, 3);
    let retry_at = Some(bench.now + seconds(10));
    let failed = TurnOutput::Failed { error: TurnError::StaleNonce, retry_at };
    assert_eq!(bench.events.pop_front(), Some(failed));
}

#[test]
fn a_restarted_server_that_finds_our_nonce_bad_is_asked_bare() {
    let mut bench = Bench::allocated();
    bench.client.probe(bench.now);
    bench.drain();
    let request = bench.request(Method::Refresh);
    let bad = Builder::error(&Message::parse(&request).unwrap(), 400, "Bad Request");
    bench.answer(&bad.build().unwrap());
    let request = bench.request(Method::Refresh);
    assert!(!Message::parse(&request).unwrap().has_integrity());
    bench.nonce = "after".into();
    bench.answer(&bench.challenge(&request, 401));
    let request = bench.request(Method::Refresh);
    bench.answer(&bench.error(&request, 437));
    assert_eq!(bench.events.pop_front(), Some(TurnOutput::Lost(TurnError::Mismatch)));
    let request = bench.request(Method::Allocate);
    bench.answer(&bench.success(&request));
    assert_eq!(bench.client.relayed(), [at(RELAYED)]);
}

#[test]
fn an_allocation_of_a_former_life_is_ended() {
    let mut bench = Bench::new();
    let request = bench.request(Method::Allocate);
    bench.answer(&bench.challenge(&request, 401));
    let request = bench.request(Method::Allocate);
    bench.answer(&bench.error(&request, 437));
    for _ in 0..4 {
        let clear = bench.request(Method::Refresh);
        assert_eq!(Message::parse(&clear).unwrap().lifetime_seconds(), Some(0));
        bench.answer(&bench.success(&clear));
        let request = bench.request(Method::Allocate);
        bench.answer(&bench.error(&request, 437));
    }
    let retry_at = Some(bench.now + seconds(10));
    let failed = TurnOutput::Failed { error: TurnError::Mismatch, retry_at };
    assert_eq!(bench.events.pop_front(), Some(failed));
    bench.wait(seconds(10));
    let request = bench.request(Method::Allocate);
    bench.answer(&bench.success(&request));
    assert_eq!(bench.client.relayed(), [at(RELAYED)]);
}

#[test]
fn a_full_quota_is_told_once_and_tried_ever_more_slowly() {
    let mut bench = Bench::new();
    let request = bench.request(Method::Allocate);
    bench.answer(&bench.challenge(&request, 401));
    let mut times = Vec::new();
    for _ in 0..8 {
        let request = bench.request(Method::Allocate);
        times.push((bench.now - bench.start).as_secs());
        bench.answer(&bench.error(&request, 486));
        bench.wait(bench.client.poll_timeout().unwrap() - bench.start);
    }
    assert_eq!(times, [0, 10, 30, 70, 150, 310, 610, 910]);
    let retry_at = Some(bench.start + seconds(10));
    let failed = TurnOutput::Failed { error: TurnError::Quota, retry_at };
    assert_eq!(bench.events, [failed]);
}

#[test]
fn a_blocked_network_is_told_once_and_may_open() {
    let mut bench = Bench::new();
    bench.wait(seconds(1800));
    assert_eq!(bench.events.len(), 1);
    let failed = bench.events.pop_front();
    let Some(TurnOutput::Failed { error: TurnError::Timeout, retry_at }) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(retry_at, Some(bench.start + Duration::from_millis(40_500)));
    assert!(bench.sent.len() < 100, "{} datagrams in half an hour", bench.sent.len());
    // The network opens: the first sending of the next try is answered.
    while !matches!(bench.client.state, State::Idle { .. }) {
        bench.wait(bench.client.poll_timeout().unwrap() - bench.start);
    }
    bench.sent.clear();
    bench.wait(bench.client.poll_timeout().unwrap() - bench.start);
    let request = bench.request(Method::Allocate);
    bench.answer(&bench.challenge(&request, 401));
    let request = bench.request(Method::Allocate);
    bench.answer(&bench.success(&request));
    assert_eq!(bench.client.relayed(), [at(RELAYED)]);
}

#[test]
fn everything_is_renewed_in_time() {
    let mut bench = Bench::allocated();
    bench.client.bind(bench.now, at(PEER)).unwrap();
    bench.drain();
    let asked = bench.serve(seconds(1000));
    let times = |method| -> Vec<u64> {
        asked.iter().filter(|(_, m)| *m == method).map(|(time, _)| *time).collect()
    };
    assert_eq!(times(Method::Refresh), [120, 240, 360, 480, 600, 720, 840, 960]);
    assert_eq!(times(Method::CreatePermission), [0, 240, 480, 720, 960]);
    assert_eq!(times(Method::ChannelBind), [0, 480, 960]);
    assert_eq!(times(Method::Binding), (1..=50).map(|n| n * 20).collect::<Vec<_>>());
    let channel = ChannelNumber::FIRST;
    assert_eq!(bench.events, [TurnOutput::ChannelBound { peer: at(PEER), channel }]);
    assert_eq!(bench.client.channel(at(PEER)), Some(channel));
}

#[test]
fn payload_goes_as_an_indication_until_the_channel_is_bound() {
    let mut bench = Bench::allocated();
    bench.client.relay(bench.now, at(PEER), b"hello").unwrap();
    bench.drain();
    let permission = bench.request(Method::CreatePermission);
    let data = bench.request(Method::Send);
    let message = Message::parse(&data).unwrap();
    assert_eq!(message.xor_peer_address(), Some(at(PEER)));
    assert_eq!(&data[message.data_range().unwrap()], b"hello");
    bench.answer(&bench.success(&permission));

    bench.client.bind(bench.now, at(PEER)).unwrap();
    bench.drain();
    let bind = bench.request(Method::ChannelBind);
    bench.client.relay(bench.now, at(PEER), b"x").unwrap();
    bench.drain();
    bench.request(Method::Send);
    bench.answer(&bench.success(&bind));
    bench.client.relay(bench.now, at(PEER), b"hello").unwrap();
    bench.drain();
    assert_eq!(bench.sent.pop_front().unwrap(), b"\x40\x00\x00\x05hello");
    assert_eq!(bench.client.channel(at(PEER)), Some(ChannelNumber::FIRST));

    bench.client.forget(bench.now, at(PEER));
    bench.drain();
    assert_eq!(bench.events.pop_back(), Some(TurnOutput::ChannelLost { peer: at(PEER) }));
    bench.client.relay(bench.now, at(PEER), b"x").unwrap();
    bench.drain();
    bench.request(Method::Send);
}

#[test]
fn data_comes_from_expected_peers_alone() {
    let mut bench = Bench::allocated();
    let data = indication(PEER, b"payload");
    assert_eq!(bench.take(&data), Err(Dropped::Unexpected));
    bench.client.bind(bench.now, at(PEER)).unwrap();
    bench.drain();
    let Ok(Received::Data { peer, range }) = bench.take(&data) else { panic!() };
    assert_eq!((peer, &data[range]), (at(PEER), &b"payload"[..]));
    let channel = b"\x40\x00\x00\x02hi";
    let received = Received::Data { peer: at(PEER), range: 4..6 };
    assert_eq!(bench.take(channel), Ok(received), "the answer may come behind the first data");
    assert_eq!(bench.take(b"\x40\x01\x00\x02hi"), Err(Dropped::Unexpected));
    let cut = bench.take(b"\x40\x00\x00\x03hi");
    assert_eq!(cut, Err(Dropped::Channel(crate::ChannelError::Truncated)));
    let id = crate::TransactionId([2; 12]);
    let icmp =
        Builder::new(Class::Indication, Method::Data, id).with(Attribute::XorPeerAddress(at(PEER)));
    assert_eq!(bench.take(&icmp.build().unwrap()), Err(Dropped::Unexpected));
}

#[test]
fn what_cannot_be_relayed_says_so() {
    let mut bench = Bench::new();
    let refused = bench.client.relay(bench.now, at(PEER), b"x");
    assert_eq!(refused, Err(RelayError::NotAllocated));
    let mut bench = Bench::allocated();
    let v6 = bench.client.relay(bench.now, at("[2001:db8::1]:1"), b"x");
    assert_eq!(v6, Err(RelayError::WrongFamily));
    let long = bench.client.relay(bench.now, at(PEER), &[0; 65_536]);
    assert_eq!(long, Err(RelayError::TooLong));
    for _ in 0..OUTPUTS_MAX * 2 {
        let _ = bench.client.relay(bench.now, at(PEER), b"x");
    }
    assert_eq!(bench.client.relay(bench.now, at(PEER), b"x"), Err(RelayError::Full));
    assert!(bench.client.outputs.len() <= OUTPUTS_MAX + 1);
}

#[test]
fn a_forbidden_peer_is_told_and_barred_for_a_minute() {
    let mut bench = Bench::allocated();
    bench.client.relay(bench.now, at(PEER), b"x").unwrap();
    bench.drain();
    let permission = bench.request(Method::CreatePermission);
    bench.answer(&bench.error(&permission, 403));
    let error = TurnError::Forbidden("no".into());
    let refused = TurnOutput::Refused { peer: at(PEER).ip(), error };
    assert_eq!(bench.events.pop_front(), Some(refused));
    let again = bench.client.relay(bench.now, at(PEER), b"x");
    assert_eq!(again, Err(RelayError::Refused));
    bench.now += seconds(60);
    bench.client.relay(bench.now, at(PEER), b"x").unwrap();
}

#[test]
fn a_lost_allocation_is_replaced_with_all_that_was_in_it() {
    let mut bench = Bench::allocated();
    bench.client.bind(bench.now, at(PEER)).unwrap();
    bench.drain();
    bench.serve(seconds(100));
    bench.events.clear();
    bench.client.probe(bench.now);
    bench.drain();
    let request = bench.request(Method::Refresh);
    bench.answer(&bench.error(&request, 437));
    let lost = [TurnOutput::ChannelLost { peer: at(PEER) }, TurnOutput::Lost(TurnError::Mismatch)];
    assert_eq!(bench.events, lost);
    bench.events.clear();
    assert_eq!(bench.client.channel(at(PEER)), None);
    let asked = bench.serve(seconds(101));
    let methods: Vec<_> = asked.iter().map(|(_, method)| *method).collect();
    assert_eq!(methods, [Method::Allocate, Method::CreatePermission, Method::ChannelBind]);
    assert!(bench.client.channel(at(PEER)).is_some());
}

#[test]
fn another_mapped_address_makes_the_client_look_at_once() {
    let mut bench = Bench::allocated();
    bench.serve(seconds(59));
    bench.mapped = at("203.0.113.1:40001");
    let asked = bench.serve(seconds(61));
    assert_eq!(asked, [(60, Method::Binding), (60, Method::Refresh)]);
}

#[test]
fn a_silent_server_is_waited_for_until_the_allocation_has_run_out() {
    let mut bench = Bench::allocated();
    bench.wait(Duration::from_millis(599_999));
    assert_eq!(bench.client.relayed(), [at(RELAYED)]);
    assert!(bench.events.is_empty());
    bench.wait(seconds(600));
    assert_eq!(bench.events.pop_front(), Some(TurnOutput::Lost(TurnError::Expired)));
    bench.wait(seconds(640));
    let failed = bench.events.pop_front();
    assert!(matches!(failed, Some(TurnOutput::Failed { error: TurnError::Timeout, .. })));
}

#[test]
fn a_short_outage_changes_nothing() {
    let mut bench = Bench::allocated();
    bench.client.bind(bench.now, at(PEER)).unwrap();
    bench.drain();
    bench.serve(seconds(110));
    bench.events.clear();
    bench.wait(seconds(400));
    bench.sent.clear();
    bench.serve(seconds(1000));
    assert!(bench.events.is_empty(), "{:?}", bench.events);
    assert_eq!(bench.client.relayed(), [at(RELAYED)]);
}

#[test]
fn an_allocation_is_given_back_answered_or_not() {
    for answered in [true, false] {
        let mut bench = Bench::allocated();
        bench.client.close(bench.now);
        bench.drain();
        let request = bench.request(Method::Refresh);
        assert_eq!(Message::parse(&request).unwrap().lifetime_seconds(), Some(0));
        if answered {
            bench.answer(&bench.success(&request));
        } else {
            bench.wait(Retransmission::BRIEF.patience());
        }
        assert_eq!(bench.events, [TurnOutput::Closed]);
        assert_eq!(bench.client.poll_timeout(), None);
    }
    let mut bench = Bench::new();
    bench.client.close(bench.now);
    bench.drain();
    assert_eq!(bench.events, [TurnOutput::Closed]);
}

#[test]
fn an_answer_that_demands_the_unknown_or_lacks_the_address_is_void() {
    for unknown in [true, false] {
        let mut bench = Bench::new();
        let request = bench.request(Method::Allocate);
        bench.answer(&bench.challenge(&request, 401));
        let request = bench.request(Method::Allocate);
        let message = Message::parse(&request).unwrap();
        let mut response = Builder::success(&message).with(Attribute::LifetimeSeconds(600));
        if unknown {
            response = response.with(Attribute::XorRelayedAddress(at(RELAYED)));
        }
        let mut bytes = response.build().unwrap();
        if unknown {
            bytes.extend_from_slice(&[0x7f, 0xf0, 0, 0]);
            bytes[3] += 4;
        }
        let signed = sign_by_hand(bytes, &bench.key());
        bench.answer(&signed);
        let failed = bench.events.pop_front();
        let malformed = matches!(
            failed,
            Some(TurnOutput::Failed { error: TurnError::Malformed(_), retry_at: Some(_) })
        );
        assert!(malformed, "{failed:?}");
    }
}

/// Appends MESSAGE-INTEGRITY to bytes that the builder would not make.
fn sign_by_hand(mut bytes: Vec<u8>, key: &Key) -> Vec<u8> {
    bytes[3] += 24;
    let tag = key.hmac_sha1(&bytes);
    bytes.extend_from_slice(&[0, 8, 0, 20]);
    bytes.extend_from_slice(&tag);
    bytes
}

#[test]
fn sha256_is_used_when_the_server_prefers_it_and_nothing_weaker_is_believed() {
    let mut bench = Bench::new();
    let request = bench.request(Method::Allocate);
    let offered = PasswordAlgorithms::new(&[Algorithm::Sha256, Algorithm::Md5]);
    let challenge = Builder::error(&Message::parse(&request).unwrap(), 401, "Unauthorized")
        .with(Attribute::Realm(REALM.into()))
        .with(Attribute::Nonce("obMatJos2gAAAxyz".into()))
        .with(Attribute::PasswordAlgorithms(offered.clone()));
    bench.answer(&challenge.build().unwrap());
    let request = bench.request(Method::Allocate);
    let message = Message::parse(&request).unwrap();
    let key = Key::long_term("u", REALM, "p", Algorithm::Sha256).unwrap();
    assert_eq!(message.verify(&key), Ok(crate::Integrity::Sha256));
    assert_eq!(message.password_algorithms(), Some(offered));
    let response = || {
        Builder::success(&message)
            .with(Attribute::XorRelayedAddress(at(RELAYED)))
            .with(Attribute::LifetimeSeconds(600))
    };
    let weak = bench.take(&response().integrity(&key).build().unwrap());
    assert_eq!(weak, Err(Dropped::Forged(crate::IntegrityError::Mismatch)));
    bench.answer(&response().integrity_sha256(&key).build().unwrap());
    assert_eq!(bench.client.relayed(), [at(RELAYED)]);
}
