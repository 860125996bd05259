//! One TURN client: its protocol machine, who it is, and what it may do.

use super::RelayId;
use super::guard::{self, Kind};
use super::policy::Policy;
use crate::services::{RelayKey, parse_username};
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::time::Duration;
use tracing::dispatcher::{self, Dispatch};
use turn_server_proto::api::{
    DelayedMessageOrChannelSend, SocketAllocateError as NoSocket, Transmit, TurnServerApi,
    TurnServerPollRet,
};
use turn_server_proto::server::TurnServer;
use turn_server_proto::types::attribute::XorPeerAddress;
use turn_server_proto::types::message::{CHANNEL_BIND, CREATE_PERMISSION};
use turn_server_proto::types::prelude::DelayedTransmitBuild;
use turn_server_proto::types::stun::attribute::ErrorCode;
use turn_server_proto::types::stun::message::{
    IntegrityAlgorithm, LongTermKeyCredentials, Message, MessageIntegrityCredentials,
    MessageWriteVec,
};
use turn_server_proto::types::stun::prelude::{
    Attribute, AttributeFromRaw, AttributeStaticType, MessageWrite, MessageWriteExt,
};
use turn_server_proto::types::{AddressFamily, Instant, TransportType};

/// What machines believe to listen on; the true address is known outside, and no answer names it.
pub(super) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 3478);
/// User names that one client may try.
const USERS_MAX: usize = 4;
/// Peer addresses that one client may have permissions for.
const PEERS_MAX: usize = 1024;
/// RFC 8656 section 9, and a little more, so that ours is never shorter than the machine's.
const PERMISSION_LIFE: Duration = Duration::from_secs(310);
/// What still fits into a datagram with a header in front.
const PEER_DATA_LEN_MAX: usize = 65_000;
/// First bytes of messages, and where their transaction's number is (RFC 8489 section 5).
const ALLOCATE_REQUEST: [u8; 2] = [0x00, 0x03];
const ALLOCATE_SUCCESS: [u8; 2] = [0x01, 0x03];
const TRANSACTION: Range<usize> = 8..20;
const FORBIDDEN: u16 = 403;
const INSUFFICIENT_CAPACITY: u16 = 508;

/// What there is to know at each step.
pub(super) struct Step<'a> {
    pub(super) now: Instant,
    pub(super) unix_s: u64,
    pub(super) key: &'a RelayKey,
    pub(super) realm: &'a str,
    pub(super) policy: &'a Policy,
}

/// What becomes of a client's datagram.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// So many bytes of the scratch buffer go back.
    Reply(usize),
    /// This part of the datagram goes to a peer.
    Forward { relay: RelayId, to: SocketAddr, range: Range<usize> },
    /// The machine may want something, but has no answer yet.
    Nothing,
}

/// What a machine wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Reply(Vec<u8>),
    Open {
        ipv6: bool,
    },
    Close(RelayId),
    /// A socket that was being opened could not be.
    Failed,
}

/// A relay socket of the client.
struct Socket {
    relay: RelayId,
    ipv6: bool,
    /// As peers see it; `None` while it is being opened.
    address: Option<SocketAddr>,
    /// Whether the machine knows.
    is_told: bool,
}

pub(super) struct Client {
    machine: TurnServer,
    remote: SocketAddr,
    /// User names that the machine knows the passwords of.
    users: Vec<String>,
    /// Who asked for the allocation, without the expiry.
    user: String,
    sockets: Vec<Socket>,
    /// Until when there are permissions.
    peers: HashMap<IpAddr, Instant>,
    wishes: VecDeque<Wish>,
    deadline: Instant,
    /// The answer that granted the allocation.
    granted: Option<Vec<u8>>,
}

