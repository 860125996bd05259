//! `check`: counts every stage and compares it with its budget.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ipop_stages::{Case, WorkKind};

use crate::budget::{self, Budgets, Surroundings, Verdict};
use crate::callgrind::Instructions;
use crate::count::{Counter, stdout_of};
use crate::error::PerfError;
use crate::table::{STAGES, of_stage};

/// One row: instructions of a stage per packet.
struct Row {
    stage: &'static str,
    batch: &'static str,
    counted: Instructions,
}

/// Counts and compares, or counts and writes. `false`: a stage needs more than it may.
///
/// # Errors
/// When nothing can be counted, or the file not be read or written.
pub(crate) fn run(path: Option<PathBuf>, is_writing: bool) -> Result<bool, PerfError> {
    if cfg!(debug_assertions) {
        return Err(PerfError::Debug);
    }
    let path =
        path.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../budgets.toml"));
    let mut counter = Counter::new()?;
    let rows = count(&mut counter)?;
    let here = Surroundings {
        rustc: first_line("rustc", "rustc", &["--version"])?,
        libc: first_line("getconf", "libc-bin", &["GNU_LIBC_VERSION"])?,
        cpu: counter.cpu,
    };
    if is_writing {
        let rows = rows.iter().map(|row| (row.stage, row.batch, row.counted));
        let text = budget::emit(&here, rows);
        fs::write(&path, text).map_err(|source| PerfError::File { path: path.clone(), source })?;
        println!("{} is written", path.display());
        return Ok(true);
    }
    Ok(compare(&rows, &Budgets::read(&path)?, &here))
}

