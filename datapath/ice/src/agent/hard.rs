//! Hard pairs: a peer whose NAT maps every destination to another port (address and port dependent
//! mapping, "symmetric"), and one whose NAT filters by port. Neither knows the port that the other
//! will be seen at, so ordinary checks never meet.
//!
//! 1. Who is seen at several ports of one address by several observers has such a NAT; the peer
//!    knows it by the candidates that it names, and by its checks of relayed addresses. Those may
//!    deceive: a router that rejects what comes unasked moves the port towards that relay alone. So
//!    what several servers say counts more, and an end with such a NAT opens all the same.
//! 2. The other end sprays: up to [`PROBES_MAX`] checks from its one socket to distinct ports of
//!    that address, each of which opens its own filter for one port.
//! 3. The end with the symmetric NAT opens: up to [`OPENERS_MAX`] sockets send a check each to the
//!    peer's address, each of which is mapped to a port that nobody knows.
//! 4. One port in common suffices. Of 64 512 ports, 256 probed and n opened have one with
//!    probability 1 - exp(-256 n / 64 512): half of all tries end at n = 175, 95 % by n = 768.
//!    What arrives is an ordinary check, and makes an ordinary pair, at the opening end with a
//!    socket of its own as base.
//!
//! A NAT that counts up shows by observed ports that are close together. It is aimed at: half of
//! the probes go to the ports that come next, and two such NATs, one end opening and one
//! spraying, meet as well. Two NATs that draw ports at random would need some hundred times as
//! much on both sides: not tried.
//!
//! All this happens only while no direct pair works, a second after the checks began, in turns
//! that the caller grants, at a stated pace, and four times at most. Both ends act on their own and
//! at about the same time: what one end opened is remembered by any NAT for 30 seconds.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ipop_stun::Random;

use super::{Agent, Output, State};
use crate::candidate::{Candidate, CandidateKind};

/// Ports that one try probes, at most.
pub const PROBES_MAX: usize = 256;
/// Sockets that one try opens, at most.
pub const OPENERS_MAX: usize = 768;
/// The pace of both: so many datagrams at a time, and the pause from one burst to the next.
const BURST: usize = 16;
const BURST_PAUSE: Duration = Duration::from_millis(20);
/// From when no direct pair works until the first try. Openers come a little later: a filter that
/// answers what it does not let in, and remembers it, has to be open by then.
const FIRST_AFTER: Duration = Duration::from_millis(1000);
const OPENERS_LATER: Duration = Duration::from_millis(400);
/// From try to try.
const PAUSES: [Duration; 3] =
    [Duration::from_secs(30), Duration::from_secs(120), Duration::from_secs(480)];
/// How long openers stay after the last one, for the peer's probes.
const HOLD: Duration = Duration::from_millis(2500);
/// A turn that comes later is of no use: the peer's NAT has forgotten by then.
const TURN_PATIENCE: Duration = Duration::from_secs(20);
/// What is needed for a try may become known later, for so long.
const LEARNING_TIME: Duration = Duration::from_secs(10);
const LEARNING_PAUSE: Duration = Duration::from_millis(100);
/// Ports that are this close together were counted up.
const SEQUENCE_SPAN: u16 = 64;
/// Ports probed behind the highest one known; ports that its counter may have gone on by until it
/// is aimed at.
const SEQUENCE_AHEAD: u16 = 112;
const SEQUENCE_LEAD: u16 = 48;
/// The ports that NATs map to.
const PORT_MIN: u16 = 1024;
const OBSERVATIONS_MAX: usize = 16;

/// Where an observer sees one of our bases.
#[derive(Clone, Debug)]
struct Observation {
    base: SocketAddr,
    observer: String,
    mapped: SocketAddr,
    /// The observer is a STUN server, whom nothing comes from unasked.
    is_server: bool,
}

/// What is known of our mappings, and how far a try is.
#[derive(Default)]
pub(super) struct Hard {
    observations: Vec<Observation>,
    tries: u32,
    next_at: Option<Instant>,
    phase: Phase,
}

#[derive(Clone, Debug, Default)]
enum Phase {
    #[default]
    Idle,
    /// Waits for the caller's leave.
    Waiting {
        part: Part,
        until: Instant,
    },
    Spraying {
        base: SocketAddr,
        targets: VecDeque<SocketAddr>,
        next_at: Instant,
    },
    Opening {
        base: SocketAddr,
        target: SocketAddr,
        left: usize,
        next_at: Instant,
    },
    Holding {
        until: Instant,
    },
}

