//! The `ipop` command: one program for all its processes.
//!
//! Each command is a module with a `run` function. They share `config` and `settings` (from file,
//! ticket and flags to what runs), `instance` (the run directory), `snapshot` (what an instance's
//! segment shows), `why` (why a path is what it is), `icmp` (pings through the overlay) and
//! `failure` (how a command ends).

#![forbid(unsafe_code)]

mod args;
mod bench;
mod capture;
mod config;
mod down;
mod failure;
mod hub;
mod icmp;
mod instance;
mod key_limits;
mod keygen;
mod lab;
mod netcheck;
mod ping;
mod preflight;
mod processes;
mod settings;
mod signals;
mod snapshot;
mod status;
mod trace;
mod up;
mod wait;
mod why;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log();
    let result = dispatch(cli.command);
    result.unwrap_or_else(|failure| {
        eprintln!("ipop: {failure}");
        failure.exit_code()
    })
}

fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Up(flags) => up::run(&flags),
        Command::Down(flags) => down::run(&flags),
        Command::Status(flags) => status::run(&flags),
        Command::Ping(flags) => ping::run(&flags),
        Command::Trace(flags) => trace::run(&flags),
        Command::Capture(flags) => capture::run(&flags),
        Command::Bench(flags) => bench::run(&flags),
        Command::Wait(flags) => wait::run(&flags),
        Command::Lab(flags) => lab::run(&flags),
        Command::Netcheck(flags) => netcheck::run(&flags),
        Command::Hub(flags) => hub::run(&flags),
        Command::Keygen(flags) => keygen::run(&flags),
        Command::Datapath(flags) => processes::datapath(&flags),
        Command::Controller(flags) => processes::controller(&flags),
    }
}

/// Logs go to standard error; `RUST_LOG` chooses what.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
