//! The handshake machine: TLS over datagrams, from the first flight to a [`Session`].
//!
//! 1. The client's ClientHello goes out; the server answers with its whole flight.
//! 2. The client checks the server's key against the pinned fingerprint, sends its own flight and
//!    has a session. It repeats the flight until the server has acknowledged it.
//! 3. The server checks the client's key, has a session, and acknowledges; it stays about to
//!    acknowledge again, should that get lost.
//!
//! An end that gives up tells the other with an alert, so that both have a reason to show.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::carrier::{Carrier, Received};
use crate::cipher::choose;
use crate::fragment::{Front, Guard, HandshakeId, RefusedInput};
use crate::identity::{Fingerprint, Identity};
use crate::offer::{Offer, OfferError, PROTOCOL_VERSION};
use crate::session::{LaneSecrets, Session};
use crate::tls::{Level, Role, Tls, Written};

/// A handshake that takes longer has failed.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// How often a failed handshake repeats its alert when the peer goes on.
const ALERTS_MAX: u32 = 8;

const ALERT_HANDSHAKE_FAILURE: u8 = 40;
const ALERT_ILLEGAL_PARAMETER: u8 = 47;
const ALERT_ACCESS_DENIED: u8 = 49;

/// What a handshake needs to know.
#[derive(Clone)]
pub struct HandshakeConfig {
    /// Which end this is.
    pub role: Role,
    /// Drawn by the client; the server takes it from the first datagram by [`Handshake::id_of`].
    pub id: HandshakeId,
    /// Who we are.
    pub identity: Arc<Identity>,
    /// Whom we expect. Nobody else is accepted.
    pub peer: Fingerprint,
    /// What only the two ends know from signalling, see [`path_secret`](crate::path_secret):
    /// datagrams of anyone else are refused before TLS sees them.
    pub path_secret: Zeroizing<[u8; 32]>,
    /// What we offer for the session.
    pub offer: Offer,
    /// Round-trip time of the path, if known: repetitions start after twice that.
    pub rtt: Option<Duration>,
}

/// Why there is no session. Said to the user in these words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// The peer proved a key, but not the one that signalling announced.
    #[error("the peer's key does not have the fingerprint that signalling announced")]
    WrongFingerprint,
    /// The peer gave up; `0` is its TLS alert code (RFC 8446 section 6).
    #[error("{}", refusal(*.0))]
    Refused(u8),
    /// The handshake violates TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// Messages of two levels in one: no peer of ours does that.
    #[error("the peer mixed handshake levels")]
    LevelsMixed,
    /// The peer's offer is unusable.
    #[error("the peer's offer: {0}")]
    Offer(#[from] OfferError),
    /// The peer speaks no version that we do.
    #[error("the peer speaks version {0} only, this node {PROTOCOL_VERSION}")]
    NoCommonVersion(u16),
    /// No cipher is listed by both.
    #[error("no common cipher")]
    NoCommonCipher,
    /// No end within [`HANDSHAKE_TIME_MAX`].
    #[error("{}", timeout(*.heard))]
    TimedOut {
        /// Whether the peer was heard at all.
        heard: bool,
    },
}

fn refusal(code: u8) -> String {
    match code {
        ALERT_ACCESS_DENIED => "the peer refused our key: it expects another fingerprint".into(),
        code => format!("the peer refused the handshake (TLS alert {code})"),
    }
}

fn timeout(heard: bool) -> &'static str {
    if heard { "the handshake did not finish in time" } else { "no answer to the handshake" }
}

/// What the machine wants done.
#[derive(Debug)]
pub enum Output {
    /// Send this datagram (tunnel header included, at most 1200 bytes) to the peer.
    Transmit(Vec<u8>),
    /// The peer is authenticated and the keys are there. At the client the server may still
    /// refuse: a `Failed` can follow.
    Established(Box<Session>),
    /// It is over; comes once.
    Failed(HandshakeError),
}

/// One handshake, as client or server. Keep it after `Established`: it answers a peer that missed
/// the last acknowledgement. It has no timer then, except for the client's last flight.
pub struct Handshake {
    role: Role,
    id: HandshakeId,
    carrier: Carrier,
    phase: Phase,
    deadline: Option<Instant>,
    heard: bool,
    outputs: VecDeque<Output>,
}

