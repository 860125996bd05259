//! All pairs, several at once: a pair mostly waits.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use ipop_lab::{InternetConfig, Nat};

use super::{Outcome, measure};
use crate::Stage;

/// One-way delay of each cable.
const DELAY: Duration = Duration::from_millis(15);
/// Pairs that an internet has addresses for; then comes the next one.
const PAIRS_PER_STAGE: usize = 90;

/// Who runs pairs: so many at once, each on an internet of its own.
#[derive(Clone, Debug)]
pub struct Crew {
    /// How many pairs at once.
    pub at_once: usize,
    /// Where nodes leave what they say of what fell short.
    pub folder: PathBuf,
    /// They leave it of all pairs.
    pub keeps_all: bool,
    /// Prosody runs with Nagle's algorithm, as by default.
    pub has_nagle: bool,
    /// Nodes reach it by TLS from the first byte.
    pub is_tls_direct: bool,
}

/// All ordered pairs of these kinds. Those that are alike in their first kind do not follow each
/// other, so that what costs much processor time is spread over a run.
pub fn pairs(kinds: &[Nat]) -> Vec<[Nat; 2]> {
    let shifts = 0..kinds.len();
    shifts
        .flat_map(|shift| {
            let seconds = kinds.iter().cycle().skip(shift);
            kinds.iter().zip(seconds).map(|(first, second)| [*first, *second])
        })
        .collect()
}

impl Crew {
    /// Measures each of `pairs` once, and tells `told` of each as it comes.
    pub fn run(
        &self,
        pairs: &[[Nat; 2]],
        run: usize,
        mut told: impl FnMut(&Outcome),
    ) -> Vec<Outcome> {
        let next = AtomicUsize::new(0);
        let (sender, outcomes) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..self.at_once {
                let (next, sender) = (&next, sender.clone());
                scope.spawn(move || self.work(pairs, run, next, &sender));
            }
            drop(sender);
            outcomes.iter().inspect(|outcome| told(outcome)).collect()
        })
    }

    /// Takes pairs until there are no more.
    fn work(
        &self,
        pairs: &[[Nat; 2]],
        run: usize,
        next: &AtomicUsize,
        outcomes: &mpsc::Sender<Outcome>,
    ) {
        let mut stage = None;
        for done in 0.. {
            let Some(nats) = pairs.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            if done % PAIRS_PER_STAGE == 0 {
                // The old one goes first.
                drop(stage.take());
            }
            let stage = stage.get_or_insert_with(|| {
                let config = InternetConfig { delay: DELAY, ..InternetConfig::default() };
                let mut stage = Stage::prosody_and_coturn_over_all(config, self.has_nagle);
                stage.is_tls_direct = self.is_tls_direct;
                stage
            });
            let folder = self.folder_of(run, *nats);
            // Nobody listens any more only when another worker panicked.
            let _ = outcomes.send(measure(stage, *nats, &folder, self.keeps_all));
        }
    }

    fn folder_of(&self, run: usize, [first, second]: [Nat; 2]) -> PathBuf {
        Path::new(&self.folder).join(format!("{run}-{first}-{second}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn all_pairs_are_there_once_and_spread() {
        let all = pairs(&Nat::all());
        let count = Nat::all().len();
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), count * count);
        assert!(all.windows(2).all(|two| two[0][0] != two[1][0]));
    }
}
