//! What came of all runs: a table, a picture, and sums.

use std::fmt::Write as _;
use std::time::Duration;

use ipop_lab::Nat;

use super::{Hope, Outcome, SOON, hope};

/// Of pairs that many probes have to meet, so many of a hundred have to be direct soon.
const LIKELY_PERCENT: usize = 90;

/// The outcomes of all runs.
#[derive(Clone, Debug)]
pub struct Report {
    kinds: Vec<Nat>,
    runs: Vec<Vec<Outcome>>,
}

/// What all runs say of one pair.
struct Cell {
    kind: &'static str,
    words: String,
}

impl Report {
    /// Of no run so far.
    pub fn new(kinds: &[Nat]) -> Self {
        Self { kinds: kinds.to_vec(), runs: Vec::new() }
    }

    /// Adds a run.
    pub fn add(&mut self, outcomes: Vec<Outcome>) {
        self.runs.push(outcomes);
    }

    /// All outcomes of all runs.
    pub fn outcomes(&self) -> impl Iterator<Item = &Outcome> + Clone {
        self.runs.iter().flatten()
    }

    /// Whether every pair reached what it has to, and those that take luck did often enough.
    pub fn is_well(&self) -> bool {
        let likely = self.outcomes().filter(|outcome| hope(outcome.nats) == Hope::Likely);
        let soon = likely.clone().filter(|outcome| outcome.is_soon_direct()).count();
        self.outcomes().all(|outcome| outcome.shortfall().is_none())
            && soon * 100 >= likely.count() * LIKELY_PERCENT
    }

    /// The sums of the last run.
    pub fn last(&self) -> String {
        summary(self.runs.iter().last().into_iter().flatten())
    }

    /// The sums of all runs.
    pub fn summary(&self) -> String {
        let failed = self.runs.iter().filter(|run| run.iter().any(|o| o.shortfall().is_some()));
        format!(
            "{} runs, {} with a failure\n{}",
            self.runs.len(),
            failed.count(),
            summary(self.outcomes())
        )
    }

    fn cell(&self, nats: [Nat; 2]) -> Option<Cell> {
        let outcomes: Vec<_> = self.outcomes().filter(|outcome| outcome.nats == nats).collect();
        let failed = outcomes.iter().filter(|outcome| outcome.shortfall().is_some()).count();
        let linked = spread(outcomes.iter().map(|outcome| outcome.linked));
        let directs = outcomes.iter().filter(|outcome| outcome.direct.is_some()).count();
        let direct = spread(outcomes.iter().map(|outcome| outcome.direct));
        let is_direct = directs * 2 > outcomes.len();
        let (kind, mut words) = match (linked, direct) {
            _ if outcomes.is_empty() => return None,
            (None, _) => ("none", "-".to_owned()),
            (Some([linked, _]), Some([direct, _])) if is_direct => {
                let kind = if direct < SOON { "direct" } else { "late" };
                (kind, format!("{} / {}", seconds(linked), seconds(direct)))
            }
            (Some([linked, _]), _) => ("relayed", format!("{} / relay", seconds(linked))),
        };
        if failed > 0 {
            let _ = write!(words, ", {failed} failed");
        }
        Some(Cell { kind: if failed > 0 { "failed" } else { kind }, words })
    }

    /// The matrix in Markdown: rows started first. In a cell: seconds to a link, and to a direct
    /// path, each the median of all runs; and how many runs fell short there, if any did.
    pub fn table(&self) -> String {
        let mut text = String::from("| first \\ second |");
        for nat in &self.kinds {
            let _ = write!(text, " {nat} |");
        }
        text.push_str("\n|---|");
        self.kinds.iter().for_each(|_| text.push_str("---|"));
        for row in &self.kinds {
            let _ = write!(text, "\n| {row} |");
            for column in &self.kinds {
                let words = self.cell([*row, *column]).map(|cell| cell.words);
                let _ = write!(text, " {} |", words.unwrap_or_default());
            }
        }
        text.push('\n');
        text
    }

    /// The matrix as a picture.
    pub fn svg(&self) -> String {
        const CELL: [usize; 2] = [84, 28];
        const HEAD: usize = 96;
        let colour = |kind: &str| match kind {
            "direct" => "#7fc97f",
            "late" => "#d9ef8b",
            "relayed" => "#fdc086",
            "failed" => "#ef6548",
            _ => "#d0d0d0",
        };
        let [width, height] = CELL.map(|side| HEAD + side * self.kinds.len() + 8);
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" \
             fill=\"white\"/>\n<text x=\"4\" y=\"16\">seconds to a link / to a direct path, median \
             of {} runs</text>\n",
            self.runs.len()
        );
        for (index, nat) in self.kinds.iter().enumerate() {
            let (x, y) = (HEAD + CELL[0] * index + 4, HEAD + CELL[1] * index + 18);
            let _ = writeln!(text, "<text x=\"{x}\" y=\"{}\">{nat}</text>", HEAD - 6);
            let _ = writeln!(text, "<text x=\"4\" y=\"{y}\">{nat}</text>");
        }
        for (row, a) in self.kinds.iter().enumerate() {
            for (column, b) in self.kinds.iter().enumerate() {
                let Some(Cell { kind, words }) = self.cell([*a, *b]) else { continue };
                let (x, y) = (HEAD + CELL[0] * column, HEAD + CELL[1] * row);
                let (w, h) = (CELL[0] - 2, CELL[1] - 2);
                let fill = colour(kind);
                let _ = writeln!(
                    text,
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" fill=\"{fill}\"/>\
                     <text x=\"{}\" y=\"{}\">{words}</text>",
                    x + 6,
                    y + 18
                );
            }
        }
        text.push_str("</svg>\n");
        text
    }
}

