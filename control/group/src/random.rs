//! Unguessable texts from a seed that the caller drew.

use std::collections::VecDeque;

use ipop_signal::{IceCredentials, SessionId};

const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Random bytes that the caller fills up: the policy itself has no generator, so that what it
/// sends into the world is exactly as unguessable as what it was given.
#[derive(Debug, Default)]
pub(crate) struct Pool(VecDeque<u8>);

impl Pool {
    /// Adds fresh random bytes.
    pub(crate) fn refill(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// Bytes left.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// `length` ice-chars of 6 bits each, or `None` when the pool has run dry.
    pub(crate) fn text(&mut self, length: usize) -> Option<String> {
        if self.0.len() < length {
            return None;
        }
        Some(
            self.0
                .drain(..length)
                .map(|byte| char::from(ICE_CHARS[usize::from(byte & 63)]))
                .collect(),
        )
    }

    /// A number that has not been used before, as far as chance goes.
    pub(crate) fn number(&mut self) -> Option<u64> {
        let bytes: Vec<u8> = (self.0.len() >= 8).then(|| self.0.drain(..8).collect())?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Fresh names for a session: its id, its number for the datapath, our credentials of it.
    pub(crate) fn session(&mut self) -> Option<(SessionId, u64, IceCredentials)> {
        let id = SessionId::new(&self.text(16)?).ok()?;
        let number = self.number()?;
        Some((id, number, self.credentials()?))
    }

    /// ICE credentials, short enough for two of them to be joined.
    pub(crate) fn credentials(&mut self) -> Option<IceCredentials> {
        Some(IceCredentials { ufrag: self.text(8)?, pwd: self.text(24)? })
    }
}
