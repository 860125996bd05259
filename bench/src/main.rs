//! What the product reaches on this machine, with the real binary on the lab's namespaces.
//!
//! `cargo build --release && cargo run --release -p ipop-bench` measures all figures of the README
//! and prints a table of medians and ranges. Both nodes and the traffic program share the machine,
//! so throughput is a figure of CPU efficiency. Nothing here passes or fails: tests are elsewhere.

#![forbid(unsafe_code)]

mod idle;
mod report;
mod stage;
mod start;
mod throughput;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use report::Figure;

/// Measures the product on this machine.
#[derive(Debug, Parser)]
struct Flags {
    /// What to measure.
    #[arg(value_enum, default_value = "all")]
    what: What,
    /// How often; the median is shown.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Seconds of each throughput run.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Write the figures for programs.
    #[arg(long, value_name = "FILE")]
    json: Option<std::path::PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Everything.
    All,
    /// TCP through one link on a veth underlay of 1500 bytes, by iperf3 with CUBIC.
    Throughput,
    /// From process start to the first overlay ping through two NATs, 15 ms per link.
    Start,
    /// CPU and memory of a node that carries nothing.
    Idle,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let mut figures: Vec<Figure> = Vec::new();
    let wanted = |what| flags.what == What::All || flags.what == what;
    let result = (|| {
        if wanted(What::Throughput) {
            figures.extend(throughput::measure(flags.runs, flags.seconds)?);
        }
        if wanted(What::Start) {
            figures.push(start::measure(flags.runs.max(10))?);
        }
        if wanted(What::Idle) {
            figures.extend(idle::measure()?);
        }
        Ok::<(), stage::BenchError>(())
    })();
    print!("{}", report::table(&figures));
    if let Some(path) = &flags.json
        && let Err(error) = report::write_json(path, &figures)
    {
        eprintln!("{}: {error}", path.display());
        return ExitCode::FAILURE;
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ipop-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
