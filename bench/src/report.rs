//! What the suite writes: a table, a file for programs, a page with plots.

mod html;
mod plot;
mod table;

use std::path::{Path, PathBuf};

use crate::error::BenchError;
use crate::figures::Figure;
use crate::record::Record;

pub(crate) use table::table;

/// Figures that are shown together, under a heading.
const GROUPS: &[(&str, &[Figure])] = &[
    (
        "Throughput",
        &[
            Figure::Tcp1,
            Figure::Tcp1Reverse,
            Figure::Tcp4,
            Figure::Tcp4Reverse,
            Figure::Tcp8,
            Figure::PeersOne,
            Figure::PeersAll,
            Figure::PeersShare,
        ],
    ),
    (
        "Small packets and round trips",
        &[
            Figure::Packets,
            Figure::RttP50,
            Figure::RttP99,
            Figure::LoadP50,
            Figure::LoadP99,
            Figure::FloodPackets,
            Figure::FloodPingsLost,
            Figure::FloodP50,
        ],
    ),
    (
        "Losses",
        &[
            Figure::StreamPeak,
            Figure::StreamShare,
            Figure::StreamSent,
            Figure::Lost,
            Figure::LostByProgram,
            Figure::Reordered,
        ],
    ),
    (
        "Cost",
        &[
            Figure::CpuVpn,
            Figure::CpuMachine,
            Figure::CpuVpn8,
            Figure::BusiestWorker,
            Figure::CpuPeersOne,
            Figure::CpuPeersAll,
            Figure::Memory,
            Figure::Idle,
        ],
    ),
    ("Start", &[Figure::Start, Figure::NatStart]),
];

/// Writes `report.json`, `report.md` and `report.html` into `folder`, and returns their paths.
pub(crate) fn write(folder: &Path, record: &Record) -> Result<[PathBuf; 3], BenchError> {
    let paths = ["report.json", "report.md", "report.html"].map(|name| folder.join(name));
    let fails =
        |path: &Path, error| BenchError::new(format!("cannot write {}: {error}", path.display()));
    std::fs::create_dir_all(folder).map_err(|error| fails(folder, error))?;
    record.write(&paths[0])?;
    std::fs::write(&paths[1], table(record)).map_err(|error| fails(&paths[1], error))?;
    std::fs::write(&paths[2], html::page(record)).map_err(|error| fails(&paths[2], error))?;
    Ok(paths)
}

/// Figures of a group that anybody has a value of on an underlay.
fn shown<'a>(record: &Record, underlay: &str, figures: &'a [Figure]) -> Vec<&'a Figure> {
    let has = |figure: &&Figure| {
        record
            .systems
            .iter()
            .any(|system| !record.values(underlay, &system.name, **figure).is_empty())
    };
    figures.iter().filter(has).collect()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_figure_is_shown_in_exactly_one_group() {
        for figure in Figure::value_variants() {
            let count = GROUPS.iter().filter(|(_, figures)| figures.contains(figure)).count();
            assert_eq!(count, 1, "{figure:?}");
        }
    }
}
