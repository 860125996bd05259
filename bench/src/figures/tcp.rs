//! TCP through a tunnel by iperf3, and what it costs.

use std::time::Duration;

use serde_json::Value;

use super::{Figure, Values};
use crate::cost;
use crate::error::BenchError;
use crate::process::Process;
use crate::stage::Stage;
use crate::tunnel::Tunnel;

const PORT: u16 = 5201;
/// How much longer than asked for a run may take.
const MARGIN: Duration = Duration::from_secs(20);
const GIB: f64 = (1u32 << 30) as f64;

/// Which end sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The first end.
    Forth,
    /// The second end.
    Reverse,
}

/// One stream, with the CPU of the VPN and of the machine.
pub(super) fn one_with_cost(
    stage: &Stage,
    tunnel: &Tunnel,
    seconds: u32,
) -> Result<Values, BenchError> {
    let pids = tunnel.all_pids();
    let server = serve(stage, tunnel)?;
    let (machine, vpn) = (cost::machine_seconds()?, cost::cpu_seconds(&pids)?);
    let received = send(stage, tunnel, seconds, 1, Way::Forth)?;
    let (machine, vpn) = (cost::machine_seconds()? - machine, cost::cpu_seconds(&pids)? - vpn);
    drop(server);
    let gib = received.bytes / GIB;
    let mut values = vec![(Figure::Tcp1, received.gbit_s), (Figure::CpuMachine, machine / gib)];
    if !pids.is_empty() {
        values.push((Figure::CpuVpn, vpn / gib));
    }
    Ok(values)
}

/// Gbit/s of so many streams.
pub(super) fn rate(
    stage: &Stage,
    tunnel: &Tunnel,
    seconds: u32,
    streams: u32,
    way: Way,
) -> Result<f64, BenchError> {
    let _server = serve(stage, tunnel)?;
    send(stage, tunnel, seconds, streams, way).map(|received| received.gbit_s)
}

/// A stream that runs for as long as its value lives, at most `seconds`.
pub(super) struct Load {
    client: Process,
    _server: Process,
}

impl Load {
    pub(super) fn start(stage: &Stage, tunnel: &Tunnel, seconds: u32) -> Result<Self, BenchError> {
        let server = serve(stage, tunnel)?;
        let command = client(stage, tunnel, seconds, 1, Way::Forth);
        let client = Process::start(command, stage.folder(), "iperf3-load")?;
        Ok(Self { client, _server: server })
    }

    /// An error when the stream has ended.
    pub(super) fn check(&mut self) -> Result<(), BenchError> {
        self.client.check()
    }
}

/// A server for one test, which listens already.
fn serve(stage: &Stage, tunnel: &Tunnel) -> Result<Process, BenchError> {
    let mut command = stage.ends[1].command("iperf3");
    command.args(["-s", "-1", "-B", &tunnel.far.to_string(), "-p", &PORT.to_string()]);
    let mut server = Process::start(command, stage.folder(), "iperf3-server")?;
    stage.wait_for_port(&mut server, "tcp", PORT)?;
    Ok(server)
}

fn send(
    stage: &Stage,
    tunnel: &Tunnel,
    seconds: u32,
    streams: u32,
    way: Way,
) -> Result<Received, BenchError> {
    let command = client(stage, tunnel, seconds, streams, way);
    let patience = Duration::from_secs(u64::from(seconds)) + MARGIN;
    let client = Process::start(command, stage.folder(), "iperf3")?;
    parse(&client.finish(patience, &stage.stop)?)
}

fn client(
    stage: &Stage,
    tunnel: &Tunnel,
    seconds: u32,
    streams: u32,
    way: Way,
) -> std::process::Command {
    let mut command = stage.ends[0].command("iperf3");
    command
        .args(["-c", &tunnel.far.to_string(), "-p", &PORT.to_string(), "--json"])
        // The kernel's default congestion control may be another one.
        .args(["-C", "cubic", "--connect-timeout", "5000"])
        .args(["-t", &seconds.to_string(), "-P", &streams.to_string()]);
    if way == Way::Reverse {
        command.arg("-R");
    }
    command
}

#[derive(Debug, PartialEq)]
struct Received {
    gbit_s: f64,
    bytes: f64,
}

/// What arrived, as the receiver counted it.
fn parse(text: &str) -> Result<Received, BenchError> {
    let result: Value =
        serde_json::from_str(text).map_err(|error| BenchError::new(format!("iperf3: {error}")))?;
    if let Some(error) = result["error"].as_str() {
        return Err(BenchError::new(format!("iperf3: {error}")));
    }
    let sum = &result["end"]["sum_received"];
    match (sum["bits_per_second"].as_f64(), sum["bytes"].as_f64()) {
        (Some(_), Some(0.0)) => Err(BenchError::new("no byte of the TCP stream arrived")),
        (Some(rate), Some(bytes)) => Ok(Received { gbit_s: rate / 1e9, bytes }),
        _ => Err(BenchError::new("iperf3 says nothing about what was received")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receivers_count_is_taken() {
        let text = r#"{"end": {"sum_sent": {"bits_per_second": 9e9, "bytes": 9},
            "sum_received": {"bits_per_second": 2.5e9, "bytes": 1000}}}"#;
        assert_eq!(parse(text).unwrap(), Received { gbit_s: 2.5, bytes: 1000.0 });
    }

    #[test]
    fn what_did_not_work_is_an_error_with_the_reason() {
        let error = |text| parse(text).unwrap_err().to_string();
        assert_eq!(error(r#"{"error": "unable to connect"}"#), "iperf3: unable to connect");
        let nothing = r#"{"end": {"sum_received": {"bits_per_second": 0.0, "bytes": 0}}}"#;
        assert!(error(nothing).contains("no byte"));
        assert!(error("{}").contains("nothing"));
        assert!(error("<").starts_with("iperf3:"));
    }
}