/// What an end does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Open { base: SocketAddr, target: SocketAddr },
    Spray { base: SocketAddr, ip: IpAddr },
}

/// The ports of one end's public address, if its NAT is symmetric.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Symmetric {
    ip: IpAddr,
    ports: BTreeSet<u16>,
}

impl Symmetric {
    /// Whether its ports are counted up, and the highest one seen.
    fn sequence_end(&self) -> Option<u16> {
        let (first, last) = (*self.ports.first()?, *self.ports.last()?);
        (last - first <= SEQUENCE_SPAN).then_some(last)
    }
}

impl Hard {
    /// A server sees a base of ours there.
    pub(super) fn observe(&mut self, base: SocketAddr, server: String, mapped: SocketAddr) {
        self.note(Observation { base, observer: server, mapped, is_server: true });
    }

    /// The peer sees a base of ours there, from that address.
    pub(super) fn peer_observes(&mut self, base: SocketAddr, from: SocketAddr, mapped: SocketAddr) {
        self.note(Observation { base, observer: from.to_string(), mapped, is_server: false });
    }

    fn note(&mut self, observation: Observation) {
        let Observation { base, observer, mapped, .. } = &observation;
        if mapped.ip() == base.ip() || !mapped.is_ipv4() {
            return;
        }
        self.observations.retain(|known| (&known.base, &known.observer) != (base, observer));
        if self.observations.len() == OBSERVATIONS_MAX {
            self.observations.remove(0);
        }
        self.observations.push(observation);
    }

    /// Our NAT, if several observers see one base at several ports of one address. Where several
    /// servers do, the peer is not asked.
    fn symmetric(&self) -> Option<(SocketAddr, Symmetric)> {
        self.observations.iter().find_map(|one| {
            let of_base = |other: &&Observation| {
                (other.base, other.mapped.ip()) == (one.base, one.mapped.ip())
            };
            let servers = self.observations.iter().filter(of_base).filter(|o| o.is_server);
            let by_servers = servers.count() > 1;
            let same = |other: &&Observation| of_base(other) && (other.is_server || !by_servers);
            let ports = self.observations.iter().filter(same).map(|o| o.mapped.port());
            let ports: BTreeSet<u16> = ports.collect();
            let symmetric = Symmetric { ip: one.mapped.ip(), ports };
            (symmetric.ports.len() > 1).then_some((one.base, symmetric))
        })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Idle => self.next_at,
            Phase::Waiting { until, .. } | Phase::Holding { until } => Some(*until),
            Phase::Spraying { next_at, .. } | Phase::Opening { next_at, .. } => Some(*next_at),
        }
    }
}

impl Agent {
    /// A server sees one of our bases at an address that is a candidate already by another server's
    /// word: it tells what our NAT does.
    pub fn add_witness(&mut self, candidate: &Candidate) {
        if candidate.kind == CandidateKind::ServerReflexive {
            let server = candidate.foundation.clone();
            self.hard.observe(candidate.base, server, candidate.address);
        }
    }

    /// Leave for what [`Output::WantsTurn`] asked for.
    pub fn grant_turn(&mut self, now: Instant) {
        let Phase::Waiting { part, .. } = self.hard.phase else {
            return self.end_turn();
        };
        self.hard.phase = match part {
            Part::Open { base, target } => {
                Phase::Opening { base, target, left: OPENERS_MAX, next_at: now + OPENERS_LATER }
            }
            Part::Spray { base, ip } => {
                Phase::Spraying { base, targets: self.targets(ip), next_at: now }
            }
        };
        self.advance_hard(now);
    }

    /// Does what is due for a hard pair.
    pub(super) fn advance_hard(&mut self, now: Instant) {
        if self.remote.is_none() || self.state == State::Failed {
            return;
        }
        if self.pairs.iter().any(|pair| pair.is_valid() && pair.is_direct()) {
            self.hard.tries = 0;
            self.hard.next_at = None;
            return self.end_turn();
        }
        match &self.hard.phase {
            Phase::Idle => self.start_try(now),
            Phase::Waiting { until, .. } | Phase::Holding { until } if now >= *until => {
                self.end_turn();
                self.start_try(now);
            }
            Phase::Waiting { .. } | Phase::Holding { .. } => {}
            Phase::Spraying { .. } => self.spray(now),
            Phase::Opening { .. } => self.open(now),
        }
    }

    fn end_turn(&mut self) {
        if !matches!(std::mem::take(&mut self.hard.phase), Phase::Idle) {
            self.outputs.push_back(Output::TurnIsOver);
        }
    }

