//! The NAT matrix, as many times as wanted: every ordered pair of NAT kinds with real nodes,
//! Prosody and coturn, and 15 ms per cable. `tests/matrix` builds and starts it.
//!
//! A run goes on after a failure. What nodes say of one is left in a folder; the table, the picture
//! and all outcomes are written anew after each run.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use ipop_lab::Nat;
use ipop_system_tests::matrix::{Crew, Report, pairs};

/// Every ordered pair of NAT kinds.
#[derive(Debug, Parser)]
struct Flags {
    /// How often all pairs are measured.
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Pairs at once; each has an internet of its own.
    #[arg(long, default_value_t = 5)]
    at_once: usize,
    /// Only these kinds, separated by commas, as for `ipop lab --nat`.
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<Nat>,
    /// Where the results go: `matrix.md`, `matrix.svg`, `outcomes.jsonl`, and a folder for each
    /// pair that fell short or was slow.
    #[arg(long, default_value = "target/matrix")]
    folder: PathBuf,
    /// Keep what nodes say of all pairs.
    #[arg(long)]
    keep: bool,
    /// Prosody answers at once (`network_settings = { nagle = false }`), which is not its default.
    #[arg(long)]
    without_nagle: bool,
    /// Nodes reach Prosody by TLS from the first byte (`tls = "direct"`).
    #[arg(long)]
    direct_tls: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    match run(&flags) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("matrix: {}: {error}", flags.folder.display());
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
fn run(flags: &Flags) -> std::io::Result<bool> {
    let kinds = if flags.kinds.is_empty() { Nat::all().to_vec() } else { flags.kinds.clone() };
    // What is left of runs before would be taken for these.
    if flags.folder.exists() {
        std::fs::remove_dir_all(&flags.folder)?;
    }
    std::fs::create_dir_all(&flags.folder)?;
    let mut lines = File::create(flags.folder.join("outcomes.jsonl"))?;
    let crew = Crew {
        at_once: flags.at_once,
        folder: flags.folder.clone(),
        keeps_all: flags.keep,
        has_nagle: !flags.without_nagle,
        is_tls_direct: flags.direct_tls,
    };
    let mut report = Report::new(&kinds);
    for number in 1..=flags.runs {
        let start = Instant::now();
        let mut written = Ok(());
        let outcomes = crew.run(&pairs(&kinds), number, |outcome| {
            if let Some(what) = outcome.shortfall() {
                let [first, second] = outcome.nats;
                println!("run {number}, {first} {second}: {what}");
            }
            let line = writeln!(lines, "{}", outcome.line(number));
            written = std::mem::replace(&mut written, Ok(())).and(line);
        });
        written?;
        report.add(outcomes);
        println!("run {number}, {:.0} s: {}\n", start.elapsed().as_secs_f64(), report.last());
        write(&flags.folder, &report)?;
    }
    println!("{}", report.summary());
    Ok(report.is_well())
}

fn write(folder: &Path, report: &Report) -> std::io::Result<()> {
    let text = format!("{}\n{}\n", report.table(), report.summary());
    std::fs::write(folder.join("matrix.md"), text)?;
    std::fs::write(folder.join("matrix.svg"), report.svg())
}
