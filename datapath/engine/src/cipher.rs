//! How fast this machine's ciphers are: both ends of a link compare and take the best for both.

use std::time::{Duration, Instant};

use ipop_crypto::{ChainSecret, Cipher, Sealer};
use ipop_wire::{Header, Kind, LinkIndex, Part};

const PAYLOAD_LEN: usize = 1400;
/// Time that each cipher is measured for.
const TIME: Duration = Duration::from_millis(2);
const ROUND: usize = 16;

/// What each of these ciphers costs here, picoseconds per byte of a full datagram; of the usual
/// ones, if none is named.
pub(crate) fn costs(allowed: &[Cipher]) -> Vec<(Cipher, u32)> {
    let all = if allowed.is_empty() { &Cipher::DEFAULT } else { allowed };
    all.iter().map(|cipher| (*cipher, cost(*cipher))).collect()
}

fn cost(cipher: Cipher) -> u32 {
    let start = Instant::now();
    // The key is for measuring alone and seals zeros.
    let mut sealer = Sealer::new(cipher, &ChainSecret::new([7; 32]), start);
    let header = Header {
        kind: Kind::Data,
        epoch: 0,
        lane: 0,
        part: Part { index: 0, count: 0 },
        receiver: LinkIndex(0),
        counter: 0,
    };
    let payload = [0; PAYLOAD_LEN];
    let mut out = [0; PAYLOAD_LEN + 64];
    let mut best = Duration::MAX;
    // The best round counts: others were interrupted.
    while start.elapsed() < TIME {
        let round = Instant::now();
        for _ in 0..ROUND {
            if sealer.seal(header, &payload, &[], &mut out).is_err() {
                return u32::MAX;
            }
        }
        best = best.min(round.elapsed());
    }
    let picoseconds = best.as_nanos() * 1000 / (ROUND * PAYLOAD_LEN) as u128;
    u32::try_from(picoseconds).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cipher_has_a_cost() {
        let costs = costs(&[]);
        assert_eq!(costs.len(), 3, "plaintext and AEGIS are nobody's default");
        assert!(costs.iter().all(|(_, cost)| *cost > 0 && *cost < u32::MAX));
    }
}
