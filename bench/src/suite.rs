//! The rounds: every system is started once in each, one after the other in the same namespaces.

use std::path::{Path, PathBuf};

use clap::ValueEnum as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Suite;
use crate::error::BenchError;
use crate::figures::{
    Crowd, Figure, Measurement, NATS, PEERS, first_packet, measure, start_through_nats,
};
use crate::install::{self, Need, find, hint};
use crate::machine::Machine;
use crate::own;
use crate::record::{About, Failure, Record};
use crate::stage::{Scratch, Stage};
use crate::stop::Stop;
use crate::systems::{Kind, System, Variant};
use crate::underlay::Underlay;

/// What the measurements themselves take.
const TOOLS: &[Need] = &[
    Need::debian("ip", "iproute2"),
    Need::debian("sysctl", "procps"),
    Need::debian("iperf3", "iperf3"),
    Need::debian("ethtool", "ethtool"),
];
/// Rounds of the start through NATs are short and vary: there are at least so many.
const NAT_RUNS_MIN: u32 = 10;

/// A plan that is being carried out.
pub(crate) struct Rounds {
    runs: u32,
    seconds: u32,
    underlays: Vec<Underlay>,
    measurements: Vec<Measurement>,
    systems: Vec<System>,
    ipop: PathBuf,
    stop: Stop,
    bar: ProgressBar,
    /// What was found out so far.
    pub record: Record,
}

impl Rounds {
    /// Builds ours, finds or installs the others.
    pub(crate) fn plan(flags: &Suite, stop: Stop) -> Result<Self, BenchError> {
        let ipop = own::binary(flags.ipop.as_deref())?;
        let systems = chosen(flags, &ipop)?;
        let measurements = or_all(&flags.figures, Measurement::value_variants());
        prepare_tools(&systems, flags.install_missing)?;
        stop.check()?;
        let mut rounds = Self {
            runs: flags.runs,
            seconds: flags.seconds,
            underlays: or_all(&flags.underlays, Underlay::value_variants()),
            measurements,
            systems,
            ipop,
            stop,
            bar: ProgressBar::hidden(),
            record: Record {
                machine: Machine::this(),
                seconds: flags.seconds,
                ..Record::default()
            },
        };
        rounds.look_at_systems();
        Ok(rounds)
    }

    /// Says which systems there are, and drops those that cannot run here.
    fn look_at_systems(&mut self) {
        for system in std::mem::take(&mut self.systems) {
            let able = system.check();
            let version = if able.is_ok() { system.version() } else { "–".to_owned() };
            self.record.systems.push(About {
                name: system.name.clone(),
                version,
                plain: system.is_plain(),
                reference: matches!(system.kind, Kind::Raw | Kind::Vxlan),
            });
            match able {
                Ok(()) => self.systems.push(system),
                Err(reason) => {
                    eprintln!("{}: not measured: {reason}", system.name);
                    self.fail(None, &system.name, "everything", reason);
                }
            }
        }
    }

    /// Measures everything. What cannot be measured is recorded, only a stop ends it early.
    pub(crate) fn run(&mut self) -> Result<(), BenchError> {
        let turns = self.underlays.len() * self.runs as usize * self.systems.len();
        self.bar = progress(turns as u64);
        let result = self.run_all();
        self.bar.finish_and_clear();
        result
    }

    fn run_all(&mut self) -> Result<(), BenchError> {
        for (at, underlay) in self.underlays.clone().into_iter().enumerate() {
            let stage = match Stage::build(underlay, self.stop.clone()) {
                Ok(stage) => stage,
                Err(reason) => {
                    self.stop.check()?;
                    self.fail(Some(underlay.name()), "all", "building it", reason);
                    continue;
                }
            };
            for run in 1..=self.runs {
                for system in self.systems.clone() {
                    self.say(&format!("{} {run}/{} {}", underlay.name(), self.runs, system.name));
                    // Idling costs long and varies little: once is enough.
                    self.turn(&stage, &system, at == 0 && run == 1)?;
                    self.bar.inc(1);
                }
            }
        }
        let asked = self.measurements.contains(&Measurement::NatStart);
        if asked && self.systems.iter().any(|system| system.kind == Kind::Ours) {
            self.nat_starts()?;
        }
        if self.measurements.contains(&Measurement::Peers) {
            self.peers()?;
        }
        Ok(())
    }

