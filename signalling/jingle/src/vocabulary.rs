//! Sessions in the neutral words: [`Action`] to [`Message`], [`Message`] to [`Happening`].

use crate::session::{Body, Message, Proposal};
use ipop_signal::{
    Action, Candidate, Fingerprint, Happening, IceCredentials, PeerAddress, SessionId,
};

/// An action about a session, addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// To whom.
    pub to: PeerAddress,
    /// What.
    pub message: Message,
}

/// Translates an action about a session; `None` for those about the group. A message about
/// candidates leaves without ICE credentials: whoever knows the session fills them in.
pub fn outgoing(action: Action) -> Option<Outgoing> {
    let (to, session, body) = match action {
        Action::Announce(_) => return None,
        Action::Offer { to, session, credentials, fingerprint, candidates } => {
            (to, session, Body::Initiate(proposal(credentials, fingerprint, candidates)))
        }
        Action::Answer { to, session, credentials, fingerprint, candidates } => {
            (to, session, Body::Accept(proposal(credentials, fingerprint, candidates)))
        }
        Action::Candidates { to, session, candidates, end } => {
            (to, session, Body::Info { credentials: None, candidates, end })
        }
        Action::Bye { to, session, reason } => (to, session, Body::Terminate(reason)),
    };
    Some(Outgoing { to, message: Message { session, body } })
}

/// Translates a message from a member: none, one, or (when an offer or answer also ends the
/// candidates) two happenings.
pub fn happenings(from: PeerAddress, message: Message) -> Vec<Happening> {
    let Message { session, body } = message;
    match body {
        Body::Initiate(Proposal { credentials, fingerprint, candidates, end }) => {
            let last = end.then(|| no_more(&from, &session));
            let offered =
                Happening::Offered { from, session, credentials, fingerprint, candidates };
            [offered].into_iter().chain(last).collect()
        }
        Body::Accept(Proposal { credentials, fingerprint, candidates, end }) => {
            let last = end.then(|| no_more(&from, &session));
            let answered =
                Happening::Answered { from, session, credentials, fingerprint, candidates };
            [answered].into_iter().chain(last).collect()
        }
        Body::Info { credentials: _, candidates, end } => {
            if candidates.is_empty() && !end {
                return Vec::new();
            }
            vec![Happening::Candidates { from, session, candidates, end }]
        }
        Body::Terminate(reason) => vec![Happening::ByeReceived { from, session, reason }],
        Body::Ping => Vec::new(),
    }
}

fn proposal(
    credentials: IceCredentials,
    fingerprint: Fingerprint,
    candidates: Vec<Candidate>,
) -> Proposal {
    Proposal { credentials, fingerprint, candidates, end: false }
}

fn no_more(from: &PeerAddress, session: &SessionId) -> Happening {
    Happening::Candidates {
        from: from.clone(),
        session: session.clone(),
        candidates: Vec::new(),
        end: true,
    }
}