enum Phase {
    Running(Box<Running>),
    Established,
    /// With the alert that the peer should hear, and how often yet.
    Failed {
        alert: Option<u8>,
        alerts_left: u32,
    },
}

struct Running {
    tls: Tls,
    peer: Fingerprint,
    offer: Offer,
}

impl Handshake {
    /// Starts; a client's first flight is ready to be polled.
    #[must_use]
    pub fn new(config: HandshakeConfig, now: Instant) -> Self {
        let HandshakeConfig { role, id, identity, peer, path_secret, offer, rtt } = config;
        let carrier = Carrier::new(role, id, &path_secret, rtt);
        let mut handshake = Handshake {
            role,
            id,
            carrier,
            phase: Phase::Failed { alert: None, alerts_left: 0 },
            deadline: Some(now + HANDSHAKE_TIME_MAX),
            heard: false,
            outputs: VecDeque::new(),
        };
        match Tls::new(role, &identity, peer, offer.emit()) {
            Ok(tls) => {
                handshake.phase = Phase::Running(Box::new(Running { tls, peer, offer }));
                handshake.write();
                handshake.flush(now);
            }
            Err(error) => handshake.fail(HandshakeError::Tls(error.to_string()), None),
        }
        handshake
    }

    /// Starts a server with the first datagram of a client, after checking that the datagram is
    /// authentic: strangers cost one HMAC. `config.id` is not used.
    ///
    /// # Errors
    /// [`RefusedInput`]: count and drop.
    pub fn accept(
        config: HandshakeConfig,
        now: Instant,
        datagram: &[u8],
    ) -> Result<Self, RefusedInput> {
        let (header, front) = Front::parse(datagram)?;
        if front.level != Level::Initial {
            return Err(RefusedInput::OtherHandshake);
        }
        Guard::new(Role::Server, &config.path_secret).unprotect(&header, &front, datagram)?;
        let config = HandshakeConfig { role: Role::Server, id: front.id, ..config };
        let mut handshake = Handshake::new(config, now);
        handshake.handle_input(now, datagram)?;
        Ok(handshake)
    }

    /// The id in a handshake datagram, authentic or not.
    ///
    /// # Errors
    /// [`RefusedInput::Malformed`] if it is not a handshake datagram.
    pub fn id_of(datagram: &[u8]) -> Result<HandshakeId, RefusedInput> {
        Front::parse(datagram).map(|(_, front)| front.id)
    }

    /// Which handshake this is.
    #[must_use]
    pub fn id(&self) -> HandshakeId {
        self.id
    }

    /// Whether an authentic datagram of the peer has come.
    #[must_use]
    pub fn has_heard_peer(&self) -> bool {
        self.heard
    }

    /// Takes one datagram (tunnel header included).
    ///
    /// # Errors
    /// [`RefusedInput`]: count and drop; the handshake is as before.
    pub fn handle_input(&mut self, now: Instant, datagram: &[u8]) -> Result<(), RefusedInput> {
        let result = self.receive(now, datagram);
        self.flush(now);
        result
    }

