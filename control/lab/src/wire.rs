//! A cable in user space: two taps and a thread between them that delays, loses, repeats, reorders
//! and corrupts frames.

use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::rng::Rng;
use crate::{LabError, Namespace, sys};

/// Frames that wait on a wire at most; what comes beyond is lost, as on a full queue.
const QUEUE_FRAMES: usize = 20_000;
/// The largest frame a wire carries: a jumbo frame with its Ethernet header.
const FRAME_BYTES: usize = 9_216;

/// What a wire does to the frames on it, the same both ways. Shares are 0.0 to 1.0.
#[derive(Clone, Debug, Default)]
pub struct Impairment {
    /// Time each frame spends on the wire.
    pub delay: Duration,
    /// Share of frames that vanish.
    pub loss: f64,
    /// Share of frames that arrive twice.
    pub duplicate: f64,
    /// Share of frames that arrive later than their followers.
    pub reorder: f64,
    /// Share of UDP frames that have one bit of their payload flipped (with no UDP checksum left
    /// to catch it).
    pub corrupt: f64,
    /// Share of UDP frames that lose the tail of their payload.
    pub truncate: f64,
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

fn open((namespace, name): (&Namespace, &str)) -> Result<File, LabError> {
    sys::open_tap(&namespace.path(), name).map_err(|source| {
        LabError::system(format!("cannot make tap `{name}` in {}", namespace.name()), source)
    })
}

/// A frame on its way; the heap yields the one that is due first.
struct Flying {
    due: Instant,
    order: u64,
    to: usize,
    frame: Vec<u8>,
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

/// The thread's state.
struct Carrier {
    ends: [File; 2],
    impairment: Arc<Mutex<Impairment>>,
    faults: Arc<Faults>,
    flying: BinaryHeap<Flying>,
    order: u64,
    rng: Rng,
}

impl Carrier {
    fn new(ends: [File; 2], impairment: Arc<Mutex<Impairment>>, faults: Arc<Faults>) -> Self {
        let seed = impairment.lock().unwrap_or_else(PoisonError::into_inner).seed;
        Self { ends, impairment, faults, flying: BinaryHeap::new(), order: 0, rng: Rng::new(seed) }
    }

    fn turn(&mut self) {
        self.wait();
        let now = Instant::now();
        for from in 0..2 {
            self.take_in(from, now);
        }
        self.deliver(Instant::now());
    }

