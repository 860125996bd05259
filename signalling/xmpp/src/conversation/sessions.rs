//! Whose ICE credentials a session has on our side: trickled candidates name them (XEP-0176), and
//! the controller says them only once.

use ipop_signal::{Action, IceCredentials, PeerAddress, SessionId};
use std::collections::{BTreeMap, VecDeque};

/// More than this are not remembered; the oldest goes.
const SESSIONS_MAX: usize = 4096;

type Key = (PeerAddress, SessionId);

#[derive(Default)]
pub(crate) struct Sessions {
    credentials: BTreeMap<Key, IceCredentials>,
    order: VecDeque<Key>,
}

impl Sessions {
    /// Learns from what the controller says.
    pub(crate) fn note_outgoing(&mut self, action: &Action) {
        match action {
            Action::Offer { to, session, credentials, .. }
            | Action::Answer { to, session, credentials, .. } => {
                self.remember((to.clone(), session.clone()), credentials.clone());
            }
            Action::Bye { to, session, .. } => self.forget(to, session),
            Action::Announce(_) | Action::Candidates { .. } => {}
        }
    }

    pub(crate) fn credentials(
        &self,
        to: &PeerAddress,
        session: &SessionId,
    ) -> Option<&IceCredentials> {
        self.credentials.get(&(to.clone(), session.clone()))
    }

    pub(crate) fn forget(&mut self, to: &PeerAddress, session: &SessionId) {
        let key = (to.clone(), session.clone());
        if self.credentials.remove(&key).is_some() {
            self.order.retain(|other| *other != key);
        }
    }

    fn remember(&mut self, key: Key, credentials: IceCredentials) {
        if self.credentials.insert(key.clone(), credentials).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > SESSIONS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.credentials.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipop_signal::{ByeReason, Fingerprint};

    fn offer(number: usize) -> Action {
        Action::Offer {
            to: PeerAddress("a".into()),
            session: SessionId::new(&number.to_string()).unwrap(),
            credentials: IceCredentials::new("abcd", "0123456789abcdefABCDEF").unwrap(),
            fingerprint: Fingerprint([1; 32]),
            candidates: Vec::new(),
        }
    }

    #[test]
    fn sessions_are_forgotten_at_their_end_and_beyond_the_bound() {
        let mut sessions = Sessions::default();
        (0..=SESSIONS_MAX).for_each(|number| sessions.note_outgoing(&offer(number)));
        let (to, id) = (PeerAddress("a".into()), |number: &str| SessionId::new(number).unwrap());
        assert!(sessions.credentials(&to, &id("0")).is_none());
        assert!(sessions.credentials(&to, &id("1")).is_some());
        let bye = Action::Bye { to: to.clone(), session: id("1"), reason: ByeReason::Success };
        sessions.note_outgoing(&bye);
        assert!(sessions.credentials(&to, &id("1")).is_none());
        assert_eq!(sessions.order.len(), SESSIONS_MAX - 1);
    }
}
