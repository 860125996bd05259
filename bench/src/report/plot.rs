//! One figure as bars: an SVG that stands in the page itself.

use std::fmt::Write as _;

use super::html::escape;
use crate::figures::Figure;
use crate::record::Record;
use crate::statistics::{Summary, short};

const WIDTH: f64 = 760.0;
const ROW: f64 = 26.0;
const LABEL: f64 = 130.0;
/// Room for the number behind a bar.
const NUMBER: f64 = 170.0;
/// From this ratio between the longest and the shortest bar on, the scale is logarithmic.
const LOGARITHMIC_FROM: f64 = 50.0;

struct Row<'a> {
    name: &'a str,
    class: &'static str,
    summary: Summary,
    values: &'a [f64],
    reference: bool,
}

/// Bars of medians with their ranges and single values; nothing when nobody has a value.
pub(super) fn plot(record: &Record, underlay: &str, figure: Figure) -> Option<String> {
    let rows = rows(record, underlay, figure);
    let scale = Scale::of(&rows)?;
    let height = ROW * rows.len() as f64 + 8.0;
    let better = if figure.more_is_better() { "more is better" } else { "less is better" };
    let kind = if scale.is_logarithmic { ", logarithmic scale" } else { "" };
    let mut text = format!(
        "<figure><figcaption>{} <span>{}, {better}{kind}</span></figcaption>\n\
         <svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n",
        figure.title(),
        figure.unit(),
        figure.title()
    );
    for (at, row) in rows.iter().enumerate() {
        draw(&mut text, row, &scale, 4.0 + ROW * at as f64);
    }
    text.push_str("</svg></figure>\n");
    Some(text)
}

fn rows<'a>(record: &'a Record, underlay: &str, figure: Figure) -> Vec<Row<'a>> {
    let of = |about: &'a crate::record::About| {
        let values = record.values(underlay, &about.name, figure);
        let class = match (about.reference, about.name.starts_with("ipop")) {
            (true, _) => "reference",
            (_, true) => "ours",
            _ => "rival",
        };
        let summary = Summary::of(values)?;
        Some(Row { name: &about.name, class, summary, values, reference: about.reference })
    };
    record.systems.iter().filter_map(of).collect()
}

fn draw(text: &mut String, row: &Row<'_>, scale: &Scale, top: f64) {
    let middle = top + ROW / 2.0;
    let (median, low, high) =
        (scale.x(row.summary.median), scale.x(row.summary.low), scale.x(row.summary.high));
    let _ = writeln!(
        text,
        "<text class=\"name\" x=\"{:.0}\" y=\"{:.1}\">{}</text>\
         <rect class=\"{}\" x=\"{LABEL}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.0}\"/>",
        LABEL - 8.0,
        middle + 4.0,
        escape(row.name),
        row.class,
        top + 4.0,
        (median - LABEL).max(1.0),
        ROW - 8.0
    );
    let _ = writeln!(
        text,
        "<line x1=\"{low:.1}\" y1=\"{middle:.1}\" x2=\"{high:.1}\" y2=\"{middle:.1}\"/>"
    );
    for value in row.values {
        let x = scale.x(*value);
        let _ = write!(text, "<circle cx=\"{x:.1}\" cy=\"{middle:.1}\" r=\"2\"/>");
    }
    // A reference may be beyond the scale, which is made for those that are compared.
    let beyond = if row.summary.high > scale.high { "→ " } else { "" };
    let range = if row.values.len() > 1 {
        format!(" ({}–{})", short(row.summary.low), short(row.summary.high))
    } else {
        String::new()
    };
    let _ = writeln!(
        text,
        "<text class=\"number\" x=\"{:.1}\" y=\"{:.1}\">{beyond}{}{range}</text>",
        high.max(median) + 8.0,
        middle + 4.0,
        short(row.summary.median)
    );
}

struct Scale {
    low: f64,
    high: f64,
    is_logarithmic: bool,
}

impl Scale {
    /// Made for the systems that are compared; for references only where there is nothing else.
    fn of(rows: &[Row<'_>]) -> Option<Self> {
        let compared = rows.iter().any(|row| !row.reference);
        let rows = rows.iter().filter(|row| !(compared && row.reference));
        let summaries: Vec<_> = rows.map(|row| row.summary).collect();
        let high = summaries.iter().map(|summary| summary.high).reduce(f64::max)?;
        let low = summaries.iter().map(|summary| summary.low).reduce(f64::min)?;
        let is_logarithmic = low > 0.0 && high / low > LOGARITHMIC_FROM;
        let low = if is_logarithmic { low / 2.0 } else { 0.0 };
        Some(Self { low, high: if high > 0.0 { high } else { 1.0 }, is_logarithmic })
    }

    /// Where a value is drawn; what is beyond the scale is at its end.
    fn x(&self, value: f64) -> f64 {
        let share = if self.is_logarithmic {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            value / self.high
        };
        LABEL + share.clamp(0.0, 1.0) * (WIDTH - LABEL - NUMBER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::example;

    #[test]
    fn bars_are_scaled_to_those_that_are_compared() {
        let record = example();
        let rows = rows(&record, "default", Figure::Tcp1);
        let scale = Scale::of(&rows).unwrap();
        assert_eq!(scale.high, 21.0);
        assert!(!scale.is_logarithmic);
        assert_eq!(scale.x(0.0), LABEL);
        assert_eq!(scale.x(100.0), WIDTH - NUMBER);
        assert!(scale.x(10.5) > LABEL && scale.x(10.5) < scale.x(21.0));
    }

    #[test]
    fn values_far_apart_get_a_logarithmic_scale() {
        let record = example();
        let scale = Scale::of(&rows(&record, "default", Figure::LoadP99)).unwrap();
        assert!(scale.is_logarithmic);
        assert!(scale.x(180.0) > LABEL);
        assert_eq!(scale.x(21_000.0), WIDTH - NUMBER);
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(plot(&example(), "default", Figure::Idle), None);
        let text = plot(&example(), "default", Figure::Tcp1).unwrap();
        assert!(text.contains("→ 100"), "{text}");
        assert!(text.contains("&lt;rival&gt;"), "{text}");
    }
}
