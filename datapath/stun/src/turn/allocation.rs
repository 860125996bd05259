//! Requests of a [`TurnClient`], the answers to them, and what the answers change.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::credential::LongTerm;
use super::{
    Allocation, Ask, Families, Purpose, REDIRECTIONS_MAX, Request, State, TurnClient, TurnError,
    TurnOutput,
};
use crate::Dropped;
use crate::message::{
    Attribute, BuildError, Builder, Class, Family, IntegrityError, Message, Method,
};
use crate::transaction::{Due, Retransmission, Transaction};

/// The lifetime we ask for; the usual default of servers.
const LIFETIME_SECONDS: u32 = 600;
/// We do not believe in longer lifetimes than RFC 8656 section 7.2 recommends as the maximum.
const LIFETIME_SECONDS_MAX: u32 = 3600;
/// A refresh begins this long before the end at the latest, so that all its sendings fit.
const REFRESH_MARGIN: Duration = Duration::from_secs(100);
/// From a refresh that failed to the next.
const REFRESH_RETRY: Duration = Duration::from_secs(5);
/// Challenges that one request answers before we call it a loop.
const CHALLENGES_MAX: u32 = 3;
/// How often an allocation in the way is ended before we wait.
const CLEARS_MAX: u32 = 4;
/// From the first failure to the next try; doubles with each failure in a row.
const BACKOFF: Duration = Duration::from_secs(10);
/// The same after silence: a server that is started again says nothing for a moment, and questions
/// take long enough themselves.
const BACKOFF_SILENCE: Duration = Duration::from_secs(1);
/// The longest time between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(300);
/// One question, no repetition: the next keepalive repeats it.
const KEEPALIVE: Retransmission =
    Retransmission { first: Duration::from_millis(500), count: 1, last: 10 };

impl TurnClient {
    /// Asks for an allocation.
    pub(super) fn allocate(&mut self, now: Instant, clears: u32) {
        self.state = State::Allocating { clears };
        self.families = self.config.families;
        self.start(now, Purpose::Allocate, 0);
    }

    /// What was in the way may be gone now; if not, the answer will say so.
    fn allocate_again(&mut self, now: Instant) {
        if let State::Allocating { clears } = self.state {
            self.allocate(now, clears);
        }
    }

    /// Sends a request, signed as soon as there was a challenge.
    pub(super) fn start(&mut self, now: Instant, purpose: Purpose, challenges: u32) {
        let id = self.random.transaction_id();
        let method = method_of(purpose);
        let keepalive = purpose == Purpose::Keepalive;
        let signed = self.auth.is_challenged() && !keepalive;
        let request = self.attributes(purpose, Builder::request(method, id));
        let built = if keepalive { request.fingerprint().build() } else { self.auth.sign(request) };
        let data = match built {
            Ok(data) => data,
            Err(BuildError::Value(_) | BuildError::TooLong(_)) => {
                let error = TurnError::Malformed("a challenge that cannot be answered");
                return self.on_failure(now, purpose, error);
            }
        };
        let rules = match purpose {
            Purpose::Keepalive => KEEPALIVE,
            Purpose::Release => Retransmission::BRIEF,
            _ => self.config.retransmission,
        };
        let mut transaction = Transaction::new(now, rules, id, data);
        if transaction.advance(now) == Due::Sending {
            self.transmit(transaction.request().to_vec());
        }
        self.requests.push(Request { purpose, method, signed, challenges, transaction });
    }

