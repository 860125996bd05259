//! The journal: steps of links, in the control ring's words, for observers to look back at.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ipop_crypto::Fingerprint;
use ipop_link as link;
use ipop_link::{IceTrace, Trace, TracedPair};
use ipop_shm as shm;
use ipop_steer::{self as steer, Cause, Step, TraceRecord, TracedEnd};

use crate::clock::unix_us;
use crate::steering::{kind_out, state_out};

/// Writes steps down as they are taken.
pub(crate) struct Journal {
    journal: shm::Journal,
    buffer: Vec<u8>,
}

impl Journal {
    pub(crate) fn new(journal: shm::Journal) -> Self {
        Self { journal, buffer: Vec::with_capacity(TraceRecord::LEN_MAX) }
    }

    pub(crate) fn write(&mut self, peer: Fingerprint, session: u64, trace: &Trace) {
        let peer = steer::Fingerprint(peer.0);
        let blank = TraceRecord::new(unix_us(), peer, session, Step::Opened);
        self.buffer.clear();
        match record(blank, trace).encode(&mut self.buffer) {
            Ok(()) => self.journal.append(&self.buffer),
            // Every text is cut to fit, so this is a mistake of ours, and better said than hidden.
            Err(error) => tracing::error!("a step cannot be encoded: {error}"),
        }
    }
}

fn record(blank: TraceRecord, trace: &Trace) -> TraceRecord {
    match trace {
        Trace::Opened { is_controlling } => {
            TraceRecord { step: Step::Opened, number: u64::from(*is_controlling), ..blank }
        }
        Trace::Ice(step) => of_ice(blank, *step),
        Trace::HandshakeStarted => TraceRecord { step: Step::HandshakeStarted, ..blank },
        Trace::HandshakeFailed(why) => {
            TraceRecord { step: Step::HandshakeFailed, text: why.clone(), ..blank }
        }
        Trace::KeysInstalled { cipher, lanes } => TraceRecord {
            step: Step::KeysInstalled,
            number: u64::from(*lanes),
            text: cipher.name().to_owned(),
            ..blank
        },
        Trace::KeysConfirmed(took) => {
            TraceRecord { step: Step::KeysConfirmed, number: micros(*took), ..blank }
        }
        Trace::DatagramLen(len) => {
            TraceRecord { step: Step::DatagramLen, number: u64::from(*len), ..blank }
        }
        Trace::Lane { lane, path } => TraceRecord {
            step: if path.is_some() { Step::LaneProven } else { Step::LaneLost },
            local: path.and_then(|(local, _)| plain(local)),
            remote: path.and_then(|(_, remote)| plain(remote)),
            number: u64::from(*lane),
            ..blank
        },
        Trace::State(state) => {
            let text = format!("{:?}", state_out(*state)).to_lowercase();
            TraceRecord { step: Step::State, text, ..blank }
        }
        Trace::Closed(why) => TraceRecord { step: Step::Closed, text: why.clone(), ..blank },
        Trace::LeftOut(count) => TraceRecord { step: Step::LeftOut, number: *count, ..blank },
    }
}

fn of_ice(blank: TraceRecord, trace: IceTrace) -> TraceRecord {
    let pair_step = |step, pair: TracedPair| {
        let (local, remote) =
            (end(pair.local_kind, pair.local), end(pair.remote_kind, pair.remote));
        TraceRecord { step, local, remote, ..blank.clone() }
    };
    match trace {
        IceTrace::LocalCandidate { kind, address } => {
            TraceRecord { step: Step::LocalCandidate, local: end(kind, address), ..blank }
        }
        IceTrace::LocalGone(address) => {
            TraceRecord { step: Step::LocalGone, local: plain(address), ..blank }
        }
        IceTrace::RemoteCandidate { kind, address } => {
            TraceRecord { step: Step::RemoteCandidate, remote: end(kind, address), ..blank }
        }
        IceTrace::RemoteUseless { kind, address } => {
            TraceRecord { step: Step::RemoteUseless, remote: end(kind, address), ..blank }
        }
        IceTrace::PairFormed(pair) => pair_step(Step::PairFormed, pair),
        IceTrace::CheckSent { pair, number, nominates } => TraceRecord {
            number: u64::from(number),
            ..pair_step(if nominates { Step::NominationSent } else { Step::CheckSent }, pair)
        },
        IceTrace::CheckAnswered { pair, rtt } => {
            TraceRecord { number: micros(rtt), ..pair_step(Step::CheckAnswered, pair) }
        }
        IceTrace::SeenAs { pair, address } => {
            TraceRecord { text: address.to_string(), ..pair_step(Step::SeenAs, pair) }
        }
        IceTrace::StrayAnswer { pair, from } => {
            TraceRecord { text: from.to_string(), ..pair_step(Step::StrayAnswer, pair) }
        }
        IceTrace::CheckFailed { pair, cause, checks } => {
            let (cause, error) = failure_out(cause);
            let text = if error == 0 { String::new() } else { error.to_string() };
            let number = u64::from(checks);
            TraceRecord { cause: Some(cause), number, text, ..pair_step(Step::CheckFailed, pair) }
        }
        IceTrace::Heard(pair) => pair_step(Step::PeerHeard, pair),
        IceTrace::PeerNominates(pair) => pair_step(Step::PeerNominates, pair),
        IceTrace::RoleChanged { is_controlling } => {
            TraceRecord { step: Step::RoleChanged, number: u64::from(is_controlling), ..blank }
        }
        IceTrace::Punch { is_peers } => {
            TraceRecord { step: Step::Punch, number: u64::from(is_peers), ..blank }
        }
        IceTrace::Selected { pair, cause, is_peers } => TraceRecord {
            cause: Some(cause_out(cause)),
            number: u64::from(is_peers),
            ..pair_step(Step::Selected, pair)
        },
        IceTrace::Suspected { pair, cause } => {
            TraceRecord { cause: Some(suspicion_out(cause)), ..pair_step(Step::Suspected, pair) }
        }
        IceTrace::Silent(pair) => pair_step(Step::Silent, pair),
        IceTrace::Recovered(pair) => pair_step(Step::Recovered, pair),
    }
}

