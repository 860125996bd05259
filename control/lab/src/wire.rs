//! A cable in user space: two taps and a thread between them that delays, loses, repeats, reorders
//! and corrupts frames. UDP datagrams that a kernel hands over as one (segmentation offload) suffer
//! one by one.

mod frame;

use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::rng::Rng;
use crate::sys::{self, Tap};
use crate::wire::frame::{Frame, Reading, Train};
use crate::{LabError, Namespace};

/// Frames that wait on a wire at most; what comes beyond is lost, as on a full queue.
const QUEUE_FRAMES: usize = 20_000;
/// Frames, each perhaps of many datagrams, that are taken from one end before the other's turn.
const READS_PER_TURN: usize = 64;

/// What a wire does to the frames on it, the same both ways. Shares are 0.0 to 1.0.
#[derive(Clone, Debug, Default)]
pub struct Impairment {
    /// Time each frame spends on the wire.
    pub delay: Duration,
    /// Share of frames that vanish.
    pub loss: f64,
    /// How many vanish in a row, on average (Gilbert's model); at most one where it is below.
    pub burst: f64,
    /// Bursts end with time too: a frame that nothing has come before for so long vanishes with
    /// the chance `loss`, whatever became of the last one. Zero: a burst waits for its frames.
    pub memory: Duration,
    /// Share of frames that arrive twice.
    pub duplicate: f64,
    /// Share of frames that arrive later than their followers.
    pub reorder: f64,
    /// Share of UDP frames that have one bit of their payload flipped (with no UDP checksum left
    /// to catch it).
    pub corrupt: f64,
    /// Share of UDP frames that lose the tail of their payload.
    pub truncate: f64,
    /// Datagrams that still follow each other arrive as one, as from a network card that joins
    /// them (generic receive offload); otherwise one by one. Without effect on kernels before 6.2.
    pub joins: bool,
    /// Seed of the choices.
    pub seed: u64,
}

/// How many frames a wire changed so far.
#[derive(Debug, Default)]
pub struct Faults {
    /// Frames delivered, changed or not.
    pub delivered: AtomicU64,
    /// Frames lost on purpose or because the queue was full.
    pub lost: AtomicU64,
    /// Frames delivered twice.
    pub duplicated: AtomicU64,
    /// Frames held back behind their followers.
    pub reordered: AtomicU64,
    /// Frames with a flipped bit.
    pub corrupted: AtomicU64,
    /// Frames cut short.
    pub truncated: AtomicU64,
}

/// A running wire; dropping it removes both its interfaces.
#[derive(Debug)]
pub struct Wire {
    stop: Arc<AtomicBool>,
    impairment: Arc<Mutex<Impairment>>,
    faults: Arc<Faults>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Joins a new interface `a.1` in namespace `a.0` to a new interface `b.1` in `b.0`.
    ///
    /// # Errors
    /// When a tap device cannot be made: no root, no `/dev/net/tun`, or the name is taken.
    pub fn join(
        a: (&Namespace, &str),
        b: (&Namespace, &str),
        impairment: Impairment,
    ) -> Result<Self, LabError> {
        let ends = [open(a)?, open(b)?];
        let stop = Arc::new(AtomicBool::new(false));
        let faults = Arc::new(Faults::default());
        let impairment = Arc::new(Mutex::new(impairment));
        let mut carrier = Carrier::new(ends, impairment.clone(), faults.clone());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                carrier.turn();
            }
        });
        Ok(Self { stop, impairment, faults, thread: Some(thread) })
    }

    /// Changes what the wire does from now on.
    pub fn impair(&self, impairment: Impairment) {
        *self.impairment.lock().unwrap_or_else(PoisonError::into_inner) = impairment;
    }

    /// What the wire did so far.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open((namespace, name): (&Namespace, &str)) -> Result<Tap, LabError> {
    sys::open_tap(&namespace.path(), name).map_err(|source| {
        LabError::system(format!("cannot make tap `{name}` in {}", namespace.name()), source)
    })
}

/// A frame on its way; the heap yields the one that is due first.
struct Flying {
    due: Instant,
    order: u64,
    to: usize,
    frame: Frame,
}

