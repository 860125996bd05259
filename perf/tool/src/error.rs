//! Why a measurement could not be made.

use std::io;
use std::path::PathBuf;

use ipop_stages::RingError;

/// What went wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PerfError {
    /// A program could not be started.
    #[error("{program} cannot be run: {source}; it is in the Debian package {package}")]
    Missing {
        /// Its name.
        program: &'static str,
        /// Where it comes from.
        package: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A program ended badly.
    #[error("{program} failed: {output}")]
    Failed {
        /// Its name.
        program: &'static str,
        /// What it said.
        output: String,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The budgets are not readable.
    #[error("{path} is no budget file: {source}; `check --write` makes a new one")]
    Budgets {
        /// Which file.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<toml::de::Error>,
    },
    /// The processor's counters were there and are not any more.
    #[error("cycles and instructions cannot be read: {0}")]
    Pmu(io::Error),
    /// A piece of work could not be set up.
    #[error(transparent)]
    SetUp(#[from] RingError),
    /// There is no such piece of work.
    #[error("no such work: {0}")]
    NoWork(String),
    /// Counting a build without optimisation would say nothing.
    #[error("instructions are counted in release builds only: cargo run --release -p ipop-perf")]
    Debug,
}
