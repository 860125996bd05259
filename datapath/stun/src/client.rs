//! One STUN server asked from one socket: where does it see us, and does it still?
//!
//! The client asks at once, then every [`keepalive`](BindingConfig::keepalive), which also keeps
//! the NAT's mapping open. A server that does not answer is asked again later, less and less
//! often: a blocked network may open. Nothing waits for it: outputs come when they come.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::behaviour::usable_other;
use crate::message::{
    Attribute, BuildError, Builder, Class, ErrorCode, Message, Method, TransactionId,
};
use crate::random::Random;
use crate::transaction::{Due, Retransmission, Transaction};
use crate::{Dropped, Input};

/// What a [`BindingClient`] is told once.
#[derive(Debug, Clone)]
pub struct BindingConfig {
    /// The server; answers are accepted from this address alone.
    pub server: SocketAddr,
    /// How a request is repeated.
    pub retransmission: Retransmission,
    /// From one successful question to the next. NATs forget a UDP mapping after 30 s at the
    /// earliest (RFC 4787 says two minutes, Linux says 30 s for one-way traffic).
    pub keepalive: Duration,
}

impl BindingConfig {
    /// The standard schedule and a keepalive of 20 s.
    pub fn new(server: SocketAddr) -> Self {
        Self {
            server,
            retransmission: Retransmission::STANDARD,
            keepalive: Duration::from_secs(20),
        }
    }
}

/// Why a server is of no use right now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BindingError {
    /// No answer to any sending: unreachable, or UDP is blocked.
    #[error("no answer")]
    Timeout,
    /// The server refused.
    #[error("refused with {} {}", .0.code, .0.reason)]
    Refused(ErrorCode),
    /// The answer has no address, or demands what we do not know.
    #[error("the answer is of no use: {0}")]
    Useless(&'static str),
}

/// What a [`BindingClient`] wants done or known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindingOutput {
    /// Send this datagram from the client's socket.
    Transmit {
        /// The server.
        to: SocketAddr,
        /// The whole datagram.
        data: Vec<u8>,
    },
    /// The server sees us at this address: told when it is first known and when it changes.
    Mapped {
        /// The server-reflexive address.
        address: SocketAddr,
        /// Round-trip time to the server, where one sending sufficed.
        rtt: Option<Duration>,
    },
    /// The server gave no address; told once until it gives one again.
    Failed(BindingError),
}

/// The timers of a [`BindingClient`].
#[derive(Debug)]
enum Timer {
    /// A question is out: repeat it or give it up.
    Asking(Transaction),
    /// The next question.
    Keepalive(Instant),
}

/// See the [module](self).
#[derive(Debug)]
pub struct BindingClient {
    config: BindingConfig,
    random: Random,
    timer: Timer,
    mapped: Option<SocketAddr>,
    other: Option<SocketAddr>,
    /// Failures in a row.
    failures: u32,
    outputs: VecDeque<BindingOutput>,
}

/// A server that never answers is asked at least this often, in keepalive intervals.
const SLOWEST: u32 = 15;

impl BindingClient {
    /// Starts asking at `now`. `seed`: 32 secret random bytes.
    pub fn new(config: BindingConfig, seed: [u8; 32], now: Instant) -> Self {
        let mut client = Self {
            config,
            random: Random::new(seed),
            timer: Timer::Keepalive(now),
            mapped: None,
            other: None,
            failures: 0,
            outputs: VecDeque::new(),
        };
        client.handle_timeout(now);
        client
    }

    /// The server this client asks.
    pub fn server(&self) -> SocketAddr {
        self.config.server
    }

    /// Where the server last saw us.
    pub fn mapped(&self) -> Option<SocketAddr> {
        self.mapped
    }

    /// The other address that the server says it has, if it serves RFC 5780: where a NAT may show
    /// us at another port.
    pub fn other(&self) -> Option<SocketAddr> {
        self.other
    }

    /// Takes a datagram of the socket; an error says why it was not for this client.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) -> Result<(), Dropped> {
        if input.remote != self.config.server {
            return Err(Dropped::Stranger);
        }
        let message = Message::parse(input.data)?;
        let Timer::Asking(transaction) = &self.timer else { return Err(Dropped::Unexpected) };
        if !answers(&message, Method::Binding, transaction.id()) {
            return Err(Dropped::Unexpected);
        }
        let rtt = transaction.rtt(now);
        self.other = usable_other(self.config.server, message.other_address()).ok();
        match mapped_by(&message) {
            Ok(address) => self.succeed(now, address, rtt),
            Err(error) => self.fail(now, error),
        }
        Ok(())
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Timer::Keepalive(at) = self.timer
            && at <= now
        {
            self.ask(now);
        }
        let Timer::Asking(transaction) = &mut self.timer else { return };
        match transaction.advance(now) {
            Due::Nothing => {}
            Due::Sending => {
                let data = transaction.request().to_vec();
                self.outputs.push_back(BindingOutput::Transmit { to: self.config.server, data });
            }
            Due::GivenUp => self.fail(now, BindingError::Timeout),
        }
    }

    /// The next thing to do or to know.
    pub fn poll_output(&mut self) -> Option<BindingOutput> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(match &self.timer {
            Timer::Asking(transaction) => transaction.next(),
            Timer::Keepalive(at) => *at,
        })
    }

    fn ask(&mut self, now: Instant) {
        let id = self.random.transaction_id();
        let request = binding_request(id, None).expect("a request without free text is valid");
        self.timer = Timer::Asking(Transaction::new(now, self.config.retransmission, id, request));
    }

    fn succeed(&mut self, now: Instant, address: SocketAddr, rtt: Option<Duration>) {
        if self.mapped != Some(address) || self.failures > 0 {
            self.mapped = Some(address);
            self.outputs.push_back(BindingOutput::Mapped { address, rtt });
        }
        self.failures = 0;
        self.timer = Timer::Keepalive(now + self.config.keepalive);
    }

    fn fail(&mut self, now: Instant, error: BindingError) {
        if self.failures == 0 {
            self.outputs.push_back(BindingOutput::Failed(error));
        }
        self.mapped = None;
        let intervals = (1 << self.failures.min(8)).min(SLOWEST);
        self.failures = self.failures.saturating_add(1);
        self.timer = Timer::Keepalive(now + self.config.keepalive.saturating_mul(intervals));
    }
}

/// A Binding request; `change` is (address, port) of CHANGE-REQUEST.
pub(crate) fn binding_request(
    id: TransactionId,
    change: Option<(bool, bool)>,
) -> Result<Vec<u8>, BuildError> {
    let mut request = Builder::request(Method::Binding, id);
    if let Some((ip, port)) = change {
        request = request.with(Attribute::ChangeRequest { ip, port });
    }
    request.fingerprint().build()
}

/// Whether `message` is a response to the request `id` of `method`.
pub(crate) fn answers(message: &Message<'_>, method: Method, id: TransactionId) -> bool {
    matches!(message.class(), Class::Success | Class::Error)
        && message.method() == method
        && message.transaction() == id
}

/// The address in a response to a Binding request.
pub(crate) fn mapped_by(message: &Message<'_>) -> Result<SocketAddr, BindingError> {
    if !message.unknown_required().is_empty() {
        return Err(BindingError::Useless("it has an attribute that must be known and is not"));
    }
    if message.class() == Class::Error {
        let error = message.error().ok_or(BindingError::Useless("an error without a code"))?;
        return Err(BindingError::Refused(error));
    }
    message.mapped_address().ok_or(BindingError::Useless("it has no mapped address"))
}

#[cfg(test)]
mod tests;
