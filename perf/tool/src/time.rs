//! Time, cycles and instructions of each stage on this machine. All pieces of work of a case take
//! turns, so that whatever else happens on the machine happens to all of them.

use std::time::{Duration, Instant};

use ipop_crypto::Cipher;
use ipop_stages::{Case, Work, WorkKind};

use crate::error::PerfError;
use crate::pmu::{Counts, Pmu};
use crate::table::{STAGES, of_stage, works_of};

/// How often a piece of work is done before the next has its turn.
const ROUNDS_PER_TURN: usize = 32;
/// Rounds over which cycles and instructions are counted.
const COUNTED_ROUNDS: u32 = 256;

/// What one piece of work takes, per batch.
struct Measured {
    kind: WorkKind,
    /// Median.
    nanoseconds: f64,
    counts: Option<Counts>,
}

/// Prints the table, with `time` for each piece of work and case.
///
/// # Errors
/// When a piece of work cannot be set up, or a counter not be read.
pub(crate) fn print(time: Duration, cipher: Cipher) -> Result<(), PerfError> {
    let mut pmu = match Pmu::open() {
        Ok(pmu) => Some(pmu),
        Err(error) => {
            println!("no PMU here ({error}): no cycles and instructions; `check` counts these");
            None
        }
    };
    println!("{cipher:?}, medians");
    println!(
        "{:<9} {:<15} {:>9} {:>8} {:>10} {:>8} {:>10} {:>8}",
        "stage",
        "batch",
        "ns/packet",
        "ns/byte",
        "cyc/packet",
        "cyc/byte",
        "ins/packet",
        "ins/byte"
    );
    for case in Case::ALL {
        let measured = measure(case, cipher, time, pmu.as_mut())?;
        print_case(case, &measured);
    }
    Ok(())
}

fn measure(
    case: Case,
    cipher: Cipher,
    time: Duration,
    mut pmu: Option<&mut Pmu>,
) -> Result<Vec<Measured>, PerfError> {
    let mut works = Vec::new();
    for kind in works_of(case) {
        works.push((kind, ipop_stages::set_up(kind, case, cipher)?, Vec::new()));
    }
    let end = Instant::now() + time * works.len() as u32;
    while Instant::now() < end {
        for (_, work, times) in &mut works {
            for _ in 0..ROUNDS_PER_TURN {
                work.prepare();
                let begun = Instant::now();
                work.work();
                times.push(begun.elapsed());
            }
        }
    }
    let mut measured = Vec::new();
    for (kind, mut work, mut times) in works {
        times.sort_unstable();
        let nanoseconds = times[times.len() / 2].as_nanos() as f64;
        let counts = match pmu.as_mut() {
            Some(pmu) => Some(count(&mut *work, pmu)?),
            None => None,
        };
        work.verify();
        measured.push(Measured { kind, nanoseconds, counts });
    }
    Ok(measured)
}

fn count(work: &mut dyn Work, pmu: &mut Pmu) -> Result<Counts, PerfError> {
    let mut counts = Counts::default();
    for _ in 0..COUNTED_ROUNDS {
        work.prepare();
        pmu.count(&mut counts, || work.work()).map_err(PerfError::Pmu)?;
    }
    Ok(counts)
}

fn print_case(case: Case, measured: &[Measured]) {
    let find = |kind| measured.iter().find(|measured| measured.kind == kind);
    let packets = case.packets() as f64;
    let bytes = packets * case.payload_len() as f64;
    let per_round = |count: u64| count as f64 / f64::from(COUNTED_ROUNDS);
    for stage in STAGES.iter().filter(|stage| stage.cases.contains(&case)) {
        let nanoseconds = of_stage(stage, |kind| Some(find(kind)?.nanoseconds));
        let cycles = of_stage(stage, |kind| Some(per_round(find(kind)?.counts?.cycles)));
        let instructions =
            of_stage(stage, |kind| Some(per_round(find(kind)?.counts?.instructions)));
        print!("{:<9} {:<15}", stage.name, case.name());
        for (figure, width) in [(nanoseconds, 9), (cycles, 10), (instructions, 10)] {
            match figure {
                Some(value) => {
                    print!(" {:>width$.1} {:>8.3}", value / packets, value / bytes);
                }
                None => print!(" {:>width$} {:>8}", "-", "-"),
            }
        }
        println!();
    }
}
