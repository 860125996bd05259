//! What a finished handshake leaves: the agreed parameters and a pair of keys per lane.

use std::time::Instant;

use ipop_wire::LinkIndex;

use crate::chain::ChainSecret;
use crate::cipher::Cipher;
use crate::identity::Fingerprint;
use crate::open::Opener;
use crate::seal::Sealer;

/// An authenticated session. The TLS connection behind it is gone.
pub struct Session {
    pub(crate) version: u16,
    pub(crate) cipher: Cipher,
    pub(crate) peer: Fingerprint,
    pub(crate) peer_link_index: LinkIndex,
    pub(crate) peer_mtu: u16,
    pub(crate) lanes: Vec<Option<LaneSecrets>>,
}

pub(crate) struct LaneSecrets {
    pub(crate) send: ChainSecret,
    pub(crate) receive: ChainSecret,
}

impl Session {
    /// The keys of one lane. They are handed out once: a second [`Sealer`] from the same secret
    /// would repeat nonces. `None` for a lane handed out before or not agreed on.
    pub fn take_lane(&mut self, lane: u8, now: Instant) -> Option<(Sealer, Opener)> {
        let secrets = self.lanes.get_mut(usize::from(lane))?.take()?;
        let sealer = Sealer::new(self.cipher, &secrets.send, now);
        Some((sealer, Opener::new(self.cipher, &secrets.receive)))
    }

    /// How many lanes both ends serve.
    #[must_use]
    pub fn lane_count(&self) -> u8 {
        self.lanes.len() as u8
    }

    /// The protocol version: the lower of both ends'.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// The cipher of all lanes.
    #[must_use]
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Whom we talk to: proven by the handshake.
    #[must_use]
    pub fn peer(&self) -> Fingerprint {
        self.peer
    }

    /// What to write into the header of datagrams to the peer.
    #[must_use]
    pub fn peer_link_index(&self) -> LinkIndex {
        self.peer_link_index
    }

    /// MTU of the peer's tap in bytes.
    #[must_use]
    pub fn peer_mtu(&self) -> u16 {
        self.peer_mtu
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .field("cipher", &self.cipher)
            .field("lanes", &self.lanes.len())
            .field("peer_link_index", &self.peer_link_index)
            .finish_non_exhaustive()
    }
}
