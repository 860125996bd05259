//! What is known of a path's losses, from its checks: how many in a row are no accident any more.

/// How sure one is to be that a path is silent that may just have lost so many checks.
const DOUBT: f64 = 1e-6;
/// Checks that are lost in a row on the worst path that there is patience for.
const LOST_MAX: usize = 24;
/// What is known of losses fades by this with each answer: of about so many, the latest count.
const FADE: f64 = 31.0 / 32.0;
/// Checks that are taken to have been answered before any was: most paths lose little.
const ANSWERED_BEFORE: f64 = 5.0;
/// So many lost in a row, where none were before, are an outage.
const OUTAGE: usize = 8;
/// A share of lost checks that is taken for none.
const CALM: f64 = 0.02;
/// A path is called lossy from this share on, which takes more than one check that is lost for
/// once, and until it has fallen to this.
const LOSSY_FROM: f64 = 0.35;
const LOSSY_UNTIL: f64 = 0.1;

/// What share of a path's checks is lost, there or back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Losses {
    /// Rises fast and falls slowly: a guess after few checks.
    share: f64,
    are_heavy: bool,
    /// Checks that were lost and answered, of late.
    lost: f64,
    answered: f64,
}

impl Losses {
    /// A check was answered after so many that were not. More than chance takes were an outage, of
    /// which nothing is learned: the next one is to be noticed as soon.
    pub(crate) fn learn(&mut self, lost: usize) {
        if lost >= self.expected().max(OUTAGE) {
            return;
        }
        let sample = lost as f64 / (lost + 1) as f64;
        let weight = if sample > self.share { 2.0 } else { 8.0 };
        let share = (self.share * (weight - 1.0) + sample) / weight;
        let lost = self.lost * FADE + lost as f64;
        (self.share, self.lost) = if share < CALM { (0.0, 0.0) } else { (share, lost) };
        self.answered = self.answered * FADE + 1.0;
        self.are_heavy = share >= if self.are_heavy { LOSSY_UNTIL } else { LOSSY_FROM };
    }

    /// Whether it loses any, as far as is known.
    pub(crate) fn are_known(self) -> bool {
        self.share > 0.0
    }

    /// Whether it loses so many that what is sparse had better be said more than once.
    pub(crate) fn are_heavy(self) -> bool {
        self.are_heavy
    }

    /// How many in a row say that the path is silent: so many are hardly ever lost by chance. The
    /// share is known from few checks, so each that is lost makes it likelier that the next one is
    /// (a beta distribution, integrated). One is enough where none was lost so far: whoever moves
    /// is not to wait, and there is other evidence.
    pub(crate) fn expected(self) -> usize {
        if !self.are_known() {
            return 1;
        }
        let mut chance = 1.0;
        let is_chance = |count: &usize| {
            let lost = self.lost + *count as f64;
            chance *= lost / (lost + ANSWERED_BEFORE + self.answered);
            chance > DOUBT
        };
        (0..LOST_MAX - 1).take_while(is_chance).count() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_checks_are_lost_more_of_them_have_to_be() {
        let mut losses = Losses::default();
        losses.learn(0);
        assert_eq!(losses.expected(), 1, "nothing is ever lost");
        // Half of them.
        (0..50).for_each(|number| losses.learn(2 * (number % 2)));
        assert!((18..=LOST_MAX).contains(&losses.expected()), "{losses:?}");
        (0..50).for_each(|_| losses.learn(0));
        assert_eq!(losses.expected(), 1, "it is forgotten");
        losses.learn(OUTAGE);
        assert_eq!(losses.expected(), 1, "an outage is no chance");
        (0..50).for_each(|_| losses.learn(OUTAGE - 1));
        assert_eq!(losses.expected(), LOST_MAX, "there is an end to patience");
    }

    /// Where losses are known, the count that is asked for is rarely reached by chance, whatever
    /// the share, and however the dice fell when that was learned.
    #[test]
    fn chance_hardly_ever_loses_as_many() {
        let mut state = 7_u64;
        let mut is_lost = |share: f64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as f64 / (1u64 << 31) as f64) < share
        };
        for share in [0.01, 0.05, 0.2, 0.36, 0.44] {
            let mut losses = Losses::default();
            let (mut row, mut wrong) = (0, 0);
            for _ in 0..1_000_000 {
                if is_lost(share) {
                    row += 1;
                    wrong += u32::from(losses.are_known() && row == losses.expected());
                } else {
                    losses.learn(std::mem::take(&mut row));
                }
            }
            assert!(wrong <= 100, "{share}: {wrong} of a million checks");
        }
    }

    #[test]
    fn a_path_is_lossy_after_more_than_one_loss_and_until_it_has_been_well_for_long() {
        let mut losses = Losses::default();
        for lost in [0, 0, 1, 0, 0, 0, 1, 0] {
            losses.learn(lost);
            assert!(!losses.are_heavy());
        }
        losses.learn(2);
        assert!(losses.are_heavy());
        for _ in 0..8 {
            losses.learn(0);
            assert!(losses.are_heavy());
        }
        (0..8).for_each(|_| losses.learn(0));
        assert!(!losses.are_heavy());
    }
}
