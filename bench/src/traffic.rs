//! Small UDP packets: a source that floods, a sink that counts, a ping and its echo.
//!
//! They are subcommands, because each runs as a process of its own at one end; they are of use by
//! hand too. Results are one line of JSON.

mod echo;
mod ping;
mod sink;
mod source;

use std::net::SocketAddr;

use clap::Subcommand;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::BenchError;
use crate::stop::Stop;

pub(crate) use ping::RoundTrips;
pub(crate) use sink::Received;

/// Bytes of UDP payload in a packet.
const PAYLOAD_LEN: usize = 64;

/// A traffic tool.
#[derive(Debug, Subcommand)]
pub(crate) enum Tool {
    /// Flood an address with 64-byte UDP packets.
    #[command(name = "udp-source")]
    Source {
        /// Where to.
        #[arg(long, value_name = "ADDR")]
        to: SocketAddr,
        /// For how long.
        #[arg(long, value_name = "S", default_value_t = 5)]
        seconds: u32,
    },
    /// Count UDP packets that arrive, from a little after the first one on.
    #[command(name = "udp-sink")]
    Sink {
        /// On which port.
        #[arg(long, value_name = "PORT")]
        port: u16,
        /// For how long.
        #[arg(long, value_name = "S", default_value_t = 5)]
        seconds: u32,
    },
    /// Send every UDP packet back until stopped.
    #[command(name = "udp-echo")]
    Echo {
        /// On which port.
        #[arg(long, value_name = "PORT")]
        port: u16,
    },
    /// Measure the round trip to an echo.
    #[command(name = "udp-ping")]
    Ping {
        /// Where to.
        #[arg(long, value_name = "ADDR")]
        to: SocketAddr,
        /// For how long.
        #[arg(long, value_name = "S", default_value_t = 5)]
        seconds: u32,
        /// Pause before each ping, microseconds.
        #[arg(long, value_name = "US", default_value_t = 0)]
        pause_us: u64,
    },
}

/// Runs a tool to its end.
pub(crate) fn run(tool: &Tool, stop: &Stop) -> Result<(), BenchError> {
    match *tool {
        Tool::Source { to, seconds } => print(&source::run(to, seconds, stop)?),
        Tool::Sink { port, seconds } => print(&sink::run(port, seconds, stop)?),
        Tool::Echo { port } => echo::run(port, stop),
        Tool::Ping { to, seconds, pause_us } => print(&ping::run(to, seconds, pause_us, stop)?),
    }
}

fn print(result: &impl Serialize) -> Result<(), BenchError> {
    let text = serde_json::to_string(result).map_err(std::io::Error::from)?;
    println!("{text}");
    Ok(())
}

/// Reads what a tool printed.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, BenchError> {
    serde_json::from_str(text).map_err(|error| BenchError::new(format!("traffic tool: {error}")))
}
