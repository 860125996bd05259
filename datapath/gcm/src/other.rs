//! Processors of other kinds: there is no key.

use core::convert::Infallible;

use crate::{NONCE_LEN, TAG_LEN};

/// None exists.
pub(crate) struct Key<const ROUNDS: usize>(Infallible);

impl<const ROUNDS: usize> Key<ROUNDS> {
    pub(crate) fn new(_: &[u8]) -> Option<Self> {
        None
    }

    pub(crate) fn seal(&self, _: &[u8; NONCE_LEN], _: &[u8], _: [&[u8]; 2], _: &mut [u8]) {
        match self.0 {}
    }

    pub(crate) fn open(
        &self,
        _: &[u8; NONCE_LEN],
        _: &[u8],
        _: &[u8],
        _: &[u8; TAG_LEN],
        _: &mut [u8],
    ) -> bool {
        match self.0 {}
    }
}
