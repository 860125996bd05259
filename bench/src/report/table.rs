//! Tables for people, in Markdown that is aligned for terminals.

use std::fmt::Write as _;

use super::{GROUPS, shown};
use crate::figures::Figure;
use crate::record::Record;
use crate::statistics::short;

/// Everything: the machine, all tables, the versions, what did not work.
pub(crate) fn table(record: &Record) -> String {
    let mut text = format!("{}.\n", record.machine.text());
    let _ = writeln!(text, "Median (lowest to highest); {} s each.", record.seconds);
    for underlay in record.underlays() {
        for (title, figures) in GROUPS {
            let figures = shown(record, underlay, figures);
            if !figures.is_empty() {
                let _ = write!(text, "\n### {title}, underlay: {underlay}\n\n");
                text.push_str(&aligned(&values(record, underlay, &figures)));
            }
        }
    }
    text.push_str("\n### Versions\n\n");
    text.push_str(&aligned(&versions(record)));
    if !record.failures.is_empty() {
        text.push_str("\n### Failed or not measured\n\n");
        text.push_str(&aligned(&failures(record)));
    }
    text
}

fn values(record: &Record, underlay: &str, figures: &[&Figure]) -> Vec<Vec<String>> {
    let mut head = vec!["system".to_owned()];
    head.extend(figures.iter().map(|figure| format!("{} ({})", figure.title(), figure.unit())));
    let mut rows = vec![head];
    for system in &record.systems {
        let cell = |figure: &&Figure| cell(record, underlay, &system.name, **figure);
        let cells: Vec<_> = figures.iter().map(cell).collect();
        if cells.iter().any(|cell| cell != NOTHING) {
            let mut row = vec![system.name.clone()];
            row.extend(cells);
            rows.push(row);
        }
    }
    rows
}

const NOTHING: &str = "–";

/// Median and range of one figure.
pub(super) fn cell(record: &Record, underlay: &str, system: &str, figure: Figure) -> String {
    let Some(summary) = record.summary(underlay, system, figure) else {
        return NOTHING.to_owned();
    };
    let (low, median, high) = (short(summary.low), short(summary.median), short(summary.high));
    if record.values(underlay, system, figure).len() == 1 {
        return median;
    }
    format!("{median} ({low}–{high})")
}

fn versions(record: &Record) -> Vec<Vec<String>> {
    let mut rows = vec![["system", "encrypted", "version"].map(str::to_owned).to_vec()];
    for system in &record.systems {
        let encrypted = if system.plain { "no" } else { "yes" };
        rows.push(vec![system.name.clone(), encrypted.to_owned(), system.version.clone()]);
    }
    rows
}

fn failures(record: &Record) -> Vec<Vec<String>> {
    let head = ["system", "underlay", "what", "times", "why"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for failure in &record.failures {
        rows.push(vec![
            failure.system.clone(),
            failure.underlay.clone().unwrap_or_else(|| "all".to_owned()),
            failure.what.clone(),
            failure.times.to_string(),
            failure.reason.replace(['|', '\n'], " "),
        ]);
    }
    rows
}

/// A Markdown table; the first row is its head.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |text: &str| text.chars().count();
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().map(|row| width(&row[column])).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for (at, row) in rows.iter().enumerate() {
        for (cell, wide) in row.iter().zip(&widths) {
            let _ = write!(text, "| {cell}{:1$} ", "", wide - width(cell));
        }
        text.push_str("|\n");
        if at == 0 {
            widths.iter().for_each(|wide| text.push_str(&format!("| {} ", "-".repeat(*wide))));
            text.push_str("|\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::example;

    #[test]
    fn medians_ranges_and_failures_are_shown() {
        let text = table(&example());
        assert!(text.contains("### Throughput, underlay: default"), "{text}");
        assert!(text.contains("20.0 (18.0–21.0)"), "{text}");
        assert!(text.contains("no packet was answered"), "{text}");
        assert!(!text.contains("### Start"), "{text}");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "µs".to_owned()], vec!["bcd".to_owned(), "e".to_owned()]];
        assert_eq!(aligned(&rows), "| a   | µs |\n| --- | -- |\n| bcd | e  |\n");
    }
}
