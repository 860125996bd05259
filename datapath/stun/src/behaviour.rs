//! What the NAT in front of us does: RFC 5780's tests of mapping and filtering, for one socket.
//!
//! 1. *Basic*: ask the server; it says our mapped address and its own other address.
//! 2. *Filtering*: ask it to answer from its other IP and port, and from its other port only.
//!    Both questions are out at the same time; their answers may be silence.
//! 3. *Mapping*: ask its other IP, on the first port and on the other port.
//!
//! Filtering stands before mapping because our own questions to the other address would let its
//! answers in. The socket must not have spoken to the server's other address before, and the
//! verdicts are worth as much as the server's honesty.
//!
//! Results come out as soon as each is known; where UDP is blocked everything is over after one
//! [`patience`](Retransmission::patience).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::client::{BindingError, answers, binding_request, mapped_by};
use crate::message::{Message, Method};
use crate::random::Random;
use crate::transaction::{Due, Retransmission, Transaction};
use crate::{Dropped, Input};

/// What a [`Discovery`] is told once.
#[derive(Debug, Clone)]
pub struct DiscoveryConfig {
    /// The server's primary address.
    pub server: SocketAddr,
    /// The socket's own address, if it is bound to one: tells whether there is a NAT at all.
    pub local: Option<SocketAddr>,
    /// How questions are repeated; silence is an answer to some, so not for long.
    pub retransmission: Retransmission,
}

impl DiscoveryConfig {
    /// A brief schedule and an unknown local address.
    pub fn new(server: SocketAddr) -> Self {
        Self { server, local: None, retransmission: Retransmission::BRIEF }
    }
}

/// A NAT's behaviour in RFC 4787's words: on what remote address it depends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// On none.
    EndpointIndependent,
    /// On the remote IP.
    AddressDependent,
    /// On the remote IP and port.
    AddressAndPortDependent,
    /// The tests do not say.
    Unknown(Unknown),
}

/// Why a behaviour stays unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The server gives no answer of use at all.
    #[error("the server gives no answer: {0}")]
    Server(BindingError),
    /// The server names no other address, so it does not serve RFC 5780.
    #[error("the server offers no second address")]
    NotOffered,
    /// The other address shares IP or port with the first, or cannot be a server's.
    #[error("the server's second address {0} is of no use")]
    OtherAddress(SocketAddr),
    /// The server answered from another address than it was asked to.
    #[error("the server ignores CHANGE-REQUEST")]
    ChangeIgnored,
    /// The other address gives no answer of use.
    #[error("the server's second address gives no answer: {0}")]
    Other(BindingError),
}

/// All that was found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Where the server sees the socket; `None`: it gave no answer.
    pub mapped: Option<SocketAddr>,
    /// Whether the mapped address differs from the local one, where that is known.
    pub translated: Option<bool>,
    /// Round-trip time to the server, where one sending sufficed.
    pub rtt: Option<Duration>,
    /// What the mapped address depends on.
    pub mapping: Behaviour,
    /// Whose datagrams get in.
    pub filtering: Behaviour,
}

/// What a [`Discovery`] wants done or known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoveryOutput {
    /// Send this datagram from the tested socket.
    Transmit {
        /// One of the server's addresses.
        to: SocketAddr,
        /// The whole datagram.
        data: Vec<u8>,
    },
    /// The server answers and sees the socket here.
    Mapped(SocketAddr),
    /// The filtering tests are over.
    Filtering(Behaviour),
    /// All tests are over. Comes once, as the last output.
    Done(Report),
}

/// The questions, and the names of their timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    /// Where do you see me, and what is your other address?
    Basic,
    /// Answer from the other IP and port.
    FilterBoth,
    /// Answer from the other port.
    FilterPort,
    /// Where does your other IP see me, on the first port?
    MapAddress,
    /// And on the other port?
    MapPort,
}

/// A question under way.
#[derive(Debug)]
struct Question {
    test: Test,
    to: SocketAddr,
    /// Where its answer must come from.
    from: SocketAddr,
    transaction: Transaction,
}

