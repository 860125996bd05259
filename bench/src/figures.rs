//! What is measured: one module for each measurement, and the figures that come out of them.

mod idle;
mod loss;
mod packets;
mod peers;
mod round_trip;
mod start;
mod tcp;
mod through_nats;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::cost;
use crate::error::BenchError;
use crate::stage::Stage;
use crate::tunnel::Tunnel;

pub(crate) use peers::{Crowd, UNDERLAY as PEERS};
pub(crate) use start::first_packet;
pub(crate) use through_nats::{UNDERLAY as NATS, start_through_nats};

/// Something that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Measurement {
    /// From the start of both nodes to the first packet that is answered.
    Start,
    /// One TCP stream, and the CPU that it costs.
    Tcp1,
    /// One TCP stream the other way.
    Tcp1Reverse,
    /// Four TCP streams.
    Tcp4,
    /// Four TCP streams the other way.
    Tcp4Reverse,
    /// Eight TCP streams, the CPU that they cost, and how our workers share them.
    Tcp8,
    /// 64-byte UDP packets that arrive under a flood.
    Packets,
    /// Round trip of 64-byte UDP packets on a quiet link.
    Rtt,
    /// The same while one TCP stream fills the link.
    RttLoad,
    /// Datagrams lost and overtaken at 80 % of the highest rate.
    Loss,
    /// Peak memory of the programs, after all of the above.
    Memory,
    /// CPU of a linked node that carries nothing; once, on the first underlay.
    Idle,
    /// Ours only: process start to first ping through two NATs with 15 ms of delay each.
    NatStart,
    /// Ours only: one TCP stream to each of 24 peers at once, beside one to one peer; and pings
    /// to one while another is flooded.
    Peers,
}

/// One number with a unit, as reports show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Figure {
    /// Gbit/s of one TCP stream.
    Tcp1,
    /// The same, the other way.
    Tcp1Reverse,
    /// Gbit/s of four TCP streams.
    Tcp4,
    /// The same, the other way.
    Tcp4Reverse,
    /// Gbit/s of eight TCP streams.
    Tcp8,
    /// Thousands of packets per second.
    Packets,
    /// Median round trip.
    RttP50,
    /// 99th percentile of the round trip.
    RttP99,
    /// Median round trip under load.
    LoadP50,
    /// 99th percentile of the round trip under load.
    LoadP99,
    /// Gbit/s of the largest UDP datagrams that arrive under a flood.
    StreamPeak,
    /// The rate at which losses were looked for, of that.
    StreamShare,
    /// Millions of datagrams sent at that rate.
    StreamSent,
    /// Those of a million that did not arrive.
    Lost,
    /// Those of a million that did, and did not fit the receiving program's own queue.
    LostByProgram,
    /// Those of a million that came after a later one.
    Reordered,
    /// CPU of the VPN's programs at both ends for one GiB of TCP payload.
    CpuVpn,
    /// CPU of the whole machine for the same.
    CpuMachine,
    /// CPU of the VPN's programs at both ends for one GiB in eight TCP streams.
    CpuVpn8,
    /// What the busiest of the sender's workers did of what all did, with eight TCP streams.
    BusiestWorker,
    /// Peak memory of the larger end.
    Memory,
    /// Time to the first packet.
    Start,
    /// CPU of an idle node.
    Idle,
    /// Time to the first ping through NATs.
    NatStart,
    /// Gbit/s of one TCP stream to one of many peers.
    PeersOne,
    /// Gbit/s of one TCP stream to each of them at once, in all.
    PeersAll,
    /// The latter of the former.
    PeersShare,
    /// CPU of all nodes for one GiB to one peer.
    CpuPeersOne,
    /// CPU of all nodes for one GiB to all peers.
    CpuPeersAll,
    /// Thousands of packets per second that arrive of a flood to one of many peers.
    FloodPackets,
    /// Pings to another peer that are lost meanwhile.
    FloodPingsLost,
    /// Median round trip of the others.
    FloodP50,
}

