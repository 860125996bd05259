//! One name of a server: when it is looked up, and what it stands for.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// After the first look-up that failed; doubles from one to the next.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
/// From one look-up that succeeded to the next, for servers move.
const REFRESH: Duration = Duration::from_secs(600);
/// For so long an address that the name no longer has is used beside the new one, so that links
/// find their way from the one to the other, and a name whose addresses take turns costs nothing.
const LINGER: Duration = Duration::from_secs(300);
/// Between two look-ups that moves of the network ask for, where they go well: some networks never
/// rest.
const MOVES_PAUSE: Duration = Duration::from_secs(10);
/// Addresses of a family in use: the one that the name has, and one that it had lately.
const FAMILY_MAX: usize = 2;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Name {
    /// The longest in use first.
    used: Vec<Used>,
    /// The look-up under way.
    pending: Option<u64>,
    /// When the last look-up began.
    asked: Option<Instant>,
    /// When the next one is to begin.
    due: Option<Instant>,
    /// Failures in a row, since the network moved last.
    failures: u32,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Used {
    address: IpAddr,
    /// Since when the name has not had it.
    absent: Option<Instant>,
}

/// Why a name does not resolve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Since when.
    pub(super) since: Instant,
    /// The latest reason.
    pub(super) text: String,
}

impl Name {
    /// To be looked up at once.
    pub(super) fn new(now: Instant) -> Self {
        Self { due: Some(now), ..Self::default() }
    }

    /// When a look-up is to begin.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A look-up begins; another one that is under way is not waited for any longer.
    pub(super) fn begin(&mut self, now: Instant, number: u64) {
        (self.pending, self.asked, self.due) = (Some(number), Some(now), None);
    }

    /// Whether this look-up's answer is waited for.
    pub(super) fn awaits(&self, number: u64) -> bool {
        self.pending == Some(number)
    }

    /// The name has these addresses; whether it had failed before. `share`, from 0 to 1, spreads
    /// the look-ups of many nodes.
    pub(super) fn resolved(&mut self, now: Instant, found: &[IpAddr], share: f64) -> bool {
        self.merge(now, found);
        self.failures = 0;
        self.end(now + spread(REFRESH, share));
        self.failure.take().is_some()
    }

    /// The name has no address; whether that is news. What it had is still used.
    pub(super) fn failed(&mut self, now: Instant, text: String, share: f64) -> bool {
        let pause = RETRY_FIRST.saturating_mul(1 << self.failures.min(16)).min(RETRY_LONGEST);
        self.failures = self.failures.saturating_add(1);
        self.end(now + spread(pause, share));
        let before = self.failure.as_ref();
        let is_news = before.is_none_or(|failure| failure.text != text);
        let since = before.map_or(now, |failure| failure.since);
        self.failure = Some(Failure { since, text });
        is_news
    }

    /// There may be another resolver now, which may know the name by another address.
    pub(super) fn network_moved(&mut self, now: Instant) {
        self.failures = 0;
        let pause = if self.failure.is_some() { RETRY_FIRST } else { MOVES_PAUSE };
        let at = self.asked.map_or(now, |asked| now.max(asked + pause));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// What it stands for, IPv4 first.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let of = |is_ipv4| {
            self.used
                .iter()
                .map(|used| used.address)
                .filter(move |address| address.is_ipv4() == is_ipv4)
        };
        of(true).chain(of(false))
    }

    /// Why it does not resolve.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The answer is there; the next look-up may be due earlier than planned.
    fn end(&mut self, next: Instant) {
        self.pending = None;
        self.due = Some(self.due.map_or(next, |due| due.min(next)));
    }

    /// One address of each family will do: a name with many is one server to us. It is changed for
    /// another only when the name does not have it any more.
    fn merge(&mut self, now: Instant, found: &[IpAddr]) {
        for used in &mut self.used {
            let is_absent = !found.contains(&used.address);
            used.absent = is_absent.then(|| used.absent.unwrap_or(now));
        }
        self.used.retain(|used| used.absent.is_none_or(|since| now < since + LINGER));
        for is_ipv4 in [true, false] {
            let is_of_family = |address: &IpAddr| address.is_ipv4() == is_ipv4;
            let mut is_there = false;
            self.used.retain(|used| {
                let is_present = is_of_family(&used.address) && used.absent.is_none();
                let is_second = is_there && is_present;
                is_there |= is_present;
                !is_second
            });
            let new = found.iter().copied().find(is_of_family).filter(|_| !is_there);
            self.used.extend(new.map(|address| Used { address, absent: None }));
            let count = self.used.iter().filter(|used| is_of_family(&used.address)).count();
            if count > FAMILY_MAX
                && let Some(oldest) = self.used.iter().position(|used| is_of_family(&used.address))
            {
                self.used.remove(oldest);
            }
        }
    }
}

/// Between 3/4 and 5/4 of a pause.
fn spread(pause: Duration, share: f64) -> Duration {
    pause.mul_f64(0.75 + 0.5 * share)
}
