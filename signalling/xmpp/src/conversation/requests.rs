//! Requests on their way, so that an answer finds what it answers.

use ipop_signal::{PeerAddress, SessionId, TurnServer};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long an answer may take.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// More than this are not kept; the oldest is taken for unanswered.
const REQUESTS_MAX: usize = 4096;

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A word of the controller to a member.
    Delivery { to: PeerAddress, session: SessionId },
    /// Is the server there?
    Ping,
    /// Are we in the room (XEP-0410)?
    SelfPing,
    /// Unlocks a room just made.
    Unlock,
    /// The list of STUN and TURN servers.
    Services,
    /// The credentials of one of them.
    Credentials(TurnServer),
    /// Said for the sake of the other end; no answer changes anything.
    Courtesy,
}

struct Request {
    id: String,
    to: String,
    purpose: Purpose,
    deadline: Instant,
}

/// All requests, the oldest first.
pub(crate) struct Requests {
    /// In front of each id, so that nobody can answer in another's place by counting.
    salt: u64,
    count: u64,
    waiting: BTreeMap<u64, Request>,
}

impl Requests {
    pub(crate) fn new(salt: u64) -> Self {
        Self { salt, count: 0, waiting: BTreeMap::new() }
    }

    /// Notes a request and gives it an id.
    pub(crate) fn begin(&mut self, now: Instant, to: &str, purpose: Purpose) -> String {
        self.begin_within(now, to, purpose, ANSWER_TIMEOUT)
    }

    /// As [`Self::begin`], of which the answer may take so long.
    pub(crate) fn begin_within(
        &mut self,
        now: Instant,
        to: &str,
        purpose: Purpose,
        patience: Duration,
    ) -> String {
        self.count += 1;
        let id = format!("{:016x}-{}", self.salt, self.count);
        let deadline = if self.waiting.len() < REQUESTS_MAX { now + patience } else { now };
        let request = Request { id: id.clone(), to: to.to_owned(), purpose, deadline };
        self.waiting.insert(self.count, request);
        id
    }

    /// Finds what an answer is about. Only who was asked may answer; our own server may leave the
    /// sender out.
    pub(crate) fn end(&mut self, id: &str, from: Option<&str>) -> Option<Purpose> {
        let count: u64 = id.rsplit_once('-')?.1.parse().ok()?;
        let request = self.waiting.get(&count)?;
        let asked = from.is_none_or(|from| from == request.to);
        if request.id != id || !asked {
            return None;
        }
        self.waiting.remove(&count).map(|request| request.purpose)
    }

    /// Takes out what is overdue.
    pub(crate) fn overdue(&mut self, now: Instant) -> Vec<Purpose> {
        let mut purposes = Vec::new();
        self.waiting.retain(|_, request| {
            let waits = request.deadline > now;
            if !waits {
                purposes.push(request.purpose.clone());
            }
            waits
        });
        purposes
    }

    /// Takes out everything, for no answer will come.
    pub(crate) fn abandon(&mut self) -> Vec<Purpose> {
        std::mem::take(&mut self.waiting).into_values().map(|request| request.purpose).collect()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|request| request.deadline).min()
    }

    /// Whether the server has been asked whether it is there.
    pub(crate) fn is_pinging(&self) -> bool {
        self.waiting.values().any(|request| request.purpose == Purpose::Ping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_asked_answers() {
        let now = Instant::now();
        let mut requests = Requests::new(7);
        let id = requests.begin(now, "a@b/c", Purpose::SelfPing);
        assert_eq!(requests.end(&id, Some("a@b/x")), None);
        assert_eq!(requests.end("0000000000000008-1", Some("a@b/c")), None);
        assert_eq!(requests.end("1", None), None);
        assert_eq!(requests.end(&id, Some("a@b/c")), Some(Purpose::SelfPing));
        assert_eq!(requests.end(&id, Some("a@b/c")), None);
    }

    #[test]
    fn what_is_overdue_is_given_back_once() {
        let now = Instant::now();
        let mut requests = Requests::new(7);
        requests.begin(now, "b", Purpose::Ping);
        assert!(requests.is_pinging());
        assert_eq!(requests.deadline(), Some(now + ANSWER_TIMEOUT));
        assert!(requests.overdue(now).is_empty());
        assert_eq!(requests.overdue(now + ANSWER_TIMEOUT), [Purpose::Ping]);
        assert!(requests.overdue(now + ANSWER_TIMEOUT).is_empty());
    }

    #[test]
    fn requests_are_bounded() {
        let now = Instant::now();
        let mut requests = Requests::new(7);
        for _ in 0..REQUESTS_MAX + 10 {
            requests.begin(now, "b", Purpose::Unlock);
        }
        assert_eq!(requests.overdue(now).len(), 10);
    }
}
