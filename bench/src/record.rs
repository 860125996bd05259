//! All that a run of the suite found out: values, and what did not work and why.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::BenchError;
use crate::figures::Figure;
use crate::machine::Machine;
use crate::statistics::Summary;

/// The contents of the JSON file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Where it was measured.
    pub machine: Machine,
    /// Seconds of each measurement.
    pub seconds: u32,
    /// The systems that were asked for.
    pub systems: Vec<About>,
    /// All values.
    pub series: Vec<Series>,
    /// All that did not work.
    pub failures: Vec<Failure>,
}

/// A system that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    /// Its name.
    pub name: String,
    /// What it says about its version.
    pub version: String,
    /// Whether its traffic can be read on the cable.
    pub plain: bool,
    /// Whether it is one of the kernel's own that others are held against.
    pub reference: bool,
}

/// The values of one figure of one system on one underlay, in the order of the runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    /// Name of the underlay.
    pub underlay: String,
    /// Name of the system.
    pub system: String,
    /// What was measured.
    pub figure: Figure,
    /// Its unit, for readers of the file.
    pub unit: String,
    /// One value of each run that worked.
    pub values: Vec<f64>,
}

/// What did not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Name of the underlay; none when the system cannot run at all.
    pub underlay: Option<String>,
    /// Name of the system.
    pub system: String,
    /// What was tried.
    pub what: String,
    /// Why it did not work.
    pub reason: String,
    /// How often, with the same reason.
    pub times: u32,
}

impl Record {
    /// Adds a value of one run.
    pub(crate) fn add(&mut self, underlay: &str, system: &str, figure: Figure, value: f64) {
        self.extend(underlay, system, figure, &[value]);
    }

    fn extend(&mut self, underlay: &str, system: &str, figure: Figure, values: &[f64]) {
        let of = |series: &&mut Series| {
            series.underlay == underlay && series.system == system && series.figure == figure
        };
        if let Some(series) = self.series.iter_mut().find(of) {
            series.values.extend(values);
            return;
        }
        self.series.push(Series {
            underlay: underlay.to_owned(),
            system: system.to_owned(),
            figure,
            unit: figure.unit().to_owned(),
            values: values.to_vec(),
        });
    }

    /// Adds a failure, or counts one that is known.
    pub(crate) fn fail(&mut self, failure: Failure) {
        let same = |known: &&mut Failure| {
            known.underlay == failure.underlay
                && known.system == failure.system
                && known.what == failure.what
                && known.reason == failure.reason
        };
        match self.failures.iter_mut().find(same) {
            Some(known) => known.times += failure.times,
            None => self.failures.push(failure),
        }
    }

    /// Adds what another run on the same machine found out.
    ///
    /// # Errors
    /// When it is another machine, or its measurements lasted longer or shorter.
    pub(crate) fn merge(&mut self, other: Self) -> Result<(), BenchError> {
        if self.machine != other.machine {
            return Err(BenchError::new("these are results of different machines or kernels"));
        }
        if self.seconds != other.seconds {
            return Err(BenchError::new("these are results of different --seconds"));
        }
        for about in other.systems {
            match self.systems.iter().find(|known| known.name == about.name) {
                Some(known) if *known == about => {}
                Some(known) => {
                    return Err(BenchError::new(format!(
                        "`{}` is `{}` in one and `{}` in another",
                        known.name, known.version, about.version
                    )));
                }
                None => self.systems.push(about),
            }
        }
        for series in other.series {
            self.extend(&series.underlay, &series.system, series.figure, &series.values);
        }
        other.failures.into_iter().for_each(|failure| self.fail(failure));
        Ok(())
    }

    /// Underlays that anything was measured on, in the order of measuring.
    pub(crate) fn underlays(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for series in &self.series {
            if !names.contains(&series.underlay.as_str()) {
                names.push(&series.underlay);
            }
        }
        names
    }

