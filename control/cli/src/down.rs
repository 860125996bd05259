//! `ipop down`: stops an instance and waits until it is gone.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::args::Instance;
use crate::failure::{Code, Failure};
use crate::instance::RunDir;

const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `ipop down`.
///
/// # Errors
/// When there is nothing to stop, or it does not stop.
pub fn run(which: &Instance) -> Result<ExitCode, Failure> {
    let instance = RunDir::running(which.name.as_deref())?;
    let name = instance.name();
    let Some(pid) = instance.supervisor() else {
        return Err(Failure::new(Code::NotRunning, format!("instance `{name}` is not running")));
    };
    kill_process(pid, Signal::TERM).map_err(|error| {
        let text = format!("cannot stop process {}: {error}", pid.as_raw_nonzero());
        Failure::new(Code::NotPermitted, text)
    })?;
    let deadline = Instant::now() + PATIENCE;
    while instance.supervisor() == Some(pid) {
        if Instant::now() > deadline {
            return Err(Failure::new(
                Code::TimedOut,
                format!("instance `{name}` (process {}) did not stop", pid.as_raw_nonzero()),
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("instance `{name}` stopped");
    Ok(ExitCode::SUCCESS)
}
