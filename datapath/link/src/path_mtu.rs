//! How large a datagram the path carries: found by probes (RFC 8899), so no ICMP is needed, and
//! kept right while the path changes. All lengths are bytes of UDP payload.
//!
//! A probe is a ping under the session's keys, padded to a length; its pong is the proof. Probes go
//! out in bursts, the shortest first, and last a *closing* one of a length that passes: when that
//! one is answered, what left before it and is not answered was lost. So a burst takes one round
//! trip, whatever it finds, and a path that loses everything for a while proves nothing.
//!
//! Lost because of its length? Nobody knows: paths lose. What is lost first is asked again, each
//! time with a closing one right behind, until it passes or the closing ones have passed
//! [`EVIDENCE`] times and it never. If lengths made no difference, either would be the first to
//! pass as likely as the other, time after time, however much the path loses: one of so many tosses
//! of a coin. So nothing has to be known, or assumed, of how much that is.
//!
//! 1. A new path carries [`Limits::floor`] until more is proven.
//! 2. *Search*: all rungs at once, then what lies between the best and the next, ever closer.
//! 3. *Check*: while there is traffic, the length in use is probed again and again. Where it passes
//!    no more, it is a black hole: back to the floor at once, and a new search. Now and then the
//!    next rung is tried as well, for the path may have grown.
//!
//! What our own interface refuses is known at once. ICMP is not listened to: anybody can send it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_wire::channel::CHANNEL_PREFIX_LEN;

/// From one check to the next, while there is traffic.
pub const CHECK_AFTER: Duration = Duration::from_millis(400);

/// From one try of the next rung to another, while there is traffic.
pub const RAISE_AFTER: Duration = Duration::from_millis(2500);

/// IP packets that networks are made for, in bytes. Those next to 1500 and 9000 keep the search
/// from going on above the two most frequent ones.
const RUNGS: [u16; 14] =
    [576, 1280, 1400, 1420, 1440, 1460, 1480, 1492, 1500, 1508, 4470, 9000, 9008, 65_535];

/// A search ends when it knows the length this closely.
const PRECISION: u16 = 8;
/// Lengths of a burst between rungs.
const SUBDIVISIONS: u16 = 4;

/// UDP and IP header.
const OVERHEAD_V4: u16 = 28;
const OVERHEAD_V6: u16 = 48;
/// The largest IP packet through a relay: relays fragment, so an answer says little about the path
/// behind it.
const RELAYED_IP_LEN_MAX: u16 = 1500;
/// The largest UDP payload of IPv4, which is the most that one send may have.
const DATAGRAM_LEN_MAX: u16 = 65_507;

/// How often shorter probes pass behind a length that never does, until it is taken for too long.
/// By chance that happens less than once in 2^13 lengths; on a path that loses a quarter each way,
/// once in millions, as the longer one is asked first.
const EVIDENCE: u32 = 13;
/// Of those, how many one burst can bring, but for a first one, which brings one: what passes needs
/// no evidence.
const PAIRS: usize = 6;
/// The same of a first one, where those before it were silent, at most.
const PAIRS_MORE: usize = 2;
/// Bursts without any answer after which a search rests, and for how long.
const SILENCES_MAX: u32 = 6;
const REST: Duration = Duration::from_secs(10);

/// How long a burst may stay without an answer: round trips, within bounds; twice as long after
/// each silence.
const PATIENCE_RTTS: u32 = 3;
const PATIENCE_MIN: Duration = Duration::from_millis(200);
const PATIENCE_MAX: Duration = Duration::from_secs(1);
const PATIENCE_UNKNOWN_RTT: Duration = Duration::from_millis(500);
/// What may be overtaken by the closing probe's answer has this long, or a quarter round trip.
const REORDERING: Duration = Duration::from_millis(10);

/// Probes whose answers still count.
const PROBES_MAX: usize = 48;

/// Between which lengths a path's is sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Passes every path of the family: 576 bytes of IPv4, 1280 of IPv6.
    pub floor: u16,
    /// Not sought beyond.
    pub ceiling: u16,
    /// What IP, UDP and a relay add.
    overhead: u16,
}