    /// Sleeps until a frame comes or one is due, at most 50 ms so that a stop is seen.
    fn wait(&mut self) {
        let idle = Duration::from_millis(50);
        let pause = self
            .flying
            .peek()
            .map_or(idle, |next| next.due.saturating_duration_since(Instant::now()).min(idle));
        let time = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        let mut files = self.ends.each_ref().map(|end| PollFd::new(end, PollFlags::IN));
        if poll(&mut files, Some(&time)).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn take_in(&mut self, from: usize, now: Instant) {
        let impairment = self.impairment.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut buffer = [0; FRAME_BYTES];
        for _ in 0..256 {
            let Ok(length) = self.ends[from].read(&mut buffer) else { return };
            self.launch(&impairment, buffer[..length].to_vec(), 1 - from, now);
        }
    }

    fn launch(&mut self, impairment: &Impairment, mut frame: Vec<u8>, to: usize, now: Instant) {
        if self.rng.hits(impairment.loss) || self.flying.len() >= QUEUE_FRAMES {
            self.faults.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if self.rng.hits(impairment.corrupt) && flip_bit(&mut frame, self.rng.next()) {
            self.faults.corrupted.fetch_add(1, Ordering::Relaxed);
        }
        if self.rng.hits(impairment.truncate) && cut_tail(&mut frame, self.rng.next()) {
            self.faults.truncated.fetch_add(1, Ordering::Relaxed);
        }
        let mut due = now + impairment.delay;
        if self.rng.hits(impairment.reorder) {
            due += impairment.delay / 2 + Duration::from_millis(1);
        }
        if self.rng.hits(impairment.duplicate) {
            self.faults.duplicated.fetch_add(1, Ordering::Relaxed);
            self.fly(due, to, frame.clone());
        }
        self.fly(due, to, frame);
    }

    fn fly(&mut self, due: Instant, to: usize, frame: Vec<u8>) {
        self.order += 1;
        self.flying.push(Flying { due, order: self.order, to, frame });
    }

    fn deliver(&mut self, now: Instant) {
        while self.flying.peek().is_some_and(|next| next.due <= now) {
            let Some(next) = self.flying.pop() else { return };
            match write_frame(&mut self.ends[next.to], &next.frame) {
                Ok(()) => self.faults.delivered.fetch_add(1, Ordering::Relaxed),
                Err(_) => self.faults.lost.fetch_add(1, Ordering::Relaxed),
            };
        }
    }
}

fn write_frame(end: &mut File, frame: &[u8]) -> io::Result<()> {
    end.write(frame).map(drop)
}

/// Where a frame's UDP payload starts, if it is IPv4 with UDP.
fn udp_payload(frame: &[u8]) -> Option<usize> {
    let is_ipv4 = frame.get(12..14)? == [0x08, 0x00];
    let header = usize::from(*frame.get(14)? & 0x0f) * 4;
    (is_ipv4 && *frame.get(23)? == 17).then_some(14 + header + 8)
}

fn flip_bit(frame: &mut [u8], choice: u64) -> bool {
    let Some(start) = udp_payload(frame).filter(|start| *start < frame.len()) else { return false };
    let length = frame.len() - start;
    let index = start + (choice >> 3) as usize % length;
    frame[index] ^= 1 << (choice & 7);
    clear_udp_checksum(frame, start);
    true
}

/// Shortens the UDP payload and repairs the lengths, so that the receiver's kernel lets it through.
fn cut_tail(frame: &mut Vec<u8>, choice: u64) -> bool {
    let Some(start) = udp_payload(frame).filter(|start| *start + 1 < frame.len()) else {
        return false;
    };
    let kept = (choice as usize) % (frame.len() - start);
    frame.truncate(start + kept);
    let udp_length = (8 + kept) as u16;
    frame[start - 4..start - 2].copy_from_slice(&udp_length.to_be_bytes());
    let ip_length = (frame.len() - 14) as u16;
    frame[16..18].copy_from_slice(&ip_length.to_be_bytes());
    frame[24..26].fill(0);
    let sum = internet_checksum(&frame[14..start - 8]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    clear_udp_checksum(frame, start);
    true
}

/// A zero UDP checksum means "none" over IPv4 (RFC 768): the damage reaches the application.
fn clear_udp_checksum(frame: &mut [u8], payload: usize) {
    frame[payload - 2..payload].fill(0);
}

fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp_frame() -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + 8 + 32];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[23] = 17;
        frame[40..42].copy_from_slice(&[1, 2]);
        frame
    }

    #[test]
    fn a_flipped_bit_is_in_the_payload_and_the_checksum_is_off() {
        let clean = udp_frame();
        let mut frame = clean.clone();
        assert!(flip_bit(&mut frame, 12_345));
        assert_eq!(frame[40..42], [0, 0]);
        let changed = frame[42..].iter().zip(&clean[42..]).filter(|(a, b)| a != b).count();
        assert_eq!(changed, 1);
    }

    #[test]
    fn a_cut_frame_has_true_lengths() {
        let mut frame = udp_frame();
        assert!(cut_tail(&mut frame, 7));
        assert_eq!(frame.len(), 42 + 7);
        assert_eq!(frame[16..18], 35u16.to_be_bytes());
        assert_eq!(frame[38..40], 15u16.to_be_bytes());
        assert_eq!(internet_checksum(&frame[14..34]), 0);
    }

    #[test]
    fn frames_of_other_protocols_are_left_alone() {
        let mut arp = vec![0; 60];
        arp[12..14].copy_from_slice(&[8, 6]);
        let before = arp.clone();
        assert!(!flip_bit(&mut arp, 9) && !cut_tail(&mut arp, 9));
        assert_eq!(arp, before);
    }
}
