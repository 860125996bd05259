use super::*;
use crate::services::RelayKey;
use turn_server_proto::types::AddressFamily;
use turn_server_proto::types::attribute::{
    AdditionalAddressFamily, ChannelNumber, Lifetime, RequestedTransport, XorPeerAddress,
    XorRelayedAddress,
};
use turn_server_proto::types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH};
use turn_server_proto::types::stun::attribute::{ErrorCode, Nonce, Realm, Username};
use turn_server_proto::types::stun::message::{
    BINDING, IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageIntegrityCredentials,
    MessageWriteVec, Method, TransactionId,
};
use turn_server_proto::types::stun::prelude::{
    Attribute, AttributeStaticType, AttributeWrite, MessageWrite, MessageWriteExt,
};

const UNIX_S: u64 = 1_700_000_000;
const REALM: &str = "hub.test";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn place(number: u16) -> Place {
    let remote = SocketAddr::new("203.0.113.5".parse().unwrap(), 1000 + number);
    Place { remote, local: "192.0.2.1".parse().unwrap(), stream: None }
}

/// A relay whose sockets are numbers, and a clock.
struct World {
    relay: Relay,
    key: RelayKey,
    now: Now,
    sockets: Vec<RelayId>,
}

/// A client's side of the credentials.
#[derive(Clone)]
struct User {
    name: String,
    password: String,
    nonce: String,
}

impl World {
    fn new() -> Self {
        let key = RelayKey::new(&[1; 32]);
        let policy = Policy {
            allow_private: true,
            own: vec!["192.0.2.1".parse().unwrap()],
            service_ports: vec![3478, 5222],
            broadcast: Vec::new(),
        };
        let now = Now { at: Instant::now(), unix_s: UNIX_S };
        let relay = Relay::new(key.clone(), REALM, policy, now.at);
        Self { relay, key, now, sockets: Vec::new() }
    }

    fn user(&self, name: &str) -> User {
        let (name, password, _) = self.key.issue(name, self.now.unix_s);
        User { name, password, nonce: String::new() }
    }

    fn pass(&mut self, seconds: u64) {
        self.now.at += Duration::from_secs(seconds);
        self.now.unix_s += seconds;
        self.relay.handle_timeout(self.now.at);
        self.settle();
    }

    /// Shows a datagram of a client; what goes back to it.
    fn say(&mut self, place: Place, datagram: &[u8]) -> Option<Vec<u8>> {
        let sent = match self.relay.handle_client(self.now, place, datagram) {
            Some(Datagram::ToClient(to, data)) => {
                assert_eq!(to, place);
                Some(data.to_vec())
            }
            _ => None,
        };
        sent.or(self.settle())
    }

    /// Opens and closes sockets as asked; the last reply.
    fn settle(&mut self) -> Option<Vec<u8>> {
        let mut last = None;
        while let Some(output) = self.relay.poll_output() {
            match output {
                Output::Reply(_, data) => last = Some(data),
                Output::Open { relay, ipv6, .. } => {
                    self.sockets.push(relay);
                    let ip = if ipv6 { "[2001:db8::1]" } else { "192.0.2.1" };
                    let address = at(&format!("{ip}:{}", 50_000 + relay.0));
                    self.relay.opened(self.now.at, relay, Ok(address));
                }
                Output::Close(relay) => self.sockets.retain(|other| *other != relay),
            }
        }
        last
    }

    /// Asks with credentials, twice if the nonce was not known; the error, if any.
    fn ask(
        &mut self,
        place: Place,
        user: &mut User,
        method: Method,
        attributes: &dyn Fn(TransactionId) -> Vec<Box<dyn AttributeWrite>>,
    ) -> Result<Vec<u8>, u16> {
        for _ in 0..2 {
            let answer = self.say(place, &request(user, method, attributes)).expect("an answer");
            let message = Message::from_bytes(&answer).unwrap();
            let Ok(error) = message.attribute::<ErrorCode>() else { return Ok(answer) };
            let nonce = nonce_of(&message, &user.nonce);
            let is_new = nonce != std::mem::replace(&mut user.nonce, nonce.clone());
            if !matches!(error.code(), 401 | 438) || !is_new {
                return Err(error.code());
            }
        }
        Err(401)
    }