    fn attributes(&self, purpose: Purpose, request: Builder) -> Builder {
        match purpose {
            Purpose::Allocate => {
                let request = request
                    .with(Attribute::RequestedTransportUdp)
                    .with(Attribute::LifetimeSeconds(LIFETIME_SECONDS))
                    .with(Attribute::Software("ipop".to_owned()));
                match self.families {
                    Families::Both => request.with(Attribute::AdditionalAddressFamilyV6),
                    Families::Only(family) => {
                        request.with(Attribute::RequestedAddressFamily(family))
                    }
                    Families::Unspecified => request,
                }
            }
            Purpose::Clear | Purpose::Release => request.with(Attribute::LifetimeSeconds(0)),
            Purpose::Refresh => request.with(Attribute::LifetimeSeconds(LIFETIME_SECONDS)),
            Purpose::Keepalive => request,
            Purpose::Peer(Ask::Permission(ip)) => {
                request.with(Attribute::XorPeerAddress((ip, 0).into()))
            }
            Purpose::Peer(Ask::Channel(peer, channel)) => request
                .with(Attribute::ChannelNumber(channel.number()))
                .with(Attribute::XorPeerAddress(peer)),
        }
    }

    /// Takes a response: finds its request, checks it, acts on it.
    pub(super) fn on_response(
        &mut self,
        now: Instant,
        message: &Message<'_>,
    ) -> Result<(), Dropped> {
        let asked = |request: &Request| {
            request.transaction.id() == message.transaction() && request.method == message.method()
        };
        let index = self.requests.iter().position(asked).ok_or(Dropped::Unexpected)?;
        let code = message.error().map_or(0, |error| error.code);
        let is_error = message.class() == Class::Error;
        let challenge = is_error && matches!(code, 401 | 438);
        if self.requests[index].signed && !challenge {
            self.prove(message, is_error.then_some(code))?;
        }
        let request = self.requests.swap_remove(index);
        if code == 400 && request.signed && request.challenges == 0 {
            // What a restarted server may say to a nonce of its former life.
            self.auth.forget();
            self.start(now, request.purpose, 1);
        } else if challenge {
            self.on_challenge(now, &request, message, code);
        } else if is_error {
            self.on_failure(now, request.purpose, TurnError::of(message));
        } else if message.unknown_required().is_empty() {
            self.on_success(now, &request, message);
        } else {
            let error = TurnError::Malformed("it has an attribute that must be known and is not");
            self.on_failure(now, request.purpose, error);
        }
        Ok(())
    }

    /// RFC 8489 section 9.2.5: what lacks the proof is as if it had never come. Errors that a
    /// server cannot sign, because it could not read what it would sign with, are let through: an
    /// attacker who could forge them could as well keep the answer from us.
    fn prove(&self, message: &Message<'_>, error: Option<u16>) -> Result<(), Dropped> {
        match self.auth.verify(message) {
            Err(IntegrityError::Missing) if matches!(error, Some(400 | 420 | 500)) => Ok(()),
            proven => proven.map_err(Dropped::Forged),
        }
    }

    fn on_challenge(&mut self, now: Instant, request: &Request, message: &Message<'_>, code: u16) {
        if request.purpose == Purpose::Keepalive {
            return;
        }
        let answer = if request.challenges >= CHALLENGES_MAX {
            Err(TurnError::StaleNonce)
        } else if code == 401 {
            self.auth.on_unauthenticated(message, request.signed && request.challenges > 0)
        } else {
            self.auth.on_stale_nonce(message)
        };
        match answer {
            Ok(()) => self.start(now, request.purpose, request.challenges + 1),
            Err(error) => self.on_failure(now, request.purpose, error),
        }
    }

    fn on_success(&mut self, now: Instant, request: &Request, message: &Message<'_>) {
        let asked = request.transaction.started();
        match request.purpose {
            Purpose::Allocate => self.on_allocated(now, asked, message),
            Purpose::Clear => self.allocate_again(now),
            Purpose::Refresh => self.on_refreshed(now, asked, message),
            Purpose::Release => self.end(),
            Purpose::Keepalive => self.on_kept(now, message),
            Purpose::Peer(ask) => {
                let change = self.peers.grant(asked, ask);
                self.tell(change);
            }
        }
    }