impl Limits {
    /// Those of a path to `remote`; a relay may stand at either end.
    pub fn of(remote: SocketAddr, is_direct: bool) -> Limits {
        let (headers, floor) = match remote {
            SocketAddr::V4(_) => (OVERHEAD_V4, 576),
            SocketAddr::V6(_) => (OVERHEAD_V6, 1280),
        };
        let (overhead, largest) = match is_direct {
            true => (headers, u16::MAX),
            false => (headers + CHANNEL_PREFIX_LEN as u16, RELAYED_IP_LEN_MAX),
        };
        let ceiling = (largest - overhead).min(DATAGRAM_LEN_MAX);
        Limits { floor: floor - overhead, ceiling, overhead }
    }

    /// Lengths of the rungs between, both ends left out.
    fn rungs(self, above: u16, below: u16) -> impl Iterator<Item = u16> {
        let lens = RUNGS.into_iter().map(move |rung| rung.saturating_sub(self.overhead));
        let lens = lens.map(move |len| len.min(self.ceiling));
        lens.filter(move |len| (above + 1..below).contains(len))
    }
}

/// A ping to be padded so that its datagram has this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub nonce: u64,
    pub len: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    Search,
    Check,
}

/// What a burst has sent last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// Nothing, or that is to be sent again.
    Nothing,
    /// Everything that is in question.
    All,
    /// The shortest that is in question, again and again.
    Pairs,
}

/// A probe that was sent.
#[derive(Clone, Copy, Debug)]
struct Asked {
    probe: Probe,
    closes: Option<Closes>,
}

/// What it says about others that a closing probe passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closes {
    /// All that was in question went before it.
    All,
    /// This length went before it.
    Len(u16),
}

/// Questions about some lengths, until all is known that can be.
#[derive(Debug)]
struct Burst {
    aim: Aim,
    /// What was in use at its begin.
    used: u16,
    /// What is in question, ascending.
    lens: Vec<u16>,
    /// The longest that passed; at first that of the closing probe.
    passed: u16,
    sent: Sent,
    /// A closing probe was answered since.
    is_closed: bool,
    /// An answer came since `due` was set.
    is_heard: bool,
    /// How often the shortest in question was lost where a closing probe passed.
    evidence: u32,
    silences: u32,
    /// When what was sent last is given up.
    patience_ends: Instant,
    due: Instant,
}

impl Burst {
    fn new(aim: Aim, (passed, used): (u16, u16), lens: Vec<u16>, now: Instant) -> Burst {
        Burst {
            aim,
            used,
            lens,
            passed,
            sent: Sent::Nothing,
            is_closed: false,
            is_heard: false,
            evidence: 0,
            silences: 0,
            patience_ends: now,
            due: now,
        }
    }

    /// The shortest length that has not passed.
    fn lost(&self) -> Option<u16> {
        self.lens.iter().copied().find(|len| *len > self.passed)
    }

    /// Is to be sent at `due`.
    fn again_at(mut self, due: Instant) -> Burst {
        (self.sent, self.due) = (Sent::Nothing, due);
        self
    }

    /// What to send now: lengths, and what they close.
    fn questions(&mut self) -> Vec<(u16, Option<Closes>)> {
        (self.is_closed, self.is_heard) = (false, false);
        let Some(lost) = self.lost() else { return Vec::new() };
        let pair = [(lost, None), (self.passed, Some(Closes::Len(lost)))];
        if self.evidence > 0 {
            self.sent = Sent::Pairs;
            return std::iter::repeat_n(pair, PAIRS).flatten().collect();
        }
        self.sent = Sent::All;
        let unknown = self.lens.iter().copied().filter(|len| *len > self.passed);
        let all = unknown.map(|len| (len, None)).chain([(self.passed, Some(Closes::All))]);
        // A burst that is not closed is of no use, so the next one is closed more than once.
        let more = usize::try_from(self.silences).unwrap_or(PAIRS_MORE).min(PAIRS_MORE);
        all.chain(std::iter::repeat_n(pair, more).flatten()).collect()
    }

    /// A probe was answered; what is asked before the answer to another had `margin` to come.
    fn on_answer(&mut self, now: Instant, asked: Asked, margin: Duration) {
        self.is_heard = true;
        let before = self.lost();
        self.passed = self.passed.max(asked.probe.len);
        let lost = self.lost();
        if lost != before {
            self.evidence = 0;
        }
        let closes = asked.closes.filter(|closes| match closes {
            Closes::All => true,
            Closes::Len(len) => lost == Some(*len),
        });
        if closes.is_some() {
            self.is_closed = true;
            self.silences = 0;
            self.evidence += 1;
            // Others may be right behind.
            self.due = self.patience_ends.min(now + margin);
        }
        if lost.is_none() || (lost != before && self.sent == Sent::Pairs) {
            self.is_closed = true;
            self.due = self.due.min(now);
        }
    }
}