    fn allocate(&mut self, place: Place, user: &mut User) -> Result<SocketAddr, u16> {
        let answer = self.ask(place, user, ALLOCATE, &|_| {
            vec![Box::new(RequestedTransport::new(RequestedTransport::UDP))]
        })?;
        let message = Message::from_bytes(&answer).unwrap();
        let relayed = message.attribute::<XorRelayedAddress>().unwrap();
        Ok(relayed.addr(message.transaction_id()))
    }

    fn permit(&mut self, place: Place, user: &mut User, peer: &str) -> Result<(), u16> {
        let peer = at(peer);
        let attributes =
            |id| -> Vec<Box<dyn AttributeWrite>> { vec![Box::new(XorPeerAddress::new(peer, id))] };
        self.ask(place, user, CREATE_PERMISSION, &attributes).map(drop)
    }

    fn bind(&mut self, place: Place, user: &mut User, number: u16, peer: &str) -> Result<(), u16> {
        let peer = at(peer);
        let attributes = |id| -> Vec<Box<dyn AttributeWrite>> {
            vec![Box::new(ChannelNumber::new(number)), Box::new(XorPeerAddress::new(peer, id))]
        };
        self.ask(place, user, CHANNEL_BIND, &attributes).map(drop)
    }
}

fn nonce_of(message: &Message<'_>, old: &str) -> String {
    message.attribute::<Nonce>().map_or(old.to_owned(), |nonce| nonce.nonce().to_owned())
}

fn request(
    user: &User,
    method: Method,
    attributes: &dyn Fn(TransactionId) -> Vec<Box<dyn AttributeWrite>>,
) -> Vec<u8> {
    let mut message = Message::builder_request(method, MessageWriteVec::new());
    let bare = message.clone();
    let id = Message::from_bytes(&bare).unwrap().transaction_id();
    for attribute in attributes(id) {
        message.add_attribute(&*attribute).unwrap();
    }
    sign(message, user)
}

fn sign(mut message: MessageWriteVec, user: &User) -> Vec<u8> {
    if !user.nonce.is_empty() {
        message.add_attribute(&Username::new(&user.name).unwrap()).unwrap();
        message.add_attribute(&Realm::new(REALM).unwrap()).unwrap();
        message.add_attribute(&Nonce::new(&user.nonce).unwrap()).unwrap();
        let credentials =
            LongTermKeyCredentials::new(user.name.clone(), user.password.clone(), REALM.into());
        let credentials = MessageIntegrityCredentials::from(credentials);
        message.add_message_integrity(&credentials, IntegrityAlgorithm::Sha1).unwrap();
    }
    message.finish()
}

#[test]
fn binding_is_answered_and_remembers_nobody() {
    let mut world = World::new();
    let request = Message::builder_request(BINDING, MessageWriteVec::new()).finish();
    let answer = world.say(place(1), &request).unwrap();
    let message = Message::from_bytes(&answer).unwrap();
    let mapped =
        message.attribute::<turn_server_proto::types::stun::attribute::XorMappedAddress>().unwrap();
    assert_eq!(mapped.addr(message.transaction_id()), place(1).remote);
    assert!(world.relay.clients.is_empty());
}

#[test]
fn data_travel_both_ways() {
    let mut world = World::new();
    let mut user = world.user("alice");
    let relayed = world.allocate(place(1), &mut user).unwrap();
    assert_eq!(relayed, at("192.0.2.1:50001"));
    world.bind(place(1), &mut user, 0x4000, "198.51.100.7:9").unwrap();
    let channel = [0x40, 0, 0, 3, b'a', b'b', b'c', 0];
    let relay = world.sockets[0];
    let sent = world.relay.handle_client(world.now, place(1), &channel);
    assert_eq!(sent, Some(Datagram::ToPeer(relay, at("198.51.100.7:9"), b"abc")));
    let got = world.relay.handle_peer(world.now.at, relay, at("198.51.100.7:9"), b"xyz");
    assert_eq!(got, Some(Datagram::ToClient(place(1), &[0x40, 0, 0, 3, b'x', b'y', b'z'])));
    // From another port of the peer: no channel, but a permission, so a Data indication.
    let got = world.relay.handle_peer(world.now.at, relay, at("198.51.100.7:10"), b"xyz");
    let Some(Datagram::ToClient(_, data)) = got else { panic!() };
    assert_eq!(data[..2], [0x00, 0x17]);
    let stranger = world.relay.handle_peer(world.now.at, relay, at("198.51.100.8:9"), b"xyz");
    assert_eq!(stranger, None);
}

