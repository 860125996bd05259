//! A step of a link's life, as the journal shows it to who asks why the link is as it is.
//!
//! A record is flat, so that programs of any language can show what they do not know by heart:
//!
//! | field | bytes | |
//! | --- | --- | --- |
//! | `at_us` | `u64` | Unix time, microseconds |
//! | `peer`, `session` | `Fingerprint`, `u64` | which link |
//! | `step` | enumeration | what happened |
//! | `local`, `remote` | `Option` of kind (0 unknown) and `SocketAddr`, each | between which ends |
//! | `cause` | 1, 0 for none | why |
//! | `number` | `u64` | what it counts is said with each [`Step`]; 0 otherwise |
//! | `text` | text | for a person |

use std::net::SocketAddr;

use crate::codec::{DecodeError, EncodeError, Reader, Writer, coded_enum};
use crate::limits::TRACE_TEXT_LEN_MAX;
use crate::{CandidateKind, Fingerprint};

coded_enum! {
    /// What happened to a link.
    pub enum Step {
        /// It is looked for. `number`: 1 if this end nominates paths and begins handshakes.
        Opened = 1,
        /// What it can do is another thing: `text`.
        State = 2,
        /// It is over; `text` says why.
        Closed = 3,
        /// `number` steps were not told, because there were too many at a time.
        LeftOut = 4,
        /// We may be reached at `local`.
        LocalCandidate = 10,
        /// The address `local` of ours is gone.
        LocalGone = 11,
        /// The peer may be reached at `remote`; one that is peer-reflexive was found by a check.
        RemoteCandidate = 12,
        /// The peer named `remote`, which is of no use.
        RemoteUseless = 13,
        /// Two addresses fit each other.
        PairFormed = 14,
        /// A check left, the one with `number` on this pair.
        CheckSent = 20,
        /// The same, and says that the pair is to be used.
        NominationSent = 21,
        /// A check was answered after `number` microseconds.
        CheckAnswered = 22,
        /// A check was answered by `text` instead of `remote`; that does not count.
        StrayAnswer = 23,
        /// The pair was given up after `number` checks, for a while at least; `cause` says why.
        CheckFailed = 24,
        /// The peer's first check on this pair came.
        PeerHeard = 25,
        /// The peer wants this pair used.
        PeerNominates = 26,
        /// A role conflict was settled against us. `number`: 1 if this end nominates from now on.
        RoleChanged = 27,
        /// Both ends check at the same time what never worked. `number`: 1 if the peer said so.
        Punch = 28,
        /// The peer sees us at `text`, which it was not told: a NAT maps anew for this pair.
        SeenAs = 29,
        /// This pair is used from now on; `cause` says why. `number`: 1 if the peer chose it.
        Selected = 30,
        /// The pair in use is doubted, and asked at once; `cause` says why.
        Suspected = 31,
        /// The pair in use does not answer; another is looked for.
        Silent = 32,
        /// The pair that was silent answers again.
        Recovered = 33,
        /// A handshake began.
        HandshakeStarted = 40,
        /// A handshake failed; `text` says why.
        HandshakeFailed = 41,
        /// A handshake is done. `number`: lanes; `text`: the cipher.
        KeysInstalled = 42,
        /// The keys were proven in both directions after `number` microseconds, and are used.
        KeysConfirmed = 43,
        /// The path is known to carry datagrams of `number` bytes of UDP payload.
        DatagramLen = 50,
        /// Lane `number` works on this path.
        LaneProven = 51,
        /// Lane `number` has no path.
        LaneLost = 52,
    }
}

coded_enum! {
    /// Why a step was taken, a path chosen, or a pair given up.
    pub enum Cause {
        /// No check was answered in time.
        Timeout = 1,
        /// The peer answered with a STUN error.
        StunError = 2,
        /// The answer has attributes that must be understood and are not.
        Incomprehensible = 3,
        /// Our end's address is gone.
        AddressGone = 4,
        /// The check could not be made.
        Unsendable = 5,
        /// There was no path before.
        First = 10,
        /// Better than the one before: direct before relayed, then by priority.
        Better = 11,
        /// The one before does not answer.
        Silence = 12,
        /// The peer wants it, for a reason of its own.
        PeerWish = 13,
        /// Nothing is heard where there was traffic, or it comes on another path.
        Traffic = 20,
        /// The peer sent something from elsewhere.
        PeerElsewhere = 21,
        /// Addresses or routes of this machine are others.
        NetworkChanged = 22,
    }
}

/// One end of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TracedEnd {
    /// How the address was learned, where that is known.
    pub kind: Option<CandidateKind>,
    /// The address.
    pub address: SocketAddr,
}

/// A step of a link's life. The fields that it uses are said with each [`Step`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceRecord {
    /// When, Unix time in microseconds.
    pub at_us: u64,
    /// Whose link.
    pub peer: Fingerprint,
    /// Session of the link.
    pub session: u64,
    /// What.
    pub step: Step,
    /// Our end.
    pub local: Option<TracedEnd>,
    /// The other end.
    pub remote: Option<TracedEnd>,
    /// Why.
    pub cause: Option<Cause>,
    /// How many.
    pub number: u64,
    /// For a person; [`TRACE_TEXT_LEN_MAX`] bytes are kept.
    pub text: String,
}

impl TraceRecord {
    /// No record is longer, bytes.
    pub const LEN_MAX: usize = 8 + 32 + 8 + 1 + 2 * 25 + 1 + 8 + 2 + TRACE_TEXT_LEN_MAX;

    /// A step with nothing to it.
    pub fn new(at_us: u64, peer: Fingerprint, session: u64, step: Step) -> Self {
        let (local, remote, cause, number) = (None, None, None, 0);
        Self { at_us, peer, session, step, local, remote, cause, number, text: String::new() }
    }

    /// Appends the record to `out`.
    ///
    /// # Errors
    /// None in practice: the text is cut to fit.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let mut to = Writer::new(out);
        to.u64(self.at_us);
        self.peer.put(&mut to);
        to.u64(self.session);
        self.step.put(&mut to);
        to.option(self.local.as_ref(), put_end);
        to.option(self.remote.as_ref(), put_end);
        to.u8(self.cause.map_or(0, Cause::code));
        to.u64(self.number);
        to.cut_text(&self.text, TRACE_TEXT_LEN_MAX);
        to.finish()
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// The bytes are not the encoding of any record.
    pub fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(record);
        let record = Self {
            at_us: from.u64()?,
            peer: Fingerprint::take(&mut from)?,
            session: from.u64()?,
            step: Step::take(&mut from)?,
            local: from.option(take_end)?,
            remote: from.option(take_end)?,
            cause: optional(from.u8()?, Cause::of)?,
            number: from.u64()?,
            text: from.text(TRACE_TEXT_LEN_MAX)?,
        };
        from.finish()?;
        Ok(record)
    }
}

fn put_end(to: &mut Writer<'_>, end: &TracedEnd) {
    to.u8(end.kind.map_or(0, CandidateKind::code));
    to.socket_address(&end.address);
}

fn take_end(from: &mut Reader<'_>) -> Result<TracedEnd, DecodeError> {
    Ok(TracedEnd {
        kind: optional(from.u8()?, CandidateKind::of)?,
        address: from.socket_address()?,
    })
}

/// What 0 says that there is none of.
pub(crate) fn optional<T>(
    code: u8,
    of: impl Fn(u8) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if code == 0 { Ok(None) } else { of(code).map(Some) }
}