/// The length of one path. See the head of this file.
#[derive(Debug)]
pub(crate) struct PathMtu {
    limits: Limits,
    /// What data may use.
    len: u16,
    /// This long does not pass, as far as is known.
    bound: u16,
    /// Waits to be sent, or for its outcome.
    burst: Option<Burst>,
    /// Those not answered, the oldest first.
    probes: VecDeque<Asked>,
    rtt: Option<Duration>,
    check_at: Instant,
    raise_at: Instant,
}

impl PathMtu {
    /// A path of which nothing is known; a search is due at once.
    pub fn new(now: Instant, limits: Limits) -> PathMtu {
        let mut path = PathMtu {
            limits,
            len: limits.floor,
            bound: limits.ceiling + 1,
            burst: None,
            probes: VecDeque::with_capacity(PROBES_MAX),
            rtt: None,
            check_at: now,
            raise_at: now,
        };
        path.search_from(now, limits.floor);
        path
    }

    /// Longest datagram that the path is known to carry.
    pub fn datagram_len(&self) -> u16 {
        self.len
    }

    /// Whether that is all that the path carries, as far as is known: no search is under way.
    pub fn is_settled(&self) -> bool {
        self.burst.as_ref().is_none_or(|burst| burst.aim == Aim::Check)
    }

    /// The path carried data lately.
    pub fn on_traffic(&mut self, now: Instant) {
        if self.burst.is_some() {
            return;
        }
        let Limits { floor, ceiling, .. } = self.limits;
        let used = Some(self.len).filter(|len| now >= self.check_at && *len > floor);
        let next = self.limits.rungs(self.len, ceiling + 1).next();
        let next = next.filter(|_| now >= self.raise_at);
        if next.is_some() {
            self.raise_at = now + RAISE_AFTER;
        }
        let lens: Vec<_> = used.into_iter().chain(next).collect();
        if !lens.is_empty() {
            self.burst = Some(self.ask(now, Aim::Check, floor, lens));
        }
    }

    /// Something about this machine's network is another: what was known may be wrong. The length
    /// in use stays until it is known not to pass.
    pub fn on_network_changed(&mut self, now: Instant) {
        self.bound = self.limits.ceiling + 1;
        self.search_from(now, self.limits.floor);
    }

    /// A pong came; false if its ping was none of ours, or too long ago.
    pub fn on_pong(&mut self, now: Instant, nonce: u64) -> bool {
        let Some(at) = self.probes.iter().position(|asked| asked.probe.nonce == nonce) else {
            return false;
        };
        let Some(asked) = self.probes.remove(at) else { return false };
        let margin = self.rtt.map_or(REORDERING, |rtt| (rtt / 4).max(REORDERING));
        if let Some(burst) = &mut self.burst {
            burst.on_answer(now, asked, margin);
        }
        let len = asked.probe.len;
        if len > self.len {
            self.len = len;
            self.bound = self.bound.max(len + 1);
        }
        true
    }

    /// Our own interface does not take datagrams of this length.
    pub fn on_too_big(&mut self, now: Instant, len: u16) {
        self.bound = self.bound.min(len.max(self.limits.floor + 1));
        self.probes.retain(|asked| asked.probe.len < len);
        if len <= self.len && self.len > self.limits.floor {
            self.len = self.limits.floor;
            return self.search_from(now, self.limits.floor);
        }
        if let Some(burst) = &mut self.burst {
            burst.lens.retain(|asked| *asked < len);
            if burst.lost().is_none() {
                burst.due = burst.due.min(now);
            }
        }
    }

