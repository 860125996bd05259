//! Unpredictable bytes from a seed.
//!
//! A pure crate draws no randomness of its own, yet a transaction id must not be guessable
//! (RFC 8489 section 5): the shell hands in 32 random bytes once, and HMAC-SHA-256 over a counter
//! stretches them.

use aws_lc_rs::hmac;

use crate::message::TransactionId;

/// A deterministic generator whose output nobody can predict without its seed.
pub struct Random {
    key: hmac::Key,
    counter: u64,
}

impl Random {
    /// A generator for `seed`: 32 secret random bytes, used for nothing else.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &seed), counter: 0 }
    }

    /// The next 32 bytes.
    pub fn block(&mut self) -> [u8; 32] {
        let tag = hmac::sign(&self.key, &self.counter.to_be_bytes());
        self.counter += 1;
        let mut block = [0; 32];
        block.copy_from_slice(tag.as_ref());
        block
    }

    /// A fresh transaction id.
    pub fn transaction_id(&mut self) -> TransactionId {
        TransactionId(self.leading())
    }

    /// A uniform 64-bit number.
    pub fn number(&mut self) -> u64 {
        u64::from_be_bytes(self.leading())
    }

    fn leading<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(N <= 32) };
        let block = self.block();
        std::array::from_fn(|i| block[i])
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Random").field("counter", &self.counter).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_ids_and_no_id_twice() {
        let (mut a, mut b) = (Random::new([7; 32]), Random::new([7; 32]));
        let ids: std::collections::HashSet<_> = (0..1000)
            .map(|_| {
                let id = a.transaction_id();
                assert_eq!(id, b.transaction_id());
                id
            })
            .collect();
        assert_eq!(ids.len(), 1000);
        assert_ne!(Random::new([8; 32]).transaction_id(), Random::new([7; 32]).transaction_id());
    }
}