#[test]
fn between_two_relay_addresses_data_stay_inside() {
    let mut world = World::new();
    let (mut alice, mut bob) = (world.user("alice"), world.user("bob"));
    let of_alice = world.allocate(place(1), &mut alice).unwrap().to_string();
    let of_bob = world.allocate(place(2), &mut bob).unwrap().to_string();
    world.bind(place(1), &mut alice, 0x4000, &of_bob).unwrap();
    let channel = [0x40, 0, 0, 1, b'a', 0, 0, 0];
    // Bob has not asked for it yet.
    assert_eq!(world.relay.handle_client(world.now, place(1), &channel), None);
    world.bind(place(2), &mut bob, 0x4001, &of_alice).unwrap();
    let sent = world.relay.handle_client(world.now, place(1), &channel);
    assert_eq!(sent, Some(Datagram::ToClient(place(2), &[0x40, 1, 0, 1, b'a'])));
    world.pass(601);
    assert!(world.relay.addresses.is_empty() && world.relay.relays.is_empty());
}

#[test]
fn passwords_are_those_of_the_hub_and_end() {
    let mut world = World::new();
    let mut user = world.user("alice");
    let mut guess = User { password: "guess".into(), ..user.clone() };
    assert_eq!(world.allocate(place(1), &mut guess), Err(401));
    let mut other = User { name: format!("{}x", user.name), ..user.clone() };
    assert_eq!(world.allocate(place(2), &mut other), Err(401));
    let mut nobody = User { name: "alice".into(), ..user.clone() };
    assert_eq!(world.allocate(place(3), &mut nobody), Err(401));
    world.allocate(place(4), &mut user).unwrap();
    world.pass(26 * 3600);
    let mut late = User { nonce: String::new(), ..user.clone() };
    assert_eq!(world.allocate(place(5), &mut late), Err(401));
}

#[test]
fn an_allocation_outlives_its_credentials_while_refreshed() {
    let mut world = World::new();
    let mut user = world.user("alice");
    world.allocate(place(1), &mut user).unwrap();
    let refresh = |seconds| {
        move |_| -> Vec<Box<dyn AttributeWrite>> { vec![Box::new(Lifetime::new(seconds))] }
    };
    for _ in 0..30 {
        world.ask(place(1), &mut user, REFRESH, &refresh(3600)).unwrap();
        world.pass(3300);
    }
    assert_eq!(world.sockets.len(), 1);
    world.ask(place(1), &mut user, REFRESH, &refresh(0)).unwrap();
    assert!(world.sockets.is_empty());
    assert_eq!(world.allocate(place(1), &mut user), Err(401));
}

#[test]
fn the_policy_holds_for_permissions_channels_and_data() {
    let mut world = World::new();
    let mut user = world.user("alice");
    world.allocate(place(1), &mut user).unwrap();
    for peer in ["127.0.0.1:9", "169.254.169.254:80", "224.0.0.1:9", "0.0.0.0:9"] {
        assert_eq!(world.permit(place(1), &mut user, peer), Err(403), "{peer}");
        assert_eq!(world.bind(place(1), &mut user, 0x4001, peer), Err(403), "{peer}");
    }
    assert_eq!(world.bind(place(1), &mut user, 0x4001, "192.0.2.1:3478"), Err(403));
    // Other ports of the hub's machine are relay addresses, so a permission there is.
    world.permit(place(1), &mut user, "192.0.2.1:3478").unwrap();
    let mut send = vec![0x00, 0x16, 0, 20, 0x21, 0x12, 0xa4, 0x42];
    send.extend_from_slice(&[7; 12]);
    send.extend_from_slice(&[0x00, 0x12, 0, 8, 0, 1]);
    let port = |port: u16| (port ^ 0x2112).to_be_bytes();
    send.extend_from_slice(&port(3478));
    send.extend_from_slice(&(u32::from_be_bytes([192, 0, 2, 1]) ^ 0x2112_a442).to_be_bytes());
    send.extend_from_slice(&[0x00, 0x13, 0, 4, b'd', b'a', b't', b'a']);
    assert_eq!(world.relay.handle_client(world.now, place(1), &send), None);
    send[26..28].copy_from_slice(&port(3479));
    let sent = world.relay.handle_client(world.now, place(1), &send);
    assert!(matches!(sent, Some(Datagram::ToPeer(_, to, b"data")) if to == at("192.0.2.1:3479")));
}