    /// One system: started, measured, stopped.
    fn turn(&mut self, stage: &Stage, system: &System, idle: bool) -> Result<(), BenchError> {
        let underlay = stage.underlay;
        let started = system.prepare(stage).and_then(|launch| first_packet(stage, launch));
        let (mut tunnel, seconds) = match started {
            Ok(started) => started,
            Err(reason) => {
                self.stop.check()?;
                self.fail(Some(underlay.name()), &system.name, "start", reason);
                return Ok(());
            }
        };
        let asked = self.measurements.contains(&Measurement::Start);
        if asked && system.kind != Kind::Raw {
            self.record.add(underlay.name(), &system.name, Figure::Start, seconds);
        }
        for measurement in self.measurements.clone() {
            if measurement == Measurement::Idle && !idle {
                continue;
            }
            let name = measurement.to_possible_value();
            let name = name.map_or(String::new(), |name| name.get_name().to_owned());
            self.bar.set_message(format!("{} {} {name}", underlay.name(), system.name));
            let result = measure(measurement, stage, &tunnel, self.seconds);
            self.stop.check()?;
            match result.and_then(|values| tunnel.check().map(|()| values)) {
                Ok(values) => values.into_iter().for_each(|(figure, value)| {
                    self.record.add(underlay.name(), &system.name, figure, value);
                }),
                Err(reason) => self.fail(Some(underlay.name()), &system.name, &name, reason),
            }
        }
        Ok(())
    }

    /// Ours alone, through the lab's NATs.
    fn nat_starts(&mut self) -> Result<(), BenchError> {
        let scratch = Scratch::new("nats")?;
        let runs = self.runs.max(NAT_RUNS_MIN);
        for run in 1..=runs {
            self.say(&format!("{NATS} {run}/{runs}"));
            let result = start_through_nats(&self.ipop, scratch.path(), &self.stop);
            self.stop.check()?;
            match result {
                Ok((figure, seconds)) => self.record.add(NATS, "ipop", figure, seconds),
                Err(reason) => self.fail(Some(NATS), "ipop", "nat-start", reason),
            }
        }
        Ok(())
    }

    /// All variants of ours, with many peers.
    fn peers(&mut self) -> Result<(), BenchError> {
        let systems = self.systems.iter();
        let ours: Vec<Variant> = systems.filter_map(|system| system.variant().cloned()).collect();
        if ours.is_empty() {
            return Ok(());
        }
        let crowd = match Crowd::build(self.stop.clone()) {
            Ok(crowd) => crowd,
            Err(reason) => {
                self.stop.check()?;
                self.fail(Some(PEERS), "all", "building it", reason);
                return Ok(());
            }
        };
        for run in 1..=self.runs {
            for variant in &ours {
                self.say(&format!("{PEERS} {run}/{} {}", self.runs, variant.name));
                let result = crowd.measure(&self.ipop, variant, self.seconds);
                self.stop.check()?;
                match result {
                    Ok(values) => values.into_iter().for_each(|(figure, value)| {
                        self.record.add(PEERS, &variant.name, figure, value);
                    }),
                    Err(reason) => self.fail(Some(PEERS), &variant.name, "peers", reason),
                }
            }
        }
        Ok(())
    }

    fn fail(&mut self, underlay: Option<&str>, system: &str, what: &str, why: BenchError) {
        let reason = why.to_string();
        let on = underlay.map_or(String::new(), |underlay| format!(" on {underlay}"));
        if underlay.is_some() {
            self.say(&format!("{system}{on}: {what} failed: {reason}"));
        }
        self.record.fail(Failure {
            underlay: underlay.map(str::to_owned),
            system: system.to_owned(),
            what: what.to_owned(),
            reason,
            times: 1,
        });
    }

