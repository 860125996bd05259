//! The lanes of a link beside its first. Each has a five-tuple of its own, so that one link takes
//! several cores at both ends and several ways through a datacentre.
//!
//! Lane 0 takes the pair that ICE selected, and the others follow it:
//!
//! 1. Each end tells the ports of its other lanes ([`Control::Lanes`](crate::Control::Lanes), on
//!    lane 0).
//! 2. Both ping lane k under its own keys, from their port k to the address that lane 0 uses with
//!    the peer's port k. Two such pings also open the way through NATs that keep ports.
//! 3. A ping that comes in tells where the peer is seen from here, whatever a NAT made of its port;
//!    it is answered there, and pinged there.
//! 4. A pong proves the way in both directions: only then the lane carries frames.
//!
//! A lane that is never proven costs a ping now and then, and the link works without it.
//!
//! Where lane 0 goes through a relay, each other lane needs an allocation of its own there, made
//! from its own socket: a server tells clients apart by their five-tuples, and spreads them over
//! its cores by those. They are asked for once the link is busy ([`load`]), and given back when it
//! has been idle for a while. Whoever has them tells their addresses
//! ([`Control::Relays`](crate::Control::Relays)), which stand for that end's ports in the above.
//! Where the peer's socket is seen from the relay shows by its pings.

mod load;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use self::load::Load;

/// From a ping of an unproven lane to the next; doubles up to [`LANE_KEEPALIVE`].
const PROBE_AFTER: Duration = Duration::from_millis(50);

/// From ping to ping of a proven lane. NATs forget no mapping that fast (RFC 4787 REQ-5).
pub const LANE_KEEPALIVE: Duration = Duration::from_secs(5);

/// From an unanswered ping of a proven lane to the next.
const REPEAT_AFTER: Duration = Duration::from_millis(250);

/// Unanswered pings in a row, after which a lane is no longer proven: three seconds of silence. A
/// path that loses a quarter each way loses as many once in twenty thousand tries.
const UNANSWERED_MAX: u32 = 12;

/// From one address that is tried because something came from there to the next.
const HINT_PAUSE: Duration = Duration::from_millis(500);

/// Pings whose pongs still count.
const PINGS_MAX: usize = 8;

/// UDP ports of one lane at one end, by address family; 0: no socket of that family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LanePorts {
    /// For IPv4.
    pub v4: u16,
    /// For IPv6.
    pub v6: u16,
}

impl LanePorts {
    /// The port for the family of an address, unless there is none.
    #[must_use]
    pub fn of_family(&self, address: &SocketAddr) -> Option<u16> {
        let port = if address.is_ipv4() { self.v4 } else { self.v6 };
        (port != 0).then_some(port)
    }
}

/// What is to be done for a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LaneOutput {
    /// Ping it.
    Ping { lane: u8, local: SocketAddr, remote: SocketAddr, nonce: u64 },
    /// It takes this path from now on, or none.
    Path { lane: u8, path: Option<(SocketAddr, SocketAddr)> },
    /// Tell the peer our ports.
    Tell,
    /// Tell the peer our relayed addresses.
    TellRelays,
    /// [`Lanes::wish`] has another answer.
    Wish,
}

/// Both ends of lane 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lead {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    /// Whether `local` is ours at a relay.
    pub is_relayed: bool,
    /// Whether `remote` is the peer's at a relay.
    pub is_peer_relayed: bool,
}

/// All lanes of a link but the first.
#[derive(Default)]
pub(crate) struct Lanes {
    /// Our ports of all lanes that we serve but the first.
    ours: Vec<LanePorts>,
    /// The peer's, as far as it told them.
    theirs: Vec<LanePorts>,
    /// Our relayed addresses of the same lanes, as far as there are any.
    our_relays: Vec<Option<SocketAddr>>,
    /// The peer's, as far as it told them.
    their_relays: Vec<Option<SocketAddr>>,
    /// Both ends of lane 0, if the others can follow it.
    lead: Option<Lead>,
    load: Load,
    /// What was wished for last.
    wish: Option<SocketAddr>,
    /// Lane 1 and those behind it, as many as both ends serve.
    lanes: Vec<Lane>,
    outputs: VecDeque<LaneOutput>,
}

