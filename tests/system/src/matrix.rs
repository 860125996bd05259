//! The NAT matrix: how nodes behind any two kinds of NAT find to each other, as a table and a
//! picture.

use std::fmt::Write as _;
use std::time::Duration;

use ipop_lab::Nat;

/// How one ordered pair fared.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The kinds, in the order in which the nodes started.
    pub nats: [Nat; 2],
    /// From the start of both processes until both answer pings.
    pub linked: Option<Duration>,
    /// The same until both ends use a direct path, where that is so at last.
    pub direct: Option<Duration>,
}

/// What is to be hoped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hope {
    /// A direct path.
    Direct,
    /// A direct path, depending on whose packet comes first.
    Perhaps,
    /// A relay.
    Relayed,
    /// Nothing: there is no UDP.
    Nothing,
}

/// What is to be hoped for with these kinds.
pub fn hope(nats: [Nat; 2]) -> Hope {
    use Nat::{
        AddressDependent, AddressRestricted, Carrier, FullCone, None, Rejecting, Sequential,
    };
    let has = |kind: Nat| nats.contains(&kind);
    let draws = |nat: &Nat| matches!(nat, AddressDependent | Nat::Symmetric | Carrier);
    let is_unknown = |nat: &Nat| draws(nat) || *nat == Sequential;
    let is_open = |nat: &Nat| matches!(nat, None | FullCone | AddressRestricted);
    match () {
        () if has(Nat::UdpBlocked) => Hope::Nothing,
        () if nats.iter().any(is_open) => Hope::Direct,
        () if nats.iter().all(is_unknown) && nats.iter().any(draws) => Hope::Relayed,
        () if has(Rejecting) => Hope::Perhaps,
        () => Hope::Direct,
    }
}

/// A direct path within this time is as good as from the start.
const SOON: Duration = Duration::from_secs(10);

impl Outcome {
    fn cell(&self) -> (&'static str, String) {
        let seconds = |time: Duration| format!("{:.1}", time.as_secs_f64());
        match (self.linked, self.direct) {
            (Option::None, _) => ("none", "-".into()),
            (Some(linked), Some(direct)) if direct < SOON => {
                ("direct", format!("{} / {}", seconds(linked), seconds(direct)))
            }
            (Some(linked), Some(direct)) => {
                ("late", format!("{} / {}", seconds(linked), seconds(direct)))
            }
            (Some(linked), Option::None) => ("relayed", format!("{} / relay", seconds(linked))),
        }
    }
}

fn find(outcomes: &[Outcome], nats: [Nat; 2]) -> Option<&Outcome> {
    outcomes.iter().find(|outcome| outcome.nats == nats)
}

/// The matrix in Markdown: rows started first. In a cell: seconds to the first answer, and to a
/// direct path.
pub fn table(kinds: &[Nat], outcomes: &[Outcome]) -> String {
    let mut text = String::from("| first \\ second |");
    for nat in kinds {
        let _ = write!(text, " {nat} |");
    }
    text.push_str("\n|---|");
    kinds.iter().for_each(|_| text.push_str("---|"));
    for row in kinds {
        let _ = write!(text, "\n| {row} |");
        for column in kinds {
            let cell = find(outcomes, [*row, *column]).map(|outcome| outcome.cell().1);
            let _ = write!(text, " {} |", cell.unwrap_or_default());
        }
    }
    text.push('\n');
    text
}

/// The matrix as a picture.
pub fn svg(kinds: &[Nat], outcomes: &[Outcome]) -> String {
    const CELL: [usize; 2] = [84, 28];
    const HEAD: usize = 96;
    let colour = |kind: &str| match kind {
        "direct" => "#7fc97f",
        "late" => "#d9ef8b",
        "relayed" => "#fdc086",
        _ => "#d0d0d0",
    };
    let [width, height] = CELL.map(|side| HEAD + side * kinds.len() + 8);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" \
         fill=\"white\"/>\n<text x=\"4\" y=\"16\">seconds to answer / to direct</text>\n"
    );
    for (index, nat) in kinds.iter().enumerate() {
        let (x, y) = (HEAD + CELL[0] * index + 4, HEAD + CELL[1] * index + 18);
        let _ = writeln!(text, "<text x=\"{x}\" y=\"{}\">{nat}</text>", HEAD - 6);
        let _ = writeln!(text, "<text x=\"4\" y=\"{y}\">{nat}</text>");
    }
    for (row, a) in kinds.iter().enumerate() {
        for (column, b) in kinds.iter().enumerate() {
            let Some(outcome) = find(outcomes, [*a, *b]) else { continue };
            let (kind, words) = outcome.cell();
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

/// In one line: how many were linked, and direct, of those that could be.
pub fn summary(outcomes: &[Outcome]) -> String {
    let count = |fits: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|o| fits(o)).count();
    let can_link = |outcome: &Outcome| hope(outcome.nats) != Hope::Nothing;
    let can_be_direct = |outcome: &Outcome| hope(outcome.nats) == Hope::Direct;
    let soon = |outcome: &Outcome| outcome.direct.is_some_and(|time| time < SOON);
    let mut times: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.linked).collect();
    times.sort();
    format!(
        "{} of {} linked, first answers after {:?} (median) and {:?} (worst); {} of {} direct \
         within 10 s, {} at last",
        count(&|outcome| outcome.linked.is_some() && can_link(outcome)),
        count(&can_link),
        times.get(times.len() / 2).copied().unwrap_or_default(),
        times.last().copied().unwrap_or_default(),
        count(&|outcome| can_be_direct(outcome) && soon(outcome)),
        count(&can_be_direct),
        count(&|outcome| can_be_direct(outcome) && outcome.direct.is_some()),
    )
}
