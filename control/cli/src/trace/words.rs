//! A step of a link's life in words, for people and for programs.

use ipop_steer::{Step, TraceRecord, TracedEnd};
use serde::Serialize;

use crate::why::{chosen, failure, kind_name, plural};

/// A step for programs.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// When, UTC (RFC 3339).
    pub time: String,
    /// The same, Unix time in microseconds.
    pub unix_us: u64,
    /// The peer's name.
    pub peer: &'a str,
    /// The peer's fingerprint.
    pub fingerprint: String,
    /// The controller's number of the session.
    pub session: u64,
    /// What happened.
    pub step: String,
    /// Our end, and how it was learned.
    pub local: Option<String>,
    /// How our end was learned.
    pub local_kind: Option<&'static str>,
    /// The other end.
    pub remote: Option<String>,
    /// How it was learned.
    pub remote_kind: Option<&'static str>,
    /// Why.
    pub cause: Option<String>,
    /// What it counts depends on the step: microseconds, bytes, checks, lanes.
    pub number: u64,
    /// For people.
    pub detail: String,
}

impl<'a> Line<'a> {
    /// The record about the peer of this name.
    pub fn new(record: &TraceRecord, peer: &'a str) -> Self {
        let kind = |end: Option<TracedEnd>| end.and_then(|end| end.kind).map(kind_name);
        let address = |end: Option<TracedEnd>| end.map(|end| end.address.to_string());
        Self {
            time: rfc3339(record.at_us),
            unix_us: record.at_us,
            peer,
            fingerprint: record.peer.to_string(),
            session: record.session,
            step: spaced(&format!("{:?}", record.step), '_'),
            local: address(record.local),
            local_kind: kind(record.local),
            remote: address(record.remote),
            remote_kind: kind(record.remote),
            cause: record.cause.map(|cause| spaced(&format!("{cause:?}"), '_')),
            number: record.number,
            detail: detail(record),
        }
    }
}

/// What happened, in two words or so.
pub fn title(step: Step) -> String {
    spaced(&format!("{step:?}"), ' ')
}

/// The rest of what there is to say.
pub fn detail(record: &TraceRecord) -> String {
    let number = record.number;
    let is_set = number == 1;
    let ends = ends(record);
    match record.step {
        Step::Opened | Step::RoleChanged => {
            let who = if is_set { "this end" } else { "the peer" };
            format!("{who} nominates paths and begins handshakes")
        }
        Step::State | Step::Closed | Step::HandshakeFailed => record.text.clone(),
        Step::LeftOut => format!("{}, too many at a time", plural(number, "step")),
        Step::CheckSent | Step::NominationSent => format!("{ends}, check {number}"),
        Step::CheckAnswered => format!("{ends} after {}", milliseconds(number)),
        Step::SeenAs => format!("{}: a NAT maps anew for {ends}", record.text),
        Step::StrayAnswer => format!("{ends} was answered by {}", record.text),
        Step::CheckFailed => {
            let error = record.text.parse().unwrap_or(0);
            let why = record.cause.map_or_else(String::new, |cause| failure(cause, error));
            format!("{ends} after {}: {why}", plural(number, "check"))
        }
        Step::Punch => {
            let who = if is_set { "the peer's" } else { "this end's" };
            format!("at {who} word both ends try the failed pairs at once")
        }
        Step::Selected => {
            let by = if is_set { "; the peer chose it" } else { "" };
            format!("{ends}: {}{by}", record.cause.map_or("", chosen))
        }
        Step::Suspected => format!("{ends}: {}", record.cause.map_or("", chosen)),
        Step::HandshakeStarted => String::new(),
        Step::KeysInstalled => format!("{}, {}", record.text, plural(number, "lane")),
        Step::KeysConfirmed => format!("in both directions after {}", milliseconds(number)),
        Step::DatagramLen => format!("the path carries {number} bytes a datagram"),
        Step::LaneProven | Step::LaneLost => format!("lane {number} {ends}").trim().to_owned(),
        Step::LocalCandidate
        | Step::LocalGone
        | Step::RemoteCandidate
        | Step::RemoteUseless
        | Step::PairFormed
        | Step::PeerHeard
        | Step::PeerNominates
        | Step::Silent
        | Step::Recovered => ends,
    }
}

fn ends(record: &TraceRecord) -> String {
    let ends = [record.local, record.remote].into_iter().flatten().map(|end| match end.kind {
        Some(kind) => format!("{} {}", kind_name(kind), end.address),
        None => end.address.to_string(),
    });
    ends.collect::<Vec<_>>().join(" to ")
}

fn milliseconds(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1e3)
}

/// `CheckSent` becomes `check sent`.
fn spaced(name: &str, gap: char) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(gap);
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

/// UTC to the microsecond (RFC 3339).
pub fn rfc3339(unix_us: u64) -> String {
    let (seconds, micros) = (unix_us / 1_000_000, unix_us % 1_000_000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// The date so many days after 1970-01-01, in the Gregorian calendar: years begin in March here,
/// so that the leap day is the last one.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use ipop_steer::{CandidateKind, Cause, Fingerprint};

    use super::*;

    fn record(step: Step) -> TraceRecord {
        let end = |port| {
            let address = ([192, 0, 2, 1], port).into();
            Some(TracedEnd { kind: Some(CandidateKind::Host), address })
        };
        let blank = TraceRecord::new(1_764_400_000_000_001, Fingerprint([7; 32]), 3, step);
        let (cause, text) = (Some(Cause::Timeout), "x".to_owned());
        TraceRecord { local: end(1), remote: end(2), cause, text, ..blank }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(951_782_400_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(rfc3339(1_764_400_000_000_001), "2025-11-29T07:06:40.000001Z");
        assert_eq!(rfc3339(4_107_542_399_999_999), "2100-02-28T23:59:59.999999Z");
        assert_eq!(rfc3339(4_107_542_400_000_000), "2100-03-01T00:00:00.000000Z");
    }

    #[test]
    fn steps_are_told_in_words() {
        let failed = TraceRecord {
            cause: Some(Cause::StunError),
            number: 3,
            text: "400".into(),
            ..record(Step::CheckFailed)
        };
        let expected = "host 192.0.2.1:1 to host 192.0.2.1:2 after 3 checks: the peer answered \
                        with STUN error 400";
        assert_eq!(detail(&failed), expected);
        assert_eq!(title(failed.step), "check failed");
        let line = serde_json::to_value(Line::new(&failed, "bob")).unwrap();
        assert_eq!(line["step"], "check_failed");
        assert_eq!(line["cause"], "stun_error");
        assert_eq!(line["remote"], "192.0.2.1:2");
        assert_eq!((&line["peer"], &line["number"]), (&"bob".into(), &3.into()));
    }

    #[test]
    fn every_step_has_words() {
        for step in Step::ALL {
            assert!(!title(*step).is_empty());
            let shown = detail(&record(*step));
            assert_eq!(shown.trim(), shown, "{step:?}");
        }
    }
}
