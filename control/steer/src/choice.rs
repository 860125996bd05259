//! Why a link's path is what it is, as the last part of a [`LinkRow`](crate::LinkRow) shows it.
//!
//! ```text
//!   0 since_ms u64 | cause u8 (0: no path) | chosen by the peer u8 | count u8 | 0[5]
//!  16 count x {
//!       local kind u8 | remote kind u8 | family u8 | last failure u8 | error u16 |
//!       pairs u16 | working u16 | failed u16 | checks u32
//!     }
//! ```

use crate::CandidateKind;
use crate::codec::{DecodeError, Reader, Writer};
use crate::limits::ROW_OUTCOMES_MAX;
use crate::trace::{Cause, optional};

/// The latest choice of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Choice {
    /// When, Unix time in milliseconds.
    pub since_ms: u64,
    /// Why.
    pub cause: Cause,
    /// Whether the peer chose it; this end did otherwise.
    pub is_peers: bool,
}

/// What became of all pairs of addresses between two kinds, in one address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// How our ends were learned.
    pub local_kind: CandidateKind,
    /// How the peer's ends were learned.
    pub remote_kind: CandidateKind,
    /// IPv4, or IPv6.
    pub is_ipv4: bool,
    /// Why one was given up last.
    pub last_failure: Option<Cause>,
    /// The STUN error's code, where that was it; 0 otherwise.
    pub error: u16,
    /// How many pairs there are.
    pub pairs: u16,
    /// How many of them work.
    pub working: u16,
    /// How many of them were given up, for a while at least.
    pub failed: u16,
    /// Checks sent on them.
    pub checks: u32,
}

/// Bytes of both.
pub(crate) const LEN: usize = 16 + ROW_OUTCOMES_MAX * 16;

pub(crate) fn put(to: &mut Writer<'_>, choice: Option<Choice>, outcomes: &[Outcome]) {
    let outcomes = &outcomes[..outcomes.len().min(ROW_OUTCOMES_MAX)];
    to.u64(choice.map_or(0, |choice| choice.since_ms));
    to.u8(choice.map_or(0, |choice| choice.cause.code()));
    to.bool(choice.is_some_and(|choice| choice.is_peers));
    to.u8(outcomes.len() as u8);
    to.zeros(5);
    for outcome in outcomes {
        outcome.local_kind.put(to);
        outcome.remote_kind.put(to);
        to.u8(if outcome.is_ipv4 { 4 } else { 6 });
        to.u8(outcome.last_failure.map_or(0, Cause::code));
        for value in [outcome.error, outcome.pairs, outcome.working, outcome.failed] {
            to.u16(value);
        }
        to.u32(outcome.checks);
    }
    to.zeros((ROW_OUTCOMES_MAX - outcomes.len()) * 16);
}

pub(crate) fn take(from: &mut Reader<'_>) -> Result<(Option<Choice>, Vec<Outcome>), DecodeError> {
    let (since_ms, cause) = (from.u64()?, optional(from.u8()?, Cause::of)?);
    let (is_peers, count) = (from.bool()?, usize::from(from.u8()?));
    from.zeros(5)?;
    let choice = cause.map(|cause| Choice { since_ms, cause, is_peers });
    if choice.is_none() && (since_ms != 0 || is_peers) {
        return Err(DecodeError::Padding);
    }
    if count > ROW_OUTCOMES_MAX {
        return Err(DecodeError::TooLong { len: count, max: ROW_OUTCOMES_MAX });
    }
    let outcomes = (0..count).map(|_| take_outcome(from)).collect::<Result<_, _>>()?;
    from.zeros((ROW_OUTCOMES_MAX - count) * 16)?;
    Ok((choice, outcomes))
}

fn take_outcome(from: &mut Reader<'_>) -> Result<Outcome, DecodeError> {
    let (local_kind, remote_kind) = (CandidateKind::take(from)?, CandidateKind::take(from)?);
    let is_ipv4 = match from.u8()? {
        4 => true,
        6 => false,
        code => return Err(DecodeError::UnknownCode { what: "address family", code }),
    };
    Ok(Outcome {
        local_kind,
        remote_kind,
        is_ipv4,
        last_failure: optional(from.u8()?, Cause::of)?,
        error: from.u16()?,
        pairs: from.u16()?,
        working: from.u16()?,
        failed: from.u16()?,
        checks: from.u32()?,
    })
}
