//! Why a link's path is what it is, in words: for `status`, `ping` and `trace`.

use ipop_steer::{CandidateKind, Cause, Choice, Outcome, PathKind};
use serde::Serialize;

/// What became of all pairs of addresses between two kinds.
#[derive(Clone, Debug, Serialize)]
pub struct Tried {
    /// How our ends were learned.
    pub local: &'static str,
    /// How the peer's ends were learned.
    pub remote: &'static str,
    /// `IPv4` or `IPv6`.
    pub family: &'static str,
    /// How many pairs there are.
    pub pairs: u16,
    /// How many of them work.
    pub working: u16,
    /// How many of them were given up, for a while at least.
    pub failed: u16,
    /// Checks sent on them.
    pub checks: u32,
    /// Why one was given up last.
    pub last_failure: Option<String>,
    #[serde(skip)]
    is_direct: bool,
}

impl Tried {
    /// The same as the link table has it.
    pub fn new(outcome: &Outcome) -> Self {
        let is_relay = |kind| kind == CandidateKind::Relayed;
        Self {
            local: kind_name(outcome.local_kind),
            remote: kind_name(outcome.remote_kind),
            family: if outcome.is_ipv4 { "IPv4" } else { "IPv6" },
            pairs: outcome.pairs,
            working: outcome.working,
            failed: outcome.failed,
            checks: outcome.checks,
            last_failure: outcome.last_failure.map(|cause| failure(cause, outcome.error)),
            is_direct: !is_relay(outcome.local_kind) && !is_relay(outcome.remote_kind),
        }
    }

    /// One line.
    pub fn text(&self) -> String {
        let Self { local, remote, family, pairs, working, checks, .. } = self;
        let trouble = match &self.last_failure {
            Some(why) if self.working < self.pairs => format!(": {why}"),
            None if self.working + self.failed < self.pairs => ": not known yet".to_owned(),
            _ => String::new(),
        };
        let checks = plural(u64::from(*checks), "check");
        format!("{local} to {remote}, {family}: {working} of {pairs} work, {checks}{trouble}")
    }
}

/// Why this path, in one sentence; `None` without a path.
pub fn of_path(path: Option<PathKind>, choice: Option<&Choice>, tried: &[Tried]) -> Option<String> {
    let (path, choice) = (path?, choice?);
    let is_relayed = path == PathKind::Relayed;
    let mut text = match (choice.cause, is_relayed) {
        (Cause::First, false) => "the best pair of addresses that answered".to_owned(),
        (Cause::First, true) => "no direct pair of addresses answered in time".to_owned(),
        (cause, _) => chosen(cause).to_owned(),
    };
    if choice.is_peers {
        text += "; the peer chose it";
    }
    if is_relayed {
        text += "; ";
        text += &direct_ones(tried);
        if is_peer_symmetric(tried) {
            text += "; the peer's NAT uses another port for each destination";
        }
    }
    Some(text)
}

/// Whether our relay saw the peer at another address than a STUN server did.
fn is_peer_symmetric(tried: &[Tried]) -> bool {
    let names = |kind| move |tried: &&Tried| tried.remote == kind_name(kind);
    let seen = tried.iter().filter(names(CandidateKind::PeerReflexive));
    let mut seen = seen.filter(|tried| tried.local == kind_name(CandidateKind::Relayed));
    let told = names(CandidateKind::ServerReflexive);
    seen.any(|seen| tried.iter().any(|tried| told(&tried) && tried.family == seen.family))
}

