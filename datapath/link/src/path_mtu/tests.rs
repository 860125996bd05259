use super::*;
use ipop_stun::Random;
use proptest::prelude::*;

const LATENCY: Duration = Duration::from_millis(15);
const SECOND: Duration = Duration::from_secs(1);
/// How long a row of losses lasts at most where nothing comes.
const MEMORY: Duration = Duration::from_millis(100);

/// A path in virtual time, with traffic on it twice a second unless it is idle.
struct Path {
    start: Instant,
    now: Instant,
    machine: PathMtu,
    /// The largest IP packet that passes.
    mtu: u16,
    /// That of our own interface, which says so.
    interface_mtu: u16,
    is_idle: bool,
    /// When traffic is told next.
    report: Instant,
    latency: Duration,
    /// Of a hundred datagrams, each way.
    lost: u64,
    /// How many of them in a row, on average; at most one where it is 0.
    row: u64,
    /// When the last datagram left, and whether it was lost, there and back.
    last: [Option<(Instant, bool)>; 2],
    random: Random,
    nonce: u64,
    /// Pongs on their way.
    pongs: VecDeque<(Instant, u64)>,
    sent: usize,
    bytes: usize,
    /// Each length that data could use, and from when on.
    told: Vec<(Duration, u16)>,
    /// Those among them that counted as all that passes.
    settled: Vec<u16>,
}

impl Path {
    fn new(mtu: u16, interface_mtu: u16) -> Path {
        let start = Instant::now();
        let remote = "203.0.113.1:7".parse().expect("an address");
        Path {
            start,
            now: start,
            machine: PathMtu::new(start, Limits::of(remote, true)),
            mtu,
            interface_mtu,
            is_idle: false,
            report: start,
            latency: LATENCY,
            lost: 0,
            row: 0,
            last: [None; 2],
            random: Random::new([7; 32]),
            nonce: 0,
            pongs: VecDeque::new(),
            sent: 0,
            bytes: 0,
            told: Vec::new(),
            settled: Vec::new(),
        }
    }

    /// A path that loses `lost` of a hundred datagrams each way, `row` at a time.
    fn lossy(rtt: Duration, lost: u64, row: u64, seed: u8) -> Path {
        let random = Random::new([seed; 32]);
        Path { latency: rtt / 2, lost, row, random, ..Path::new(1500, 1500) }
    }

    /// Whether a datagram is lost, there (0) or back (1), by Gilbert's model. A path that was quiet
    /// for a while remembers nothing.
    fn is_lost(&mut self, way: usize) -> bool {
        let last = self.last[way].filter(|(at, _)| self.row > 0 && self.now < *at + MEMORY);
        let number = self.random.number() % 10_000;
        let is_lost = match last {
            None => number < self.lost * 100,
            Some((_, true)) => number >= 10_000 / self.row,
            Some((_, false)) => number < self.lost * 10_000 / (self.row * (100 - self.lost)),
        };
        self.last[way] = Some((self.now, is_lost));
        is_lost
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let pong = self.pongs.front().map(|(at, _)| *at);
            let next = [Some(self.report), pong, self.machine.poll_timeout()];
            self.now = self.now.max(next.into_iter().flatten().min().expect("a report"));
            if self.now > end {
                self.now = end;
                return;
            }
            if self.now >= self.report {
                self.report = self.now + Duration::from_millis(500);
                if !self.is_idle {
                    self.machine.on_traffic(self.now);
                }
            }
            while let Some((at, nonce)) = self.pongs.front().copied()
                && at <= self.now
            {
                self.pongs.pop_front();
                self.machine.on_pong(self.now, nonce);
            }
            self.send();
            let len = self.machine.datagram_len() + 28;
            if self.told.last().is_none_or(|(_, last)| *last != len) {
                self.told.push((self.now - self.start, len));
            }
            if self.machine.is_settled() && self.settled.last() != Some(&len) {
                self.settled.push(len);
            }
        }
    }

    fn send(&mut self) {
        let nonce = &mut self.nonce;
        let probes = self.machine.handle_timeout(self.now, Some(self.latency * 2), || {
            *nonce += 1;
            *nonce
        });
        for Probe { nonce, len } in probes {
            if len + 28 > self.interface_mtu {
                self.machine.on_too_big(self.now, len);
                continue;
            }
            self.sent += 1;
            self.bytes += usize::from(len);
            if !self.is_lost(0) && len + 28 <= self.mtu && !self.is_lost(1) {
                self.pongs.push_back((self.now + self.latency * 2, nonce));
            }
        }
    }

    /// The largest IP packet that data may have now.
    fn known(&self) -> u16 {
        self.machine.datagram_len() + 28
    }

    /// Runs until data may use `mtu`, within a few bytes; how long that took.
    fn settles(&mut self, mtu: u16) -> Duration {
        let start = self.now;
        while !(mtu - PRECISION + 1..=mtu).contains(&self.known()) {
            self.run(Duration::from_millis(5));
            assert!(self.now - start < SECOND * 60, "{} instead of {mtu}", self.known());
        }
        self.now - start
    }
}

