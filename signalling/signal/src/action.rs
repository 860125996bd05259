//! What a controller tells the signalling network.

use crate::{Announcement, Candidate, Fingerprint, IceCredentials, PeerAddress, SessionId};

/// Why a session ends; the reasons of XEP-0166 section 7.4 that a link can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByeReason {
    /// Nothing is wrong: the link is no longer wanted.
    Success,
    /// The offer is not wanted.
    Decline,
    /// Another session with the same peer takes the place.
    AlternativeSession,
    /// This node leaves.
    Gone,
    /// No path was found.
    ConnectivityError,
    /// The peer is not who the fingerprint says.
    SecurityError,
    /// Nothing was heard in time.
    Timeout,
    /// The session is not known here (after a restart, say).
    UnknownSession,
    /// Anything else.
    GeneralError,
}

/// Controller to network. Whatever is said while offline is lost and answered by
/// [`crate::Happening::DeliveryFailed`], except the latest `Announce`, which is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Enter the group under this description, or change it when already there.
    Announce(Announcement),
    /// Ask a member for a link.
    Offer {
        /// The member.
        to: PeerAddress,
        /// New, chosen by us.
        session: SessionId,
        /// Our ICE credentials.
        credentials: IceCredentials,
        /// Our own key hash.
        fingerprint: Fingerprint,
        /// Ours so far; more may follow.
        candidates: Vec<Candidate>,
    },
    /// Agree to an offer.
    Answer {
        /// Who offered.
        to: PeerAddress,
        /// The offer's.
        session: SessionId,
        /// Our ICE credentials.
        credentials: IceCredentials,
        /// Our own key hash.
        fingerprint: Fingerprint,
        /// Ours so far; more may follow.
        candidates: Vec<Candidate>,
    },
    /// More candidates for a session (trickled).
    Candidates {
        /// The other end.
        to: PeerAddress,
        /// Which session.
        session: SessionId,
        /// The new ones; may be empty when `end`.
        candidates: Vec<Candidate>,
        /// No more will follow.
        end: bool,
    },
    /// End a session, or refuse an offer.
    Bye {
        /// The other end.
        to: PeerAddress,
        /// Which session.
        session: SessionId,
        /// Why.
        reason: ByeReason,
    },
}