impl Client {
    pub(super) fn new(realm: &str) -> Self {
        Self {
            machine: machine(realm),
            remote: LISTEN,
            users: Vec::new(),
            user: String::new(),
            sockets: Vec::new(),
            peers: HashMap::new(),
            wishes: VecDeque::new(),
            deadline: Instant::from_nanos(i64::MAX),
            granted: None,
        }
    }

    /// Whose allocation it is; empty before there is one.
    pub(super) fn user(&self) -> &str {
        &self.user
    }

    /// Whether there is neither an allocation nor one on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.sockets.is_empty()
    }

    /// When the machine wants to be polled.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Takes a datagram of the client.
    pub(super) fn handle(
        &mut self,
        step: &Step<'_>,
        remote: SocketAddr,
        kind: Kind,
        datagram: &[u8],
        scratch: &mut [u8],
    ) -> Option<Effect> {
        self.remote = remote;
        let mut altered = None;
        if kind == Kind::Request {
            let known = self.granted_before(datagram).or_else(|| self.refusal(step, datagram));
            if let Some(answer) = known {
                let len = answer.len().min(scratch.len());
                scratch[..len].copy_from_slice(&answer[..len]);
                return Some(Effect::Reply(len));
            }
            altered = self.introduce(step, datagram);
        }
        let shown = altered.as_deref().unwrap_or(datagram);
        let transmit = Transmit::new(shown, TransportType::Udp, remote, LISTEN);
        let Some(sent) = quietly(|| self.machine.recv(transmit, step.now)) else {
            return (kind == Kind::Request).then_some(Effect::Nothing);
        };
        match sent.data {
            DelayedMessageOrChannelSend::Range(_, range) if sent.from != LISTEN => {
                let is_from = |socket: &&Socket| socket.address == Some(sent.from);
                let socket = self.sockets.iter().find(is_from)?;
                let to = sent.to;
                step.policy.permits(to).then_some(Effect::Forward {
                    relay: socket.relay,
                    to,
                    range,
                })
            }
            data => Some(Effect::Reply(write(data, scratch))),
        }
    }

    /// Takes a datagram of a peer; so many bytes of the scratch buffer go to the client.
    pub(super) fn handle_peer(
        &mut self,
        now: Instant,
        relay: RelayId,
        from: SocketAddr,
        datagram: &[u8],
        scratch: &mut [u8],
    ) -> Option<usize> {
        if datagram.len() > PEER_DATA_LEN_MAX {
            return None;
        }
        let socket = self.sockets.iter().find(|socket| socket.relay == relay)?;
        let transmit = Transmit::new(datagram, TransportType::Udp, from, socket.address?);
        let sent = quietly(|| self.machine.recv(transmit, now))?;
        Some(write(sent.data, scratch))
    }

    /// What the machine wants next.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Wish> {
        if let Some(wish) = self.wishes.pop_front() {
            return Some(wish);
        }
        loop {
            if let Some(transmit) = quietly(|| self.machine.poll_transmit(now)) {
                if transmit.data.starts_with(&ALLOCATE_SUCCESS) {
                    self.granted = Some(transmit.data.clone());
                }
                return Some(Wish::Reply(transmit.data));
            }
            match quietly(|| self.machine.poll(now)) {
                TurnServerPollRet::AllocateSocket { family, .. } => {
                    return Some(Wish::Open { ipv6: family == AddressFamily::IPV6 });
                }
                TurnServerPollRet::SocketClose { listen_addr, .. } => {
                    let is_it = |socket: &Socket| socket.address == Some(listen_addr);
                    if let Some(at) = self.sockets.iter().position(is_it) {
                        return Some(Wish::Close(self.sockets.swap_remove(at).relay));
                    }
                }
                TurnServerPollRet::WaitUntil(deadline) => {
                    self.deadline = deadline;
                    return None;
                }
                TurnServerPollRet::TcpConnect { .. } | TurnServerPollRet::TcpClose { .. } => {}
            }
        }
    }

    /// A socket is being opened.
    pub(super) fn opening(&mut self, relay: RelayId, ipv6: bool) {
        self.sockets.push(Socket { relay, ipv6, address: None, is_told: false });
    }

    /// A socket is open, or cannot be had.
    pub(super) fn opened(
        &mut self,
        now: Instant,
        relay: RelayId,
        address: Result<SocketAddr, NoSocket>,
    ) {
        let Some(at) = self.sockets.iter().position(|socket| socket.relay == relay) else { return };
        match address {
            Ok(address) => self.sockets[at].address = Some(address),
            Err(why) => {
                let Socket { ipv6, .. } = self.sockets.swap_remove(at);
                self.wishes.push_back(Wish::Failed);
                self.answer_socket(now, ipv6, Err(why));
            }
        }
        // The machine forgets an allocation of two families when the last that it hears of is a
        // socket that cannot be had: those that there are come last.
        if self.sockets.iter().all(|socket| socket.address.is_some()) {
            self.tell_of_sockets(now);
        }
    }

    fn tell_of_sockets(&mut self, now: Instant) {
        let untold = self.sockets.iter_mut().filter(|socket| !socket.is_told);
        let untold: Vec<_> = untold
            .filter_map(|socket| {
                socket.is_told = true;
                Some((socket.ipv6, socket.address?))
            })
            .collect();
        for (ipv6, address) in untold {
            self.answer_socket(now, ipv6, Ok(address));
        }
    }

    /// No socket is given.
    pub(super) fn refuse_socket(&mut self, now: Instant, ipv6: bool) {
        self.answer_socket(now, ipv6, Err(NoSocket::InsufficientCapacity));
    }

    fn answer_socket(&mut self, now: Instant, ipv6: bool, answer: Result<SocketAddr, NoSocket>) {
        let family = if ipv6 { AddressFamily::IPV6 } else { AddressFamily::IPV4 };
        let udp = TransportType::Udp;
        quietly(|| {
            self.machine.allocated_socket(udp, LISTEN, self.remote, udp, family, answer, now);
        });
    }

    /// The answer to an Allocate request that has been granted and comes once more, because its
    /// answer was lost (RFC 8656 section 7.2). The machine would refuse it as another one.
    fn granted_before(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let granted = self.granted.as_ref().filter(|_| !self.is_idle())?;
        let is_same = datagram.starts_with(&ALLOCATE_REQUEST)
            && datagram.get(TRANSACTION)? == granted.get(TRANSACTION)?;
        is_same.then(|| granted.clone())
    }

    /// Lets the machine know the password of whoever the request names, if the name is one of ours.
    /// A name that has expired makes no new allocations: the request is shown with the name
    /// altered, so that it is answered as any other wrong one. Allocations that are there go on,
    /// for as long as they are refreshed.
    fn introduce(&mut self, step: &Step<'_>, datagram: &[u8]) -> Option<Vec<u8>> {
        let place = guard::username_at(datagram)?;
        let username = std::str::from_utf8(datagram.get(place.clone())?).ok()?;
        let (expires, user) = parse_username(username)?;
        if expires <= step.unix_s && self.is_idle() {
            let mut altered = datagram.to_vec();
            altered[place.start] = b'x';
            return Some(altered);
        }
        if self.is_idle() {
            self.user = user.to_owned();
        }
        if !self.users.iter().any(|known| known == username) && self.users.len() < USERS_MAX {
            let password = step.key.password(username);
            self.users.push(username.to_owned());
            quietly(|| self.machine.add_user(username.to_owned(), password));
        }
        None
    }

    /// Refuses an authentic request for permissions that the policy does not give. What is not
    /// authentic is for the machine to refuse.
    fn refusal(&mut self, step: &Step<'_>, datagram: &[u8]) -> Option<Vec<u8>> {
        let message = quietly(|| Message::from_bytes(datagram)).ok()?;
        let method = message.method();
        if method != CREATE_PERMISSION && method != CHANNEL_BIND {
            return None;
        }
        let place = guard::username_at(datagram)?;
        let username = std::str::from_utf8(datagram.get(place)?).ok()?.to_owned();
        let password = step.key.password(&username);
        let credentials = LongTermKeyCredentials::new(username, password, step.realm.to_owned());
        let credentials = MessageIntegrityCredentials::from(credentials);
        let algorithm = quietly(|| message.validate_integrity(&credentials)).ok()?;
        let peers = peers_of(&message);
        let is_channel = method == CHANNEL_BIND;
        let permits = |peer: &SocketAddr| {
            if is_channel { step.policy.permits(*peer) } else { step.policy.permits_ip(peer.ip()) }
        };
        if !peers.iter().all(permits) {
            tracing::info!(user = self.user, ?peers, "refused to relay there");
            return signed_error(&message, FORBIDDEN, &credentials, algorithm);
        }
        self.peers.retain(|_, until| *until > step.now);
        let new = peers.iter().filter(|peer| !self.peers.contains_key(&peer.ip())).count();
        if self.peers.len() + new > PEERS_MAX {
            return signed_error(&message, INSUFFICIENT_CAPACITY, &credentials, algorithm);
        }
        if !self.is_idle() {
            let until = step.now + PERMISSION_LIFE;
            self.peers.extend(peers.iter().map(|peer| (peer.ip(), until)));
        }
        None
    }
}