/// What became of the direct pairs, in a few words.
fn direct_ones(tried: &[Tried]) -> String {
    let direct = || tried.iter().filter(|tried| tried.is_direct);
    let pairs: u64 = direct().map(|tried| u64::from(tried.pairs)).sum();
    let failed: u64 = direct().map(|tried| u64::from(tried.failed)).sum();
    let working: u64 = direct().map(|tried| u64::from(tried.working)).sum();
    let checks: u64 = direct().map(|tried| u64::from(tried.checks)).sum();
    let why = direct().filter(|t| t.failed > 0).find_map(|tried| tried.last_failure.clone());
    let checks = plural(checks, "check");
    match (pairs, why) {
        (0, _) => "the two ends have no direct pair of addresses in common".to_owned(),
        _ if working > 0 => format!("{working} of {} work", plural(pairs, "direct pair")),
        (_, Some(why)) if failed == pairs => {
            format!("{}, {checks}: {why}", plural(pairs, "direct pair"))
        }
        _ => format!("{}, {checks}, still being tried", plural(pairs, "direct pair")),
    }
}

/// Why a path replaced the one before.
pub fn chosen(cause: Cause) -> &'static str {
    match cause {
        Cause::First => "the first that works",
        Cause::Better => "better than the path before",
        Cause::Silence => "the path before fell silent",
        Cause::AddressGone => "our address of the path before is gone",
        Cause::PeerWish => "the peer wants it",
        Cause::Traffic => "nothing is heard, or on another path",
        Cause::PeerElsewhere => "the peer turned up elsewhere",
        Cause::NetworkChanged => "this machine's network changed",
        Cause::Timeout | Cause::StunError | Cause::Incomprehensible | Cause::Unsendable => {
            "the path before failed"
        }
    }
}

/// Why a pair was given up. `error`: the STUN error's code.
pub fn failure(cause: Cause, error: u16) -> String {
    match cause {
        Cause::Timeout => "no answer".to_owned(),
        Cause::StunError => format!("the peer answered with STUN error {error}"),
        Cause::Incomprehensible => "the peer's answer cannot be understood".to_owned(),
        Cause::AddressGone => "our address is gone".to_owned(),
        Cause::Unsendable => "the check cannot be made".to_owned(),
        other => chosen(other).to_owned(),
    }
}

/// How an address was learned, as SDP abbreviates it (RFC 8839 section 5.1).
pub fn kind_name(kind: CandidateKind) -> &'static str {
    match kind {
        CandidateKind::Host => "host",
        CandidateKind::ServerReflexive => "srflx",
        CandidateKind::PeerReflexive => "prflx",
        CandidateKind::Relayed => "relay",
    }
}

/// `1 check`, `2 checks`.
pub fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(remote_kind: CandidateKind, working: u16, failed: u16) -> Outcome {
        Outcome {
            local_kind: CandidateKind::Host,
            remote_kind,
            is_ipv4: true,
            last_failure: (failed > 0).then_some(Cause::Timeout),
            error: 0,
            pairs: working + failed,
            working,
            failed,
            checks: 8 * u32::from(failed) + u32::from(working),
        }
    }

    #[test]
    fn a_relayed_path_says_what_became_of_the_direct_ones() {
        let choice = Choice { since_ms: 1, cause: Cause::First, is_peers: true };
        let kinds = [CandidateKind::Host, CandidateKind::ServerReflexive];
        let mut tried: Vec<_> = kinds.map(|kind| Tried::new(&outcome(kind, 0, 1))).into();
        let text = of_path(Some(PathKind::Relayed), Some(&choice), &tried).unwrap();
        assert_eq!(
            text,
            "no direct pair of addresses answered in time; the peer chose it; 2 direct pairs, \
             16 checks: no answer"
        );
        tried.clear();
        let text = of_path(Some(PathKind::Relayed), Some(&choice), &tried).unwrap();
        assert!(text.ends_with("no direct pair of addresses in common"), "{text}");
        assert_eq!(of_path(None, None, &tried), None);
    }

    #[test]
    fn what_was_tried_is_a_line() {
        let line = Tried::new(&outcome(CandidateKind::ServerReflexive, 1, 1)).text();
        assert_eq!(line, "host to srflx, IPv4: 1 of 2 work, 9 checks: no answer");
    }
}