    /// Call when [`poll_timeout`](Self::poll_timeout) says so.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.deadline = None;
            if matches!(self.phase, Phase::Running(_)) {
                let heard = self.heard;
                self.fail(HandshakeError::TimedOut { heard }, None);
            }
            self.carrier.stop_retransmission();
        }
        self.carrier.handle_timeout(now);
        self.collect();
    }

    /// What is to be done next; ask until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running(_) => {
                [self.deadline, self.carrier.poll_timeout()].into_iter().flatten().min()
            }
            Phase::Established => {
                let retransmit = self.carrier.poll_timeout()?;
                Some(self.deadline.map_or(retransmit, |deadline| deadline.min(retransmit)))
            }
            Phase::Failed { .. } => None,
        }
    }

    fn receive(&mut self, now: Instant, datagram: &[u8]) -> Result<(), RefusedInput> {
        let received = self.carrier.receive(datagram)?;
        if received != Received::Early {
            self.heard = true;
        }
        match (&self.phase, received) {
            (Phase::Failed { .. }, _) => self.repeat_alert(),
            // Once the server has acknowledged the last flight it has accepted it.
            (Phase::Established, Received::Alert(code))
                if self.role == Role::Client && !self.carrier.is_acknowledged() =>
            {
                self.fail(HandshakeError::Refused(code), None);
            }
            (Phase::Running(_), Received::Alert(code)) => {
                self.fail(HandshakeError::Refused(code), None);
            }
            (Phase::Running(_), Received::Stream) => self.advance(now),
            _ => {}
        }
        Ok(())
    }

    /// Reads what has come into TLS, as far as it goes.
    fn advance(&mut self, now: Instant) {
        while let Phase::Running(running) = &mut self.phase {
            let bytes = self.carrier.read();
            if bytes.is_empty() {
                return;
            }
            if let Err(error) = running.tls.read(bytes) {
                let alert = running.tls.alert().unwrap_or(ALERT_HANDSHAKE_FAILURE);
                // What TLS wrote before it gave up may bring the keys that seal the alert.
                self.write();
                return self.fail(error, Some(alert));
            }
            if let Ok(offer) = running.tls.peer_offer()
                && let Ok(offer) = Offer::parse(offer)
            {
                self.carrier.set_receiver(offer.link_index);
            }
            let is_complete = running.tls.is_complete();
            let early = self.write();
            if is_complete {
                return self.establish(now);
            }
            for datagram in early {
                // Refusals were not the business of the datagram that is being handled.
                let _ = self.receive(now, &datagram);
            }
        }
    }

    /// Moves what TLS wrote to the carrier; returns datagrams that had come before their keys.
    fn write(&mut self) -> Vec<Vec<u8>> {
        let Phase::Running(running) = &mut self.phase else { return Vec::new() };
        let mut early = Vec::new();
        for written in running.tls.write() {
            match written {
                Written::Bytes(level, bytes) => self.carrier.push(level, &bytes),
                Written::HandshakeKeys(keys) => early = self.carrier.set_keys(keys),
            }
        }
        early
    }

    fn establish(&mut self, now: Instant) {
        let phase = std::mem::replace(&mut self.phase, Phase::Established);
        let Phase::Running(running) = phase else { return };
        match running.into_session(self.role) {
            Ok(session) => {
                if self.role == Role::Server {
                    self.carrier.acknowledge(Level::Handshake);
                }
                self.flush(now);
                self.outputs.push_back(Output::Established(Box::new(session)));
            }
            Err(error) => self.fail(error, Some(ALERT_ILLEGAL_PARAMETER)),
        }
    }

    fn fail(&mut self, error: HandshakeError, alert: Option<u8>) {
        self.phase = Phase::Failed { alert, alerts_left: ALERTS_MAX };
        self.carrier.stop_retransmission();
        self.repeat_alert();
        self.collect();
        self.outputs.push_back(Output::Failed(error));
    }

    fn repeat_alert(&mut self) {
        if let Phase::Failed { alert: Some(code), alerts_left } = &mut self.phase
            && *alerts_left > 0
        {
            *alerts_left -= 1;
            self.carrier.alert(*code);
        }
    }

    fn flush(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Failed { .. }) {
            self.carrier.flush(now);
        }
        self.collect();
    }

    fn collect(&mut self) {
        self.outputs.extend(self.carrier.take_datagrams().into_iter().map(Output::Transmit));
    }
}

