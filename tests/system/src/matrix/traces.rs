//! What two nodes' journals say about the time between them.

use std::time::Duration;

use ipop_steer::{CandidateKind, Step, TraceRecord};

use crate::Node;

/// From the moment when both ends know an address of the other, which signalling brought, until
/// both have a path.
pub fn connected(a: &Node, b: &Node) -> Option<Duration> {
    let [a, b] = [a.journal(), b.journal()];
    let later = |holds: fn(&TraceRecord) -> bool| {
        let first = |steps: &[TraceRecord]| {
            steps.iter().filter(|step| holds(step)).map(|step| step.at_us).min()
        };
        Some(first(&a)?.max(first(&b)?))
    };
    let exchanged = later(is_named)?;
    let selected = later(|step| step.step == Step::Selected)?;
    // A path may be there before the second end's offer: by the first end's checks.
    Some(Duration::from_micros(selected.saturating_sub(exchanged)))
}

fn is_named(record: &TraceRecord) -> bool {
    let kind = record.remote.and_then(|remote| remote.kind);
    record.step == Step::RemoteCandidate && kind != Some(CandidateKind::PeerReflexive)
}
