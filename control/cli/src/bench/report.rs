//! The figures of a measurement, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The peer's name.
    pub peer: String,
    /// The path of the link, in words.
    pub path: String,
    /// Seconds of each figure.
    pub seconds: f64,
    /// Through the link.
    pub overlay: Figures,
    /// Beside it, as far as the peer can be reached there.
    pub underlay: Figures,
    /// Why figures of the overlay are missing, if some are.
    pub overlay_missing: Option<String>,
    /// Why figures of the underlay are missing, if some are.
    pub underlay_missing: Option<String>,
}

/// The figures of one way; those that could not be measured are missing.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// One TCP stream to the peer, Gbit/s.
    pub tcp_1_to_gbit_s: Option<f64>,
    /// One TCP stream from the peer, Gbit/s.
    pub tcp_1_from_gbit_s: Option<f64>,
    /// Four TCP streams to the peer, Gbit/s.
    pub tcp_4_to_gbit_s: Option<f64>,
    /// Four TCP streams from the peer, Gbit/s.
    pub tcp_4_from_gbit_s: Option<f64>,
    /// 64-byte UDP packets that arrived at the peer, per second.
    pub packets_to_per_s: Option<f64>,
    /// 64-byte UDP packets that arrived from the peer, per second.
    pub packets_from_per_s: Option<f64>,
    /// Round trips with nothing else under way.
    pub round_trip_idle: Option<RoundTrip>,
    /// Round trips beside one TCP stream to the peer.
    pub round_trip_loaded: Option<RoundTrip>,
    /// CPU of the datapath here in the TCP figures, user and system time for one GiB.
    pub cpu_here_s_per_gib: Option<f64>,
    /// The same of the peer's datapath.
    pub cpu_peer_s_per_gib: Option<f64>,
}

/// Round trips, microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RoundTrip {
    /// Half of them were faster.
    pub p50_us: f64,
    /// 99 of 100 were faster.
    pub p99_us: f64,
}

impl RoundTrip {
    /// Of single round trips; none of no round trip.
    pub fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let at = |percent: usize| {
            let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            times.get(index).map(|time| time.as_secs_f64() * 1e6)
        };
        Some(Self { p50_us: at(50)?, p99_us: at(99)? })
    }
}

/// The figures as a table.
pub fn table(report: &Report) -> String {
    let Report { peer, path, overlay, underlay, .. } = report;
    let mut text = format!("{peer}, {path}\n{:<44} {:>11} {:>11}\n", "", "overlay", "underlay");
    let mut line = |name: &str, digits: usize, figure: fn(&Figures) -> Option<f64>| {
        let [above, below] = [overlay, underlay].map(|figures| number(figure(figures), digits));
        let _ = writeln!(text, "{name:<44} {above:>11} {below:>11}");
    };
    line("one TCP stream to the peer, Gbit/s", 2, |f| f.tcp_1_to_gbit_s);
    line("one TCP stream from the peer, Gbit/s", 2, |f| f.tcp_1_from_gbit_s);
    line("four TCP streams to the peer, Gbit/s", 2, |f| f.tcp_4_to_gbit_s);
    line("four TCP streams from the peer, Gbit/s", 2, |f| f.tcp_4_from_gbit_s);
    line("64-byte UDP packets to the peer, 1000/s", 1, |f| f.packets_to_per_s.map(|n| n / 1e3));
    line("64-byte UDP packets from the peer, 1000/s", 1, |f| f.packets_from_per_s.map(|n| n / 1e3));
    line("round trip, median, µs", 0, |f| f.round_trip_idle.map(|r| r.p50_us));
    line("round trip, 99 of 100, µs", 0, |f| f.round_trip_idle.map(|r| r.p99_us));
    line("round trip under load, median, µs", 0, |f| f.round_trip_loaded.map(|r| r.p50_us));
    line("round trip under load, 99 of 100, µs", 0, |f| f.round_trip_loaded.map(|r| r.p99_us));
    line("CPU of the datapath here, TCP, s/GiB", 2, |f| f.cpu_here_s_per_gib);
    line("CPU of the peer's datapath, TCP, s/GiB", 2, |f| f.cpu_peer_s_per_gib);
    for (way, why) in [("overlay", &report.overlay_missing), ("underlay", &report.underlay_missing)]
    {
        if let Some(why) = why {
            let _ = writeln!(text, "{way}: {why}");
        }
    }
    text
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_times_there_are() {
        assert_eq!(RoundTrip::of(Vec::new()), None);
        let times = |count: u64| (1..=count).rev().map(Duration::from_micros).collect();
        assert_eq!(RoundTrip::of(times(1)), Some(RoundTrip { p50_us: 1.0, p99_us: 1.0 }));
        assert_eq!(RoundTrip::of(times(200)), Some(RoundTrip { p50_us: 101.0, p99_us: 199.0 }));
    }

    #[test]
    fn what_is_missing_is_a_dash_with_its_reason() {
        let overlay = Figures { tcp_1_to_gbit_s: Some(1.234), ..Figures::default() };
        let report = Report {
            peer: "node2".to_owned(),
            path: "relayed".to_owned(),
            seconds: 2.0,
            overlay,
            underlay: Figures::default(),
            overlay_missing: None,
            underlay_missing: Some("the path is relayed".to_owned()),
        };
        let text = table(&report);
        let line = text.lines().find(|line| line.starts_with("one TCP stream to")).unwrap();
        assert!(line.contains("1.23") && line.ends_with('-'), "{text}");
        assert!(text.ends_with("underlay: the path is relayed\n"), "{text}");
    }
}