fn end(kind: link::CandidateKind, address: SocketAddr) -> Option<TracedEnd> {
    Some(TracedEnd { kind: Some(kind_out(kind)), address })
}

fn plain(address: SocketAddr) -> Option<TracedEnd> {
    Some(TracedEnd { kind: None, address })
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// The cause, and a STUN error's code.
fn failure_out(failure: link::CheckFailure) -> (Cause, u16) {
    match failure {
        link::CheckFailure::Timeout => (Cause::Timeout, 0),
        link::CheckFailure::Error(code) => (Cause::StunError, code),
        link::CheckFailure::Incomprehensible => (Cause::Incomprehensible, 0),
        link::CheckFailure::AddressGone => (Cause::AddressGone, 0),
        link::CheckFailure::Unsendable => (Cause::Unsendable, 0),
    }
}

fn cause_out(cause: link::ChoiceCause) -> Cause {
    match cause {
        link::ChoiceCause::First => Cause::First,
        link::ChoiceCause::Better => Cause::Better,
        link::ChoiceCause::Silence => Cause::Silence,
        link::ChoiceCause::AddressGone => Cause::AddressGone,
        link::ChoiceCause::PeerWish => Cause::PeerWish,
    }
}

fn suspicion_out(cause: link::Suspicion) -> Cause {
    match cause {
        link::Suspicion::Traffic => Cause::Traffic,
        link::Suspicion::PeerElsewhere => Cause::PeerElsewhere,
        link::Suspicion::NetworkChanged => Cause::NetworkChanged,
    }
}

/// A choice as link rows show it.
pub(crate) fn choice_out(
    choice: &link::Choice,
    since_ms: impl Fn(Instant) -> u64,
) -> steer::Choice {
    steer::Choice {
        since_ms: since_ms(choice.at),
        cause: cause_out(choice.cause),
        is_peers: choice.is_peers,
    }
}

/// What became of pairs as link rows show it.
pub(crate) fn outcome_out(outcome: &link::Outcome) -> steer::Outcome {
    let short = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    let failure = outcome.last_failure.map(failure_out);
    steer::Outcome {
        local_kind: kind_out(outcome.local_kind),
        remote_kind: kind_out(outcome.remote_kind),
        is_ipv4: outcome.is_ipv4,
        last_failure: failure.map(|(cause, _)| cause),
        error: failure.map_or(0, |(_, error)| error),
        pairs: short(outcome.pairs),
        working: short(outcome.working),
        failed: short(outcome.failed),
        checks: outcome.checks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_record_fits_the_journal() {
        let layout = shm::Layout::new(1, 1, 1);
        assert!(TraceRecord::LEN_MAX <= layout.journal_record_len as usize);
        assert_eq!(steer::LinkRow::LEN, layout.link_row_len as usize);
    }

    #[test]
    fn a_failure_says_why_and_after_how_many_checks() {
        let address = SocketAddr::from(([192, 0, 2, 1], 7));
        let kind = link::CandidateKind::Relayed;
        let pair =
            TracedPair { local: address, local_kind: kind, remote: address, remote_kind: kind };
        let cause = link::CheckFailure::Error(400);
        let step = Trace::Ice(IceTrace::CheckFailed { pair, cause, checks: 8 });
        let blank = TraceRecord::new(5, steer::Fingerprint([1; 32]), 2, Step::Opened);
        let record = record(blank, &step);
        assert_eq!((record.step, record.cause), (Step::CheckFailed, Some(Cause::StunError)));
        assert_eq!((record.number, record.text.as_str()), (8, "400"));
        assert_eq!(record.local.unwrap().kind, Some(steer::CandidateKind::Relayed));
    }
}
