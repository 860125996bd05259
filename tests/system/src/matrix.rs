//! The NAT matrix: how nodes behind any two kinds of NAT find to each other, again and again, as a
//! table and a picture.
//!
//! [`Crew`] runs the pairs, several at once, each on an internet of its own with its own servers;
//! [`Report`] says what came of them.

mod crew;
mod pair;
mod report;
mod traces;

use std::time::Duration;

use ipop_lab::Nat;
use serde_json::json;

pub use crew::{Crew, pairs};
pub use pair::measure;
pub use report::Report;

/// A direct path within this time is as good as from the start.
const SOON: Duration = Duration::from_secs(10);

/// How one ordered pair fared.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The kinds, in the order in which the nodes started.
    pub nats: [Nat; 2],
    /// From the start of the first process until both ends carry packets.
    pub linked: Option<Duration>,
    /// The same until the first ping from the first node to the second is answered.
    pub pinged: Option<Duration>,
    /// The same until both ends use a direct path, where that is so at last.
    pub direct: Option<Duration>,
    /// From the moment when both ends know an address of the other until both have a path.
    pub connected: Option<Duration>,
    /// Whether each of both ends was answered by the other, at last.
    pub answers: bool,
}

/// What is to be hoped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hope {
    /// A direct path.
    Direct,
    /// A direct path, nine times in ten: it is met by many probes.
    Likely,
    /// A relay.
    Relayed,
}

/// What is to be hoped for with these kinds.
pub fn hope(nats: [Nat; 2]) -> Hope {
    use Nat::{AddressDependent, AddressRestricted, Carrier, FullCone, None, Sequential};
    let has = |kind: Nat| nats.contains(&kind);
    let draws = |nat: &Nat| matches!(nat, AddressDependent | Nat::Symmetric | Carrier);
    let is_unknown = |nat: &Nat| draws(nat) || *nat == Sequential;
    let is_open = |nat: &Nat| matches!(nat, None | FullCone | AddressRestricted);
    match () {
        () if has(Nat::UdpBlocked) || has(Nat::TcpOnly) => Hope::Relayed,
        () if nats.iter().any(is_open) => Hope::Direct,
        () if nats.iter().all(is_unknown) && nats.iter().any(draws) => Hope::Relayed,
        () if nats.iter().any(draws) => Hope::Likely,
        () => Hope::Direct,
    }
}

impl Outcome {
    /// Nothing came of it, so far.
    pub fn new(nats: [Nat; 2]) -> Self {
        Self { nats, linked: None, pinged: None, direct: None, connected: None, answers: false }
    }

    /// Whether one of them lets no UDP out.
    fn needs_stream(&self) -> bool {
        [Nat::UdpBlocked, Nat::TcpOnly].iter().any(|nat| self.nats.contains(nat))
    }

    /// Whether the direct path was there soon.
    fn is_soon_direct(&self) -> bool {
        self.direct.is_some_and(|time| time < SOON)
    }

    /// What falls short of what every pair of these kinds has to reach.
    pub fn shortfall(&self) -> Option<&'static str> {
        match self {
            Self { linked: None, .. } => Some("not linked"),
            Self { answers: false, .. } => Some("linked, but echo requests are lost"),
            _ if hope(self.nats) == Hope::Direct && !self.is_soon_direct() => {
                Some("not direct within 10 s")
            }
            _ => None,
        }
    }

    /// For programs: a line of JSON.
    pub fn line(&self, run: usize) -> String {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        let [first, second] = self.nats.map(|nat| nat.to_string());
        json!({
            "run": run,
            "first": first,
            "second": second,
            "linked": seconds(self.linked),
            "pinged": seconds(self.pinged),
            "direct": seconds(self.direct),
            "connected": seconds(self.connected),
            "shortfall": self.shortfall(),
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_decide_what_is_hoped_for() {
        for (nats, expected) in [
            ([Nat::PortRestricted, Nat::Double], Hope::Direct),
            ([Nat::Symmetric, Nat::AddressRestricted], Hope::Direct),
            ([Nat::Sequential, Nat::Sequential], Hope::Direct),
            ([Nat::Carrier, Nat::PortRestricted], Hope::Likely),
            ([Nat::Symmetric, Nat::Rejecting], Hope::Likely),
            ([Nat::Rejecting, Nat::PortRestricted], Hope::Direct),
            ([Nat::Symmetric, Nat::Sequential], Hope::Relayed),
            ([Nat::None, Nat::TcpOnly], Hope::Relayed),
            ([Nat::UdpBlocked, Nat::UdpBlocked], Hope::Relayed),
        ] {
            assert_eq!(hope(nats), expected, "{nats:?}");
        }
    }

    #[test]
    fn a_pair_falls_short_of_what_it_has_to_reach() {
        let second = Some(Duration::from_secs(1));
        let blank = Outcome::new([Nat::None; 2]);
        let good = Outcome { linked: second, direct: second, answers: true, ..blank };
        assert_eq!(good.shortfall(), None);
        for bad in [
            Outcome { linked: None, ..good },
            Outcome { answers: false, ..good },
            Outcome { direct: None, ..good },
            Outcome { direct: Some(SOON), ..good },
        ] {
            assert!(bad.shortfall().is_some(), "{bad:?}");
        }
        let relayed = Outcome { nats: [Nat::Carrier; 2], direct: None, ..good };
        assert_eq!(relayed.shortfall(), None);
    }
}
