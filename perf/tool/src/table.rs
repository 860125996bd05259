//! The stages: which piece of work each is, and with which traffic it is measured. Cutting and
//! joining cannot be done without cryptography, so they are what is left of the whole way.

use ipop_stages::{Case, WorkKind};

/// A row of all tables, once per case.
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    /// What is done.
    pub(crate) work: WorkKind,
    /// What of it is another stage's.
    pub(crate) less: Option<WorkKind>,
    pub(crate) cases: &'static [Case],
}

const ALL: &[Case] = &[Case::Alone, Case::Small, Case::Frames, Case::Mss, Case::Jumbo];
const SMALL: &[Case] = &[Case::Small];

/// All stages, in the order of a packet's way.
pub(crate) const STAGES: &[Stage] = &[
    Stage { name: "route", work: WorkKind::Route, less: None, cases: SMALL },
    Stage { name: "segment", work: WorkKind::Egress, less: Some(WorkKind::Seal), cases: ALL },
    Stage { name: "seal", work: WorkKind::Seal, less: None, cases: ALL },
    Stage { name: "open", work: WorkKind::Open, less: None, cases: ALL },
    Stage { name: "coalesce", work: WorkKind::Ingress, less: Some(WorkKind::Open), cases: ALL },
    Stage { name: "ring", work: WorkKind::Ring, less: None, cases: SMALL },
];

/// The pieces of work that a case needs for its rows.
pub(crate) fn works_of(case: Case) -> Vec<WorkKind> {
    let of_case = STAGES.iter().filter(|stage| stage.cases.contains(&case));
    let mut works = Vec::new();
    for work in of_case.flat_map(|stage| [Some(stage.work), stage.less]).flatten() {
        if !works.contains(&work) {
            works.push(work);
        }
    }
    works
}

/// What a stage has of figures that were taken of whole pieces of work.
pub(crate) fn of_stage(stage: &Stage, figure: impl Fn(WorkKind) -> Option<f64>) -> Option<f64> {
    let whole = figure(stage.work)?;
    match stage.less {
        Some(less) => Some(whole - figure(less)?),
        None => Some(whole),
    }
}
