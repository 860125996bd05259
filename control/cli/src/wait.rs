//! `ipop wait`: ends when enough peers are linked and answer.

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::args::Wait;
use crate::failure::{Code, Failure};
use crate::icmp::Pinger;
use crate::instance::RunDir;
use crate::snapshot::{Link, Snapshot};

const PAUSE: Duration = Duration::from_millis(20);
const PING_PATIENCE: Duration = Duration::from_millis(300);

/// Runs `ipop wait`.
///
/// # Errors
/// When the time is over first, or the instance is not there by then.
pub fn run(flags: &Wait) -> Result<ExitCode, Failure> {
    let deadline = Instant::now() + flags.timeout;
    loop {
        let result = answering(flags);
        if let Ok(names) = &result
            && names.len() >= flags.peers
        {
            println!("{} peers answer: {}", names.len(), names.join(", "));
            return Ok(ExitCode::SUCCESS);
        }
        if Instant::now() >= deadline {
            return Err(result.map_or_else(|failure| failure, |names| late(flags, &names)));
        }
        std::thread::sleep(PAUSE);
    }
}

fn late(flags: &Wait, names: &[String]) -> Failure {
    let (count, wanted, time) = (names.len(), flags.peers, flags.timeout.as_secs_f64());
    let list = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
    let text = format!("{count} of {wanted} peers answer after {time} s{list}");
    Failure::new(Code::TimedOut, text)
}

/// The names of the peers that are linked and answer a ping.
fn answering(flags: &Wait) -> Result<Vec<String>, Failure> {
    let instance = RunDir::running(flags.instance.name.as_deref())?;
    let snapshot = Snapshot::of(&instance)?;
    let up: Vec<_> = snapshot.up().cloned().collect();
    let identifier = std::process::id() as u16;
    let threads = up
        .into_iter()
        .map(|link| std::thread::spawn(move || answers(&link, identifier).then_some(link.name)));
    let threads: Vec<_> = threads.collect();
    let names: HashSet<_> =
        threads.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect();
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort();
    Ok(names)
}

fn answers(link: &Link, identifier: u16) -> bool {
    let Some(address) = link.addresses.first() else { return false };
    let pinger = Pinger::open(*address, identifier);
    pinger.and_then(|mut pinger| pinger.ping(PING_PATIENCE)).is_ok_and(|time| time.is_some())
}
