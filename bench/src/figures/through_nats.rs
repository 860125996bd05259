//! Ours alone: from process start to the first overlay ping through two NATs, as `ipop lab` reports
//! it, hub login and hole punching included.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::Figure;
use crate::error::BenchError;
use crate::process::Process;
use crate::stop::Stop;

/// What reports call the network that this is measured on.
pub(crate) const UNDERLAY: &str = "two NATs";
/// One-way delay of each machine's cable, milliseconds.
const DELAY_MS: &str = "15";

/// Both nodes start at the same time, behind port-restricted NATs.
pub(crate) fn start_through_nats(
    program: &Path,
    folder: &Path,
    stop: &Stop,
) -> Result<(Figure, f64), BenchError> {
    let file = folder.join("lab.json");
    let mut command = Command::new(program);
    command
        .args(["lab", "--name", &format!("bench{}-", std::process::id())])
        .args(["--nodes", "2", "--nat", "portres,portres", "--delay", DELAY_MS])
        .args(["--traffic", "0", "--json"])
        .arg(&file);
    Process::start(command, folder, "lab")?.finish(Duration::from_secs(60), stop)?;
    let result: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)
        .map_err(|error| BenchError::new(format!("ipop lab: {error}")))?;
    let seconds = result["pairs"][0]["first_ping"].as_f64();
    let seconds = seconds.ok_or_else(|| BenchError::new("ipop lab reports no first ping"))?;
    Ok((Figure::NatStart, seconds))
}
