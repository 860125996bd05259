//! Small packets that arrive while the sender floods.

use std::time::Duration;

use super::{Figure, Values};
use crate::error::BenchError;
use crate::process::Process;
use crate::stage::{Stage, socket};
use crate::traffic::{Received, read};
use crate::tunnel::Tunnel;

const PORT: u16 = 5303;

/// Counts for `seconds`, from a little after the first packet.
pub(super) fn measure(stage: &Stage, tunnel: &Tunnel, seconds: u32) -> Result<Values, BenchError> {
    let (port, time) = (PORT.to_string(), seconds.to_string());
    let command = stage.tool(1, &["udp-sink", "--port", &port, "--seconds", &time])?;
    let mut sink = Process::start(command, stage.folder(), "udp-sink")?;
    stage.wait_for_port(&mut sink, "udp", PORT)?;
    // The source outlasts the sink, and ends with its value.
    let time = (seconds + 10).to_string();
    let to = socket(tunnel.far, PORT);
    let command = stage.tool(0, &["udp-source", "--to", &to, "--seconds", &time])?;
    let source = Process::start(command, stage.folder(), "udp-source")?;
    let text = sink.finish(Duration::from_secs(u64::from(seconds) + 10), &stage.stop)?;
    drop(source);
    let received: Received = read(&text)?;
    Ok(vec![(Figure::Packets, received.per_second() / 1e3)])
}