#[test]
fn one_user_gets_so_many_addresses_and_no_more() {
    let mut world = World::new();
    let (mut alice, mut bob) = (world.user("alice"), world.user("bob"));
    let mut allocate = |number: u16, user: &mut User| {
        user.nonce.clear();
        world.allocate(place(number), user)
    };
    for number in 0..ALLOCATIONS_PER_USER_MAX as u16 {
        allocate(number, &mut alice).unwrap();
    }
    assert_eq!(allocate(100, &mut alice), Err(508));
    allocate(101, &mut bob).unwrap();
    world.pass(601);
    world.pass(1);
    assert!(world.sockets.is_empty() && world.relay.shares.is_empty());
    alice.nonce.clear();
    world.allocate(place(102), &mut alice).unwrap();
}

/// RFC 8656 section 7.2: the answer may have been lost.
#[test]
fn an_allocate_that_comes_twice_is_answered_twice_alike() {
    let mut world = World::new();
    let mut user = world.user("alice");
    let ask = |user: &User| {
        request(user, ALLOCATE, &|_| {
            vec![Box::new(RequestedTransport::new(RequestedTransport::UDP))]
        })
    };
    let challenge = world.say(place(1), &ask(&user)).unwrap();
    user.nonce = nonce_of(&Message::from_bytes(&challenge).unwrap(), "");
    let asked = ask(&user);
    let first = world.say(place(1), &asked).unwrap();
    assert_eq!(world.say(place(1), &asked).unwrap(), first);
    assert_eq!(world.sockets.len(), 1);
    // Another request is another matter, and so is the same one after the allocation's end.
    assert_eq!(world.allocate(place(1), &mut user), Err(437));
    world.pass(601);
    assert!(world.sockets.is_empty());
    assert_ne!(world.say(place(1), &asked).unwrap(), first);
}

#[test]
fn permissions_are_bounded() {
    let mut world = World::new();
    let mut user = world.user("alice");
    world.allocate(place(1), &mut user).unwrap();
    let mut results = (0..1030u32).map(|number| {
        let [_, _, high, low] = number.to_be_bytes();
        world.permit(place(1), &mut user, &format!("198.51.{high}.{low}:9"))
    });
    assert_eq!(results.by_ref().take_while(Result::is_ok).count(), 1024);
    assert!(results.all(|result| result == Err(508)));
}

#[test]
fn strangers_are_forgotten() {
    let mut world = World::new();
    let user = User { name: String::new(), password: String::new(), nonce: String::new() };
    for number in 0..STRANGERS_MAX + 10 {
        let place = place(number as u16);
        let answer = world.say(place, &request(&user, ALLOCATE, &|_| Vec::new()));
        let answer = answer.expect("a challenge");
        let message = Message::from_bytes(&answer).unwrap();
        assert_eq!(message.attribute::<ErrorCode>().unwrap().code(), 401);
    }
    assert_eq!(world.relay.clients.len(), STRANGERS_MAX);
    world.pass(61);
    assert!(world.relay.clients.is_empty() && world.relay.strangers.is_empty());
}

#[test]
fn a_socket_that_cannot_be_had_is_said_and_not_counted() {
    let mut world = World::new();
    let mut user = world.user("alice");
    let ask = |user: &User| {
        request(user, ALLOCATE, &|_| {
            vec![Box::new(RequestedTransport::new(RequestedTransport::UDP))]
        })
    };
    let challenge = world.say(place(1), &ask(&user)).unwrap();
    user.nonce = nonce_of(&Message::from_bytes(&challenge).unwrap(), "");
    assert_eq!(world.relay.handle_client(world.now, place(1), &ask(&user)), None);
    let Some(Output::Open { relay, ipv6: false, .. }) = world.relay.poll_output() else { panic!() };
    let full = Err(SocketAllocateError::InsufficientCapacity);
    world.relay.opened(world.now.at, relay, full);
    let answer = world.settle().unwrap();
    let message = Message::from_bytes(&answer).unwrap();
    assert_eq!(message.attribute::<ErrorCode>().unwrap().code(), 508);
    assert!(world.relay.shares.is_empty() && world.relay.relays.is_empty());
}

