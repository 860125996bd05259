//! Which STUN and TURN servers there are, by address: those of the configuration and those that the
//! network offers, their names looked up.
//!
//! A machine without clock or resolver: it says which name is to be looked up ([`Output::LookUp`])
//! and hears what came of it ([`Input::Answer`]). All names are looked up at once, and nothing
//! waits for them. A name that fails is tried again with growing pauses and keeps what it stood
//! for; one that succeeds is looked up again every ten minutes. When the network moves, all are
//! looked up at once.
//!
//! Until the network has made its offer and every name stands for something, what was in use
//! before this run is used too. Until the offer, the machine of the network's own server is taken
//! for a STUN server as well: it often is one, and the offer comes only at the end of a login.

mod name;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use ipop_signal::{Host, HostPort, IceServers, Transport};
use ipop_steer::{TurnServer, TurnTransport};

use self::name::Name;
use crate::settings::{Endpoint, Relay, STUN_PORT};

/// Servers of each kind that are taken of an offer; more than the datapath uses.
const OFFERED_MAX: usize = 16;

/// What the machine hears.
#[derive(Debug)]
pub(crate) enum Input {
    /// The network has a server on this machine.
    Reached(IpAddr),
    /// The network offers these servers, and no others any more.
    Offered(IceServers),
    /// A look-up has ended.
    Answer {
        /// Of [`Output::LookUp`].
        name: String,
        /// Of [`Output::LookUp`].
        number: u64,
        /// The addresses, as the system prefers them, or why there are none.
        result: Result<Vec<IpAddr>, String>,
    },
    /// This machine has other addresses or routes.
    NetworkMoved,
}

/// What the machine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Look a name up.
    LookUp {
        /// The name.
        name: String,
        /// Goes into the answer.
        number: u64,
    },
    /// Use these servers from now on and no others.
    Use(Resolved),
    /// A name does not resolve, or not for another reason than before.
    Failing {
        /// The name.
        name: String,
        /// Why.
        text: String,
    },
    /// A name that did not resolve does.
    Mended {
        /// The name.
        name: String,
    },
}

/// Servers by address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// STUN servers.
    pub(crate) stun: Vec<SocketAddr>,
    /// TURN servers.
    pub(crate) turn: Vec<TurnServer>,
}

/// A name that does not resolve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unresolved<'a> {
    /// The name.
    pub(crate) name: &'a str,
    /// Since when, and why.
    pub(crate) since: Instant,
    /// Why, at the latest try.
    pub(crate) text: &'a str,
    /// When it is tried again; `None`: it is being tried.
    pub(crate) next: Option<Instant>,
    /// What it stood for before, which is still used.
    pub(crate) kept: Vec<IpAddr>,
}

/// A server as somebody named it.
#[derive(Clone, Debug)]
struct Named {
    at: HostPort,
    /// What makes it a TURN server.
    turn: Option<Login>,
}

#[derive(Clone)]
struct Login {
    transport: TurnTransport,
    username: String,
    password: String,
}

/// Leaves the password out.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("transport", &self.transport).finish_non_exhaustive()
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct Servers {
    configured: Vec<Named>,
    offered: Option<Vec<Named>>,
    /// What was in use before; nothing once all else is known.
    likely: Resolved,
    names: BTreeMap<String, Name>,
    /// Look-ups so far.
    count: u64,
    random: u64,
    told: Resolved,
    outputs: VecDeque<Output>,
}

impl Servers {
    /// Knows the servers of the configuration, and those that are likely to be the ones until more
    /// is known. `seed` spreads the look-ups of many nodes.
    pub(crate) fn new(
        now: Instant,
        stun: &[Endpoint],
        turn: &[Relay],
        likely: Resolved,
        seed: u64,
    ) -> Self {
        let stun = stun.iter().map(|endpoint| Named { at: host_port(endpoint), turn: None });
        let turn = turn.iter().map(|relay| Named {
            at: host_port(&relay.endpoint),
            turn: Some(Login {
                transport: relay.transport.into(),
                username: relay.username.clone(),
                password: relay.password.clone(),
            }),
        });
        let mut servers = Self {
            configured: stun.chain(turn).collect(),
            offered: None,
            likely,
            names: BTreeMap::new(),
            count: 0,
            random: seed | 1,
            told: Resolved::default(),
            outputs: VecDeque::new(),
        };
        servers.know_names(now);
        servers.settle(now);
        servers
    }

