//! What a port is made with, and what it tells of itself.

use std::fmt;
use std::time::Duration;

use crate::port::{BUFFER_LEN, SLOT_LEN};
use crate::ring::RingFeatures;

/// Sizes of a port. All memory is allocated when it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Buffers for tap frames; a ring rounds up to a power of two.
    pub frames: u16,
    /// Buffers for datagrams, of both families together; a ring rounds up to a power of two.
    pub datagrams: u16,
    /// Output slots.
    pub slots: u16,
    /// Queue single reads on the tap even if the kernel has multishot reads. A poll loop reads
    /// singly anyway.
    pub single_reads: bool,
    /// How long a wait looks for completions before it sleeps: lower latency for CPU time.
    pub busy_poll: Duration,
}

impl Default for PortConfig {
    fn default() -> PortConfig {
        let busy_poll = Duration::ZERO;
        PortConfig { frames: 64, datagrams: 64, slots: 64, single_reads: false, busy_poll }
    }
}

impl PortConfig {
    /// Bytes that a port of this size allocates for packets, at most.
    pub fn memory_len(&self) -> usize {
        let ring = |count: u16| usize::from(count.next_power_of_two());
        let buffers = ring(self.frames) + ring(self.datagrams);
        buffers * BUFFER_LEN + usize::from(self.slots) * SLOT_LEN
    }
}

/// How often something out of the ordinary happened, since the port opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Tap reading paused because no buffer was free.
    pub frames_exhausted: u64,
    /// Receiving paused because no buffer was free.
    pub datagrams_exhausted: u64,
    /// Sends that went out datagram by datagram because a route takes no segmentation.
    pub unsegmented_sends: u64,
    /// Reads and receives that failed for another reason.
    pub input_failures: u64,
}

/// What carries a port's packets to the kernel and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring.
    Ring(RingFeatures),
    /// Plain system calls.
    PollLoop,
}

/// What a port runs on, for status reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortFeatures {
    /// What carries its packets.
    pub driver: Driver,
    /// How long a wait looks before it sleeps.
    pub busy_poll: Duration,
    /// Whether the kernel polls network cards for it (Linux 6.9, with io_uring).
    pub polls_cards: bool,
    /// Whether sends may be segmented, at least to some peers.
    pub segmentation: bool,
    /// Has an IPv4 socket.
    pub v4: bool,
    /// Has an IPv6 socket.
    pub v6: bool,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Driver::Ring(ring) => write!(
                f,
                "io_uring ({}, {})",
                or(ring.deferred, "deferred", "cooperative"),
                or(ring.tap_multishot, "multishot tap reads", "queued tap reads"),
            ),
            Driver::PollLoop => f.write_str("poll loop"),
        }
    }
}

impl PortFeatures {
    /// The sockets and how they send, without the driver.
    pub fn sockets(&self) -> impl fmt::Display {
        let sends = or(self.segmentation, "segmented sends", "single sends");
        let (v4, v6) = (or(self.v4, " IPv4", ""), or(self.v6, " IPv6", ""));
        format!("UDP{v4}{v6}, {sends}")
    }
}

impl fmt::Display for PortFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.driver, self.sockets())?;
        if self.busy_poll.is_zero() {
            return Ok(());
        }
        let cards = or(self.polls_cards, ", network cards too", "");
        write!(f, ", busy polling {} us{cards}", self.busy_poll.as_micros())
    }
}

fn or(yes: bool, name: &'static str, other: &'static str) -> &'static str {
    if yes { name } else { other }
}
