//! What a controller hears from the signalling network.

use std::net::IpAddr;
use std::time::Duration;

use crate::{
    ByeReason, Candidate, Fingerprint, IceCredentials, IceServers, Member, PeerAddress, SessionId,
};

/// What made going on pointless; each needs a person (the text says what to do).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FatalCause {
    /// The server refuses user name or password, or offers no way to log in that we accept.
    Authentication,
    /// The server's certificate is not one that we trust.
    Certificate,
    /// The server does not serve our domain.
    HostUnknown,
    /// The account is in use under our resource by somebody else, who was preferred.
    Conflict,
    /// The room does not let us in.
    Room,
    /// The configuration itself cannot work.
    Configuration,
}

/// Network to controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The network has a server here, which answers.
    Reached {
        /// Its machine; what else is there is not known yet.
        server: IpAddr,
        /// How long a round trip to it takes.
        rtt: Duration,
    },
    /// In the group; every member that was there already has been reported before this.
    Online {
        /// Our own address, as others see it.
        address: PeerAddress,
    },
    /// The network is away and will be tried again by itself. Members are not reported as left:
    /// links outlive signalling. After the next [`Happening::Online`] those are, who really did.
    Offline {
        /// Why, for people.
        reason: String,
    },
    /// A member came (or was there when we came).
    MemberAppeared(Member),
    /// A member says something else about itself.
    MemberChanged(Member),
    /// A member left the group.
    MemberLeft(PeerAddress),
    /// A member asks for a link.
    Offered {
        /// Who.
        from: PeerAddress,
        /// Its choice.
        session: SessionId,
        /// The member's ICE credentials.
        credentials: IceCredentials,
        /// The member's key hash.
        fingerprint: Fingerprint,
        /// The member's candidates so far.
        candidates: Vec<Candidate>,
    },
    /// A member agrees to our offer.
    Answered {
        /// Who.
        from: PeerAddress,
        /// Ours.
        session: SessionId,
        /// The member's ICE credentials.
        credentials: IceCredentials,
        /// The member's key hash.
        fingerprint: Fingerprint,
        /// The member's candidates so far.
        candidates: Vec<Candidate>,
    },
    /// More candidates of a member.
    Candidates {
        /// Who.
        from: PeerAddress,
        /// Which session.
        session: SessionId,
        /// The new ones.
        candidates: Vec<Candidate>,
        /// No more will follow.
        end: bool,
    },
    /// A member ended a session or refused an offer.
    ByeReceived {
        /// Who.
        from: PeerAddress,
        /// Which session.
        session: SessionId,
        /// Why.
        reason: ByeReason,
    },
    /// STUN and TURN servers on offer; replaces the ones before.
    IceServers(IceServers),
    /// Something said to a member did not arrive.
    DeliveryFailed {
        /// To whom.
        to: PeerAddress,
        /// Which session it was about.
        session: SessionId,
        /// Why, for people.
        text: String,
    },
    /// Going on is pointless; nothing follows.
    Fatal {
        /// What kind of thing is wrong.
        cause: FatalCause,
        /// What is wrong and what to do about it, for people.
        text: String,
    },
}
