//! `ipop status`: an instance's links, paths and drops.

use std::fmt::Write as _;
use std::process::ExitCode;

use crate::args::Status;
use crate::failure::Failure;
use crate::instance::RunDir;
use crate::snapshot::{Link, Snapshot};

/// Runs `ipop status`.
///
/// # Errors
/// When there is no such instance.
pub fn run(flags: &Status) -> Result<ExitCode, Failure> {
    let instance = RunDir::running(flags.instance.name.as_deref())?;
    let snapshot = Snapshot::of(&instance)?;
    if flags.json {
        println!("{}", serde_json::to_string_pretty(&snapshot).map_err(Failure::failed)?);
    } else {
        print!("{}", text(&snapshot, flags.verbose));
    }
    Ok(ExitCode::SUCCESS)
}

fn text(snapshot: &Snapshot, is_verbose: bool) -> String {
    let mut out = format!("instance {}\n", snapshot.name);
    let alive = |alive| if alive { "running" } else { "NOT RUNNING" };
    let _ = writeln!(out, "  datapath    {}", alive(snapshot.datapath_alive));
    for (key, value) in &snapshot.datapath {
        let _ = writeln!(out, "    {key:<12} {value}");
    }
    let _ = writeln!(out, "  controller  {}", alive(snapshot.controller_alive));
    for (key, value) in &snapshot.controller {
        let _ = writeln!(out, "    {key:<12} {value}");
    }
    let up = snapshot.up().count();
    let _ = writeln!(out, "  links       {up} of {} up", snapshot.links.len());
    snapshot.links.iter().for_each(|link| write_link(&mut out, link, is_verbose));
    if !snapshot.drops.is_empty() {
        let drops = snapshot.drops.iter().map(|(name, count)| format!("{name} {count}"));
        let _ = writeln!(out, "  drops       {}", drops.collect::<Vec<_>>().join(", "));
    }
    for error in &snapshot.errors {
        let _ = writeln!(
            out,
            "  error       {} ({}, {} times, last {:.0} s ago)",
            error.text, error.side, error.count, error.age_s
        );
    }
    out
}

fn write_link(out: &mut String, link: &Link, is_verbose: bool) {
    let rtt =
        link.rtt_us.map_or_else(String::new, |us| format!(", RTT {:.2} ms", f64::from(us) / 1e3));
    let path = link.path.as_deref().unwrap_or("no path");
    let room =
        link.datagram_len.map_or_else(String::new, |len| format!(", {len} bytes a datagram"));
    let losses = if link.lossy { ", loses much" } else { "" };
    let _ = writeln!(out, "    {} {} {path}{rtt}{room}{losses}", link.name, link.state);
    if let (Some(local), Some(remote)) = (&link.local, &link.remote) {
        let _ = writeln!(out, "      path      {local} to {remote}");
    }
    if let Some(why) = why(link) {
        let _ = writeln!(out, "      why       {why}");
    }
    if is_verbose || !link.is_up() {
        for tried in &link.tried {
            let _ = writeln!(out, "      tried     {}", tried.text());
        }
    }
    if !link.addresses.is_empty() {
        let addresses: Vec<_> = link.addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(out, "      addresses {}", addresses.join(", "));
    }
    if let Some(age) = link.handshake_age_s {
        let cipher = link.cipher.unwrap_or("?");
        let lanes = if link.lanes == 1 { "lane" } else { "lanes" };
        let _ = writeln!(
            out,
            "      keys      {cipher}, {} {lanes}, handshake {age:.0} s ago",
            link.lanes
        );
    }
    let _ = writeln!(
        out,
        "      traffic   {} in, {} out, {} dropped",
        bytes(link.bytes_in),
        bytes(link.bytes_out),
        link.drops
    );
    if !link.reason.is_empty() {
        let _ = writeln!(out, "      because   {}", link.reason);
    }
}

/// Why this path, and since when.
pub fn why(link: &Link) -> Option<String> {
    let (why, age) = (link.why.as_ref()?, link.path_age_s?);
    Some(format!("{why} ({age:.0} s ago)"))
}

fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}
