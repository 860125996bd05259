//! What a flood of small packets to one peer, which nothing slows down, costs another.

use std::time::Duration;

use super::{Crowd, overlay};
use crate::error::BenchError;
use crate::figures::{Figure, Values};
use crate::process::Process;
use crate::stage::wait_for_port;
use crate::traffic::{Received, RoundTrips, read};

const SINK_PORT: u16 = 5306;
const ECHO_PORT: u16 = 5307;
/// The peers.
const FLOODED: usize = 1;
const PINGED: usize = 2;
/// Until queues are as full as they get.
const RAMP: Duration = Duration::from_secs(1);
/// Pause between two pings.
const PAUSE_US: &str = "2000";

impl Crowd {
    /// Floods one peer, and pings another meanwhile.
    pub(super) fn flood(&self, seconds: u32) -> Result<Values, BenchError> {
        let (time, longer) = (seconds.to_string(), (seconds + 30).to_string());
        let (port, until_end) = (SINK_PORT.to_string(), (seconds + 1).to_string());
        let sink = ["udp-sink", "--port", &port, "--seconds", &until_end];
        let sink = self.listen(FLOODED, &sink, SINK_PORT)?;
        let port = ECHO_PORT.to_string();
        let _echo = self.listen(PINGED, &["udp-echo", "--port", &port], ECHO_PORT)?;

        let to = format!("{}:{SINK_PORT}", overlay(FLOODED));
        let source = ["udp-source", "--to", &to, "--seconds", &longer];
        let _source = self.tool(0, &source)?;
        self.stop.sleep(RAMP)?;
        let to = format!("{}:{ECHO_PORT}", overlay(PINGED));
        let ping = ["udp-ping", "--to", &to, "--seconds", &time, "--pause-us", PAUSE_US];
        let patience = Duration::from_secs(u64::from(seconds) + 15);
        let trips: RoundTrips = read(&self.tool(0, &ping)?.finish(patience, &self.stop)?)?;
        let received: Received = read(&sink.finish(patience, &self.stop)?)?;
        Ok(vec![
            (Figure::FloodPackets, received.per_second() / 1e3),
            (Figure::FloodPingsLost, 100.0 * trips.lost as f64 / trips.sent as f64),
            (Figure::FloodP50, trips.p50_us),
        ])
    }

    fn listen(&self, peer: usize, words: &[&str], port: u16) -> Result<Process, BenchError> {
        let mut process = self.tool(peer, words)?;
        wait_for_port(&self.stop, &mut process, "udp", port)?;
        Ok(process)
    }

    /// One of this program's own traffic tools at a node.
    fn tool(&self, node: usize, words: &[&str]) -> Result<Process, BenchError> {
        let mut command = self.sites[node].node.command(std::env::current_exe()?);
        command.args(words);
        Process::start(command, self.folder.path(), &format!("{}-{node}", words[0]))
    }
}