/// Asks for both families; `given` says which there are: whether IPv6.
fn ask_for_both(world: &mut World, user: &mut User, given: &[bool]) -> Vec<u8> {
    let ask = |user: &User| {
        request(user, ALLOCATE, &|_| {
            vec![
                Box::new(RequestedTransport::new(RequestedTransport::UDP)),
                Box::new(AdditionalAddressFamily::new(AddressFamily::IPV6)),
            ]
        })
    };
    let challenge = world.say(place(1), &ask(user)).unwrap();
    user.nonce = nonce_of(&Message::from_bytes(&challenge).unwrap(), "");
    assert_eq!(world.relay.handle_client(world.now, place(1), &ask(user)), None);
    for _ in 0..2 {
        let Some(Output::Open { relay, ipv6, .. }) = world.relay.poll_output() else { panic!() };
        let ip = if ipv6 { "[2001:db8::1]" } else { "192.0.2.1" };
        let address = at(&format!("{ip}:50000"));
        let given = given.contains(&ipv6).then_some(address);
        let given = given.ok_or(SocketAllocateError::AddressFamilyNotSupported);
        world.relay.opened(world.now.at, relay, given);
    }
    world.settle().expect("an answer")
}

#[test]
fn an_allocation_has_the_families_that_there_are() {
    for given in [&[false, true][..], &[true], &[false], &[]] {
        let (has, count) = (|ipv6| given.contains(&ipv6), given.len());
        let mut world = World::new();
        let mut user = world.user("alice");
        let answer = ask_for_both(&mut world, &mut user, given);
        let message = Message::from_bytes(&answer).unwrap();
        let relayed = message.iter_attributes();
        let relayed = relayed.filter(|(_, raw)| raw.get_type() == XorRelayedAddress::TYPE).count();
        assert_eq!((relayed, world.relay.relays.len()), (count, count));
        if count == 0 {
            assert_eq!(message.attribute::<ErrorCode>().unwrap().code(), 508);
        }
        for (ipv6, peer) in [(false, "198.51.100.7:9"), (true, "[2001:db8:7::7]:9")] {
            let expected = match (count, has(ipv6)) {
                (0, _) => Err(437),
                (_, true) => Ok(()),
                (_, false) => Err(443),
            };
            assert_eq!(world.permit(place(1), &mut user, peer), expected, "{peer}");
        }
        // What a relay may never reach it does not reach over IPv6 either.
        if has(true) {
            for peer in ["[::1]:9", "[fe80::1]:9", "[ff02::1]:9", "[64:ff9b::127.0.0.1]:9"] {
                assert_eq!(world.permit(place(1), &mut user, peer), Err(403), "{peer}");
            }
        }
        world.pass(601);
        world.pass(61);
        assert!(world.relay.relays.is_empty() && world.relay.shares.is_empty());
        assert!(world.relay.clients.is_empty());
    }
}