/// One lane that is looked for, or proven.
struct Lane {
    /// Where to ping: what the peer told, or what is proven.
    remote: Option<SocketAddr>,
    /// Where a ping came from, to be tried as well.
    other: Option<SocketAddr>,
    proven: Option<(SocketAddr, SocketAddr)>,
    pings: VecDeque<(u64, SocketAddr)>,
    /// When another address was last tried because something came from there.
    hint_at: Option<Instant>,
    ping_at: Instant,
    pause: Duration,
    unanswered: u32,
}

impl Lanes {
    pub fn new(ours: Vec<LanePorts>) -> Self {
        Lanes { ours, ..Lanes::default() }
    }

    /// Our ports, as the peer is told them.
    pub fn ports(&self) -> &[LanePorts] {
        &self.ours
    }

    /// How many there are keys for, the first not counted.
    pub fn count(&self) -> usize {
        self.lanes.len()
    }

    /// How many lanes besides the first are proven.
    pub fn proven_count(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.proven.is_some()).count()
    }

    /// There are keys for `count` lanes, the first included.
    pub fn set_count(&mut self, now: Instant, count: u8) {
        let others = usize::from(count).saturating_sub(1).min(self.ours.len());
        while self.lanes.len() > others {
            self.lanes.pop();
        }
        while self.lanes.len() < others {
            self.lanes.push(Lane::new(now));
        }
        self.aim(now);
        self.wish_anew(now);
    }

    /// Lane 0 takes this pair from now on; `None` for one that others cannot follow.
    pub fn follow(&mut self, now: Instant, lead: Option<Lead>) {
        if self.lead == lead {
            return;
        }
        let end = |lead: Option<Lead>| lead.map(|lead| (lead.local, lead.is_relayed));
        if end(self.lead) != end(lead) {
            self.our_relays.clear();
        }
        self.lead = lead;
        (0..self.lanes.len()).for_each(|index| self.restart(now, index));
        self.aim(now);
        self.wish_anew(now);
    }

    /// Our address at lane 0's relay, if others are wanted there for the other lanes.
    pub fn wish(&self) -> Option<SocketAddr> {
        self.wish
    }

    /// Our addresses at lane 0's relay, for lane 1 and those behind it.
    pub fn set_our_relays(&mut self, now: Instant, mut relays: Vec<Option<SocketAddr>>) {
        if relays.iter().all(Option::is_none) {
            relays.clear();
        }
        if !self.lead.is_some_and(|lead| lead.is_relayed) || self.our_relays == relays {
            return;
        }
        let before = std::mem::replace(&mut self.our_relays, relays);
        for index in 0..self.lanes.len() {
            if before.get(index) != self.our_relays.get(index) {
                self.restart(now, index);
            }
        }
        self.outputs.push_back(LaneOutput::TellRelays);
        self.aim(now);
    }

    /// Our relayed addresses, as the peer is told them.
    pub fn our_relays(&self) -> &[Option<SocketAddr>] {
        &self.our_relays
    }

    /// So many bytes were carried since this was said last.
    pub fn note_load(&mut self, now: Instant, bytes: u64) {
        self.load.note(now, bytes);
        self.wish_anew(now);
    }

    /// Wishes for relayed addresses where the link is busy, and for none where it is not.
    fn wish_anew(&mut self, now: Instant) {
        let lead = self.lead.filter(|lead| lead.is_relayed && self.load.is_busy(now));
        let wish = lead.filter(|_| !self.lanes.is_empty()).map(|lead| lead.local);
        if wish != std::mem::replace(&mut self.wish, wish) {
            self.outputs.push_back(LaneOutput::Wish);
        }
    }

    /// A lane begins anew.
    fn restart(&mut self, now: Instant, index: usize) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        if lane.proven.is_some() {
            self.outputs.push_back(LaneOutput::Path { lane: index as u8 + 1, path: None });
        }
        *lane = Lane::new(now);
    }

    /// The peer's ports of lane 1 and those behind it.
    pub fn on_told(&mut self, now: Instant, theirs: Vec<LanePorts>) {
        if self.theirs != theirs {
            self.theirs = theirs;
            self.aim(now);
        }
    }

    /// The peer's relayed addresses of lane 1 and those behind it.
    pub fn on_told_relays(&mut self, now: Instant, theirs: Vec<Option<SocketAddr>>) {
        if self.their_relays != theirs {
            let before = std::mem::replace(&mut self.their_relays, theirs);
            for index in 0..self.lanes.len() {
                let (then, is) = (before.get(index), self.their_relays.get(index));
                let proven = self.lanes[index].proven.map(|(_, remote)| Some(remote));
                // What the peer has given back carries nothing any more.
                if then != is && proven.is_some() && proven.as_ref() == then {
                    self.restart(now, index);
                }
            }
            self.aim(now);
        }
    }

    /// Gives every lane that is not proven an address to ping, and a fresh start.
    fn aim(&mut self, now: Instant) {
        let Some(Lead { remote, is_peer_relayed, .. }) = self.lead else { return };
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if lane.proven.is_some() {
                continue;
            }
            // No third party is pinged because the peer names it.
            let relay = self.their_relays.get(index).copied().flatten();
            let relay = relay.filter(|relay| relay.ip() == remote.ip());
            let port = self.theirs.get(index).and_then(|ports| ports.of_family(&remote));
            let beside = port.map(|port| SocketAddr::new(remote.ip(), port));
            lane.remote = match is_peer_relayed {
                true => relay,
                false => relay.or(beside).or(lane.remote),
            };
            lane.hurry(now);
        }
    }

    /// Something came to our relayed address of a lane from where no channel leads: perhaps the
    /// peer, which can only be known by an answer. Whether it is asked.
    pub fn on_hint(&mut self, now: Instant, number: u8, on: (SocketAddr, SocketAddr)) -> bool {
        let (local, from) = on;
        let is_of_peer = self.local(number) == Some(local)
            && self.lead.is_some_and(|lead| lead.is_relayed && lead.remote.ip() == from.ip());
        let Some(lane) = self.lane_mut(number).filter(|_| is_of_peer) else { return false };
        let is_known = [lane.remote, lane.other].contains(&Some(from));
        let is_new = !is_known && lane.hint_at.is_none_or(|at| now >= at + HINT_PAUSE);
        if is_new {
            lane.hint_at = Some(now);
            lane.other = Some(from);
            lane.hurry(now);
        }
        is_new
    }

    /// The way of a lane through our relay can be used now.
    pub fn hurry(&mut self, now: Instant, local: SocketAddr) {
        let relays = self.our_relays.iter().zip(&mut self.lanes);
        let of_it = relays.filter(|(relay, lane)| **relay == Some(local) && lane.proven.is_none());
        of_it.for_each(|(_, lane)| lane.hurry(now));
    }

    /// An authentic ping came in on a lane.
    pub fn on_ping(&mut self, now: Instant, lane: u8, from: SocketAddr) {
        if self.lead.is_none() {
            return;
        }
        let Some(lane) = self.lane_mut(lane) else { return };
        if [lane.remote, lane.other].contains(&Some(from)) {
            return;
        }
        lane.other = Some(from);
        lane.ping_at = now;
        if lane.proven.is_none() {
            lane.pause = PROBE_AFTER;
        }
    }

    /// An authentic pong came in on a lane.
    pub fn on_pong(&mut self, now: Instant, number: u8, nonce: u64) {
        let local = self.local(number);
        let Some(lane) = self.lane_mut(number) else { return };
        let asked = lane.pings.iter().find(|(asked, _)| *asked == nonce).map(|(_, at)| *at);
        let (Some(remote), Some(local)) = (asked, local) else { return };
        lane.pings.clear();
        lane.unanswered = 0;
        lane.pause = PROBE_AFTER;
        lane.ping_at = now + LANE_KEEPALIVE;
        (lane.remote, lane.other) = (Some(remote), None);
        let path = Some((local, remote));
        if std::mem::replace(&mut lane.proven, path) != path {
            self.outputs.push_back(LaneOutput::Path { lane: number, path });
        }
    }

    /// Pings what is due. `nonce` draws unpredictable numbers.
    pub fn handle_timeout(&mut self, now: Instant, mut nonce: impl FnMut() -> u64) {
        self.wish_anew(now);
        if !self.can_ping() {
            return;
        }
        let mut tells = false;
        for index in 0..self.lanes.len() {
            let number = index as u8 + 1;
            let local = self.local(number);
            let lane = &mut self.lanes[index];
            if now < lane.ping_at {
                continue;
            }
            if lane.note_silence() {
                self.outputs.push_back(LaneOutput::Path { lane: number, path: None });
            }
            tells |= lane.proven.is_none();
            let targets = [lane.remote, lane.other].into_iter().flatten();
            for (remote, local) in targets.zip([local, local].into_iter().flatten()) {
                let nonce = nonce();
                self.outputs.push_back(LaneOutput::Ping { lane: number, local, remote, nonce });
                lane.note_ping(nonce, remote);
            }
            lane.plan(now);
        }
        if tells {
            self.outputs.push_back(LaneOutput::Tell);
            if !self.our_relays.is_empty() {
                self.outputs.push_back(LaneOutput::TellRelays);
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let pings = self.lanes.iter().map(|lane| lane.ping_at).filter(|_| self.can_ping());
        let idle = self.wish.and_then(|_| self.load.busy_until());
        pings.chain(idle).min()
    }

    /// Whether lanes have a way to be tried: through relays only where there are some for them.
    fn can_ping(&self) -> bool {
        let has_some = |relays: &[Option<SocketAddr>]| relays.iter().any(Option::is_some);
        self.lead.is_some_and(|lead| {
            (!lead.is_relayed || has_some(&self.our_relays))
                && (!lead.is_peer_relayed || has_some(&self.their_relays))
        })
    }

    pub fn poll_output(&mut self) -> Option<LaneOutput> {
        self.outputs.pop_front()
    }

    /// Our end of a lane: the address of lane 0 with the lane's port, or ours at the relay.
    pub fn local(&self, number: u8) -> Option<SocketAddr> {
        let Lead { local, is_relayed, .. } = self.lead?;
        let place = usize::from(number).checked_sub(1)?;
        if is_relayed {
            return self.our_relays.get(place).copied().flatten();
        }
        Some(SocketAddr::new(local.ip(), self.ours.get(place)?.of_family(&local)?))
    }

    fn lane_mut(&mut self, number: u8) -> Option<&mut Lane> {
        self.lanes.get_mut(usize::from(number).checked_sub(1)?)
    }
}

impl Lane {
    fn new(now: Instant) -> Self {
        Lane {
            remote: None,
            other: None,
            proven: None,
            pings: VecDeque::with_capacity(PINGS_MAX),
            hint_at: None,
            ping_at: now,
            pause: PROBE_AFTER,
            unanswered: 0,
        }
    }

    fn hurry(&mut self, now: Instant) {
        self.ping_at = now;
        self.pause = PROBE_AFTER;
    }

    /// Counts pings without an answer; whether the lane is lost by that.
    fn note_silence(&mut self) -> bool {
        self.unanswered += u32::from(!self.pings.is_empty());
        let is_lost = self.proven.is_some() && self.unanswered >= UNANSWERED_MAX;
        if is_lost {
            self.proven = None;
            self.unanswered = 0;
        }
        is_lost
    }

    fn note_ping(&mut self, nonce: u64, remote: SocketAddr) {
        if self.pings.len() == PINGS_MAX {
            self.pings.pop_front();
        }
        self.pings.push_back((nonce, remote));
    }

    fn plan(&mut self, now: Instant) {
        let is_proven = self.proven.is_some();
        self.ping_at = now + if is_proven { REPEAT_AFTER } else { self.pause };
        self.pause = (self.pause * 2).min(LANE_KEEPALIVE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn pair(a: &str, b: &str) -> Option<(SocketAddr, SocketAddr)> {
        Some((at(a), at(b)))
    }

    fn lead(local: &str, remote: &str) -> Lead {
        let (local, remote) = (at(local), at(remote));
        Lead { local, remote, is_relayed: false, is_peer_relayed: false }
    }

    fn ports(v4: u16) -> LanePorts {
        LanePorts { v4, v6: 0 }
    }

    /// Two lanes, the peer at 10.0.0.2 with lane 1 on port 202.
    fn lanes(now: Instant) -> Lanes {
        let mut lanes = Lanes::new(vec![ports(102)]);
        lanes.set_count(now, 2);
        lanes.follow(now, Some(lead("10.0.0.1:101", "10.0.0.2:201")));
        lanes.on_told(now, vec![ports(202)]);
        lanes
    }

    fn outputs(lanes: &mut Lanes) -> Vec<LaneOutput> {
        std::iter::from_fn(|| lanes.poll_output()).collect()
    }

    fn ping(nonce: u64, remote: &str) -> LaneOutput {
        LaneOutput::Ping { lane: 1, local: at("10.0.0.1:102"), remote: at(remote), nonce }
    }

    fn path(remote: &str) -> LaneOutput {
        LaneOutput::Path { lane: 1, path: pair("10.0.0.1:102", remote) }
    }

    #[test]
    fn a_lane_carries_frames_only_after_a_pong() {
        let now = Instant::now();
        let mut lanes = lanes(now);
        lanes.handle_timeout(now, || 7);
        assert_eq!(outputs(&mut lanes), [ping(7, "10.0.0.2:202"), LaneOutput::Tell]);
        lanes.on_pong(now, 1, 8);
        assert_eq!((outputs(&mut lanes), lanes.proven_count()), (vec![], 0), "not our question");
        lanes.on_pong(now, 1, 7);
        assert_eq!((outputs(&mut lanes), lanes.proven_count()), (vec![path("10.0.0.2:202")], 1));
        assert_eq!(lanes.poll_timeout(), Some(now + LANE_KEEPALIVE));
    }

    #[test]
    fn pings_of_a_lane_that_never_works_become_rare_but_do_not_end() {
        let start = Instant::now();
        let mut lanes = lanes(start);
        let mut count = 0;
        while let Some(at) = lanes.poll_timeout()
            && at < start + Duration::from_secs(60)
        {
            lanes.handle_timeout(at, || 1);
            count += 1;
        }
        assert_eq!(count, 8 + 10, "doubling from 50 ms to 5 s, then every 5 s");
        assert_eq!(lanes.proven_count(), 0);
    }

    #[test]
    fn a_ping_from_elsewhere_is_tried_and_wins_only_by_its_pong() {
        let now = Instant::now();
        let mut lanes = lanes(now);
        lanes.on_ping(now, 1, at("10.0.0.2:999"));
        let mut nonce = 0;
        let mut count = || {
            nonce += 1;
            nonce
        };
        lanes.handle_timeout(now, &mut count);
        let both = [ping(1, "10.0.0.2:202"), ping(2, "10.0.0.2:999"), LaneOutput::Tell];
        assert_eq!(outputs(&mut lanes), both, "a NAT may have changed the port");
        lanes.on_pong(now, 1, 2);
        assert_eq!(outputs(&mut lanes), [path("10.0.0.2:999")]);
        // The mapping changes: the old address stays in use until the new one has answered.
        lanes.on_ping(now, 1, at("10.0.0.2:888"));
        lanes.handle_timeout(now, &mut count);
        let expected = [ping(3, "10.0.0.2:999"), ping(4, "10.0.0.2:888")];
        assert_eq!(outputs(&mut lanes), expected);
        lanes.on_pong(now, 1, 4);
        assert_eq!(outputs(&mut lanes), [path("10.0.0.2:888")]);
    }

    #[test]
    fn silence_and_another_path_of_the_first_lane_take_a_lane_down() {
        let start = Instant::now();
        let mut lanes = lanes(start);
        lanes.handle_timeout(start, || 1);
        lanes.on_pong(start, 1, 1);
        outputs(&mut lanes);
        let mut lost_at = None;
        while lost_at.is_none() {
            let now = lanes.poll_timeout().expect("pings go on");
            lanes.handle_timeout(now, || 2);
            let lost = LaneOutput::Path { lane: 1, path: None };
            lost_at = outputs(&mut lanes).contains(&lost).then_some(now);
        }
        let silence = LANE_KEEPALIVE + 12 * REPEAT_AFTER;
        assert_eq!(lost_at, Some(start + silence));
        lanes.on_pong(start + silence, 1, 2);
        outputs(&mut lanes);
        lanes.follow(start + silence, None);
        assert_eq!(outputs(&mut lanes), [LaneOutput::Path { lane: 1, path: None }]);
        assert_eq!(lanes.poll_timeout(), None, "nothing leads");
    }

    #[test]
    fn as_many_lanes_as_both_ends_serve() {
        let now = Instant::now();
        let mut lanes = Lanes::new(vec![ports(102), ports(103)]);
        for (agreed, others) in [(1, 0), (3, 2), (2, 1), (9, 2), (0, 0)] {
            lanes.set_count(now, agreed);
            assert_eq!(lanes.lanes.len(), others);
        }
    }
}
