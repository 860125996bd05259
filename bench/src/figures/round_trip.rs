//! Round trip of small packets, on a quiet link and on a full one.

use std::time::Duration;

use super::tcp::Load;
use super::{Figure, Values};
use crate::error::BenchError;
use crate::process::Process;
use crate::stage::{Stage, socket};
use crate::traffic::{RoundTrips, read};
use crate::tunnel::Tunnel;

const PORT: u16 = 5304;
/// Until a TCP stream has filled its window and the queues on its way.
const RAMP: Duration = Duration::from_secs(1);
/// Pause between two pings under load: the pings are not to be the load.
const PAUSE_US: &str = "1000";

/// On a quiet link, one packet after the other.
pub(super) fn idle(stage: &Stage, tunnel: &Tunnel, seconds: u32) -> Result<Values, BenchError> {
    let trips = ping(stage, tunnel, seconds, "0")?;
    Ok(vec![(Figure::RttP50, trips.p50_us), (Figure::RttP99, trips.p99_us)])
}

/// While one TCP stream runs in the same direction.
pub(super) fn loaded(stage: &Stage, tunnel: &Tunnel, seconds: u32) -> Result<Values, BenchError> {
    // It outlasts the pings, and ends with its value.
    let mut load = Load::start(stage, tunnel, seconds + 30)?;
    stage.stop.sleep(RAMP)?;
    load.check()?;
    let trips = ping(stage, tunnel, seconds, PAUSE_US)?;
    load.check()?;
    Ok(vec![(Figure::LoadP50, trips.p50_us), (Figure::LoadP99, trips.p99_us)])
}

fn ping(
    stage: &Stage,
    tunnel: &Tunnel,
    seconds: u32,
    pause_us: &str,
) -> Result<RoundTrips, BenchError> {
    let port = PORT.to_string();
    let command = stage.tool(1, &["udp-echo", "--port", &port])?;
    let mut echo = Process::start(command, stage.folder(), "udp-echo")?;
    stage.wait_for_port(&mut echo, "udp", PORT)?;
    let (to, time) = (socket(tunnel.far, PORT), seconds.to_string());
    let words = ["udp-ping", "--to", &to, "--seconds", &time, "--pause-us", pause_us];
    let command = stage.tool(0, &words)?;
    let patience = Duration::from_secs(u64::from(seconds) + 15);
    read(&stage.run(command, "udp-ping", patience)?)
}