    /// A line above the progress bar, or a plain one where there is no terminal to draw a bar on.
    fn say(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }
}

fn progress(turns: u64) -> ProgressBar {
    let bar = ProgressBar::new(turns);
    let template = "{bar:30} {pos}/{len} {elapsed} (left {eta}) {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_secs(1));
    bar
}

/// All systems that are known or named, or those that were chosen among them.
fn chosen(flags: &Suite, ipop: &Path) -> Result<Vec<System>, BenchError> {
    let mut systems = System::all(ipop);
    let rivals = flags
        .rival
        .iter()
        .map(|rival| System::new(&rival.name, rival.kind, Some(rival.program.clone())));
    let ours = flags.ours.iter().map(|variant| System::ours(variant.clone(), ipop));
    for given in ours.chain(rivals) {
        match systems.iter_mut().find(|known| known.name == given.name) {
            Some(known) => *known = given,
            None => systems.push(given),
        }
    }
    if flags.systems.is_empty() {
        return Ok(systems);
    }
    let known: Vec<String> = systems.iter().map(|system| system.name.clone()).collect();
    if let Some(name) = flags.systems.iter().find(|name| !known.contains(name)) {
        let text = format!("--systems: there is no `{name}`; known are {}", known.join(", "));
        return Err(BenchError::new(text));
    }
    systems.retain(|system| flags.systems.contains(&system.name));
    Ok(systems)
}

/// Without the tools nothing can be measured; without a rival, all others can.
fn prepare_tools(systems: &[System], install_missing: bool) -> Result<(), BenchError> {
    if install_missing {
        let rivals = systems.iter().flat_map(|system| system.installable());
        let needs: Vec<Need> = TOOLS.iter().chain(rivals).copied().collect();
        for (need, reason) in install::install(&needs) {
            eprintln!("{} cannot be installed: {reason}", need.program);
        }
    }
    match TOOLS.iter().find(|need| find(need.program).is_none()) {
        Some(need) => Err(BenchError::new(hint(*need))),
        None => Ok(()),
    }
}

fn or_all<T: Copy + PartialEq>(chosen: &[T], all: &[T]) -> Vec<T> {
    // In the order of the list of all, each once.
    all.iter().copied().filter(|one| chosen.is_empty() || chosen.contains(one)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::Parser as _;

    fn names(words: &[&str]) -> Result<Vec<String>, String> {
        let words = std::iter::once(&"ipop-bench").chain(words);
        let flags = Cli::try_parse_from(words).unwrap().suite;
        let systems = chosen(&flags, Path::new("ipop")).map_err(|error| error.to_string())?;
        Ok(systems.into_iter().map(|system| system.name).collect())
    }

    #[test]
    fn systems_are_chosen_by_name_in_the_order_of_reports() {
        assert_eq!(names(&["--systems", "ipop,raw"]).unwrap(), ["raw", "ipop"]);
        let error = names(&["--systems", "rav"]).unwrap_err();
        assert!(error.contains("`rav`") && error.contains("wireguard-go"), "{error}");
    }

    #[test]
    fn a_named_program_is_added_or_takes_the_place_of_a_known_one() {
        let all = names(&[]).unwrap();
        let with = names(&["--rival", "tinc=tinc:/x", "--rival", "new=nebula:/y"]).unwrap();
        assert_eq!(with.len(), all.len() + 1);
        let variant = names(&["--ours", "small=--mtu 1280", "--systems", "small"]).unwrap();
        assert_eq!(variant, ["small"]);
    }

    #[test]
    fn lists_are_in_order_and_without_repetition() {
        assert_eq!(or_all(&[3, 1, 3], &[1, 2, 3]), [1, 3]);
        assert_eq!(or_all(&[], &[1, 2]), [1, 2]);
    }
}
