//! The budget file: how many instructions each stage may take per packet, and with what that was
//! counted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::callgrind::Instructions;
use crate::error::PerfError;

/// What a stage may take more than its budget: less than this is no change of the code.
const TOLERANCE: f64 = 0.05;
/// The same when another compiler built it than built what the budgets were counted with.
const TOLERANCE_OTHER_COMPILER: f64 = 0.15;
/// Never less than so many instructions of our own.
const OWN_SLACK_MIN: f64 = 4.0;
/// Never less than so many of libraries: where a buffer begins, and with it how it is copied,
/// depends on the length of a path.
const LIBRARY_SLACK_MIN: f64 = 12.0;

const HEAD: &str = "\
# Instructions per packet that each stage may take; `perf/README.md` says how they are counted.
# Who makes a stage cheaper lowers its budget, who makes it dearer says in the commit why that is
# worth it: cargo run --release -p ipop-perf -- check --write
#
# own: our Rust code. library: aws-lc and libc, as valgrind's processor makes them choose.
";

/// What counts depend on besides our code.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// First line of `rustc --version`.
    pub(crate) rustc: String,
    /// As `getconf` names it.
    pub(crate) libc: String,
    /// Architecture and features of the emulated processor.
    pub(crate) cpu: String,
}

/// Limits of one stage and batch, instructions per packet.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Budget {
    pub(crate) own: f64,
    pub(crate) library: f64,
}

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Budgets {
    pub(crate) counted_with: Surroundings,
    /// By stage and batch.
    pub(crate) stage: BTreeMap<String, BTreeMap<String, Budget>>,
}

/// How a count stands to its budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// As it was.
    Within,
    /// More than allowed: by so many instructions.
    Above(f64),
    /// The budget is higher than it needs to be: by so many instructions.
    Below(f64),
}

impl Budgets {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is missing or not a budget file.
    pub(crate) fn read(path: &Path) -> Result<Self, PerfError> {
        let text = fs::read_to_string(path)
            .map_err(|source| PerfError::File { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| PerfError::Budgets {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }

    /// Of one row, if there is one.
    pub(crate) fn find(&self, stage: &str, batch: &str) -> Option<Budget> {
        self.stage.get(stage)?.get(batch).copied()
    }

    /// How much more than a budget is tolerated, as a part of it.
    pub(crate) fn tolerance(&self, here: &Surroundings) -> f64 {
        if self.counted_with.rustc == here.rustc { TOLERANCE } else { TOLERANCE_OTHER_COMPILER }
    }

    /// Whether the library's instructions can be compared here.
    pub(crate) fn has_same_library(&self, here: &Surroundings) -> bool {
        (&self.counted_with.libc, &self.counted_with.cpu) == (&here.libc, &here.cpu)
    }
}

/// Compares a count of our own code with its budget.
pub(crate) fn judge_own(counted: f64, budget: f64, tolerance: f64) -> Verdict {
    judge(counted, budget, (budget * tolerance).max(OWN_SLACK_MIN))
}

/// Compares a count of libraries with its budget.
pub(crate) fn judge_library(counted: f64, budget: f64, tolerance: f64) -> Verdict {
    judge(counted, budget, (budget * tolerance).max(LIBRARY_SLACK_MIN))
}

fn judge(counted: f64, budget: f64, slack: f64) -> Verdict {
    match counted - budget {
        more if more > slack => Verdict::Above(more),
        less if less < -slack => Verdict::Below(-less),
        _ => Verdict::Within,
    }
}

/// The text of a budget file with these counts, stage by stage.
pub(crate) fn emit<'a>(
    here: &Surroundings,
    counts: impl Iterator<Item = (&'a str, &'a str, Instructions)>,
) -> String {
    let Surroundings { rustc, libc, cpu } = here;
    let mut text = format!(
        "{HEAD}\n[counted_with]\nrustc = \"{rustc}\"\nlibc = \"{libc}\"\ncpu = \"{cpu}\"\n"
    );
    let mut last = "";
    for (stage, batch, Instructions { own, library }) in counts {
        if stage != last {
            let _ = write!(text, "\n[stage.{stage}]\n");
            last = stage;
        }
        let _ = writeln!(text, "\"{batch}\" = {{ own = {own:.1}, library = {library:.1} }}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let here = Surroundings { rustc: "r 1".into(), libc: "g 2".into(), cpu: "c".into() };
        let count = |own| Instructions { own, library: 5.0 };
        let rows = [("seal", "1 x 64 B", count(1.25)), ("open", "a", count(2.0))];
        let budgets: Budgets = toml::from_str(&emit(&here, rows.into_iter())).unwrap();
        assert_eq!(budgets.counted_with, here);
        assert_eq!(budgets.find("open", "a").unwrap().own, 2.0);
        assert_eq!(budgets.find("seal", "1 x 64 B").unwrap().library, 5.0);
        assert!(budgets.find("seal", "a").is_none());
    }

    #[test]
    fn a_count_is_judged_by_its_budget() {
        assert_eq!(judge_own(1030.0, 1000.0, 0.03), Verdict::Within);
        assert_eq!(judge_own(1031.0, 1000.0, 0.03), Verdict::Above(31.0));
        assert_eq!(judge_own(969.0, 1000.0, 0.03), Verdict::Below(31.0));
        assert_eq!(judge_own(14.0, 10.0, 0.03), Verdict::Within);
        assert_eq!(judge_own(15.0, 10.0, 0.03), Verdict::Above(5.0));
        assert_eq!(judge_library(-5.5, -2.5, 0.03), Verdict::Within);
        assert_eq!(judge_library(23.0, 10.0, 0.03), Verdict::Above(13.0));
    }

    #[test]
    fn another_compiler_and_another_libc_are_told_apart() {
        let here = Surroundings { rustc: "a".into(), libc: "b".into(), cpu: "c".into() };
        let budgets = Budgets { counted_with: here.clone(), ..Budgets::default() };
        assert_eq!(budgets.tolerance(&here), TOLERANCE);
        let other = Surroundings { rustc: "z".into(), ..here.clone() };
        assert_eq!(budgets.tolerance(&other), TOLERANCE_OTHER_COMPILER);
        assert!(budgets.has_same_library(&other));
        let other = Surroundings { libc: "z".into(), ..here };
        assert!(!budgets.has_same_library(&other));
    }
}