impl Figure {
    /// Heading of a column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Tcp1 => "TCP, 1 stream",
            Self::Tcp1Reverse => "1 stream, reverse",
            Self::Tcp4 => "TCP, 4 streams",
            Self::Tcp4Reverse => "4 streams, reverse",
            Self::Tcp8 => "TCP, 8 streams",
            Self::Packets => "64 B UDP received",
            Self::RttP50 => "RTT idle, p50",
            Self::RttP99 => "RTT idle, p99",
            Self::LoadP50 => "RTT loaded, p50",
            Self::LoadP99 => "RTT loaded, p99",
            Self::StreamPeak => "UDP, full size",
            Self::StreamShare => "rate for losses",
            Self::StreamSent => "datagrams sent",
            Self::Lost => "lost",
            Self::LostByProgram => "lost by the program",
            Self::Reordered => "reordered",
            Self::CpuVpn => "VPN CPU",
            Self::CpuMachine => "machine CPU",
            Self::CpuVpn8 => "VPN CPU, 8 streams",
            Self::BusiestWorker => "busiest worker, 8 streams",
            Self::Memory => "peak RSS",
            Self::Start => "start",
            Self::Idle => "idle CPU",
            Self::NatStart => "start through NATs",
            Self::PeersOne => "to one peer",
            Self::PeersAll => "to all peers",
            Self::PeersShare => "all against one",
            Self::CpuPeersOne => "VPN CPU, one peer",
            Self::CpuPeersAll => "VPN CPU, all peers",
            Self::FloodPackets => "flood to one peer",
            Self::FloodPingsLost => "pings lost to another",
            Self::FloodP50 => "RTT to another, p50",
        }
    }

    /// The unit.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Tcp1
            | Self::Tcp1Reverse
            | Self::Tcp4
            | Self::Tcp4Reverse
            | Self::Tcp8
            | Self::StreamPeak
            | Self::PeersOne
            | Self::PeersAll => "Gbit/s",
            Self::PeersShare | Self::FloodPingsLost => "%",
            Self::StreamShare => "% of peak",
            Self::StreamSent => "million",
            Self::Lost | Self::LostByProgram | Self::Reordered => "of a million",
            Self::BusiestWorker => "% of all",
            Self::Packets | Self::FloodPackets => "k/s",
            Self::RttP50 | Self::RttP99 | Self::LoadP50 | Self::LoadP99 | Self::FloodP50 => "µs",
            Self::CpuVpn
            | Self::CpuMachine
            | Self::CpuVpn8
            | Self::CpuPeersOne
            | Self::CpuPeersAll => "s/GiB",
            Self::Memory => "MiB",
            Self::Start | Self::NatStart => "s",
            Self::Idle => "% of a core",
        }
    }

    /// Whether more is better.
    pub(crate) fn more_is_better(self) -> bool {
        matches!(
            self,
            Self::Tcp1
                | Self::Tcp1Reverse
                | Self::Tcp4
                | Self::Tcp4Reverse
                | Self::Tcp8
                | Self::Packets
                | Self::FloodPackets
                | Self::StreamPeak
                | Self::StreamSent
                | Self::StreamShare
                | Self::PeersOne
                | Self::PeersAll
                | Self::PeersShare
        )
    }
}

/// Numbers of one run.
pub(crate) type Values = Vec<(Figure, f64)>;

/// Measures on a tunnel that is up.
pub(crate) fn measure(
    measurement: Measurement,
    stage: &Stage,
    tunnel: &Tunnel,
    seconds: u32,
) -> Result<Values, BenchError> {
    use tcp::Way::{Forth, Reverse};
    match measurement {
        // Known already, or not about one tunnel.
        Measurement::Start | Measurement::NatStart | Measurement::Peers => Ok(Vec::new()),
        Measurement::Tcp1 => tcp::one_with_cost(stage, tunnel, seconds),
        Measurement::Tcp1Reverse => tcp::rate(stage, tunnel, seconds, 1, Reverse)
            .map(|rate| vec![(Figure::Tcp1Reverse, rate)]),
        Measurement::Tcp4 => {
            tcp::rate(stage, tunnel, seconds, 4, Forth).map(|rate| vec![(Figure::Tcp4, rate)])
        }
        Measurement::Tcp4Reverse => tcp::rate(stage, tunnel, seconds, 4, Reverse)
            .map(|rate| vec![(Figure::Tcp4Reverse, rate)]),
        Measurement::Tcp8 => tcp::eight(stage, tunnel, seconds),
        Measurement::Packets => packets::measure(stage, tunnel, seconds),
        Measurement::Rtt => round_trip::idle(stage, tunnel, seconds),
        Measurement::RttLoad => round_trip::loaded(stage, tunnel, seconds),
        Measurement::Loss => loss::measure(stage, tunnel, seconds),
        Measurement::Memory => memory(tunnel),
        Measurement::Idle => idle::measure(stage, tunnel),
    }
}

/// The larger end's peak; nothing for what the kernel does itself.
fn memory(tunnel: &Tunnel) -> Result<Values, BenchError> {
    let mut peak = 0.0f64;
    for end in [0, 1] {
        let pids = tunnel.pids(end);
        if pids.is_empty() {
            return Ok(Vec::new());
        }
        peak = peak.max(cost::peak_mib(&pids)?);
    }
    Ok(vec![(Figure::Memory, peak)])
}
