//! STUN and TURN (RFC 8489, RFC 8656) on `turn-server-proto`, which knows the protocol and nothing
//! else: whom to relay for, to where and how much is decided here.
//!
//! Each client has a protocol machine of its own, found by its address: machines cannot forget
//! users or nonces, and search their clients one by one, so a machine that goes with its client is
//! both bounded and fast. What strangers send can only make machines that wait for a password;
//! those are few and short-lived.
//!
//! The way of a datagram: [`guard`] (is it fit to be looked at?), the client's machine, [`policy`]
//! (may it go there?), a socket ([`sockets`]). What one client sends to another's relay address
//! stays inside: the way out and back in may not exist where a NAT stands before the hub.
//!
//! Clients over TCP ([`streams`]) are as those over UDP: the machines never learn that a stream
//! was cut into their datagrams ([`framing`]). What they have ends with the connection.

mod client;
mod framing;
mod guard;
mod policy;
mod run;
mod sockets;
mod streams;

pub(crate) use policy::Policy;
pub(crate) use sockets::{RelayHandle, RelaySockets};
pub(crate) use streams::{is_turn, serve_stream};

use crate::services::RelayKey;
use client::{Client, Effect, Step};
use guard::Kind;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use turn_server_proto::api::{SocketAllocateError, Transmit, TurnServerApi};
use turn_server_proto::server::TurnServer;
use turn_server_proto::types::TransportType;

/// Clients that have not shown a password; the oldest goes for a new one.
const STRANGERS_MAX: usize = 4096;
/// A client without an allocation is forgotten after so long.
const STRANGER_LIFE: Duration = Duration::from_secs(60);
/// Relay addresses of one user, both families counted.
const ALLOCATIONS_PER_USER_MAX: usize = 32;
/// Relay addresses of all users.
const ALLOCATIONS_MAX: usize = 4096;

/// A client's address, and the address of ours that it talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) remote: SocketAddr,
    pub(crate) local: IpAddr,
    /// The connection, where it is over TCP.
    pub(crate) stream: Option<StreamId>,
}

/// A connection over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamId(u64);

/// A socket that peers are reached from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RelayId(u64);

/// A datagram to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Datagram<'a> {
    ToClient(Place, &'a [u8]),
    ToPeer(RelayId, SocketAddr, &'a [u8]),
}

/// What else the relay wants done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// A datagram for a client.
    Reply(Place, Vec<u8>),
    /// A socket of this family; answered by [`Relay::opened`].
    Open { relay: RelayId, place: Place, ipv6: bool },
    /// The socket is not wanted any more.
    Close(RelayId),
}

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) at: Instant,
    /// Seconds since 1970.
    pub(crate) unix_s: u64,
}

/// A relay socket in use.
struct Lent {
    place: Place,
    /// As peers see it; `None` while it is being opened.
    address: Option<SocketAddr>,
}

/// See the [module](self).
pub(crate) struct Relay {
    key: RelayKey,
    realm: String,
    policy: Policy,
    start: Instant,
    /// Answers Binding requests; keeps nothing.
    binding: TurnServer,
    clients: HashMap<Place, Client>,
    /// Clients without an allocation, the oldest first.
    strangers: VecDeque<(Instant, Place)>,
    relays: HashMap<RelayId, Lent>,
    /// Relay addresses as peers see them.
    addresses: HashMap<SocketAddr, RelayId>,
    /// Relay addresses of each user.
    shares: HashMap<String, usize>,
    count: u64,
    scratch: Vec<u8>,
    outputs: VecDeque<Output>,
}

impl Relay {
    pub(crate) fn new(key: RelayKey, realm: &str, policy: Policy, now: Instant) -> Self {
        Self {
            key,
            realm: realm.to_owned(),
            policy,
            start: now,
            binding: client::machine(realm),
            clients: HashMap::new(),
            strangers: VecDeque::new(),
            relays: HashMap::new(),
            addresses: HashMap::new(),
            shares: HashMap::new(),
            count: 0,
            scratch: vec![0; guard::DATAGRAM_LEN_MAX + 64],
            outputs: VecDeque::new(),
        }
    }

