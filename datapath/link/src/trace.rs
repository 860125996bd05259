//! What a link tells of its life, step by step, and how much of it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_crypto::Cipher;

use crate::port::LinkState;

/// Steps that a link may tell at once, and from one to the next in the long run. A link that looks
/// for a path between many addresses has more to tell; what is left out is counted.
const BURST: u32 = 512;
const REFILL_AFTER: Duration = Duration::from_millis(100);
/// The last of them are kept for what there is little of: not for single checks.
const RESERVE: u32 = 64;

/// A step of a link's life.
#[derive(Clone, Debug, PartialEq)]
pub enum Trace {
    /// The link is looked for from now on.
    Opened {
        /// Whether this end nominates paths and begins handshakes.
        is_controlling: bool,
    },
    /// A step of its ICE agent.
    Ice(ipop_ice::Trace),
    /// A handshake has begun, at either end's wish.
    HandshakeStarted,
    /// A handshake failed; for a person, why.
    HandshakeFailed(String),
    /// The handshake is done, its keys are installed and asked to prove themselves.
    KeysInstalled {
        /// What they seal with.
        cipher: Cipher,
        /// Lanes that both ends serve.
        lanes: u8,
    },
    /// The new keys carry frames; they were proven in both directions, this long after they were
    /// installed.
    KeysConfirmed(Duration),
    /// The path is known to carry datagrams of this length, bytes of UDP payload.
    DatagramLen(u16),
    /// A lane besides the first takes this path, or has none.
    Lane {
        /// Which.
        lane: u8,
        /// From our end to the other.
        path: Option<(SocketAddr, SocketAddr)>,
    },
    /// What the link can do is another thing.
    State(LinkState),
    /// The link is over; for a person, why.
    Closed(String),
    /// So many steps were not told, for there were too many.
    LeftOut(u64),
}

impl Trace {
    /// Whether there may be many of its kind.
    fn is_routine(&self) -> bool {
        use ipop_ice::Trace as Ice;
        matches!(
            self,
            Self::Ice(
                Ice::LocalCandidate { .. }
                    | Ice::PairFormed(_)
                    | Ice::CheckSent { .. }
                    | Ice::StrayAnswer { .. }
                    | Ice::RemoteUseless { .. }
            )
        )
    }
}

/// Steps that wait to be taken, no more than are allowed.
#[derive(Debug)]
pub(crate) struct Recorder {
    traces: VecDeque<Trace>,
    allowance: u32,
    refilled_at: Instant,
    left_out: u64,
}

impl Recorder {
    pub fn new(now: Instant) -> Self {
        let traces = VecDeque::new();
        Recorder { traces, allowance: BURST, refilled_at: now, left_out: 0 }
    }

    pub fn record(&mut self, now: Instant, trace: Trace) {
        self.refill(now);
        let needed = if trace.is_routine() { RESERVE } else { 0 };
        if self.allowance <= needed {
            self.left_out += 1;
            return;
        }
        if self.left_out > 0 {
            self.traces.push_back(Trace::LeftOut(std::mem::take(&mut self.left_out)));
        }
        self.allowance -= 1;
        self.traces.push_back(trace);
    }

    pub fn take(&mut self) -> Option<Trace> {
        self.traces.pop_front()
    }

    fn refill(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.refilled_at).as_millis();
        let steps = u32::try_from(late / REFILL_AFTER.as_millis()).unwrap_or(u32::MAX);
        self.refilled_at += REFILL_AFTER.saturating_mul(steps);
        self.allowance = self.allowance.saturating_add(steps).min(BURST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 7))
    }

    fn routine() -> Trace {
        let kind = ipop_ice::CandidateKind::Host;
        Trace::Ice(ipop_ice::Trace::LocalCandidate { kind, address: address() })
    }

    fn taken(recorder: &mut Recorder) -> Vec<Trace> {
        std::iter::from_fn(|| recorder.take()).collect()
    }

    #[test]
    fn what_is_too_much_is_left_out_and_counted_and_room_is_kept_for_what_is_rare() {
        let start = Instant::now();
        let mut recorder = Recorder::new(start);
        for _ in 0..2 * BURST {
            recorder.record(start, routine());
        }
        recorder.record(start, Trace::Closed("tired".into()));
        let told = taken(&mut recorder);
        assert_eq!(told.len() as u32, BURST - RESERVE + 2);
        let left_out = Trace::LeftOut(u64::from(BURST + RESERVE));
        assert_eq!(told[told.len() - 2..], [left_out, Trace::Closed("tired".into())]);

        // One is told for each pause, without end.
        let mut count = 0;
        for step in 1..=10_000 {
            recorder.record(start + REFILL_AFTER * step / 10, Trace::HandshakeStarted);
            count += taken(&mut recorder).iter().filter(|t| **t == Trace::HandshakeStarted).count();
        }
        let expected = 1000 + RESERVE as usize - 1;
        assert_eq!(count, expected);
    }
}