#[test]
fn what_networks_are_made_for_is_found_in_two_round_trips() {
    for mtu in [1280, 1400, 1420, 1500, 9000] {
        let mut path = Path::new(mtu, mtu);
        assert!(path.settles(mtu) <= LATENCY * 4, "{mtu}");
        path.run(SECOND);
        assert_eq!(path.known(), mtu);
    }
}

#[test]
fn any_size_is_found_within_a_second_and_never_exceeded() {
    for mtu in (576..1600).chain([1999, 3000, 4469, 5000, 7777, 8500, 8999, 9001, 20_000]) {
        for interface_mtu in [1500, 9000, 65_535] {
            let mtu = mtu.min(interface_mtu);
            let mut path = Path::new(mtu, interface_mtu);
            let took = path.settles(mtu);
            assert!(took < SECOND, "{mtu} behind {interface_mtu}: {took:?}");
            path.run(SECOND * 10);
            assert!(path.told.iter().all(|(_, len)| *len <= mtu), "{mtu}: {:?}", path.told);
            assert!((mtu - PRECISION + 1..=mtu).contains(&path.known()), "{mtu}");
        }
    }
}

#[test]
fn a_path_that_shrinks_is_noticed_before_a_second_is_over() {
    for (before, after) in [(1500, 1400), (1500, 576), (9000, 1500), (9000, 1337), (1400, 1399)] {
        let mut path = Path::new(before, 9000);
        path.settles(before);
        path.run(SECOND * 20);
        (path.mtu, path.told) = (after, Vec::new());
        let start = path.now - path.start;
        path.run(SECOND * 3);
        let safe = path.told.iter().find(|(_, len)| *len <= after).expect("noticed").0 - start;
        assert!(safe < SECOND, "{before} to {after}: {safe:?}");
        path.settles(after);
        let beyond = path.told.iter().filter(|(at, len)| *at > start + safe && *len > after);
        assert_eq!(beyond.count(), 0, "{:?}", path.told);
    }
}

#[test]
fn a_path_that_grows_is_used_within_three_seconds() {
    for (before, after) in [(1400, 1500), (576, 1500), (1500, 9000), (1337, 1500)] {
        let mut path = Path::new(before, 9000);
        path.settles(before);
        path.run(SECOND * 33);
        path.mtu = after;
        let took = path.settles(after);
        assert!(took < SECOND * 4, "{before} to {after}: {took:?}");
    }
}

#[test]
fn nothing_is_settled_while_a_search_is_under_way() {
    for mtus in [[1500, 1400, 9000], [9000, 1337, 1500], [576, 1500, 576], [1280, 9000, 1280]] {
        let mut path = Path::new(mtus[0], 9000);
        for mtu in mtus {
            path.mtu = mtu;
            path.settles(mtu);
            path.run(SECOND * 20);
        }
        let is_one = |(len, mtu): (&u16, u16)| (mtu - PRECISION + 1..=mtu).contains(len);
        assert_eq!(path.settled.len(), 3, "{:?}", path.settled);
        assert!(path.settled.iter().zip(mtus).all(is_one), "{:?}", path.settled);
    }
}

#[test]
fn our_own_interface_is_believed_at_once() {
    let mut path = Path::new(9000, 9000);
    path.run(SECOND * 10);
    (path.mtu, path.interface_mtu) = (1500, 1500);
    path.machine.on_network_changed(path.now);
    path.run(Duration::from_millis(1));
    assert_eq!(path.known(), 576, "nothing longer than that leaves any more");
    assert!(path.settles(1500) <= LATENCY * 2 + Duration::from_millis(5));
    (path.mtu, path.interface_mtu) = (9000, 9000);
    path.machine.on_network_changed(path.now);
    assert!(path.settles(9000) <= LATENCY * 2 + Duration::from_millis(5));
    let since = path.told.iter().rposition(|(_, len)| *len == 1500).expect("it was there");
    assert!(path.told[since..].iter().all(|(_, len)| *len >= 1500), "growing costs nothing");
}