/// What the basic test found.
#[derive(Debug, Clone, Copy)]
struct Basis {
    mapped: SocketAddr,
    other: SocketAddr,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Discovery {
    config: DiscoveryConfig,
    random: Random,
    questions: Vec<Question>,
    basis: Option<Basis>,
    report: Report,
    filter_both: Option<bool>,
    filter_port: Option<bool>,
    map_address: Option<Result<SocketAddr, BindingError>>,
    map_port: Option<Result<SocketAddr, BindingError>>,
    finished: bool,
    outputs: VecDeque<DiscoveryOutput>,
}

impl Discovery {
    /// Starts the tests at `now`. `seed`: 32 secret random bytes.
    pub fn new(config: DiscoveryConfig, seed: [u8; 32], now: Instant) -> Self {
        let unknown = Behaviour::Unknown(Unknown::NotOffered);
        let report = Report {
            mapped: None,
            translated: None,
            rtt: None,
            mapping: unknown.clone(),
            filtering: unknown,
        };
        let server = config.server;
        let mut discovery = Self {
            config,
            random: Random::new(seed),
            questions: Vec::new(),
            basis: None,
            report,
            filter_both: None,
            filter_port: None,
            map_address: None,
            map_port: None,
            finished: false,
            outputs: VecDeque::new(),
        };
        discovery.ask(now, Test::Basic, server, server, None);
        discovery.handle_timeout(now);
        discovery
    }

    /// Takes a datagram of the socket.
    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) -> Result<(), Dropped> {
        let known = |q: &Question| input.remote == q.from || input.remote == q.to;
        if !self.questions.iter().any(known) {
            return Err(Dropped::Stranger);
        }
        let message = Message::parse(input.data)?;
        let asked =
            |q: &Question| known(q) && answers(&message, Method::Binding, q.transaction.id());
        let index = self.questions.iter().position(asked).ok_or(Dropped::Unexpected)?;
        let question = self.questions.swap_remove(index);
        let result = mapped_by(&message);
        match question.test {
            Test::Basic => {
                self.report.rtt = question.transaction.rtt(now);
                self.on_basis(now, result, message.other_address());
            }
            Test::FilterBoth | Test::FilterPort if input.remote != question.from => {
                self.end_filtering(now, Behaviour::Unknown(Unknown::ChangeIgnored));
            }
            Test::FilterBoth | Test::FilterPort => {
                self.on_filter(now, question.test, result.is_ok());
            }
            Test::MapAddress | Test::MapPort => self.on_map(question.test, result),
        }
        self.handle_timeout(now);
        Ok(())
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut silent = Vec::new();
        for question in &mut self.questions {
            match question.transaction.advance(now) {
                Due::Nothing => {}
                Due::Sending => self.outputs.push_back(DiscoveryOutput::Transmit {
                    to: question.to,
                    data: question.transaction.request().to_vec(),
                }),
                Due::GivenUp => silent.push(question.test),
            }
        }
        self.questions.retain(|question| !silent.contains(&question.test));
        if silent.is_empty() {
            return;
        }
        for test in silent {
            match test {
                Test::Basic => self.on_basis(now, Err(BindingError::Timeout), None),
                Test::FilterBoth | Test::FilterPort => self.on_filter(now, test, false),
                Test::MapAddress | Test::MapPort => self.on_map(test, Err(BindingError::Timeout)),
            }
        }
        self.handle_timeout(now);
    }

