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
//! A lane that is never proven costs a ping now and then, and the link works without it. Through a
//! relay there is one lane: others would compete for the same relay.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// From a ping of an unproven lane to the next; doubles up to [`LANE_KEEPALIVE`].
const PROBE_AFTER: Duration = Duration::from_millis(50);

/// From ping to ping of a proven lane. NATs forget no mapping that fast (RFC 4787 REQ-5).
pub const LANE_KEEPALIVE: Duration = Duration::from_secs(5);

/// A pong that takes longer is taken for lost.
const PONG_TIME_MAX: Duration = Duration::from_secs(1);

/// Unanswered pings in a row, after which a lane is no longer proven.
const UNANSWERED_MAX: u32 = 3;

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
}

/// All lanes of a link but the first.
#[derive(Default)]
pub(crate) struct Lanes {
    /// Our ports of all lanes that we serve but the first.
    ours: Vec<LanePorts>,
    /// The peer's, as far as it told them.
    theirs: Vec<LanePorts>,
    /// Both ends of lane 0, while that is direct.
    pair: Option<(SocketAddr, SocketAddr)>,
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
    }

    /// Lane 0 takes this pair from now on; `None` when it goes through a relay.
    pub fn follow(&mut self, now: Instant, pair: Option<(SocketAddr, SocketAddr)>) {
        if self.pair == pair {
            return;
        }
        self.pair = pair;
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if lane.proven.is_some() {
                self.outputs.push_back(LaneOutput::Path { lane: index as u8 + 1, path: None });
            }
            *lane = Lane::new(now);
        }
        self.aim(now);
    }

    /// The peer's ports of lane 1 and those behind it.
    pub fn on_told(&mut self, now: Instant, theirs: Vec<LanePorts>) {
        if self.theirs != theirs {
            self.theirs = theirs;
            self.aim(now);
        }
    }

    /// Gives every lane that is not proven an address to ping, and a fresh start.
    fn aim(&mut self, now: Instant) {
        let Some((_, remote)) = self.pair else { return };
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if lane.proven.is_some() {
                continue;
            }
            let port = self.theirs.get(index).and_then(|ports| ports.of_family(&remote));
            if let Some(port) = port {
                lane.remote = Some(SocketAddr::new(remote.ip(), port));
            }
            lane.hurry(now);
        }
    }

    /// An authentic ping came in on a lane.
    pub fn on_ping(&mut self, now: Instant, lane: u8, from: SocketAddr) {
        if self.pair.is_none() {
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
        if self.pair.is_none() {
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
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.pair?;
        self.lanes.iter().map(|lane| lane.ping_at).min()
    }

    pub fn poll_output(&mut self) -> Option<LaneOutput> {
        self.outputs.pop_front()
    }

    /// Our end of a lane: the address of lane 0 with the lane's port.
    pub fn local(&self, number: u8) -> Option<SocketAddr> {
        let (local, _) = self.pair?;
        let ports = self.ours.get(usize::from(number).checked_sub(1)?)?;
        Some(SocketAddr::new(local.ip(), ports.of_family(&local)?))
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
        self.ping_at = now + if is_proven { PONG_TIME_MAX } else { self.pause };
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

    fn ports(v4: u16) -> LanePorts {
        LanePorts { v4, v6: 0 }
    }

    /// Two lanes, the peer at 10.0.0.2 with lane 1 on port 202.
    fn lanes(now: Instant) -> Lanes {
        let mut lanes = Lanes::new(vec![ports(102)]);
        lanes.set_count(now, 2);
        lanes.follow(now, pair("10.0.0.1:101", "10.0.0.2:201"));
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
        let silence = LANE_KEEPALIVE + 3 * PONG_TIME_MAX;
        assert_eq!(lost_at, Some(start + silence));
        lanes.on_pong(start + silence, 1, 2);
        outputs(&mut lanes);
        lanes.follow(start + silence, None);
        assert_eq!(outputs(&mut lanes), [LaneOutput::Path { lane: 1, path: None }]);
        assert_eq!(lanes.poll_timeout(), None, "through a relay there is one lane");
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
