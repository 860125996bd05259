//! Seeded choices, so that a failure can be had again.

/// SplitMix64: good enough to choose sizes and settings.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same seed gives the same choices.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// A size from 1 to `largest`; all orders of magnitude are equally likely.
    pub fn size(&mut self, largest: u64) -> u64 {
        let bits = u64::from(largest.ilog2()) + 1;
        let end = 1 << (1 + self.below(bits));
        (1 + self.below(end)).min(largest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_reach_from_one_to_the_largest() {
        let mut dice = Dice::new(1);
        let sizes: Vec<_> = (0..10_000).map(|_| dice.size(1000)).collect();
        assert!(sizes.iter().all(|size| (1..=1000).contains(size)));
        for wanted in [1, 2, 1000] {
            assert!(sizes.contains(&wanted), "{wanted}");
        }
        assert!(sizes.iter().filter(|size| **size < 10).count() > 1000);
    }
}
