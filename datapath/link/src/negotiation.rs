//! Getting keys: one handshake at a time, as client or server, over and over.
//!
//! The controlling end of ICE is the client: it starts when there is a path, and again when keys
//! are old or somebody asks. The server takes a new handshake whenever an authentic first datagram
//! comes; handshakes it has seen are not taken twice, so a replayed flight starts nothing.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipop_crypto::{
    Fingerprint, Handshake, HandshakeConfig, HandshakeError, HandshakeId, Identity, Offer, Output,
    RefusedInput, Role, Session,
};
use ipop_wire::LinkIndex;
use zeroize::Zeroizing;

/// Ids of handshakes that a server remembers.
const REMEMBERED_MAX: usize = 64;

/// What does not change from handshake to handshake.
pub(crate) struct NegotiationConfig {
    pub role: Role,
    pub identity: Arc<Identity>,
    pub peer: Fingerprint,
    pub path_secret: Zeroizing<[u8; 32]>,
    /// Its link index is set for each handshake.
    pub offer: Offer,
}

pub(crate) struct Negotiation {
    config: NegotiationConfig,
    current: Option<Current>,
    remembered: VecDeque<HandshakeId>,
}

struct Current {
    handshake: Handshake,
    index: LinkIndex,
    /// Where the peer's last authentic datagram came from, and to. A server answers there.
    heard_on: Option<(SocketAddr, SocketAddr)>,
    is_over: bool,
}

/// What came of it.
pub(crate) enum Negotiated {
    /// `on`: (local, remote), or `None` for the link's selected pair.
    Transmit {
        on: Option<(SocketAddr, SocketAddr)>,
        data: Vec<u8>,
    },
    Established {
        index: LinkIndex,
        session: Box<Session>,
    },
    Failed {
        index: LinkIndex,
        error: HandshakeError,
    },
}

impl Negotiation {
    pub fn new(config: NegotiationConfig) -> Self {
        Negotiation { config, current: None, remembered: VecDeque::new() }
    }

    /// Whether a handshake is under way, without an end yet.
    pub fn is_running(&self) -> bool {
        self.current.as_ref().is_some_and(|current| !current.is_over)
    }

    /// Starts a handshake as client; one under way is given up.
    pub fn start(
        &mut self,
        now: Instant,
        id: HandshakeId,
        index: LinkIndex,
        rtt: Option<Duration>,
    ) {
        debug_assert_eq!(self.config.role, Role::Client);
        let handshake = Handshake::new(self.handshake_config(id, index, rtt), now);
        self.current = Some(Current { handshake, index, heard_on: None, is_over: false });
    }

    /// Takes a datagram; the caller has checked that the path is validated. A server starts a
    /// new handshake with it if it has to, under `index`.
    pub fn handle_input(
        &mut self,
        now: Instant,
        on: (SocketAddr, SocketAddr),
        datagram: &[u8],
        index: Option<LinkIndex>,
    ) -> Result<(), RefusedInput> {
        let id = Handshake::id_of(datagram)?;
        if let Some(current) = &mut self.current
            && current.handshake.id() == id
        {
            current.handshake.handle_input(now, datagram)?;
            current.heard_on = Some(on);
            return Ok(());
        }
        let index = index.ok_or(RefusedInput::OtherHandshake)?;
        if self.config.role == Role::Client || self.remembered.contains(&id) {
            return Err(RefusedInput::OtherHandshake);
        }
        let config = self.handshake_config(id, index, None);
        let handshake = Handshake::accept(config, now, datagram)?;
        if self.remembered.len() == REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back(id);
        self.current = Some(Current { handshake, index, heard_on: Some(on), is_over: false });
        Ok(())
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(current) = &mut self.current
            && current.handshake.poll_timeout().is_some_and(|at| now >= at)
        {
            current.handshake.handle_timeout(now);
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.current.as_ref()?.handshake.poll_timeout()
    }

    pub fn poll_output(&mut self) -> Option<Negotiated> {
        let current = self.current.as_mut()?;
        let index = current.index;
        let on = match self.config.role {
            Role::Client => None,
            Role::Server => current.heard_on,
        };
        match current.handshake.poll_output()? {
            Output::Transmit(data) => Some(Negotiated::Transmit { on, data }),
            Output::Established(session) => {
                current.is_over = true;
                Some(Negotiated::Established { index, session })
            }
            Output::Failed(error) => {
                current.is_over = true;
                Some(Negotiated::Failed { index, error })
            }
        }
    }

    fn handshake_config(
        &self,
        id: HandshakeId,
        index: LinkIndex,
        rtt: Option<Duration>,
    ) -> HandshakeConfig {
        HandshakeConfig {
            role: self.config.role,
            id,
            identity: self.config.identity.clone(),
            peer: self.config.peer,
            path_secret: self.config.path_secret.clone(),
            offer: Offer { link_index: index, ..self.config.offer.clone() },
            rtt,
        }
    }
}