impl Ord for Flying {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.order).cmp(&(self.due, self.order))
    }
}
impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Flying {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Flying {}

/// Whether everything on a way vanishes just now (Gilbert's model).
#[derive(Default)]
struct Outage {
    is_on: bool,
    /// When the last frame came.
    last: Option<Instant>,
}

impl Outage {
    /// Whether the frame that comes now vanishes. What ends an outage is chosen by its mean length,
    /// what begins one so that the share comes out right, however far apart frames are.
    fn takes(&mut self, now: Instant, rng: &mut Rng, impairment: &Impairment) -> bool {
        let Impairment { loss, burst, memory, .. } = *impairment;
        let last = self.last.replace(now).filter(|last| memory.is_zero() || now < *last + memory);
        if burst <= 1.0 || last.is_none() {
            self.is_on = rng.hits(loss);
        } else {
            let changes = if self.is_on { 1.0 / burst } else { loss / (burst * (1.0 - loss)) };
            self.is_on ^= rng.hits(changes);
        }
        self.is_on
    }
}

/// The thread's state.
struct Carrier {
    ends: [Tap; 2],
    impairment: Arc<Mutex<Impairment>>,
    faults: Arc<Faults>,
    reading: Reading,
    flying: BinaryHeap<Flying>,
    order: u64,
    rng: Rng,
    /// Towards each end.
    outages: [Outage; 2],
}

impl Carrier {
    fn new(ends: [Tap; 2], impairment: Arc<Mutex<Impairment>>, faults: Arc<Faults>) -> Self {
        let seed = impairment.lock().unwrap_or_else(PoisonError::into_inner).seed;
        let (reading, rng) = (Reading::new(), Rng::new(seed));
        let (flying, outages) = Default::default();
        Self { ends, impairment, faults, reading, flying, order: 0, rng, outages }
    }

    fn turn(&mut self) {
        self.wait();
        let impairment = self.impairment.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let now = Instant::now();
        for from in 0..2 {
            self.take_in(&impairment, from, now);
        }
        self.deliver(impairment.joins, Instant::now());
    }

    /// Sleeps until a frame comes or one is due, at most 50 ms so that a stop is seen.
    fn wait(&mut self) {
        let idle = Duration::from_millis(50);
        let pause = self
            .flying
            .peek()
            .map_or(idle, |next| next.due.saturating_duration_since(Instant::now()).min(idle));
        let time = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        let mut files = self.ends.each_ref().map(|end| PollFd::new(&end.file, PollFlags::IN));
        if poll(&mut files, Some(&time)).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn take_in(&mut self, impairment: &Impairment, from: usize, now: Instant) {
        let mut frames = Vec::new();
        for _ in 0..READS_PER_TURN {
            if self.reading.take(&self.ends[from].file, &mut frames).is_err() {
                break;
            }
        }
        for frame in frames {
            self.launch(impairment, frame, 1 - from, now);
        }
    }

    fn launch(&mut self, impairment: &Impairment, mut frame: Frame, to: usize, now: Instant) {
        if self.outages[to].takes(now, &mut self.rng, impairment)
            || self.flying.len() >= QUEUE_FRAMES
        {
            self.faults.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.rng.hits(impairment.corrupt) && frame.flip_bit(self.rng.next()) {
            self.faults.corrupted.fetch_add(1, Ordering::Relaxed);
        }
        if self.rng.hits(impairment.truncate) && frame.cut_tail(self.rng.next()) {
            self.faults.truncated.fetch_add(1, Ordering::Relaxed);
        }
        let mut due = now + impairment.delay;
        if self.rng.hits(impairment.reorder) {
            due += impairment.delay / 2 + Duration::from_millis(1);
            self.faults.reordered.fetch_add(1, Ordering::Relaxed);
        }
        if self.rng.hits(impairment.duplicate) {
            self.faults.duplicated.fetch_add(1, Ordering::Relaxed);
            self.fly(due, to, frame.clone());
        }
        self.fly(due, to, frame);
    }

    fn fly(&mut self, due: Instant, to: usize, frame: Frame) {
        self.order += 1;
        self.flying.push(Flying { due, order: self.order, to, frame });
    }

    fn deliver(&mut self, joins: bool, now: Instant) {
        while let Some(Flying { to, frame, .. }) = self.next_due(now, |_| true) {
            let end = &self.ends[to];
            let joins = joins && end.takes_datagrams;
            let mut train = Train::new(frame);
            while joins
                && let Some(next) = self.next_due(now, |n| n.to == to && train.accepts(&n.frame))
            {
                train.push(&next.frame);
            }
            let count = train.count as u64;
            match train.write(&self.ends[to].file) {
                Ok(()) => self.faults.delivered.fetch_add(count, Ordering::Relaxed),
                Err(_) => self.faults.lost.fetch_add(count, Ordering::Relaxed),
            };
        }
    }

    /// Takes the first frame of all if it is due and wanted.
    fn next_due(&mut self, now: Instant, is_wanted: impl Fn(&Flying) -> bool) -> Option<Flying> {
        let next = self.flying.peek()?;
        (next.due <= now && is_wanted(next)).then(|| self.flying.pop()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of so many frames, this far apart: those that vanish, and how often it begins.
    fn losses(impairment: &Impairment, pause: Duration) -> (f64, f64) {
        let (mut outage, mut rng, mut now) = (Outage::default(), Rng::new(1), Instant::now());
        let mut fate = || {
            now += pause;
            outage.takes(now, &mut rng, impairment)
        };
        let fates: Vec<_> = (0..1_000_000).map(|_| fate()).collect();
        let lost = fates.iter().filter(|is_lost| **is_lost).count();
        let bursts = fates.windows(2).filter(|pair| !pair[0] && pair[1]).count();
        (lost as f64, bursts as f64)
    }

    #[test]
    fn losses_have_the_share_and_the_length_that_they_should() {
        for (loss, burst) in [(0.01, 3.0), (0.1, 5.0), (0.25, 4.0), (0.5, 20.0), (0.25, 0.0)] {
            let impairment = Impairment { loss, burst, ..Impairment::default() };
            let (lost, bursts) = losses(&impairment, Duration::from_millis(1));
            // Independent losses of this share come in a row as well.
            let expected = if burst > 1.0 { burst } else { 1.0 / (1.0 - loss) };
            assert!((lost / 1e6 / loss - 1.0).abs() < 0.05, "{loss}: {lost}");
            assert!((lost / bursts / expected - 1.0).abs() < 0.05, "{expected}: {}", lost / bursts);
        }
    }

    #[test]
    fn a_burst_ends_with_time_and_the_share_stays() {
        let memory = Duration::from_millis(100);
        let impairment = Impairment { loss: 0.25, burst: 4.0, memory, ..Impairment::default() };
        for (pause, expected) in [(1, 4.0), (99, 4.0), (100, 4.0 / 3.0), (2000, 4.0 / 3.0)] {
            let (lost, bursts) = losses(&impairment, Duration::from_millis(pause));
            assert!((lost / 1e6 / 0.25 - 1.0).abs() < 0.05, "{pause} ms: {lost}");
            assert!((lost / bursts / expected - 1.0).abs() < 0.05, "{pause} ms: {}", lost / bursts);
        }
    }
}
