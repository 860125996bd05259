//! TCP through a tunnel by iperf3, and what it costs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{Figure, Values};
use crate::cost;
use crate::error::BenchError;
use crate::process::Process;
use crate::stage::Stage;
use crate::tunnel::Tunnel;

pub(super) const PORT: u16 = 5201;
/// How much longer than asked for a run may take.
pub(super) const MARGIN: Duration = Duration::from_secs(20);
pub(super) const GIB: f64 = (1u32 << 30) as f64;

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

/// Eight streams, with the CPU of the VPN, and how the sender's workers share the load, where it
/// has several.
pub(super) fn eight(stage: &Stage, tunnel: &Tunnel, seconds: u32) -> Result<Values, BenchError> {
    let (all, sender) = (tunnel.all_pids(), tunnel.pids(0));
    let _server = serve(stage, tunnel)?;
    let (vpn, workers) = (cost::cpu_seconds(&all)?, cost::worker_seconds(&sender)?);
    let received = send(stage, tunnel, seconds, 8, Way::Forth)?;
    let mut values = vec![(Figure::Tcp8, received.gbit_s)];
    if !all.is_empty() {
        let used = cost::cpu_seconds(&all)? - vpn;
        values.push((Figure::CpuVpn8, used / (received.bytes / GIB)));
    }
    let after = cost::worker_seconds(&sender)?;
    let share = busiest_share(&workers, &after);
    values.extend(share.map(|share| (Figure::BusiestWorker, share * 100.0)));
    Ok(values)
}

/// What the busiest of several workers did of what all of them did, 0 to 1.
fn busiest_share(before: &BTreeMap<u32, f64>, after: &BTreeMap<u32, f64>) -> Option<f64> {
    let used = |(id, seconds): (&u32, &f64)| seconds - before.get(id).unwrap_or(&0.0);
    let used: Vec<f64> = after.iter().map(used).collect();
    let total: f64 = used.iter().sum();
    (used.len() > 1 && total > 0.0).then(|| used.iter().copied().fold(0.0, f64::max) / total)
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

/// What arrived of streams.
#[derive(Debug, PartialEq)]
pub(super) struct Received {
    pub gbit_s: f64,
    pub bytes: f64,
}

/// What arrived, as the receiver counted it.
pub(super) fn parse(text: &str) -> Result<Received, BenchError> {
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
    fn the_busiest_of_several_workers_has_a_share() {
        let before = BTreeMap::from([(7, 1.0), (8, 2.0)]);
        let after = BTreeMap::from([(7, 4.0), (8, 3.0)]);
        assert_eq!(busiest_share(&before, &after), Some(0.75));
        assert_eq!(busiest_share(&before, &before), None, "nobody did anything");
        assert_eq!(busiest_share(&BTreeMap::new(), &BTreeMap::from([(7, 4.0)])), None, "only one");
    }

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