impl Running {
    fn into_session(self, role: Role) -> Result<Session, HandshakeError> {
        let theirs = Offer::parse(self.tls.peer_offer()?)?;
        let version = self.offer.version.min(theirs.version);
        if version == 0 {
            return Err(HandshakeError::NoCommonVersion(theirs.version));
        }
        let cipher =
            choose(&self.offer.ciphers, &theirs.ciphers).ok_or(HandshakeError::NoCommonCipher)?;
        let other = match role {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        let lanes = (0..self.offer.lanes.min(theirs.lanes))
            .map(|lane| {
                let send = self.tls.export(version, lane, role)?;
                let receive = self.tls.export(version, lane, other)?;
                Ok(Some(LaneSecrets { send, receive }))
            })
            .collect::<Result<_, HandshakeError>>()?;
        Ok(Session {
            version,
            cipher,
            peer: self.peer,
            peer_link_index: theirs.link_index,
            peer_mtu: theirs.mtu,
            lanes,
        })
    }
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let phase = match self.phase {
            Phase::Running(_) => "running",
            Phase::Established => "established",
            Phase::Failed { .. } => "failed",
        };
        f.debug_struct("Handshake")
            .field("role", &self.role)
            .field("phase", &phase)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cipher;
    use crate::fragment::{BYTES_LEN_MAX, BytesKind};
    use ipop_wire::LinkIndex;

    const ID: HandshakeId = HandshakeId(1);
    const SECRET: [u8; 32] = [8; 32];

    fn offer() -> Offer {
        let link_index = LinkIndex(1);
        Offer { version: 1, link_index, lanes: 1, mtu: 1, ciphers: vec![(Cipher::Aes128Gcm, 1)] }
    }

    fn client(peer: Fingerprint, identity: Identity, now: Instant) -> Handshake {
        let config = HandshakeConfig {
            role: Role::Client,
            id: ID,
            identity: Arc::new(identity),
            peer,
            path_secret: Zeroizing::new(SECRET),
            offer: offer(),
            rtt: None,
        };
        Handshake::new(config, now)
    }

    /// The pinned server itself sends its second level at the first one, where it is readable.
    fn run_with_levels_mixed(piece_len: impl Fn(usize) -> usize) -> Vec<Output> {
        let now = Instant::now();
        let (ours, theirs) = (Identity::generate(&[1; 32]), Identity::generate(&[2; 32]));
        let ours_fingerprint = ours.fingerprint();
        let mut client = client(theirs.fingerprint(), ours, now);
        let mut server = Tls::new(Role::Server, &theirs, ours_fingerprint, offer().emit())
            .expect("a server is made");
        let mut guard = Guard::new(Role::Server, &SECRET);
        while let Some(Output::Transmit(datagram)) = client.poll_output() {
            let (header, front) = Front::parse(&datagram).expect("ours");
            let bytes = guard.unprotect(&header, &front, &datagram).expect("authentic");
            server.read(&bytes).expect("a good ClientHello");
        }
        let mut flights = server.write().into_iter().filter_map(|written| match written {
            Written::Bytes(_, bytes) => Some(bytes),
            Written::HandshakeKeys(_) => None,
        });
        let hello = flights.next().expect("ServerHello");
        let split = piece_len(hello.len());
        let all: Vec<u8> = hello.into_iter().chain(flights.flatten()).collect();
        let (first, second) = all.split_at(split);
        let mut offset = 0;
        for piece in first.chunks(BYTES_LEN_MAX).chain(second.chunks(BYTES_LEN_MAX)) {
            let (level, kind, acknowledged) = (Level::Initial, BytesKind::Stream, [0, 0]);
            let front = Front { level, kind, id: ID, acknowledged, offset };
            let datagram = guard.protect(&front, LinkIndex(1), piece).expect("no keys needed");
            client.handle_input(now, &datagram).expect("authentic");
            offset += piece.len() as u32;
        }
        client.handle_timeout(now + HANDSHAKE_TIME_MAX);
        std::iter::from_fn(|| client.poll_output()).collect()
    }

    #[test]
    fn bytes_of_the_second_level_are_not_read_from_the_first() {
        let failures = |outputs: Vec<Output>| -> Vec<HandshakeError> {
            assert!(!outputs.iter().any(|output| matches!(output, Output::Established(_))));
            let failed = outputs.into_iter().filter_map(|output| match output {
                Output::Failed(error) => Some(error),
                _ => None,
            });
            failed.collect()
        };
        let in_one_piece = failures(run_with_levels_mixed(|hello| hello + 10));
        assert_eq!(in_one_piece, [HandshakeError::LevelsMixed]);
        let behind_the_hello = failures(run_with_levels_mixed(|hello| hello));
        assert_eq!(behind_the_hello, [HandshakeError::TimedOut { heard: true }]);
    }
}
