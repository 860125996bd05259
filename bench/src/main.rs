//! What the product and its rivals reach on this machine, side by side.
//!
//! `cargo run --release -p ipop-bench` builds `ipop`, joins two network namespaces by a cable, runs
//! each system in them in turn, round after round, and writes a table, a file for programs and a
//! page with plots. Both ends and the traffic programs share the machine, so throughput is a figure
//! of CPU efficiency. Nothing here passes or fails: tests are elsewhere.
//!
//! `underlay.rs` has the cables, `systems/` one driver each, `figures/` one measurement each,
//! `report/` what is written. `suite.rs` puts them together: read it first.

#![forbid(unsafe_code)]

mod args;
mod cost;
mod error;
mod figures;
mod install;
mod machine;
mod own;
mod process;
mod record;
mod report;
mod stage;
mod statistics;
mod stop;
mod suite;
mod systems;
mod traffic;
mod tunnel;
mod underlay;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, Command, Report, Suite};
use error::BenchError;
use record::Record;
use stage::Scratch;
use stop::Stop;
use suite::Rounds;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = Stop::on_signals().and_then(|stop| match &cli.command {
        None => measure(&cli.suite, stop),
        Some(Command::Report(flags)) => join(flags),
        Some(Command::Traffic(tool)) => traffic::run(tool, &stop),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ipop-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the suite. What was measured before a stop is reported too.
fn measure(flags: &Suite, stop: Stop) -> Result<(), BenchError> {
    if !rustix::process::geteuid().is_root() {
        return Err(BenchError::new("run as root: network namespaces and interfaces are made"));
    }
    ipop_lab::remove_stale()?;
    Scratch::remove_stale();
    let mut rounds = Rounds::plan(flags, stop)?;
    let result = rounds.run();
    let folder = flags.out.clone().or_else(|| Some(install::target_folder()?.join("bench")));
    publish(&folder.unwrap_or_else(|| PathBuf::from("bench-report")), &rounds.record)?;
    result
}

fn join(flags: &Report) -> Result<(), BenchError> {
    let mut records = flags.files.iter().map(|path| Record::read(path));
    let mut all = records.next().unwrap_or_else(|| Ok(Record::default()))?;
    for record in records {
        all.merge(record?)?;
    }
    publish(&flags.out, &all)
}

fn publish(folder: &std::path::Path, record: &Record) -> Result<(), BenchError> {
    print!("{}", report::table(record));
    for path in report::write(folder, record)? {
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}
