//! What came of the traffic, added up over transfers, rounds and runs.

use std::fs::File;
use std::io::Write;
use std::ops::AddAssign;
use std::path::Path;

use serde_json::{Map, Value};

macro_rules! sums {
    ($($name:ident $help:literal,)+) => {
        /// Counts of what was sent, what came, and what was wrong with it.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Sums {
            $(#[doc = $help] pub $name: u64,)+
        }

        impl AddAssign for Sums {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)+
            }
        }

        impl Sums {
            /// Name and value of each.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }

            fn parse(line: &Value) -> Self {
                Self { $($name: line[stringify!($name)].as_u64().unwrap_or(0),)+ }
            }
        }
    };
}

sums! {
    streams "TCP connections from SYN to FIN.",
    stream_bytes "Bytes that arrived by TCP, each compared.",
    stream_bytes_wrong "Of those, bytes that were not the ones sent.",
    stream_bytes_missing "Bytes sent by TCP that never came.",
    datagrams_sent "UDP datagrams sent.",
    datagrams "UDP datagrams that arrived, each compared.",
    datagram_bytes "Their bytes.",
    datagrams_wrong "UDP datagrams that were not the ones sent.",
    datagrams_lost "UDP datagrams that did not come.",
    datagrams_doubled "UDP datagrams that came again.",
    datagrams_late "UDP datagrams that came after a later one.",
    cable_lost "Datagrams that the cable lost.",
    cable_doubled "Datagrams that the cable delivered twice.",
    cable_delayed "Datagrams that the cable held back behind others.",
    cable_damaged "Datagrams that the cable changed or cut.",
}

impl Sums {
    /// Bytes that arrived and were compared.
    pub fn bytes(&self) -> u64 {
        self.stream_bytes + self.datagram_bytes
    }

    /// Whether all that arrived was what was sent, once.
    pub fn is_right(&self) -> bool {
        let faults = [
            self.stream_bytes_wrong,
            self.stream_bytes_missing,
            self.datagrams_wrong,
            self.datagrams_doubled,
        ];
        faults == [0; 4]
    }

    /// Appends a line of JSON to a report, which is made if it is not there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&self, report: &Path, weather: &str, seconds: f64) -> std::io::Result<()> {
        let mut line = Map::new();
        line.insert("weather".to_owned(), weather.into());
        line.insert("seconds".to_owned(), ((seconds * 10.0).round() / 10.0).into());
        line.extend(self.named().into_iter().map(|(name, value)| (name.to_owned(), value.into())));
        let mut file = File::options().create(true).append(true).open(report)?;
        writeln!(file, "{}", Value::Object(line))
    }

    /// Adds up all lines of a report, and their seconds.
    ///
    /// # Errors
    /// When the file cannot be read or a line is not JSON.
    pub fn of_report(report: &Path) -> std::io::Result<(Self, f64)> {
        let (mut sums, mut seconds) = (Self::default(), 0.0);
        for line in std::fs::read_to_string(report)?.lines() {
            let line: Value = serde_json::from_str(line)?;
            sums += Self::parse(&line);
            seconds += line["seconds"].as_f64().unwrap_or(0.0);
        }
        Ok((sums, seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Scratch;

    #[test]
    fn a_report_adds_up() {
        let scratch = Scratch::new();
        let report = scratch.path("report");
        let one = Sums { streams: 1, stream_bytes: 1 << 40, ..Sums::default() };
        let other = Sums { datagrams: 3, datagram_bytes: 4, datagrams_wrong: 1, ..Sums::default() };
        one.append(&report, "clear", 1.5).unwrap();
        other.append(&report, "storm", 2.0).unwrap();
        let mut both = one;
        both += other;
        assert_eq!(Sums::of_report(&report).unwrap(), (both, 3.5));
        assert_eq!(both.bytes(), (1 << 40) + 4);
        assert!(one.is_right() && !both.is_right());
    }
}