    /// A request was refused or never answered.
    pub(super) fn on_failure(&mut self, now: Instant, purpose: Purpose, error: TurnError) {
        match purpose {
            Purpose::Allocate => self.on_not_allocated(now, error),
            Purpose::Clear => self.allocate_again(now),
            Purpose::Refresh => match error {
                TurnError::Mismatch | TurnError::WrongCredential => self.lose(now, error),
                _ => {
                    if let State::Active(allocation) = &mut self.state {
                        allocation.refresh_at = Some(now + REFRESH_RETRY);
                    }
                }
            },
            Purpose::Release => self.end(),
            Purpose::Keepalive => {}
            Purpose::Peer(ask) => self.on_peer_failure(now, ask, error),
        }
    }

    fn on_peer_failure(&mut self, now: Instant, ask: Ask, error: TurnError) {
        match error {
            TurnError::Timeout | TurnError::StaleNonce => self.peers.miss(now, ask),
            TurnError::Mismatch => self.lose(now, error),
            _ => {
                let change = self.peers.refuse(now, ask);
                self.tell(change);
                let peer = match ask {
                    Ask::Permission(ip) => ip,
                    Ask::Channel(peer, _) => peer.ip(),
                };
                self.outputs.push_back(TurnOutput::Refused { peer, error });
            }
        }
    }

    fn on_allocated(&mut self, now: Instant, asked: Instant, message: &Message<'_>) {
        let lifetime = lifetime_of(message);
        let mut relayed = message.xor_relayed_addresses();
        // coturn's way to say that it has none.
        relayed.retain(|address| address.port() != 0 && !address.ip().is_unspecified());
        if relayed.is_empty() || lifetime.is_zero() {
            let error = TurnError::Malformed("an allocation without address or lifetime");
            return self.on_not_allocated(now, error);
        }
        let mapped = message.mapped_address();
        self.failures = 0;
        self.redirections = 0;
        self.told = None;
        self.state = State::Active(Allocation {
            relayed: relayed.clone(),
            mapped,
            expires: asked + lifetime,
            refresh_at: Some(asked + self.refresh_after(lifetime)),
            keepalive_at: now + self.config.keepalive,
        });
        self.outputs.push_back(TurnOutput::Allocated { relayed, mapped });
        self.advance_peers(now);
    }

    fn on_refreshed(&mut self, now: Instant, asked: Instant, message: &Message<'_>) {
        let lifetime = lifetime_of(message);
        if lifetime.is_zero() {
            return self.lose(now, TurnError::Expired);
        }
        let refresh_at = asked + self.refresh_after(lifetime);
        if let State::Active(allocation) = &mut self.state {
            allocation.expires = asked + lifetime;
            allocation.refresh_at = Some(refresh_at);
        }
    }

    /// The NAT may have given us another address; then the server knows no allocation of ours,
    /// and a refresh brings that to light.
    fn on_kept(&mut self, now: Instant, message: &Message<'_>) {
        let State::Active(allocation) = &self.state else { return };
        let (Some(then), Some(is)) = (allocation.mapped, message.mapped_address()) else { return };
        if then != is {
            self.probe(now);
        }
    }

    fn on_not_allocated(&mut self, now: Instant, error: TurnError) {
        if let State::Allocating { clears } = &mut self.state
            && error == TurnError::Mismatch
            && *clears < CLEARS_MAX
        {
            *clears += 1;
            return self.start(now, Purpose::Clear, 0);
        }
        if let TurnError::Alternate(Some(to)) = error
            && self.follow(now, to)
        {
            return;
        }
        if let Some(less) = self.less_than_asked(&error) {
            self.families = less;
            return self.start(now, Purpose::Allocate, 0);
        }
        (self.server, self.redirections) = (self.config.server, 0);
        let retry_at = (!error.is_permanent()).then(|| {
            let first = if error == TurnError::Timeout { BACKOFF_SILENCE } else { BACKOFF };
            let wait = first.saturating_mul(1 << self.failures.min(8)).min(BACKOFF_MAX);
            now + wait
        });
        self.failures = self.failures.saturating_add(1);
        self.state = match retry_at {
            Some(at) => State::Idle { at },
            None => State::Dead,
        };
        if self.told.as_ref() != Some(&error) {
            self.told = Some(error.clone());
            self.outputs.push_back(TurnOutput::Failed { error, retry_at });
        }
    }