    /// Hears one thing.
    pub(crate) fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Reached(server) => {
                if self.offered.is_none() {
                    self.likely.add_stun(SocketAddr::new(server, STUN_PORT));
                }
            }
            Input::Offered(servers) => {
                self.offered = Some(named(servers));
                self.know_names(now);
            }
            Input::Answer { name, number, result } => self.on_answer(now, name, number, result),
            Input::NetworkMoved => {
                self.names.values_mut().for_each(|name| name.network_moved(now));
            }
        }
        self.settle(now);
    }

    /// Does what is due at `now`.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.settle(now);
    }

    /// The next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Servers::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.names.values().filter_map(Name::due).min()
    }

    /// The names that do not resolve.
    pub(crate) fn unresolved(&self) -> impl Iterator<Item = Unresolved<'_>> {
        self.names.iter().filter_map(|(name, state)| {
            let failure = state.failure()?;
            let (since, text, next) = (failure.since, failure.text.as_str(), state.due());
            Some(Unresolved { name, since, text, next, kept: state.addresses().collect() })
        })
    }

    /// The STUN servers that the network offers, once all of them are known by address.
    pub(crate) fn offered_stun(&self) -> Option<Vec<SocketAddr>> {
        let stun = self.offered.as_ref()?.iter().filter(|named| named.turn.is_none());
        let found: Vec<_> = stun.map(|named| self.addresses(&named.at)).collect();
        let is_known = found.iter().all(|addresses| !addresses.is_empty());
        is_known.then(|| found.into_iter().flatten().collect())
    }

    fn on_answer(
        &mut self,
        now: Instant,
        name: String,
        number: u64,
        result: Result<Vec<IpAddr>, String>,
    ) {
        let share = self.share();
        let Some(state) = self.names.get_mut(&name).filter(|name| name.awaits(number)) else {
            return;
        };
        match result {
            Ok(found) if !found.is_empty() => {
                if state.resolved(now, &found, share) {
                    self.outputs.push_back(Output::Mended { name });
                }
            }
            result => {
                let text = result.err().unwrap_or_else(|| "it has no address".to_owned());
                if state.failed(now, text.clone(), share) {
                    self.outputs.push_back(Output::Failing { name, text });
                }
            }
        }
    }

    /// Keeps the names of all servers, and no others.
    fn know_names(&mut self, now: Instant) {
        let mut known = std::mem::take(&mut self.names);
        for named in self.configured.iter().chain(self.offered.iter().flatten()) {
            if let Host::Name(name) = &named.at.host
                && !self.names.contains_key(name)
            {
                let state = known.remove(name).unwrap_or_else(|| Name::new(now));
                self.names.insert(name.clone(), state);
            }
        }
    }

    /// Looks up what is due, and tells which servers there are if that is another answer.
    fn settle(&mut self, now: Instant) {
        for (name, state) in &mut self.names {
            if state.due().is_some_and(|at| at <= now) {
                self.count += 1;
                state.begin(now, self.count);
                self.outputs.push_back(Output::LookUp { name: name.clone(), number: self.count });
            }
        }
        let is_known = |name: &Name| name.addresses().next().is_some();
        if self.offered.is_some() && self.names.values().all(is_known) {
            self.likely = Resolved::default();
        }
        let resolved = self.resolve();
        if resolved != self.told {
            self.told.clone_from(&resolved);
            self.outputs.push_back(Output::Use(resolved));
        }
    }

    fn resolve(&self) -> Resolved {
        let mut all = Resolved::default();
        for Named { at, turn } in self.configured.iter().chain(self.offered.iter().flatten()) {
            for address in self.addresses(at) {
                match turn {
                    None => all.add_stun(address),
                    Some(Login { transport, username, password }) => all.add_turn(TurnServer {
                        address,
                        transport: *transport,
                        name: name_of(&at.host),
                        username: username.clone(),
                        password: password.clone(),
                    }),
                }
            }
        }
        self.likely.stun.iter().for_each(|address| all.add_stun(*address));
        self.likely.turn.iter().for_each(|server| all.add_turn(server.clone()));
        all
    }

    fn addresses(&self, at: &HostPort) -> Vec<SocketAddr> {
        let with_port = |address| SocketAddr::new(address, at.port);
        match &at.host {
            Host::Address(address) => vec![with_port(*address)],
            Host::Name(name) => {
                self.names.get(name).into_iter().flat_map(Name::addresses).map(with_port).collect()
            }
        }
    }

    /// Xorshift, which is good enough to spread look-ups; 0 to 1.
    fn share(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Resolved {
    fn add_stun(&mut self, address: SocketAddr) {
        if !self.stun.contains(&address) {
            self.stun.push(address);
        }
    }

    /// Whoever named a server first says who we are there.
    fn add_turn(&mut self, server: TurnServer) {
        let is_same = |known: &TurnServer| {
            (known.address, known.transport) == (server.address, server.transport)
        };
        if !self.turn.iter().any(is_same) {
            self.turn.push(server);
        }
    }
}

fn host_port(endpoint: &Endpoint) -> HostPort {
    HostPort { host: Host::of(&endpoint.host), port: endpoint.port }
}

/// The servers of an offer; not those over DTLS.
fn named(servers: IceServers) -> Vec<Named> {
    let stun = servers.stun.into_iter().map(|at| Named { at, turn: None });
    let turn = servers.turn.into_iter().filter_map(|server| {
        let transport = match server.transport {
            Transport::Udp => TurnTransport::Udp,
            Transport::Tcp => TurnTransport::Tcp,
            Transport::Tls => TurnTransport::Tls,
            Transport::Dtls => return None,
        };
        let (username, password) = (server.username, server.password);
        Some(Named { at: server.at, turn: Some(Login { transport, username, password }) })
    });
    stun.take(OFFERED_MAX).chain(turn.take(OFFERED_MAX)).collect()
}

/// As a certificate would name it: an address without brackets.
fn name_of(host: &Host) -> String {
    match host {
        Host::Address(address) => address.to_string(),
        Host::Name(name) => name.clone(),
    }
}
