//! Carries checked traffic through the overlay in all weathers for as long as it is told to, adds
//! what came of it to a report, and prints the report's sums. `tests/soak` builds and starts it.
//!
//! Left out: speed. Rounds end by the clock, so a slow machine checks less, not longer; the traffic
//! itself is in the library's module `soak`, which the system tests share.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use ipop_system_tests::soak::{Limit, Place, Sums, WEATHERS, Weather};

const GIB: f64 = (1_u64 << 30) as f64;

/// Checked traffic through the overlay, in all weathers.
#[derive(Debug, Parser)]
struct Flags {
    /// How long to go on, minutes.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// End sooner, when so much has arrived and is right, GiB.
    #[arg(long, default_value_t = f64::INFINITY)]
    gib: f64,
    /// Seconds of each round; the weather changes with the round.
    #[arg(long, default_value_t = 20.0)]
    round: f64,
    /// Only weathers whose name contains this.
    #[arg(long, default_value = "")]
    weather: String,
    /// Where choices of sizes and settings begin; each round counts one up.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// File that results are added to, a line of JSON for each round.
    #[arg(long, default_value = "target/soak.jsonl")]
    report: PathBuf,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let weathers: Vec<_> =
        WEATHERS.iter().filter(|weather| weather.name.contains(&flags.weather)).collect();
    if weathers.is_empty() {
        let names: Vec<_> = WEATHERS.iter().map(|weather| weather.name).collect();
        eprintln!(
            "soak: no weather is called `{}`; there are: {}",
            flags.weather,
            names.join("; ")
        );
        return ExitCode::from(2);
    }
    let is_right = soak(&flags, &weathers);
    match Sums::of_report(&flags.report) {
        Ok((sums, seconds)) => print_sums(&flags.report, &sums, seconds),
        Err(error) => {
            eprintln!("soak: {}: {error}", flags.report.display());
            return ExitCode::FAILURE;
        }
    }
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Goes on until the time is up; whether all that arrived was right.
fn soak(flags: &Flags, weathers: &[&Weather]) -> bool {
    let end = Instant::now() + Duration::from_secs_f64(flags.minutes * 60.0);
    let mut is_right = true;
    let mut total = Sums::default();
    for number in 0.. {
        let start = Instant::now();
        if start >= end || total.bytes() as f64 >= flags.gib * GIB {
            break;
        }
        let weather = weathers[number % weathers.len()];
        let seed = flags.seed + number as u64;
        let place = Place::build(weather);
        let until = (Instant::now() + Duration::from_secs_f64(flags.round)).min(end);
        let limit = Limit { stream_bytes: u64::MAX, datagrams: u64::MAX, until: Some(until) };
        let sums = place.round(limit, seed);
        drop(place);
        total += sums;
        let seconds = start.elapsed().as_secs_f64();
        let verdict = if sums.is_right() { "right" } else { "WRONG" };
        println!("{verdict}: {:.2} GiB, {}, seed {seed}", sums.bytes() as f64 / GIB, weather.name);
        if !sums.is_right() {
            is_right = false;
            println!("{sums:#?}");
        }
        if let Err(error) = sums.append(&flags.report, weather.name, seconds) {
            eprintln!("soak: {}: {error}", flags.report.display());
            return false;
        }
    }
    is_right
}

fn print_sums(report: &Path, sums: &Sums, seconds: f64) {
    println!("\nall of {}:", report.display());
    println!("  {:<24} {:>20.1}", "minutes", seconds / 60.0);
    println!("  {:<24} {:>20.2}", "GiB", sums.bytes() as f64 / GIB);
    for (name, value) in sums.named() {
        println!("  {:<24} {value:>20}", name.replace('_', " "));
    }
}