    fn start_try(&mut self, now: Instant) {
        if self.hard.tries >= self.config.hard_tries {
            return self.hard.next_at = None;
        }
        let next_at = *self.hard.next_at.get_or_insert(now + FIRST_AFTER);
        if now < next_at {
            return;
        }
        let part = self.part();
        let is_new = self.started.is_some_and(|at| now < at + LEARNING_TIME);
        if part.is_none() && is_new {
            return self.hard.next_at = Some(now + LEARNING_PAUSE);
        }
        let pause = PAUSES.get(self.hard.tries as usize).copied();
        self.hard.tries += 1;
        self.hard.next_at = pause.map(|pause| now + pause);
        if let Some(part) = part {
            self.hard.phase = Phase::Waiting { part, until: now + TURN_PATIENCE };
            self.outputs.push_back(Output::WantsTurn);
        }
    }

    /// What is ours to do, if there is anything.
    fn part(&self) -> Option<Part> {
        match (self.hard.symmetric(), self.symmetric_peer(true)) {
            (Some((base, _)), None) => {
                let target = self.public_remote()?;
                Some(Part::Open { base, target })
            }
            (None, _) => {
                let peer = self.symmetric_peer(false)?;
                let host = |c: &&Candidate| c.kind == CandidateKind::Host && c.base.is_ipv4();
                let hosts = self.local_candidates.iter().filter(host);
                let base = hosts.max_by_key(|c| c.priority)?.base;
                Some(Part::Spray { base, ip: peer.ip })
            }
            (Some((base, ours)), Some(_)) => {
                let peer = self.symmetric_peer(false)?;
                let end = peer.sequence_end().filter(|_| ours.sequence_end().is_some())?;
                Some(match self.controlling {
                    // The peer's probes are mapped one after the other: one of them is there.
                    true => {
                        let target = SocketAddr::new(peer.ip, end.checked_add(SEQUENCE_LEAD)?);
                        Part::Open { base, target }
                    }
                    false => Part::Spray { base, ip: peer.ip },
                })
            }
        }
    }

    /// Whether both ends' NATs give every destination another random port: no direct path, by no
    /// polite number of probes.
    pub fn needs_relay(&self) -> bool {
        let peer = self.symmetric_peer(true).filter(|_| self.remote.is_some());
        match (self.hard.symmetric(), peer) {
            (Some((_, ours)), Some(peer)) => {
                [ours, peer].iter().any(|n| n.sequence_end().is_none())
            }
            _ => false,
        }
    }

    /// The peer's NAT, if it is seen at several ports of one address; by its own word alone, or by
    /// its checks too.
    fn symmetric_peer(&self, by_its_word: bool) -> Option<Symmetric> {
        let relays = self.local_candidates.iter().chain(&self.remote_candidates);
        let relays = relays.filter(|c| c.kind == CandidateKind::Relayed);
        let relays: BTreeSet<IpAddr> = relays.map(|c| c.address.ip()).collect();
        let reflexive = |c: &&Candidate| {
            let is_told = c.kind == CandidateKind::ServerReflexive;
            let is_seen = c.kind == CandidateKind::PeerReflexive && !by_its_word;
            (is_told || is_seen) && c.address.is_ipv4() && !relays.contains(&c.address.ip())
        };
        let seen: Vec<&Candidate> = self.remote_candidates.iter().filter(reflexive).collect();
        // Two of its own addresses may be mapped to one.
        let is_same_base = |a: &Candidate, b: &Candidate| match (a.related, b.related) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        seen.iter().find_map(|one| {
            let same = |other: &&&Candidate| {
                other.address.ip() == one.address.ip() && is_same_base(one, other)
            };
            let ports: BTreeSet<u16> =
                seen.iter().filter(same).map(|other| other.address.port()).collect();
            let symmetric = Symmetric { ip: one.address.ip(), ports };
            (symmetric.ports.len() > 1).then_some(symmetric)
        })
    }

    /// Where a peer without such a NAT is seen by all.
    fn public_remote(&self) -> Option<SocketAddr> {
        let of = |kind| {
            let fits = move |c: &&Candidate| c.kind == kind && c.address.is_ipv4();
            let found = self.remote_candidates.iter().filter(fits);
            found.max_by_key(|c| c.priority).map(|c| c.address)
        };
        of(CandidateKind::ServerReflexive).or_else(|| of(CandidateKind::Host))
    }