fn first_line(
    program: &'static str,
    package: &'static str,
    arguments: &[&str],
) -> Result<String, PerfError> {
    let text = stdout_of(program, package, Command::new(program).args(arguments).output())?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

fn count(counter: &mut Counter) -> Result<Vec<Row>, PerfError> {
    let mut counted: Vec<(WorkKind, Case, Instructions)> = Vec::new();
    let mut rows = Vec::new();
    for stage in STAGES {
        for case in stage.cases.iter().copied() {
            for kind in [Some(stage.work), stage.less].into_iter().flatten() {
                if !counted.iter().any(|known| (known.0, known.1) == (kind, case)) {
                    counted.push((kind, case, counter.count(kind, case)?));
                }
            }
            let find = |kind| {
                let known = counted.iter().find(|known| (known.0, known.1) == (kind, case));
                known.map(|known| known.2)
            };
            let per_packet = |part: fn(Instructions) -> f64| {
                let sum = of_stage(stage, |kind| find(kind).map(part)).unwrap_or(f64::NAN);
                sum / case.packets() as f64
            };
            let (own, library) = (per_packet(|count| count.own), per_packet(|count| count.library));
            let counted = Instructions { own, library };
            rows.push(Row { stage: stage.name, batch: case.name(), counted });
        }
    }
    Ok(rows)
}

/// Prints all rows, what is wrong with them, and what could be better.
fn compare(rows: &[Row], budgets: &Budgets, here: &Surroundings) -> bool {
    let arch = |cpu: &str| cpu.split(' ').next().unwrap_or_default().to_owned();
    if arch(&here.cpu) != arch(&budgets.counted_with.cpu) {
        println!("no budgets for {}: nothing is compared", arch(&here.cpu));
        return true;
    }
    println!("instructions per packet under valgrind, {}, {}, {}", here.rustc, here.libc, here.cpu);
    println!(
        "{:<9} {:<15} {:>9} {:>9} {:>9} {:>9}",
        "stage", "batch", "own", "budget", "library", "budget"
    );
    let findings: Vec<Finding> =
        rows.iter().flat_map(|row| compare_row(row, budgets, here)).collect();
    let then = &budgets.counted_with;
    if then.rustc != here.rustc {
        println!("the budgets were counted with {}: more is tolerated", then.rustc);
    }
    if !budgets.has_same_library(here) {
        println!("the budgets were counted with {}, {}: own code only", then.libc, then.cpu);
    }
    for finding in &findings {
        println!("{}", finding.text);
    }
    let is_well = !findings.iter().any(|finding| finding.is_failure);
    let verdict = if is_well { "within" } else { "NOT within" };
    let tolerance = budgets.tolerance(here) * 100.0;
    println!("the stages are {verdict} their budgets, {tolerance:.0} % tolerated");
    is_well
}

/// What there is to say about a row.
struct Finding {
    text: String,
    is_failure: bool,
}

/// Prints a row and compares it.
fn compare_row(row: &Row, budgets: &Budgets, here: &Surroundings) -> Vec<Finding> {
    let Row { stage, batch, counted: Instructions { own, library } } = row;
    let Some(budget) = budgets.find(stage, batch) else {
        println!("{stage:<9} {batch:<15} {own:>9.1} {:>9} {library:>9.1} {:>9}", "-", "-");
        let text = format!("{stage}, {batch}: no budget; `check --write` gives it one");
        return vec![Finding { text, is_failure: true }];
    };
    println!(
        "{stage:<9} {batch:<15} {own:>9.1} {:>9.1} {library:>9.1} {:>9.1}",
        budget.own, budget.library
    );
    let tolerance = budgets.tolerance(here);
    let judged = budget::judge_own(*own, budget.own, tolerance);
    let mut parts = vec![("own", *own, budget.own, judged)];
    if budgets.has_same_library(here) {
        let judged = budget::judge_library(*library, budget.library, tolerance);
        parts.push(("library", *library, budget.library, judged));
    }
    let mut findings = Vec::new();
    for (whose, counted, budget, judged) in parts {
        let percent = |difference: f64| difference / budget.abs().max(1.0) * 100.0;
        let (text, is_failure) = match judged {
            Verdict::Within => continue,
            Verdict::Above(more) => (
                format!(
                    "{counted:.1} {whose} instructions per packet, {more:.1} ({:.1} %) above the \
                     budget of {budget:.1}",
                    percent(more)
                ),
                true,
            ),
            Verdict::Below(less) => (
                format!("{whose} budget could be lowered by {less:.1} ({:.1} %)", percent(less)),
                false,
            ),
        };
        findings.push(Finding { text: format!("{stage}, {batch}: {text}"), is_failure });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Surroundings {
        Surroundings { rustc: "rustc 1".into(), libc: "glibc 2".into(), cpu: "x86_64 aes".into() }
    }

    /// Whether counts of a stage pass a budget of 1000 instructions of our own and 100 of others.
    fn is_well(own: f64, library: f64, here: &Surroundings) -> bool {
        let limit = Instructions { own: 1000.0, library: 100.0 };
        let text = budget::emit(&self::here(), [("seal", "1 x 64 B", limit)].into_iter());
        let budgets: Budgets = toml::from_str(&text).unwrap();
        let counted = Instructions { own, library };
        let row = Row { stage: "seal", batch: "1 x 64 B", counted };
        compare(&[row], &budgets, here)
    }

    #[test]
    fn a_stage_above_its_budget_fails_the_check() {
        assert!(is_well(1000.0, 100.0, &here()));
        assert!(is_well(1049.0, 111.0, &here()), "tolerated");
        assert!(is_well(500.0, 10.0, &here()), "cheaper is no failure");
        assert!(!is_well(1051.0, 100.0, &here()));
        assert!(!is_well(1000.0, 113.0, &here()));
    }

    #[test]
    fn what_cannot_be_compared_does_not_fail() {
        let libc = Surroundings { libc: "musl".into(), ..here() };
        assert!(is_well(1000.0, 9999.0, &libc), "of another libc");
        assert!(!is_well(1051.0, 100.0, &libc), "our own code is");
        let rustc = Surroundings { rustc: "rustc 2".into(), ..here() };
        assert!(is_well(1149.0, 100.0, &rustc));
        assert!(!is_well(1151.0, 100.0, &rustc));
        let arch = Surroundings { cpu: "aarch64".into(), ..here() };
        assert!(is_well(9999.0, 9999.0, &arch));
    }

    #[test]
    fn a_stage_without_a_budget_fails_the_check() {
        let counted = Instructions { own: 1.0, library: 1.0 };
        let row = Row { stage: "open", batch: "1 x 64 B", counted };
        let budgets = Budgets { counted_with: here(), ..Budgets::default() };
        assert!(!compare(&[row], &budgets, &here()));
    }
}
