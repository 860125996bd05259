//! Requests between occupants that wait for their answers.

use crate::router::SessionId;
use std::collections::{BTreeMap, VecDeque};

/// Requests of one occupant that may wait; beyond it the oldest is forgotten.
const WAITING_MAX: usize = 2048;

/// Who asked whom, by which id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    asked: SessionId,
    asker: SessionId,
    id: String,
}

#[derive(Default)]
pub(super) struct Requests {
    /// With the number under which each stands in `order`.
    waiting: BTreeMap<Request, u64>,
    /// Each asker's, the oldest first; answered ones go when they come to the front.
    order: BTreeMap<SessionId, VecDeque<(u64, Request)>>,
    count: u64,
}

impl Requests {
    pub(super) fn begin(&mut self, asker: SessionId, asked: SessionId, id: &str) {
        let request = Request { asked, asker, id: id.to_owned() };
        self.count += 1;
        self.waiting.insert(request.clone(), self.count);
        let order = self.order.entry(asker).or_default();
        order.push_back((self.count, request));
        while let Some((number, oldest)) = order.front() {
            let waits = self.waiting.get(oldest) == Some(number);
            if waits && order.len() <= WAITING_MAX {
                break;
            }
            if waits {
                self.waiting.remove(oldest);
            }
            order.pop_front();
        }
    }

    /// Whether this is the answer to something asked; it is so only once.
    pub(super) fn end(&mut self, asker: SessionId, asked: SessionId, id: &str) -> bool {
        self.waiting.remove(&Request { asked, asker, id: id.to_owned() }).is_some()
    }

    /// Forgets an occupant; gives back who waits for its answers, and the ids.
    pub(super) fn leave(&mut self, session: SessionId) -> Vec<(SessionId, String)> {
        for (_, request) in self.order.remove(&session).unwrap_or_default() {
            self.waiting.remove(&request);
        }
        let first = Request { asked: session, asker: SessionId::default(), id: String::new() };
        let to_session = self.waiting.range(first..).take_while(|(r, _)| r.asked == session);
        let unanswered: Vec<_> = to_session.map(|(request, _)| request.clone()).collect();
        for request in &unanswered {
            self.waiting.remove(request);
        }
        unanswered.into_iter().map(|request| (request.asker, request.id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::session_id;

    #[test]
    fn an_answer_counts_once_and_from_who_was_asked() {
        let (a, b, c) = (session_id(1), session_id(2), session_id(3));
        let mut requests = Requests::default();
        requests.begin(a, b, "1");
        assert!(!requests.end(a, c, "1"));
        assert!(!requests.end(c, b, "1"));
        assert!(requests.end(a, b, "1"));
        assert!(!requests.end(a, b, "1"));
    }

    #[test]
    fn who_leaves_leaves_nothing_behind() {
        let (a, b, c) = (session_id(1), session_id(2), session_id(3));
        let mut requests = Requests::default();
        requests.begin(a, b, "1");
        requests.begin(b, a, "2");
        requests.begin(c, b, "3");
        assert_eq!(requests.leave(b), [(a, "1".to_owned()), (c, "3".to_owned())]);
        assert!(!requests.end(b, a, "2"));
        assert!(requests.waiting.is_empty());
    }

    #[test]
    fn waiting_requests_are_bounded() {
        let (a, b) = (session_id(1), session_id(2));
        let mut requests = Requests::default();
        for id in 0..WAITING_MAX + 10 {
            requests.begin(a, b, &id.to_string());
        }
        assert_eq!(requests.waiting.len(), WAITING_MAX);
        assert!(!requests.end(a, b, "9") && requests.end(a, b, "10"));
        for id in 0..WAITING_MAX + 10 {
            requests.begin(a, b, "x");
            assert!(requests.end(a, b, "x"), "{id}");
        }
        assert!(requests.order[&a].len() <= WAITING_MAX);
    }
}