    /// The values of one figure.
    pub(crate) fn values(&self, underlay: &str, system: &str, figure: Figure) -> &[f64] {
        let of = |series: &&Series| {
            series.underlay == underlay && series.system == system && series.figure == figure
        };
        self.series.iter().find(of).map_or(&[], |series| &series.values)
    }

    /// What they amount to, if there are any.
    pub(crate) fn summary(&self, underlay: &str, system: &str, figure: Figure) -> Option<Summary> {
        Summary::of(self.values(underlay, system, figure))
    }

    /// Reads a file that [`Record::write`] wrote.
    pub(crate) fn read(path: &Path) -> Result<Self, BenchError> {
        let wrong =
            |error: &dyn std::fmt::Display| BenchError::new(format!("{}: {error}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
        serde_json::from_str(&text).map_err(|error| wrong(&error))
    }

    /// Writes everything for programs.
    pub(crate) fn write(&self, path: &Path) -> Result<(), BenchError> {
        let text = serde_json::to_string_pretty(self).map_err(std::io::Error::from)?;
        std::fs::write(path, text)
            .map_err(|error| BenchError::new(format!("{}: {error}", path.display())))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two systems and a reference on two underlays; one of them fails on the second.
    pub(crate) fn example() -> Record {
        let mut record = Record { seconds: 1, ..Record::default() };
        for (name, reference) in [("raw", true), ("ipop", false), ("<rival>", false)] {
            let version = format!("{name} & 1.0");
            let plain = reference;
            record.systems.push(About { name: name.into(), version, plain, reference });
        }
        for (value, factor) in [(20.0, 1.0), (18.0, 1.5), (21.0, 0.5)] {
            record.add("default", "raw", Figure::Tcp1, 100.0 * factor);
            record.add("default", "ipop", Figure::Tcp1, value);
            record.add("default", "<rival>", Figure::Tcp1, value / 4.0);
            record.add("default", "ipop", Figure::LoadP99, value * 10.0);
            record.add("default", "<rival>", Figure::LoadP99, value * 1000.0);
            record.add("jumbo", "ipop", Figure::Tcp1, value + 2.0);
        }
        record.fail(failure("jumbo", "<rival>"));
        record.fail(failure("jumbo", "<rival>"));
        record
    }

    fn failure(underlay: &str, system: &str) -> Failure {
        Failure {
            underlay: Some(underlay.into()),
            system: system.into(),
            what: "start".into(),
            reason: "no packet was answered".into(),
            times: 1,
        }
    }

    #[test]
    fn values_are_kept_by_underlay_system_and_figure() {
        let record = example();
        assert_eq!(record.values("default", "ipop", Figure::Tcp1), [20.0, 18.0, 21.0]);
        assert_eq!(record.values("jumbo", "raw", Figure::Tcp1), [0.0; 0]);
        assert_eq!(record.underlays(), ["default", "jumbo"]);
        assert_eq!(record.failures.len(), 1);
        assert_eq!(record.failures[0].times, 2);
    }

    #[test]
    fn merging_joins_the_values() {
        let mut record = example();
        record.merge(example()).unwrap();
        assert_eq!(record.values("default", "ipop", Figure::Tcp1).len(), 6);
        assert_eq!(record.systems.len(), 3);
        assert_eq!(record.failures[0].times, 4);
    }

    #[test]
    fn what_cannot_be_compared_is_not_merged() {
        let mut other = example();
        other.seconds = 2;
        assert!(example().merge(other).unwrap_err().to_string().contains("--seconds"));
        let mut other = example();
        other.machine.cores = 99;
        assert!(example().merge(other).unwrap_err().to_string().contains("machines"));
        let mut other = example();
        other.systems[1].version = "2".into();
        assert!(example().merge(other).unwrap_err().to_string().contains("`ipop`"));
    }

    #[test]
    fn json_comes_back_as_it_went() {
        let text = serde_json::to_string(&example()).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), example());
    }
}