    /// The next thing to do or to know.
    pub fn poll_output(&mut self) -> Option<DiscoveryOutput> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called; `None`: it is over.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.questions.iter().map(|question| question.transaction.next()).min()
    }

    fn ask(
        &mut self,
        now: Instant,
        test: Test,
        to: SocketAddr,
        from: SocketAddr,
        change: Option<(bool, bool)>,
    ) {
        let id = self.random.transaction_id();
        let request = binding_request(id, change).expect("a request without free text is valid");
        let transaction = Transaction::new(now, self.config.retransmission, id, request);
        self.questions.push(Question { test, to, from, transaction });
    }

    fn on_basis(
        &mut self,
        now: Instant,
        result: Result<SocketAddr, BindingError>,
        other: Option<SocketAddr>,
    ) {
        let basis = result.map_err(Unknown::Server).and_then(|mapped| {
            self.report.mapped = Some(mapped);
            self.report.translated = self.config.local.map(|local| local != mapped);
            self.outputs.push_back(DiscoveryOutput::Mapped(mapped));
            let other = usable_other(self.config.server, other)?;
            Ok(Basis { mapped, other })
        });
        match basis {
            Ok(basis) => {
                self.basis = Some(basis);
                let server = self.config.server;
                let other_port = SocketAddr::new(server.ip(), basis.other.port());
                let both = Some((true, true));
                self.ask(now, Test::FilterBoth, server, basis.other, both);
                self.ask(now, Test::FilterPort, server, other_port, Some((false, true)));
            }
            Err(reason) => {
                self.report.filtering = Behaviour::Unknown(reason.clone());
                self.outputs.push_back(DiscoveryOutput::Filtering(self.report.filtering.clone()));
                self.finish(Behaviour::Unknown(reason));
            }
        }
    }

    /// RFC 5780 section 4.4.
    fn on_filter(&mut self, now: Instant, test: Test, answered: bool) {
        match test {
            Test::FilterBoth => self.filter_both = Some(answered),
            _ => self.filter_port = Some(answered),
        }
        let verdict = match (self.filter_both, self.filter_port) {
            (Some(true), _) => Behaviour::EndpointIndependent,
            (Some(false), Some(true)) => Behaviour::AddressDependent,
            (Some(false), Some(false)) => Behaviour::AddressAndPortDependent,
            _ => return,
        };
        self.end_filtering(now, verdict);
    }

    fn end_filtering(&mut self, now: Instant, verdict: Behaviour) {
        self.questions.clear();
        self.report.filtering = verdict.clone();
        self.outputs.push_back(DiscoveryOutput::Filtering(verdict));
        let Some(basis) = self.basis else { return };
        if self.report.translated == Some(false) {
            // Without translation there is no mapping to ask about.
            self.finish(Behaviour::EndpointIndependent);
            return;
        }
        let other_ip = SocketAddr::new(basis.other.ip(), self.config.server.port());
        self.ask(now, Test::MapAddress, other_ip, other_ip, None);
        self.ask(now, Test::MapPort, basis.other, basis.other, None);
    }

    /// RFC 5780 section 4.3.
    fn on_map(&mut self, test: Test, result: Result<SocketAddr, BindingError>) {
        match test {
            Test::MapAddress => self.map_address = Some(result),
            _ => self.map_port = Some(result),
        }
        let Some(basis) = self.basis else { return };
        let verdict = match (&self.map_address, &self.map_port) {
            (Some(Ok(address)), _) if *address == basis.mapped => Behaviour::EndpointIndependent,
            (Some(Ok(address)), Some(Ok(port))) if address == port => Behaviour::AddressDependent,
            (Some(Ok(_)), Some(Ok(_))) => Behaviour::AddressAndPortDependent,
            (Some(Err(error)), _) | (_, Some(Err(error))) => {
                Behaviour::Unknown(Unknown::Other(error.clone()))
            }
            _ => return,
        };
        self.finish(verdict);
    }

    fn finish(&mut self, mapping: Behaviour) {
        // Two questions can be given up in the same instant; the first ends the tests.
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.questions.clear();
        self.report.mapping = mapping;
        self.outputs.push_back(DiscoveryOutput::Done(self.report.clone()));
    }
}

/// Whether a server at `server` can have `other` as its second address.
pub(crate) fn usable_other(
    server: SocketAddr,
    other: Option<SocketAddr>,
) -> Result<SocketAddr, Unknown> {
    let other = other.ok_or(Unknown::NotOffered)?;
    let differs = other.ip() != server.ip() && other.port() != server.port();
    let possible = other.is_ipv4() == server.is_ipv4()
        && !other.ip().is_unspecified()
        && !other.ip().is_multicast()
        && other.port() != 0;
    if differs && possible { Ok(other) } else { Err(Unknown::OtherAddress(other)) }
}

#[cfg(test)]
mod tests;