    /// Does what is due; returns the probes to be sent, in order. `nonce` draws unpredictable ones.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        rtt: Option<Duration>,
        mut nonce: impl FnMut() -> u64,
    ) -> Vec<Probe> {
        self.rtt = rtt.or(self.rtt);
        if let Some(burst) = self.burst.take_if(|burst| burst.due <= now) {
            self.burst = match burst.sent {
                Sent::Nothing => Some(burst),
                Sent::All | Sent::Pairs => self.conclude(now, burst),
            };
        }
        let patience = self.patience();
        let Some(burst) = self.burst.as_mut().filter(|burst| burst.due <= now) else {
            return Vec::new();
        };
        let asked: Vec<_> = burst
            .questions()
            .into_iter()
            .map(|(len, closes)| Asked { probe: Probe { nonce: nonce(), len }, closes })
            .collect();
        burst.patience_ends = now + patience * (1 << burst.silences.min(4));
        burst.due = burst.patience_ends;
        self.probes.extend(&asked);
        let overflow = self.probes.len().saturating_sub(PROBES_MAX);
        self.probes.drain(..overflow);
        asked.into_iter().map(|asked| asked.probe).collect()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.burst.as_ref().map(|burst| burst.due)
    }

    fn patience(&self) -> Duration {
        self.rtt.map_or(PATIENCE_UNKNOWN_RTT, |rtt| {
            (rtt * PATIENCE_RTTS).clamp(PATIENCE_MIN, PATIENCE_MAX)
        })
    }

    /// What a burst that is over has shown, and the one that follows.
    fn conclude(&mut self, now: Instant, burst: Burst) -> Option<Burst> {
        let Some(lost) = burst.lost() else { return self.follow(now, &burst) };
        if burst.aim == Aim::Check && lost > burst.used {
            // Whether more than what is in use passes is asked again soon.
            return self.follow(now, &burst);
        }
        if !burst.is_closed {
            return self.on_silence(now, burst);
        }
        if burst.evidence < EVIDENCE {
            return Some(burst.again_at(now));
        }
        match burst.aim {
            Aim::Search => {
                self.bound = lost;
                self.follow(now, &burst)
            }
            Aim::Check => Some(self.on_black_hole(now)),
        }
    }

    /// Not even a closing probe was answered: the network is slow, or down, or loses much.
    fn on_silence(&mut self, now: Instant, mut burst: Burst) -> Option<Burst> {
        if std::mem::take(&mut burst.is_heard) {
            burst.patience_ends = now + self.patience();
            burst.due = burst.patience_ends;
            return Some(burst);
        }
        burst.silences += 1;
        let rest = if burst.silences.is_multiple_of(SILENCES_MAX) { REST } else { Duration::ZERO };
        Some(burst.again_at(now + rest))
    }

    /// The length in use passes no more, but the floor does.
    fn on_black_hole(&mut self, now: Instant) -> Burst {
        let before = self.len;
        self.len = self.limits.floor;
        self.bound = self.limits.ceiling + 1;
        // Answers that are under way are from before the change.
        self.probes.clear();
        let lens = self.lens_between(self.limits.floor, self.bound, Some(before));
        self.ask(now, Aim::Search, self.limits.floor, lens)
    }

    /// What to do after a burst that has told all it can.
    fn follow(&mut self, now: Instant, burst: &Burst) -> Option<Burst> {
        self.check_at = now + CHECK_AFTER;
        if burst.aim == Aim::Check {
            if burst.passed <= burst.used {
                return None;
            }
            self.bound = self.limits.ceiling + 1;
        }
        if self.len >= self.bound {
            self.len = burst.passed;
        }
        let lens = self.lens_between(burst.passed, self.bound, None);
        if lens.is_empty() {
            self.raise_at = now + RAISE_AFTER;
            return None;
        }
        Some(self.ask(now, Aim::Search, burst.passed, lens))
    }

    /// Questions that are due now. Answers to earlier ones say nothing about what these find lost.
    fn ask(&mut self, now: Instant, aim: Aim, passed: u16, lens: Vec<u16>) -> Burst {
        self.probes.iter_mut().for_each(|asked| asked.closes = None);
        Burst::new(aim, (passed, self.len), lens, now)
    }

    fn search_from(&mut self, now: Instant, passed: u16) {
        self.probes.clear();
        let lens = self.lens_between(passed, self.bound, Some(self.len));
        self.burst = Some(self.ask(now, Aim::Search, passed, lens));
    }

    /// What to ask about next: the rungs and a length of special interest; where there is none,
    /// lengths that divide the space evenly; nothing where that is narrow.
    fn lens_between(&self, above: u16, below: u16, also: Option<u16>) -> Vec<u16> {
        let also = also.filter(|len| (above + 1..below).contains(len));
        let mut lens: Vec<_> = self.limits.rungs(above, below).chain(also).collect();
        let space = below - above;
        if lens.is_empty() && space > PRECISION {
            let part = |number| u32::from(space) * number / u32::from(SUBDIVISIONS + 1);
            lens.extend((1..=u32::from(SUBDIVISIONS)).map(|number| above + part(number) as u16));
        }
        lens.sort_unstable();
        lens.dedup();
        lens
    }
}

#[cfg(test)]
mod tests;
