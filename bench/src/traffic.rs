//! UDP traffic: a source that floods with small packets and a sink that counts them, a ping and its
//! echo, a stream of large numbered datagrams and a count of what came of it.
//!
//! They are subcommands, because each runs as a process of its own at one end; they are of use by
//! hand too. Results are one line of JSON.

mod count;
mod echo;
mod ping;
mod sink;
mod source;
mod stream;

use std::net::SocketAddr;

use clap::Subcommand;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::BenchError;
use crate::stop::Stop;

pub(crate) use count::Counted;
pub(crate) use ping::RoundTrips;
pub(crate) use sink::Received;
pub(crate) use stream::Streamed;

/// Bytes of UDP payload in a small packet.
const PAYLOAD_LEN: usize = 64;
/// Bytes of the largest payload.
const PACKET_MAX: usize = 1 << 16;
/// Bytes of the number that a numbered datagram begins with, in network order.
const NUMBER_LEN: usize = 8;
/// The number of a datagram that ends a stream.
const THE_END: u64 = u64::MAX;

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
    /// Stream numbered datagrams as large as the path takes.
    #[command(name = "udp-stream")]
    Stream {
        /// Where to.
        #[arg(long, value_name = "ADDR")]
        to: SocketAddr,
        /// Datagrams per second; without it, as fast as they go.
        #[arg(long, value_name = "N")]
        rate: Option<f64>,
        /// Most datagrams.
        #[arg(long, value_name = "N", default_value_t = u64::MAX)]
        datagrams: u64,
        /// For how long, at most.
        #[arg(long, value_name = "S", default_value_t = 5)]
        seconds: u32,
    },
    /// Count what comes of a stream until it ends: what was overtaken, and what came too fast for
    /// this program.
    #[command(name = "udp-count")]
    Count {
        /// On which port.
        #[arg(long, value_name = "PORT")]
        port: u16,
    },
}

/// Runs a tool to its end.
pub(crate) fn run(tool: &Tool, stop: &Stop) -> Result<(), BenchError> {
    match *tool {
        Tool::Source { to, seconds } => print(&source::run(to, seconds, stop)?),
        Tool::Sink { port, seconds } => print(&sink::run(port, seconds, stop)?),
        Tool::Echo { port } => echo::run(port, stop),
        Tool::Ping { to, seconds, pause_us } => print(&ping::run(to, seconds, pause_us, stop)?),
        Tool::Stream { to, rate, datagrams, seconds } => {
            let plan = stream::Plan { rate, datagrams, seconds };
            print(&stream::run(to, plan, stop)?)
        }
        Tool::Count { port } => print(&count::run(port, stop)?),
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
