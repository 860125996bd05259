//! `ipop ping`: pings a peer through the overlay and shows the path that the pings take.

use std::process::ExitCode;
use std::time::Duration;

use crate::args::Ping;
use crate::failure::{Code, Failure};
use crate::icmp::Pinger;
use crate::instance::RunDir;
use crate::snapshot::{Link, Snapshot};
use crate::status;

const PATIENCE: Duration = Duration::from_secs(1);

/// Runs `ipop ping`.
///
/// # Errors
/// When there is no such peer, or none of the pings is answered.
pub fn run(flags: &Ping) -> Result<ExitCode, Failure> {
    let instance = RunDir::running(flags.instance.name.as_deref())?;
    let link = find(&instance, &flags.peer)?;
    let address = link
        .addresses
        .first()
        .copied()
        .ok_or_else(|| Failure::failed(format!("{} has no overlay address yet", link.name)))?;
    let mut pinger = Pinger::open(address, std::process::id() as u16)
        .map_err(|error| Failure::new(Code::NotPermitted, format!("cannot ping: {error}")))?;
    let mut answered = 0;
    for number in 1..=flags.count {
        let time = pinger
            .ping(PATIENCE)
            .map_err(|error| Failure::failed(format!("cannot ping {address}: {error}")))?;
        let path = find(&instance, &flags.peer).map_or_else(|_| String::new(), |link| via(&link));
        match time {
            Some(time) => {
                answered += 1;
                println!("{} ({address}): {:.3} ms, {path}", link.name, time.as_secs_f64() * 1e3);
            }
            None => println!("{} ({address}): no answer within 1 s, {path}", link.name),
        }
        if number < flags.count {
            std::thread::sleep(flags.interval);
        }
    }
    explain(&instance, &flags.peer);
    if answered == 0 {
        return Err(Failure::failed(format!("{} does not answer", link.name)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Says why the link has its path, and what became of others.
fn explain(instance: &RunDir, peer: &str) {
    let Ok(link) = find(instance, peer) else { return };
    if let Some(why) = status::why(&link) {
        println!("why: {why}");
    }
    for tried in &link.tried {
        println!("tried: {}", tried.text());
    }
}

/// The link to a peer.
///
/// # Errors
/// Names the peers that there are.
pub fn find(instance: &RunDir, peer: &str) -> Result<Link, Failure> {
    let snapshot = Snapshot::of(instance)?;
    snapshot.link_to(peer).ok_or_else(|| {
        let known: Vec<_> = snapshot.links.iter().map(|link| link.name.as_str()).collect();
        let known = if known.is_empty() { "no peers yet".to_owned() } else { known.join(", ") };
        Failure::usage(format!("no peer `{peer}` (known: {known})"))
    })
}

/// The path of a link, in words.
pub fn via(link: &Link) -> String {
    match (&link.path, &link.local, &link.remote) {
        (Some(path), Some(local), Some(remote)) => format!("{path} from {local} to {remote}"),
        _ => format!("link is {}", link.state),
    }
}
