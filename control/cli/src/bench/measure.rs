//! The asking end: `ipop bench PEER`. It begins a session with the peer, goes through the steps,
//! first through the link and then beside it, and shows what came of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Bench;
use crate::failure::Failure;
use crate::instance::RunDir;
use crate::ping::{find, via};
use crate::signals::on_stop;
use crate::snapshot::Link;

use super::report::{Report, table};
use super::steps::{Measured, STEPS, Steps};
use super::words::{TIME_MAX, Underlay, Way};

/// How often the signals are looked at.
const STEP: Duration = Duration::from_millis(50);

/// Measures, and shows the figures.
///
/// # Errors
/// When there is no such peer, it does not serve, or the link breaks.
pub fn run(instance: &RunDir, peer: &str, flags: &Bench) -> Result<ExitCode, Failure> {
    let time = flags.seconds;
    if time.is_zero() || time > TIME_MAX {
        let most = TIME_MAX.as_secs();
        return Err(Failure::usage(format!("--seconds: more than 0 and at most {most}")));
    }
    let link = find(instance, peer)?;
    let address = SocketAddr::new(overlay_address(&link, peer)?, flags.port);
    let stop = Arc::new(AtomicBool::new(false));
    on_stop(stop.clone())
        .map_err(|error| Failure::failed(format!("cannot handle signals: {error}")))?;
    let bar = progress();
    let work = {
        let (instance, link, bar) = (instance.clone(), link.clone(), bar.clone());
        std::thread::spawn(move || {
            let steps = Steps::begin(instance, address, time)
                .map_err(|error| not_served(&link.name, address, &error))?;
            Ok::<_, Failure>(measure(steps, &link, address.ip(), &bar))
        })
    };
    while !work.is_finished() && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(STEP);
    }
    bar.finish_and_clear();
    // The peer sees the session end with this process.
    if !work.is_finished() {
        return Err(Failure::failed("stopped before the end"));
    }
    let measured = work.join().map_err(|_| Failure::failed("the measuring thread panicked"))?;
    show(&measured?, flags.json)
}

/// Where the measuring goes: the address that was given, if one was.
fn overlay_address(link: &Link, peer: &str) -> Result<IpAddr, Failure> {
    let Link { name, state, addresses, reason, .. } = link;
    if !link.is_up() {
        let why = if reason.is_empty() { String::new() } else { format!(", {reason}") };
        return Err(Failure::failed(format!("{name} is not linked now: {state}{why}")));
    }
    let given = peer.parse().ok().filter(|address| addresses.contains(address));
    given
        .or_else(|| addresses.first().copied())
        .ok_or_else(|| Failure::failed(format!("{name} has no overlay address yet")))
}

fn not_served(peer: &str, address: SocketAddr, error: &io::Error) -> Failure {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    Failure::failed(match error.kind() {
        ConnectionRefused => format!(
            "{peer} does not let itself be measured: run `ipop bench --serve` there (nobody \
             listens on {address})"
        ),
        TimedOut | HostUnreachable | NetworkUnreachable => format!(
            "{peer} does not answer on {address}: {error}; is a firewall in between? `ipop ping \
             {peer}` shows whether the link works"
        ),
        _ => format!("{peer} does not let itself be measured: {error}"),
    })
}

/// Goes through all steps.
fn measure(mut steps: Steps, link: &Link, above: IpAddr, bar: &ProgressBar) -> Report {
    let below = match (link.direct_remote(), steps.underlay.clone()) {
        (None, _) => Err("there is no way beside the link: its path is relayed".to_owned()),
        (_, Underlay::Closed(why)) => Err(why),
        (Some(remote), Underlay::Open(ports)) => Ok((remote.ip(), ports)),
    };
    bar.set_length(if below.is_ok() { 2 * STEPS } else { STEPS });
    let overlay = steps.measure(Way::Overlay, (above, steps.overlay), bar);
    let underlay = match below {
        Ok(place) => steps.measure(Way::Underlay, place, bar),
        Err(why) => Measured { missing: Some(why), ..Measured::default() },
    };
    Report {
        peer: link.name.clone(),
        path: via(link),
        seconds: steps.time.as_secs_f64(),
        overlay: overlay.figures,
        underlay: underlay.figures,
        overlay_missing: overlay.missing,
        underlay_missing: underlay.missing,
    }
}

fn show(report: &Report, as_json: bool) -> Result<ExitCode, Failure> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(report).map_err(Failure::failed)?);
    } else {
        print!("{}", table(report));
    }
    match &report.overlay_missing {
        None => Ok(ExitCode::SUCCESS),
        Some(why) => Err(Failure::failed(format!("{}: {why}", report.peer))),
    }
}

fn progress() -> ProgressBar {
    let bar = ProgressBar::new(STEPS);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed:>4} {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