#[test]
fn what_once_ended_the_machine_is_not_even_answered() {
    let mut world = World::new();
    let nonce = "obMatJos2aaa\u{e9}x".as_bytes();
    let mut datagram = vec![0, 3, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    datagram.extend_from_slice(&[7; 12]);
    for (kind, value) in [(0x06, &b"u"[..]), (0x14, b"r"), (0x15, nonce), (0x08, &[0; 20])] {
        datagram.extend_from_slice(&[0, kind, 0, value.len() as u8]);
        datagram.extend_from_slice(value);
        datagram.resize(datagram.len().next_multiple_of(4), 0);
    }
    let length = (datagram.len() - 20) as u16;
    datagram[2..4].copy_from_slice(&length.to_be_bytes());
    assert_eq!(world.say(place(1), &datagram), None);
}

mod fuzz {
    use super::*;
    use proptest::prelude::*;
    use turn_server_proto::types::stun::attribute::{AttributeType, RawAttribute};

    fn attribute() -> impl Strategy<Value = (u16, Vec<u8>)> {
        let kind = prop_oneof![0u16..0x30, 0x8020u16..0x8030, any::<u16>()];
        (kind, prop::collection::vec(any::<u8>(), 0..40))
    }

    /// Attributes of TURN with values of about the right shape.
    fn likely_attribute() -> impl Strategy<Value = (u16, Vec<u8>)> {
        let bytes = |len| prop::collection::vec(any::<u8>(), len);
        let address = (1u8..3, bytes(20..21)).prop_map(|(family, mut value)| {
            (value[0], value[1]) = (0, family);
            value.truncate(if family == 1 { 8 } else { 20 });
            value
        });
        let word = prop_oneof![
            bytes(4..5),
            (0u8..4).prop_map(|first| vec![first, 0, 0, 0]),
            Just(vec![0x40, 0, 0, 0]),
            Just(vec![17, 0, 0, 0]),
            Just(vec![0; 4]),
        ];
        let words = [0x0c, 0x0d, 0x17, 0x19, 0x2a, 0x18, 0x1a, 0x8000];
        prop_oneof![
            (prop::sample::select(&[0x12, 0x16, 0x20][..]), address),
            (prop::sample::select(words.to_vec()), word),
            (Just(0x22), bytes(8..9)),
            (Just(0x13), bytes(0..40)),
            (Just(0x1e), bytes(32..33)),
            attribute(),
        ]
    }

    /// A request with attributes of any kind, as far as a request can have them, and a password.
    fn signed(user: &User, method: Method, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut message = Message::builder_request(method, MessageWriteVec::new());
        for (kind, value) in attributes {
            let is_of_password = [0x06, 0x08, 0x14, 0x15, 0x1c, 0x8028].contains(kind);
            if !is_of_password && !message.has_attribute(AttributeType::new(*kind)) {
                let _ = message.add_attribute(&RawAttribute::new((*kind).into(), value));
            }
        }
        sign(message, user)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn attributes_of_any_kind_never_panic(
            kind in prop_oneof![0u16..10, Just(0x16), any::<u16>()],
            attributes in prop::collection::vec(attribute(), 0..8),
        ) {
            let mut world = World::new();
            let mut body = Vec::new();
            for (kind, value) in &attributes {
                body.extend_from_slice(&kind.to_be_bytes());
                body.extend_from_slice(&(value.len() as u16).to_be_bytes());
                body.extend_from_slice(value);
                body.resize(body.len().next_multiple_of(4), 0);
            }
            let mut datagram = kind.to_be_bytes().to_vec();
            datagram.extend_from_slice(&(body.len() as u16).to_be_bytes());
            datagram.extend_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
            datagram.extend_from_slice(&[7; 12]);
            datagram.extend_from_slice(&body);
            world.say(place(1), &datagram);
            world.pass(1);
        }

        /// A member's requests get further into the machine than a stranger's.
        #[test]
        fn what_members_send_never_panics(
            steps in prop::collection::vec(
                (
                    prop_oneof![0u16..0x10, any::<u16>()],
                    prop::collection::vec(likely_attribute(), 0..6),
                    any::<bool>(),
                    0u64..700,
                ),
                1..12,
            ),
        ) {
            let mut world = World::new();
            let mut user = world.user("alice");
            world.allocate(place(1), &mut user).unwrap();
            world.bind(place(1), &mut user, 0x4000, "198.51.100.7:9").unwrap();
            for (method, attributes, is_whole, seconds) in &steps {
                let datagram = signed(&user, Method::new(*method & 0x0fff), attributes);
                let datagram = match is_whole {
                    true => datagram,
                    false => datagram[..datagram.len() / 2].to_vec(),
                };
                if let Some(answer) = world.say(place(1), &datagram)
                    && let Ok(message) = Message::from_bytes(&answer)
                {
                    user.nonce = nonce_of(&message, &user.nonce);
                }
                let peer = at("198.51.100.7:9");
                for relay in world.sockets.clone() {
                    let _ = world.relay.handle_peer(world.now.at, relay, peer, &datagram);
                }
                world.pass(*seconds);
            }
        }

        #[test]
        fn arbitrary_datagrams_never_panic(bytes in any::<Vec<u8>>()) {
            let mut world = World::new();
            world.say(place(1), &bytes);
        }
    }
}