    /// What may be had where both families together are refused: first what servers gave before
    /// there was a choice, then IPv6 alone.
    fn less_than_asked(&self, error: &TurnError) -> Option<Families> {
        if self.config.families != Families::Both || !matches!(self.state, State::Allocating { .. })
        {
            return None;
        }
        let is_unknown = |error: &TurnError| match error {
            TurnError::Refused(error) => matches!(error.code, 400 | 420),
            _ => false,
        };
        match self.families {
            Families::Both if *error == TurnError::NoFamily || is_unknown(error) => {
                Some(Families::Unspecified)
            }
            Families::Unspecified if *error == TurnError::NoFamily => {
                Some(Families::Only(Family::V6))
            }
            _ => None,
        }
    }

    /// Asks the server that ours named instead (RFC 8489 section 10), unless that goes on for too
    /// long or leads to no server; whether it does.
    fn follow(&mut self, now: Instant, to: SocketAddr) -> bool {
        let ip = to.ip();
        let is_usable = to.port() != 0 && !ip.is_unspecified() && !ip.is_multicast();
        let is_same_way = self.config.is_stream || to.is_ipv4() == self.config.server.is_ipv4();
        if self.redirections >= REDIRECTIONS_MAX || !is_usable || !is_same_way || ip.is_loopback() {
            return false;
        }
        self.redirections += 1;
        self.auth = LongTerm::new(self.config.credential.clone());
        if self.config.is_stream {
            self.state = State::Unconnected;
            self.outputs.push_back(TurnOutput::Elsewhere(to));
        } else {
            self.server = to;
            self.allocate(now, 0);
        }
        true
    }

    /// The allocation is gone.
    pub(super) fn lose(&mut self, now: Instant, error: TurnError) {
        if !matches!(self.state, State::Active(_)) {
            return;
        }
        self.requests.clear();
        let changes = self.peers.restart(now);
        self.tell(changes);
        self.outputs.push_back(TurnOutput::Lost(error.clone()));
        self.server = self.config.server;
        let has_successor = !self.auth.is_of(&self.config.credential);
        if has_successor {
            self.auth = LongTerm::new(self.config.credential.clone());
        }
        if error.is_permanent() && !has_successor {
            self.state = State::Allocating { clears: CLEARS_MAX };
            self.on_not_allocated(now, error);
        } else {
            self.allocate(now, 0);
        }
    }

    /// Nothing more will happen.
    pub(super) fn end(&mut self) {
        if !matches!(self.state, State::Ended) {
            self.state = State::Ended;
            self.outputs.push_back(TurnOutput::Closed);
        }
    }

    fn refresh_after(&self, lifetime: Duration) -> Duration {
        let latest = (lifetime / 2).max(lifetime.saturating_sub(REFRESH_MARGIN));
        self.config.refresh.min(latest)
    }
}

fn method_of(purpose: Purpose) -> Method {
    match purpose {
        Purpose::Allocate => Method::Allocate,
        Purpose::Clear | Purpose::Refresh | Purpose::Release => Method::Refresh,
        Purpose::Keepalive => Method::Binding,
        Purpose::Peer(Ask::Permission(_)) => Method::CreatePermission,
        Purpose::Peer(Ask::Channel(..)) => Method::ChannelBind,
    }
}

fn lifetime_of(message: &Message<'_>) -> Duration {
    let seconds = message.lifetime_seconds().unwrap_or(LIFETIME_SECONDS);
    Duration::from_secs(seconds.min(LIFETIME_SECONDS_MAX).into())
}
