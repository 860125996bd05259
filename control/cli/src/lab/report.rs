//! The lab's results for people and for programs.

use std::fmt::Write as _;

use super::measure::Pair;

/// A table, a line for each pair.
pub(super) fn table(pairs: &[Pair]) -> String {
    let mut text = format!(
        "{:<24} {:<24} {:<8} {:>12} {:>9} {:>8}\n",
        "pair", "NAT", "path", "first ping s", "RTT ms", "Gbit/s"
    );
    for pair in pairs {
        let _ = writeln!(
            text,
            "{:<24} {:<24} {:<8} {:>12} {:>9} {:>8}",
            pair.names.join(" - "),
            pair.nats.join(" - "),
            pair.path.as_deref().unwrap_or("none"),
            number(pair.first_ping, 2),
            number(pair.rtt_ms, 3),
            number(pair.gbit_s, 2),
        );
    }
    text
}

/// The same as JSON.
pub(super) fn json(pairs: &[Pair]) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&serde_json::json!({ "pairs": pairs }))
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}