    /// Takes a datagram that came to the server's own port.
    pub(crate) fn handle_client<'a>(
        &'a mut self,
        now: Now,
        place: Place,
        datagram: &'a [u8],
    ) -> Option<Datagram<'a>> {
        let kind = guard::kind_of(datagram)?;
        if kind == Kind::Binding {
            let transmit =
                Transmit::new(datagram, TransportType::Udp, place.remote, client::LISTEN);
            let answer = self.binding.recv(transmit, client::instant(self.start, now.at))?;
            let len = client::write(answer.data, &mut self.scratch);
            return Some(Datagram::ToClient(place, &self.scratch[..len]));
        }
        if kind == Kind::Request && !self.clients.contains_key(&place) {
            self.admit(now.at, place);
        }
        let client = self.clients.get_mut(&place)?;
        let step = Step {
            now: client::instant(self.start, now.at),
            unix_s: now.unix_s,
            key: &self.key,
            realm: &self.realm,
            policy: &self.policy,
        };
        let effect = client.handle(&step, place.remote, kind, datagram, &mut self.scratch)?;
        if kind == Kind::Request {
            self.settle(now.at, place);
        }
        match effect {
            Effect::Reply(len) => Some(Datagram::ToClient(place, &self.scratch[..len])),
            Effect::Forward { relay, to, range } => {
                let data = datagram.get(range)?;
                match self.addresses.get(&to).copied() {
                    Some(other) => {
                        let from = self.relays.get(&relay)?.address?;
                        self.handle_peer(now.at, other, from, data)
                    }
                    None => Some(Datagram::ToPeer(relay, to, data)),
                }
            }
            Effect::Nothing => None,
        }
    }

    /// Takes a datagram that came to a relay socket.
    pub(crate) fn handle_peer(
        &mut self,
        now: Instant,
        relay: RelayId,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Option<Datagram<'_>> {
        let place = self.relays.get(&relay)?.place;
        let client = self.clients.get_mut(&place)?;
        let now = client::instant(self.start, now);
        let len = client.handle_peer(now, relay, from, datagram, &mut self.scratch)?;
        Some(Datagram::ToClient(place, &self.scratch[..len]))
    }

    /// Whether a client has an allocation, or one on its way.
    pub(crate) fn has_allocation(&self, place: Place) -> bool {
        self.clients.get(&place).is_some_and(|client| !client.is_idle())
    }

    /// A client's connection is gone, and with it what it had.
    pub(crate) fn leave(&mut self, place: Place) {
        let Some(client) = self.clients.remove(&place) else { return };
        let lost = self.relays.extract_if(|_, lent| lent.place == place);
        for (relay, lent) in lost {
            lent.address.map(|address| self.addresses.remove(&address));
            self.outputs.push_back(Output::Close(relay));
            release(&mut self.shares, client.user());
        }
    }

    /// The socket that was asked for: its address as peers see it, or why there is none.
    pub(crate) fn opened(
        &mut self,
        now: Instant,
        relay: RelayId,
        address: Result<SocketAddr, SocketAllocateError>,
    ) {
        let Some(lent) = self.relays.get_mut(&relay) else { return };
        let place = lent.place;
        lent.address = address.ok();
        match address {
            Ok(address) => drop(self.addresses.insert(address, relay)),
            Err(_) => drop(self.relays.remove(&relay)),
        }
        if let Some(client) = self.clients.get_mut(&place) {
            client.opened(client::instant(self.start, now), relay, address);
        }
        self.settle(now, place);
    }

    /// Ends what has run out. Wants to be called every second or so.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let machine_now = client::instant(self.start, now);
        let due = self.clients.iter().filter(|(_, client)| client.deadline() <= machine_now);
        let due: Vec<_> = due.map(|(place, _)| *place).collect();
        due.into_iter().for_each(|place| self.settle(now, place));
        while self.strangers.front().is_some_and(|(since, _)| *since + STRANGER_LIFE <= now) {
            self.forget_oldest_stranger();
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn admit(&mut self, now: Instant, place: Place) {
        if self.strangers.len() >= STRANGERS_MAX {
            self.forget_oldest_stranger();
        }
        self.strangers.push_back((now, place));
        self.clients.insert(place, Client::new(&self.realm));
    }

    /// Forgets a client that is still without an allocation.
    fn forget_oldest_stranger(&mut self) {
        let Some((_, place)) = self.strangers.pop_front() else { return };
        if self.clients.get(&place).is_some_and(Client::is_idle) {
            self.clients.remove(&place);
        }
    }

    /// Carries out what a client's machine wants.
    fn settle(&mut self, now: Instant, place: Place) {
        let machine_now = client::instant(self.start, now);
        let Some(client) = self.clients.get_mut(&place) else { return };
        let was_idle = client.is_idle();
        while let Some(wish) = client.poll(machine_now) {
            match wish {
                client::Wish::Reply(data) => self.outputs.push_back(Output::Reply(place, data)),
                client::Wish::Open { ipv6 } => {
                    let share = self.shares.entry(client.user().to_owned()).or_default();
                    if *share >= ALLOCATIONS_PER_USER_MAX || self.relays.len() >= ALLOCATIONS_MAX {
                        tracing::info!(user = client.user(), "no more relay addresses");
                        client.refuse_socket(machine_now, ipv6);
                        continue;
                    }
                    *share += 1;
                    self.count += 1;
                    let relay = RelayId(self.count);
                    self.relays.insert(relay, Lent { place, address: None });
                    client.opening(relay, ipv6);
                    self.outputs.push_back(Output::Open { relay, place, ipv6 });
                }
                client::Wish::Close(relay) => {
                    let address = self.relays.remove(&relay).and_then(|lent| lent.address);
                    address.map(|address| self.addresses.remove(&address));
                    self.outputs.push_back(Output::Close(relay));
                    release(&mut self.shares, client.user());
                }
                client::Wish::Failed => release(&mut self.shares, client.user()),
            }
        }
        // Without an allocation the machine is needed for a while only: to repeat its last answer.
        if client.is_idle() && !was_idle {
            self.strangers.push_back((now, place));
        }
    }
}

fn release(shares: &mut HashMap<String, usize>, user: &str) {
    if let Some(share) = shares.get_mut(user) {
        *share = share.saturating_sub(1);
        if *share == 0 {
            shares.remove(user);
        }
    }
}

#[cfg(test)]
mod tests;
