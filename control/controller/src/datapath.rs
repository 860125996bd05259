//! The datapath as the controller sees it: the ring, and a thread that listens to it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipop_shm::{
    AttachError, Consumer, Holder, OpenError, Producer, PushError, RowWriter, Wake, Watch,
};
use ipop_steer::{Command, Event, Request, WORDS_VERSION};
use tokio::sync::mpsc;

/// How often a segment that is not there yet is looked for.
const ATTACH_PAUSE: Duration = Duration::from_millis(5);
/// How long it may take to appear.
const ATTACH_PATIENCE: Duration = Duration::from_secs(15);
/// Longest sleep of the listening thread, so that a dead datapath is noticed.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);
/// Events that wait for the policy; the ring holds the rest.
const EVENTS_MAX: usize = 256;

/// What the listening thread says.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The datapath said this.
    Event(Event),
    /// The datapath is gone: nothing follows.
    Gone,
}

/// The way to a datapath.
pub(crate) struct Datapath {
    commands: Producer,
    /// What did not fit into the ring yet, in order.
    waiting: VecDeque<Vec<u8>>,
    sequence: u64,
    heartbeat: Holder,
    stop: Arc<AtomicBool>,
    /// Errors that observers see too.
    pub(crate) errors: ipop_shm::ErrorLog,
}

/// Why there is no way to the datapath.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatapathError {
    /// The segment cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// The ring is damaged.
    #[error("the command ring is damaged ({0}): the datapath has to start again")]
    Ring(String),
}

impl Datapath {
    /// Attaches to the segment at `path`, waiting for it to appear, and starts to listen.
    pub(crate) fn attach(
        path: &Path,
    ) -> Result<(Self, RowWriter, mpsc::Receiver<Heard>), DatapathError> {
        let end = wait_for_segment(path)?;
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let (mut events, watch, stopped) = (end.events, end.datapath, stop.clone());
        // What was said to an earlier controller is said again in the snapshot.
        events.skip_all();
        std::thread::spawn(move || listen(events, &watch, &sender, &stopped));
        // Numbers of this controller differ from those of all before it.
        let sequence = end.holder.epoch() << 32;
        let (commands, heartbeat, errors) = (end.commands, end.holder, end.errors);
        let waiting = VecDeque::new();
        let datapath = Self { commands, waiting, sequence, heartbeat, stop, errors };
        Ok((datapath, end.note, receiver))
    }

    /// Puts a command into the ring, or behind those that wait for room in it. Returns its number.
    pub(crate) fn send(&mut self, command: Command) -> Result<u64, DatapathError> {
        self.sequence += 1;
        let request = Request { sequence: self.sequence, command };
        let mut record = Vec::new();
        match request.encode(&mut record) {
            Ok(()) => self.waiting.push_back(record),
            // The policy bounds what it says; what a peer made too long is of no use anyway.
            Err(error) => tracing::warn!("a command cannot be encoded: {error}"),
        }
        self.flush()?;
        Ok(self.sequence)
    }

    /// Moves what waits into the ring, as far as there is room.
    pub(crate) fn flush(&mut self) -> Result<(), DatapathError> {
        while let Some(record) = self.waiting.front() {
            match self.commands.push(record) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(PushError::Full) => return Ok(()),
                Err(error) => return Err(DatapathError::Ring(error.to_string())),
            }
        }
        Ok(())
    }

    /// Whether commands wait for room.
    pub(crate) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Shows observers that the controller turns.
    pub(crate) fn beat(&self) {
        self.heartbeat.beat(unix_ms());
    }
}

impl Drop for Datapath {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The datapath and the controller are started at the same time: whichever is first waits.
fn wait_for_segment(path: &Path) -> Result<ipop_shm::ControllerEnd, AttachError> {
    let deadline = Instant::now() + ATTACH_PATIENCE;
    loop {
        match ipop_shm::attach(path, WORDS_VERSION) {
            Err(error) if is_early(&error) && Instant::now() < deadline => {
                std::thread::sleep(ATTACH_PAUSE);
            }
            result => return result,
        }
    }
}

/// A segment that is missing, or whose datapath or controller is about to be replaced.
fn is_early(error: &AttachError) -> bool {
    matches!(
        error,
        AttachError::Open(OpenError::NotFound { .. })
            | AttachError::DatapathGone { .. }
            | AttachError::ControllerLives { .. }
    )
}

fn listen(mut events: Consumer, watch: &Watch, to: &mpsc::Sender<Heard>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match events.pop() {
            Ok(Some(record)) => {
                let event = match Event::decode(record) {
                    Ok(event) => event,
                    Err(error) => {
                        tracing::warn!("an event of the datapath is unreadable: {error}");
                        continue;
                    }
                };
                if to.blocking_send(Heard::Event(event)).is_err() {
                    return;
                }
            }
            Ok(None) => {
                let is_quiet = events.wait(LISTEN_PAUSE) == Wake::TimedOut;
                if is_quiet && !watch.presence().is_ok_and(|presence| presence.alive) {
                    break;
                }
            }
            Err(fault) => {
                tracing::error!("the event ring is damaged ({fault})");
                break;
            }
        }
    }
    let _ = to.blocking_send(Heard::Gone);
}

/// Where the segment of a run directory is.
pub(crate) fn segment_path(run_dir: &Path) -> PathBuf {
    run_dir.join("segment")
}