pub(super) fn machine(realm: &str) -> TurnServer {
    quietly(|| TurnServer::new(TransportType::Udp, LISTEN, realm.to_owned()))
}

/// The machines' clock. It starts at one, for they count back from now.
pub(super) fn instant(start: std::time::Instant, now: std::time::Instant) -> Instant {
    let since = now.saturating_duration_since(start).as_nanos();
    Instant::from_nanos(i64::try_from(since).unwrap_or(i64::MAX)) + Duration::from_secs(1)
}

/// Writes a machine's answer; its length.
pub(super) fn write(data: DelayedMessageOrChannelSend<&[u8]>, scratch: &mut [u8]) -> usize {
    let len = data.len();
    if len > scratch.len() {
        return 0;
    }
    match data {
        DelayedMessageOrChannelSend::Range(bytes, range) => {
            scratch[..len].copy_from_slice(&bytes[range]);
            len
        }
        // Its `write_into` makes a Send of what has to be a Data indication.
        DelayedMessageOrChannelSend::Message(message) => {
            let bytes = message.build();
            let room = scratch.get_mut(..bytes.len());
            room.map_or(0, |room| {
                room.copy_from_slice(&bytes);
                bytes.len()
            })
        }
        data => data.write_into(scratch),
    }
}

/// The machines log each datagram that they do not like, at any level; strangers could fill disks.
fn quietly<R>(act: impl FnOnce() -> R) -> R {
    dispatcher::with_default(&Dispatch::none(), act)
}

fn peers_of(message: &Message<'_>) -> Vec<SocketAddr> {
    let attributes = message.iter_attributes().map(|(_, attribute)| attribute);
    let peers = attributes.filter(|attribute| attribute.get_type() == XorPeerAddress::TYPE);
    let peers = peers.filter_map(|peer| XorPeerAddress::from_raw(peer).ok());
    peers.map(|peer| peer.addr(message.transaction_id())).collect()
}

fn signed_error(
    request: &Message<'_>,
    code: u16,
    credentials: &MessageIntegrityCredentials,
    algorithm: IntegrityAlgorithm,
) -> Option<Vec<u8>> {
    quietly(|| {
        let error = ErrorCode::builder(code).build().ok()?;
        let mut response = Message::builder_error(request, MessageWriteVec::with_capacity(128));
        response.add_attribute(&error).ok()?;
        response.add_message_integrity(credentials, algorithm).ok()?;
        Some(response.finish())
    })
}
