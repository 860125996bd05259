//! Which unreachable addresses the agent was told of a moment ago: a host repeats itself at line
//! rate.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long an address is not told again.
const QUIET_TIME: Duration = Duration::from_secs(1);

/// How many addresses are remembered; with more at once, some are told more often.
const REMEMBERED_MAX: usize = 16;

#[derive(Default)]
pub(crate) struct Recent {
    told: [Option<(IpAddr, Instant)>; REMEMBERED_MAX],
    next: usize,
}

impl Recent {
    /// Whether the address is due to be told; remembers that it was.
    pub fn admit(&mut self, now: Instant, address: IpAddr) -> bool {
        let is_quiet = |told: &Option<(IpAddr, Instant)>| {
            told.is_some_and(|(known, at)| known == address && now < at + QUIET_TIME)
        };
        if self.told.iter().any(is_quiet) {
            return false;
        }
        self.told[self.next] = Some((address, now));
        self.next = (self.next + 1) % REMEMBERED_MAX;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_told_once_a_second() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let [a, b] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        assert!(recent.admit(start, a) && recent.admit(start, b));
        assert!(!recent.admit(start, a) && !recent.admit(start, b));
        assert!(recent.admit(start + QUIET_TIME, a));
    }
}
