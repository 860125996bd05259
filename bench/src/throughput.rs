//! TCP through one direct link, underlay beside overlay in the same run.

use std::time::Duration;

use ipop_lab::Nat;
use serde_json::Value;

use crate::report::Figure;
use crate::stage::{BenchError, Node, Process, Stage};

/// Measures one and four streams, and what they cost.
pub(crate) fn measure(runs: usize, seconds: u32) -> Result<Vec<Figure>, BenchError> {
    let stage = Stage::build(&[Nat::None, Nat::None], Duration::ZERO)?;
    let nodes = [stage.start_node(0)?, stage.start_node(1)?];
    nodes[0].wait(&stage, 0, 1)?;
    let mut underlay = Figure::new("underlay, one TCP stream", "Gbit/s");
    let mut one = Figure::new("overlay, one TCP stream", "Gbit/s");
    let mut reverse = Figure::new("overlay, one TCP stream, reverse", "Gbit/s");
    let mut four = Figure::new("overlay, four TCP streams", "Gbit/s");
    let mut cost = Figure::new("CPU of both nodes, one stream", "s/GiB");
    let below = stage.sites[1].address.to_string();
    let above = nodes[1].overlay.to_string();
    for run in 1..=runs {
        eprintln!("throughput run {run} of {runs}");
        underlay.values.push(iperf(&stage, &below, seconds, "")?.0);
        let before = cpu_seconds(&nodes)?;
        let (rate, bytes) = iperf(&stage, &above, seconds, "")?;
        let used = cpu_seconds(&nodes)? - before;
        one.values.push(rate);
        cost.values.push(used / (bytes / f64::from(1 << 30)));
        reverse.values.push(iperf(&stage, &above, seconds, "-R")?.0);
        four.values.push(iperf(&stage, &above, seconds, "-P 4")?.0);
    }
    let mut memory = Figure::new("resident memory of a datapath after load", "MiB");
    for node in &nodes {
        memory.values.push(resident_mib(node.pids()?[0])?);
    }
    nodes.into_iter().for_each(Node::stop);
    Ok(vec![underlay, one, reverse, four, cost, memory])
}

/// Gbit/s and bytes as the receiver counted them.
fn iperf(stage: &Stage, address: &str, seconds: u32, more: &str) -> Result<(f64, f64), BenchError> {
    let mut server = stage.sites[1].node.command("iperf3");
    server.args(["-s", "-1", "-B", address]);
    let log = std::env::temp_dir().join(format!("ipop-bench-{}-iperf.log", std::process::id()));
    let _server = Process::start(server, &log)?;
    std::thread::sleep(Duration::from_millis(300));
    // The kernel's default congestion control may be another one.
    let line = format!("iperf3 -J -C cubic -t {seconds} -c {address} {more}");
    let text = stage.run(0, &line)?;
    let _ = std::fs::remove_file(log);
    let result: Value =
        serde_json::from_str(&text).map_err(|error| BenchError::new(format!("iperf3: {error}")))?;
    let sum = &result["end"]["sum_received"];
    match (sum["bits_per_second"].as_f64(), sum["bytes"].as_f64()) {
        (Some(rate), Some(bytes)) => Ok((rate / 1e9, bytes)),
        _ => Err(BenchError::new(format!("iperf3 says nothing of use: {text}"))),
    }
}

/// User and system time of all processes of the nodes so far.
pub(crate) fn cpu_seconds(nodes: &[Node]) -> Result<f64, BenchError> {
    let mut ticks = 0.0;
    for node in nodes {
        for pid in node.pids()? {
            ticks += cpu_ticks(pid)?;
        }
    }
    // USER_HZ is 100 on every Linux that this runs on.
    Ok(ticks / 100.0)
}

fn cpu_ticks(pid: u32) -> Result<f64, BenchError> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let number = |index: usize| fields.get(index).and_then(|f| f.parse::<f64>().ok());
    match (number(11), number(12)) {
        (Some(user), Some(system)) => Ok(user + system),
        _ => Err(BenchError::new("the kernel's process statistics cannot be read")),
    }
}

/// Memory of a process that is in RAM.
pub(crate) fn resident_mib(pid: u32) -> Result<f64, BenchError> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib: f64 = line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
    Ok(kib / 1024.0)
}
