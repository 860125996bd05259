//! What each stage of the packet path costs, without a kernel in between: time here and now, and
//! instructions that are the same on every run, which a budget file limits.
//!
//! `cargo run --release -p ipop-perf` prints nanoseconds, cycles and instructions per packet and
//! per byte; `... -- check` counts instructions under valgrind and fails when a stage needs more
//! than `perf/budgets.toml` allows it.
//!
//! What it leaves out: the kernel's part, which `perf/profile` shows, and whole nodes, which
//! `bench` measures. Read first: `table.rs` says what a stage is, `ipop-stages` what is done.

#![forbid(unsafe_code)]

mod budget;
mod callgrind;
mod check;
mod count;
mod error;
mod flame;
mod parts;
mod pmu;
mod table;
mod time;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use ipop_crypto::Cipher;

use crate::error::PerfError;
use crate::flame::Process;

/// Measures the stages of the packet path.
#[derive(Debug, Parser)]
struct Flags {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Nanoseconds, cycles and instructions per packet, on this machine and now (the default).
    Time {
        /// Milliseconds per stage and case.
        #[arg(long, default_value_t = 500)]
        milliseconds: u64,
        /// The cipher that seals.
        #[arg(long, value_enum, default_value = "aes128")]
        cipher: CipherName,
    },
    /// Instructions per packet under valgrind; fails when a stage exceeds its budget.
    Check {
        /// The budgets; those of the tree by default.
        #[arg(long, value_name = "FILE")]
        budgets: Option<PathBuf>,
        /// Make what is counted now the budgets.
        #[arg(long)]
        write: bool,
    },
    /// Draws a flame graph per thread of what `perf record` sampled: `perf/profile` calls it.
    Flame {
        /// What `perf record` wrote.
        #[arg(value_name = "FILE")]
        samples: PathBuf,
        /// Where the graphs go.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
        /// Names for processes.
        #[arg(long = "name", value_name = "PID=NAME")]
        names: Vec<Process>,
    },
    /// Does one piece of work without measuring it: what `check` runs under valgrind.
    #[command(hide = true)]
    Work { work: String, case: String },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CipherName {
    Aes128,
    Aes256,
    Chacha,
    Aegis,
}

impl CipherName {
    fn cipher(self) -> Cipher {
        match self {
            CipherName::Aes128 => Cipher::Aes128Gcm,
            CipherName::Aes256 => Cipher::Aes256Gcm,
            CipherName::Chacha => Cipher::ChaCha20Poly1305,
            CipherName::Aegis => Cipher::Aegis128X4,
        }
    }
}

fn main() -> ExitCode {
    let command = Flags::parse().command;
    let default = Command::Time { milliseconds: 500, cipher: CipherName::Aes128 };
    match run(command.unwrap_or(default)) {
        Ok(is_well) if is_well => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ipop-perf: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is within its limits.
fn run(command: Command) -> Result<bool, PerfError> {
    match command {
        Command::Time { milliseconds, cipher } => {
            time::print(Duration::from_millis(milliseconds), cipher.cipher())?;
            Ok(true)
        }
        Command::Check { budgets, write } => check::run(budgets, write),
        Command::Flame { samples, folder, names } => {
            flame::draw(&samples, &folder, &names)?;
            Ok(true)
        }
        Command::Work { work, case } => {
            count::do_work(&work, &case)?;
            Ok(true)
        }
    }
}
