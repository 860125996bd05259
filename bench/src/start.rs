//! From process start to the first overlay ping, through two NATs: what `ipop lab` reports.

use std::process::Command;

use serde_json::Value;

use crate::report::Figure;
use crate::stage::{BenchError, binary};

/// One-way delay of each machine's cable, milliseconds.
const DELAY_MS: &str = "15";

/// Both nodes start at the same time; the first answered ping ends the measurement.
pub(crate) fn measure(runs: usize) -> Result<Figure, BenchError> {
    let mut figure = Figure::new("start to first ping, 2 port-restricted NATs, 15 ms", "s");
    let file = std::env::temp_dir().join(format!("ipop-bench-{}-lab.json", std::process::id()));
    for run in 1..=runs {
        eprintln!("start run {run} of {runs}");
        let name = format!("bench{}-", std::process::id());
        let output = Command::new(binary()?)
            .args(["lab", "--name", &name, "--nodes", "2", "--nat", "portres,portres"])
            .args(["--delay", DELAY_MS, "--traffic", "0", "--json"])
            .arg(&file)
            .output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Err(BenchError::new(format!("ipop lab: {text}")));
        }
        let result: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)
            .map_err(|error| BenchError::new(format!("ipop lab: {error}")))?;
        let seconds = result["pairs"][0]["first_ping"].as_f64();
        figure.values.push(seconds.ok_or_else(|| BenchError::new("no first ping"))?);
    }
    let _ = std::fs::remove_file(file);
    Ok(figure)
}
