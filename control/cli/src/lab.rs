//! `ipop lab`: a group in a small internet on this machine, built, shown, measured, torn down.

mod measure;
mod report;
mod stage;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ipop_lab::Nat;

use crate::args::Lab;
use crate::failure::{Code, Failure};

use measure::Pair;
use stage::Stage;

/// How long all pairs may take to answer their first ping.
const LINK_PATIENCE: Duration = Duration::from_secs(30);

/// Runs `ipop lab`.
///
/// # Errors
/// When a tool or permission is missing, or a pair of nodes does not come together.
pub fn run(flags: &Lab) -> Result<ExitCode, Failure> {
    let nats = nats(flags)?;
    prepare(flags)?;
    let stop = Arc::new(AtomicBool::new(false));
    watch_signals(&stop)?;
    let bar = progress();
    let result = show(flags, &nats, &stop, &bar);
    bar.set_message("taking the lab down");
    let outcome = result.map(|(pairs, stage)| {
        drop(stage);
        pairs
    });
    bar.finish_and_clear();
    let pairs = outcome?;
    let apart = pairs.iter().filter(|pair| pair.first_ping.is_none()).count();
    if apart > 0 {
        return Err(Failure::failed(format!("{apart} of {} pairs have no link", pairs.len())));
    }
    Ok(ExitCode::SUCCESS)
}

fn show(
    flags: &Lab,
    nats: &[Nat],
    stop: &Arc<AtomicBool>,
    bar: &ProgressBar,
) -> Result<(Vec<Pair>, Stage), Failure> {
    bar.set_message("building the internet");
    let mut stage = Stage::build(flags, nats)?;
    bar.set_message("starting hub and nodes");
    stage.start(stop)?;
    bar.set_message("finding each other");
    let mut pairs = measure::first_pings(&mut stage, LINK_PATIENCE, stop, bar)?;
    measure::paths(&stage, &mut pairs);
    if flags.traffic > 0 {
        let time = Duration::from_secs(flags.traffic);
        measure::traffic(&stage, &mut pairs, time, stop, bar)?;
    }
    publish(flags, &pairs, bar)?;
    if flags.keep {
        keep(&stage, stop, bar);
    }
    Ok((pairs, stage))
}

/// Shows the table, and writes it for programs.
fn publish(flags: &Lab, pairs: &[Pair], bar: &ProgressBar) -> Result<(), Failure> {
    bar.suspend(|| print!("{}", report::table(pairs)));
    let Some(path) = &flags.json else { return Ok(()) };
    let text = report::json(pairs).map_err(Failure::failed)?;
    std::fs::write(path, text)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", path.display())))
}

fn keep(stage: &Stage, stop: &AtomicBool, bar: &ProgressBar) {
    for node in stage.nodes() {
        say(
            bar,
            &format!("  ip netns exec {} ipop status --name {}", node.site.node.name(), node.name),
        );
    }
    bar.set_message("running until Ctrl-C");
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A line above the progress bar, or a plain one where there is no terminal to draw a bar on.
fn say(bar: &ProgressBar, line: &str) {
    if bar.is_hidden() {
        println!("{line}");
    } else {
        bar.println(line);
    }
}

fn nats(flags: &Lab) -> Result<Vec<Nat>, Failure> {
    if flags.nodes < 2 {
        return Err(Failure::usage("--nodes: a group needs at least 2"));
    }
    if flags.nodes > ipop_lab::SITES_MAX {
        return Err(Failure::usage(format!(
            "--nodes: the lab has room for {}",
            ipop_lab::SITES_MAX
        )));
    }
    let kinds: Result<Vec<Nat>, _> = flags.nat.iter().map(|name| name.parse()).collect();
    let kinds = kinds.map_err(|error| Failure::usage(format!("--nat: {error}")))?;
    if kinds.is_empty() {
        return Err(Failure::usage(format!("--nat: name one of {}", Nat::names())));
    }
    Ok(kinds.iter().copied().cycle().take(flags.nodes).collect())
}

fn prepare(flags: &Lab) -> Result<(), Failure> {
    crate::preflight::check()?;
    let missing = ipop_lab::missing();
    if missing.is_empty() {
        return Ok(());
    }
    if !flags.install_missing {
        return Err(Failure::new(Code::NotPermitted, ipop_lab::missing_text(&missing)));
    }
    let packages: Vec<_> = missing.iter().map(|tool| tool.package).collect();
    eprintln!("installing {}", packages.join(", "));
    ipop_lab::install(&missing).map_err(Failure::failed)
}

/// Ctrl-C, SIGTERM and SIGHUP end the lab, which then still takes everything down.
fn watch_signals(stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    crate::signals::on_stop(stop.clone())
        .map_err(|error| Failure::failed(format!("cannot handle signals: {error}")))
}

fn progress() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