/// How many were linked, and direct, of those that can be; and how long it took.
fn summary<'a>(outcomes: impl Iterator<Item = &'a Outcome> + Clone) -> String {
    let of = |wanted: Hope| outcomes.clone().filter(move |outcome| hope(outcome.nats) == wanted);
    let soon = |wanted: Hope| of(wanted).filter(|outcome| outcome.is_soon_direct()).count();
    let linked = outcomes.clone().filter(|outcome| outcome.linked.is_some()).count();
    let streams = |outcome: &&Outcome| outcome.needs_stream();
    let datagrams = |outcome: &&Outcome| !outcome.needs_stream();
    let mut text = format!("{linked} of {} linked", outcomes.clone().count());
    let _ = write!(
        text,
        "\n{} of {} direct within 10 s that can be; {} of {} met by probes, {} later",
        soon(Hope::Direct),
        of(Hope::Direct).count(),
        soon(Hope::Likely),
        of(Hope::Likely).count(),
        of(Hope::Likely).filter(|o| o.direct.is_some() && !o.is_soon_direct()).count(),
    );
    let rows = [
        ("to the first ping", times(outcomes.clone().filter(datagrams).map(|o| o.pinged))),
        ("to a link", times(outcomes.clone().filter(datagrams).map(|o| o.linked))),
        ("the same without UDP", times(outcomes.clone().filter(streams).map(|o| o.linked))),
        ("to a direct path", times(of(Hope::Direct).map(|o| o.direct))),
        ("the same met by probes", times(of(Hope::Likely).map(|o| o.direct))),
        (
            "from candidates exchanged to connected",
            times(outcomes.clone().filter(datagrams).map(|o| o.connected)),
        ),
    ];
    for (what, times) in rows {
        if let Some(times) = times {
            let _ = write!(text, "\n{what}: {times}");
        }
    }
    text
}

fn times(times: impl Iterator<Item = Option<Duration>>) -> Option<String> {
    let [median, worst] = spread(times)?;
    Some(format!("{:.2} s (median), {:.2} s (worst)", median.as_secs_f64(), worst.as_secs_f64()))
}

/// The median and the worst of those that there are.
fn spread(times: impl Iterator<Item = Option<Duration>>) -> Option<[Duration; 2]> {
    let mut times: Vec<_> = times.flatten().collect();
    times.sort();
    Some([times.get(times.len() / 2).copied()?, times.last().copied()?])
}

fn seconds(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(nats: [Nat; 2], linked: Option<u64>, direct: Option<u64>) -> Outcome {
        let [linked, direct] = [linked, direct].map(|time| time.map(Duration::from_secs));
        Outcome { linked, direct, answers: true, ..Outcome::new(nats) }
    }

    #[test]
    fn a_cell_says_the_median_and_what_failed() {
        let kinds = [Nat::None, Nat::Symmetric];
        let mut report = Report::new(&kinds);
        for linked in [Some(1), Some(3), Some(2)] {
            report.add(vec![outcome([Nat::None; 2], linked, linked)]);
        }
        assert!(report.is_well());
        assert!(report.table().contains("| none | 2.0 / 2.0 |  |"), "{}", report.table());
        report.add(vec![
            outcome([Nat::None; 2], None, None),
            outcome([Nat::Symmetric; 2], Some(1), None),
        ]);
        assert!(!report.is_well());
        let table = report.table();
        assert!(table.contains("| none | 2.0 / 2.0, 1 failed |  |"), "{table}");
        assert!(table.contains("| symmetric |  | 1.0 / relay |"), "{table}");
        assert!(report.summary().starts_with("4 runs, 1 with a failure\n4 of 5 linked\n"));
        assert!(report.last().starts_with("1 of 2 linked\n0 of 1 direct"), "{}", report.last());
        assert_eq!(report.svg().matches("#ef6548").count(), 1);
    }

    #[test]
    fn what_takes_luck_has_to_have_it_nine_times_in_ten() {
        let nats = [Nat::PortRestricted, Nat::Symmetric];
        let mut report = Report::new(&nats);
        report.add((0..9).map(|_| outcome(nats, Some(1), Some(2))).collect());
        report.add(vec![outcome(nats, Some(1), None)]);
        assert!(report.is_well());
        report.add(vec![outcome(nats, Some(1), Some(20))]);
        assert!(!report.is_well());
    }
}