#[test]
fn probes_are_few() {
    let mut path = Path::new(1500, 1500);
    path.run(Duration::from_millis(400));
    assert!(path.bytes < 15_000, "no more than ten full packets: {}", path.bytes);
    let before = path.sent;
    path.run(SECOND * 60);
    assert!(path.sent - before < 60 * 5, "five a second under load: {}", path.sent - before);
    path.is_idle = true;
    let before = path.sent;
    path.run(SECOND * 600);
    assert!(path.sent - before < 5, "none without traffic");
}

/// Round trips in milliseconds, shares lost each way in percent, and how many in a row.
const LOSSY: [(u64, u64, u64); 6] =
    [(20, 25, 0), (20, 25, 4), (100, 15, 4), (400, 10, 4), (400, 25, 0), (400, 25, 4)];

#[test]
fn losses_alone_never_make_a_path_shorter() {
    for (rtt, lost, row) in LOSSY {
        let rtt = Duration::from_millis(rtt);
        for seed in 0..60 {
            let mut path = Path::lossy(rtt, lost, row, seed);
            let took = path.settles(1500);
            path.run(SECOND * 100);
            let is_growing = path.told.windows(2).all(|two| two[0].1 < two[1].1);
            let what = (rtt, lost, row, seed, took);
            assert!(is_growing && path.known() == 1500, "{what:?}: {:?}", path.told);
            assert_eq!(path.settled, [1500], "{what:?}: it is not sought again either");
        }
    }
}

#[test]
fn a_path_that_shrinks_while_it_loses_much_is_noticed() {
    for (rtt, lost, row) in LOSSY {
        let rtt = Duration::from_millis(rtt);
        let mut times = Vec::new();
        for seed in 0..60 {
            let mut path = Path::lossy(rtt, lost, row, seed);
            path.run(SECOND * 20);
            (path.mtu, path.told) = (1400, Vec::new());
            let start = path.now;
            while path.known() > 1400 {
                path.run(Duration::from_millis(10));
                assert!(path.now - start < SECOND * 60, "never noticed");
            }
            times.push(path.now - start);
            path.settles(1400);
            assert!(path.told.iter().skip(1).all(|(_, len)| *len <= 1400), "{:?}", path.told);
        }
        times.sort_unstable();
        assert!(times[30] < SECOND + rtt * 12, "{rtt:?}, {lost} %, {row} in a row: {times:?}");
    }
}

#[test]
fn silence_says_nothing_about_lengths() {
    let mut path = Path::new(1500, 1500);
    path.run(SECOND * 5);
    path.lost = 100;
    let sent = path.sent;
    path.run(SECOND * 20);
    assert_eq!(path.known(), 1500);
    assert!(path.sent - sent < 40, "{} probes into the void", path.sent - sent);
    path.lost = 0;
    path.run(SECOND * 20);
    assert_eq!(path.known(), 1500);
}

#[test]
fn relays_are_not_asked_for_more_than_an_ethernet_carries() {
    let limits = |remote: &str, direct| Limits::of(remote.parse().expect("an address"), direct);
    let of = |limits: Limits| (limits.floor, limits.ceiling);
    assert_eq!(of(limits("203.0.113.1:7", true)), (548, 65_507));
    assert_eq!(of(limits("203.0.113.1:7", false)), (544, 1468));
    assert_eq!(of(limits("[2001:db8::1]:7", true)), (1232, 65_487));
    assert_eq!(of(limits("[2001:db8::1]:7", false)), (1228, 1448));
}

proptest! {
    #[test]
    fn nothing_that_happens_leads_out_of_the_limits(
        events in proptest::collection::vec((0u8..6, any::<u16>(), 0u64..2000), 0..300),
    ) {
        let mut path = Path::new(1500, 9000);
        for (event, number, pause) in events {
            let now = path.now;
            match event {
                0 => { path.machine.on_pong(now, u64::from(number) % (path.nonce + 2)); }
                1 => path.machine.on_too_big(now, number),
                2 => path.machine.on_network_changed(now),
                3 => path.mtu = number.max(576),
                4 => path.interface_mtu = number.max(576),
                _ => path.machine.on_traffic(now),
            }
            path.run(Duration::from_millis(pause));
            let limits = path.machine.limits;
            prop_assert!((limits.floor..=limits.ceiling).contains(&path.machine.datagram_len()));
        }
    }
}
