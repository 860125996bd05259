//! The two processes of an instance, as `ipop up` starts them.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ipop_crypto::Cipher;
use ipop_engine::DatapathConfig;
use rustix::process::{
    DumpableBehavior, Signal, getppid, set_dumpable_behavior, set_parent_process_death_signal,
};

use crate::args::{Controller, Datapath};
use crate::failure::Failure;
use crate::keygen;
use crate::settings::beside;

/// Runs `ipop datapath` until it is told to stop.
///
/// # Errors
/// What the supervisor cannot mend by another start ends with its own exit code instead.
pub fn datapath(flags: &Datapath) -> Result<ExitCode, Failure> {
    keep_secrets();
    die_with_parent(&flags.run_dir)?;
    let cipher = |name: &String| {
        Cipher::from_name(name).ok_or_else(|| Failure::usage(format!("no cipher `{name}`")))
    };
    let ciphers = flags.ciphers.iter().map(cipher).collect::<Result<_, _>>()?;
    let config = DatapathConfig {
        name: flags.name.clone(),
        segment: flags.run_dir.join("segment"),
        interface: flags.interface.clone(),
        identity: keygen::read(&flags.identity)?,
        port: flags.port,
        last_ports: beside(&flags.identity, "ports"),
        mtu: flags.mtu,
        ciphers,
        key_life: flags.keys.life(),
        rehandshake_after: flags.keys.rehandshake_after(),
        workers: flags.workers,
        queues: flags.queues,
        pins: flags.pin,
        real_time: flags.realtime,
        busy_poll: Duration::from_micros(flags.busy_poll.into()),
        maps_port: !flags.no_port_mapping,
        io: flags.io.into(),
    };
    match ipop_engine::run(config) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is_fatal() => {
            eprintln!("ipop datapath: {error}");
            Ok(ExitCode::from(ipop_engine::EXIT_FATAL as u8))
        }
        Err(error) => Err(Failure::failed(error)),
    }
}

/// Runs `ipop controller` until it is told to stop.
///
/// # Errors
/// As [`datapath`].
pub fn controller(flags: &Controller) -> Result<ExitCode, Failure> {
    keep_secrets();
    die_with_parent(&flags.run_dir)?;
    match ipop_controller::run(&flags.run_dir) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is_fatal() => {
            eprintln!("ipop controller: {error}");
            Ok(ExitCode::from(ipop_controller::EXIT_FATAL as u8))
        }
        Err(error) => Err(Failure::failed(error)),
    }
}

/// Keeps this process's memory, with keys and passwords in it, out of core dumps, and from other
/// programs of the same user.
pub fn keep_secrets() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        tracing::warn!("secrets may get into core dumps: {error}");
    }
}

/// When the supervisor is killed, so that it cannot clean up, neither of the two stays behind.
fn die_with_parent(run_dir: &Path) -> Result<(), Failure> {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        tracing::warn!("cannot bind this process to its supervisor: {error}");
    }
    // A supervisor that died before the line above sends no signal any more.
    let supervisor = std::fs::read_to_string(run_dir.join("pid")).unwrap_or_default();
    let Ok(supervisor) = supervisor.trim().parse::<i32>() else { return Ok(()) };
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if parent == supervisor {
        return Ok(());
    }
    Err(Failure::failed("the supervisor has ended already"))
}
