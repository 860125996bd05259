//! Figures, their medians and ranges.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

/// One figure, measured several times.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub name: String,
    /// Its unit.
    pub unit: &'static str,
    /// All values, in the order of the runs.
    pub values: Vec<f64>,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str) -> Self {
        Self { name: name.into(), unit, values: Vec::new() }
    }

    fn sorted(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    /// The middle value; of an even number the lower middle one.
    fn median(&self) -> Option<f64> {
        let values = self.sorted();
        values.get(values.len().saturating_sub(1) / 2).copied()
    }
}

/// A table for people.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut text = format!("{:<52} {:>10} {:>22} {:>5}\n", "figure", "median", "range", "runs");
    for figure in figures {
        let values = figure.sorted();
        let (Some(median), Some(low), Some(high)) =
            (figure.median(), values.first(), values.last())
        else {
            continue;
        };
        let range = format!("{low:.2} to {high:.2}");
        let name = format!("{} ({})", figure.name, figure.unit);
        let _ = writeln!(text, "{name:<52} {median:>10.2} {range:>22} {:>5}", values.len());
    }
    text
}

/// The same for programs.
pub(crate) fn write_json(path: &Path, figures: &[Figure]) -> std::io::Result<()> {
    std::fs::write(path, serde_json::to_string_pretty(figures)?)
}
