//! `ipop trace`: the steps by which links found their paths, as far back as the journal goes, and
//! then as they are taken.

mod words;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ipop_shm::Observer;
use ipop_steer::{Fingerprint, TraceRecord};

use crate::args::Trace;
use crate::failure::Failure;
use crate::instance::RunDir;
use crate::ping;
use crate::signals;
use crate::snapshot::Snapshot;
use crate::why::plural;

use words::{Line, detail, rfc3339, title};

/// From one look at the journal to the next.
const PAUSE: Duration = Duration::from_millis(50);
/// From one look for a new datapath to the next, while the old one is gone.
const SUCCESSOR_PAUSE: Duration = Duration::from_millis(250);
/// A fingerprint that is no peer's any more still names its steps, by so many digits.
const DIGITS_MIN: usize = 4;

/// Runs `ipop trace`.
///
/// # Errors
/// When there is no such instance or peer.
pub fn run(flags: &Trace) -> Result<ExitCode, Failure> {
    let instance = RunDir::running(flags.instance.name.as_deref())?;
    let wanted = match &flags.peer {
        None => Wanted::All,
        Some(peer) => whose(&instance, peer, flags.duration == Some(Duration::ZERO))?,
    };
    let stop = Arc::new(AtomicBool::new(false));
    signals::on_stop(stop.clone()).map_err(Failure::failed)?;
    let deadline = flags.duration.map(|time| Instant::now() + time);
    let mut tracer = Tracer {
        observer: instance.observe()?,
        instance,
        wanted,
        is_json: flags.json,
        names: BTreeMap::new(),
        first_us: None,
        width: 0,
    };
    loop {
        // Asked first, so that what was written before the end is still read.
        let is_over = stop.load(Ordering::Relaxed)
            || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if tracer.show_new().is_err() {
            // Whoever read our output has left.
            return Ok(ExitCode::SUCCESS);
        }
        if is_over {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(PAUSE);
        tracer.follow();
    }
}

/// Whose steps are wanted.
enum Wanted {
    All,
    /// Whose fingerprint begins with these digits.
    Of(String),
    /// Of a peer by this name or address, who is not there yet. Until then nothing is read: the
    /// journal keeps it.
    Later(String),
}

/// Whose steps are meant by `peer`; who is not there may come, unless this is about the past.
fn whose(instance: &RunDir, peer: &str, is_past: bool) -> Result<Wanted, Failure> {
    let is_hex = peer.len() >= DIGITS_MIN && peer.chars().all(|c| c.is_ascii_hexdigit());
    match ping::find(instance, peer) {
        Ok(link) => Ok(Wanted::Of(link.fingerprint)),
        Err(_) if is_hex => Ok(Wanted::Of(peer.to_ascii_lowercase())),
        Err(failure) if is_past => Err(failure),
        Err(failure) => {
            eprintln!("ipop: {failure}; waiting for it");
            Ok(Wanted::Later(peer.to_owned()))
        }
    }
}

struct Tracer {
    observer: Observer,
    instance: RunDir,
    wanted: Wanted,
    is_json: bool,
    names: BTreeMap<Fingerprint, String>,
    first_us: Option<u64>,
    /// Of the names so far.
    width: usize,
}

impl Tracer {
    /// Shows what the journal has that was not shown yet.
    fn show_new(&mut self) -> std::io::Result<()> {
        if let Wanted::Later(peer) = &self.wanted {
            let Ok(link) = ping::find(&self.instance, peer) else { return Ok(()) };
            self.wanted = Wanted::Of(link.fingerprint);
        }
        let mut buffer = vec![0; self.observer.journal.record_len()];
        loop {
            let record = self.observer.journal.next(&mut buffer).map(TraceRecord::decode);
            let missed = self.observer.journal.take_missed();
            if missed > 0 {
                self.remark(&format!(
                    "{} overwritten before they were read",
                    plural(missed, "step")
                ));
            }
            match record {
                // What a datapath of another age says and we do not know.
                Some(Err(_)) => {}
                Some(Ok(record)) => self.show(&record)?,
                None => return std::io::stdout().flush(),
            }
        }
    }

    fn show(&mut self, record: &TraceRecord) -> std::io::Result<()> {
        let fingerprint = record.peer.to_string();
        if matches!(&self.wanted, Wanted::Of(digits) if !fingerprint.starts_with(digits)) {
            return Ok(());
        }
        let name = self.name(record.peer);
        let mut out = std::io::stdout().lock();
        if self.is_json {
            let line = serde_json::to_string(&Line::new(record, &name))?;
            return writeln!(out, "{line}");
        }
        self.width = self.width.max(name.len());
        let first_us = match self.first_us {
            Some(first_us) => first_us,
            None => {
                writeln!(out, "time (UTC)                     seconds  peer and step")?;
                *self.first_us.insert(record.at_us)
            }
        };
        let since = record.at_us.saturating_sub(first_us) as f64 / 1e6;
        let (time, width) = (rfc3339(record.at_us), self.width);
        let (title, detail) = (title(record.step), detail(record));
        let line = format!("{time} {since:+11.6}  {name:width$}  {title:17} {detail}");
        writeln!(out, "{}", line.trim_end())
    }

    /// What is no step, beside the steps.
    fn remark(&self, text: &str) {
        eprintln!("ipop: {text}");
    }

    /// What people call the peer.
    fn name(&mut self, peer: Fingerprint) -> String {
        if let Some(name) = self.names.get(&peer) {
            return name.clone();
        }
        let snapshot = Snapshot::of(&self.instance).ok();
        let links = snapshot.into_iter().flat_map(|snapshot| snapshot.links);
        for link in links.filter(|link| !link.name.is_empty()) {
            if let Ok(fingerprint) = link.fingerprint.parse() {
                self.names.insert(fingerprint, link.name);
            }
        }
        let digits = || peer.to_string().chars().take(8).collect();
        self.names.get(&peer).cloned().unwrap_or_else(digits)
    }

    /// Goes over to a new datapath's journal when the old one is gone.
    fn follow(&mut self) {
        if self.observer.datapath.presence().is_ok_and(|presence| presence.alive) {
            return;
        }
        std::thread::sleep(SUCCESSOR_PAUSE);
        let Ok(observer) = self.instance.observe() else { return };
        if observer.generation != self.observer.generation {
            // What the old one wrote last.
            let _ = self.show_new();
            self.remark("the datapath was started anew: its steps follow");
            self.observer = observer;
        }
    }
}