    /// The ports to probe, those first that a counter comes to next; of these the farthest first.
    /// The peer has sent from the nearest, perhaps: if our router has rejected that, it maps to
    /// another port from there on.
    fn targets(&mut self, ip: IpAddr) -> VecDeque<SocketAddr> {
        // What is known has pairs of its own.
        let known = self.remote_candidates.iter().map(|c| c.address);
        let mut taken: BTreeSet<SocketAddr> = known.collect();
        let mut targets = VecDeque::with_capacity(PROBES_MAX);
        let mut add = |port: u16| {
            let target = SocketAddr::new(ip, port);
            if targets.len() < PROBES_MAX && taken.insert(target) {
                targets.push_back(target);
            }
            targets.len()
        };
        let peer = self.symmetric_peer(false).filter(|peer| peer.ip == ip);
        if let Some(end) = peer.as_ref().and_then(Symmetric::sequence_end) {
            let first = peer.and_then(|peer| peer.ports.first().copied()).unwrap_or(end);
            for port in (first..=end.saturating_add(SEQUENCE_AHEAD)).rev() {
                add(port);
            }
        }
        while add(random_port(&mut self.random)) < PROBES_MAX {}
        targets
    }

    fn spray(&mut self, now: Instant) {
        let Phase::Spraying { base, targets, next_at } = &mut self.hard.phase else { return };
        if now < *next_at {
            return;
        }
        *next_at = now + BURST_PAUSE;
        let local = *base;
        let burst: Vec<_> = targets.drain(..targets.len().min(BURST)).collect();
        let is_last = targets.is_empty();
        for remote in burst {
            if let Some(data) = self.blind_check(local) {
                self.outputs.push_back(Output::Transmit { local, remote, data });
            }
        }
        if is_last {
            self.end_turn();
        }
    }

    fn open(&mut self, now: Instant) {
        let Phase::Opening { base, target, left, next_at } = &mut self.hard.phase else { return };
        if now < *next_at {
            return;
        }
        *next_at = now + BURST_PAUSE;
        let (base, remote, count) = (*base, *target, BURST.min(*left));
        *left -= count;
        if *left == 0 {
            self.hard.phase = Phase::Holding { until: now + HOLD };
        }
        for _ in 0..count {
            if let Some(data) = self.blind_check(base) {
                self.outputs.push_back(Output::Open { base, remote, data });
            }
        }
    }

    /// Drops pairs whose sockets were opened for one try and have served their time.
    pub(super) fn drop_spent(&mut self) {
        let selected = self.selected;
        self.pairs.retain(|pair| {
            let is_spent = pair.is_spare() && pair.state == crate::pair::PairState::Failed;
            !is_spent || selected == Some((pair.local, pair.remote))
        });
    }

    /// Whether a pair starts at this address: a socket that was opened for one is kept as long.
    pub fn uses_local(&self, local: SocketAddr) -> bool {
        self.pairs.iter().any(|pair| pair.local == local)
    }
}

fn random_port(random: &mut Random) -> u16 {
    let count = u64::from(u16::MAX - PORT_MIN) + 1;
    PORT_MIN + (random.number() % count) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_port_for_all_is_not_symmetric_and_an_observer_may_change_its_mind() {
        let mut hard = Hard::default();
        let base = at("192.168.1.2:5000");
        hard.observe(base, "a".into(), at("198.18.1.2:5000"));
        hard.observe(base, "b".into(), at("198.18.1.2:5000"));
        hard.observe(base, "c".into(), base);
        assert_eq!(hard.symmetric(), None);
        hard.observe(base, "b".into(), at("198.18.1.2:6000"));
        let (found, symmetric) = hard.symmetric().expect("two ports");
        assert_eq!((found, symmetric.ip), (base, base_ip("198.18.1.2")));
        assert_eq!(symmetric.sequence_end(), None);
        // The router has restarted: all see another port, and the same one.
        for observer in ["a", "b"] {
            hard.observe(base, observer.into(), at("198.18.1.2:7000"));
        }
        assert_eq!(hard.symmetric(), None);
        // A router that rejected the peer's relay maps to another port there, and nowhere else.
        hard.peer_observes(base, at("198.18.0.10:50000"), at("198.18.1.2:8000"));
        assert_eq!(hard.symmetric(), None);
    }

    #[test]
    fn ports_that_are_close_together_were_counted() {
        let ip = base_ip("198.18.1.2");
        let symmetric = |ports: &[u16]| Symmetric { ip, ports: ports.iter().copied().collect() };
        assert_eq!(symmetric(&[4000, 4002, 4001]).sequence_end(), Some(4002));
        assert_eq!(symmetric(&[4000, 14_000]).sequence_end(), None);
    }

    fn base_ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }
}
