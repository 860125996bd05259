//! Who is logged in, and where stanzas go (RFC 6120 section 10, RFC 6121 section 8).
//!
//! A machine without clock or socket: stanzas in, stanzas out. Nothing is stored for those who are
//! away, and rosters are empty: nodes meet in rooms.

mod answers;

use crate::muc::{Muc, Sender};
use crate::services::Services;
use crate::stanza::{self, addressed, is_answer, refusal, unset};
use ipop_jingle::ns;
use jid::{BareJid, FullJid, Jid};
use minidom::Element;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// Sessions of one account at a time.
const RESOURCES_MAX: usize = 64;
/// Strangers that hear when a session goes, because they heard of its being there.
const DIRECTED_MAX: usize = 64;

/// One client that is logged in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(u64);

/// For tests.
#[cfg(test)]
pub(crate) fn session_id(number: u64) -> SessionId {
    SessionId(number)
}

/// What the router wants done.
#[derive(Debug, PartialEq)]
pub(crate) enum Output {
    /// A stanza for a session.
    Send(SessionId, Element),
    /// The session is over; the client hears this stream error.
    End(SessionId, &'static str),
}

/// Outputs in their order.
pub(crate) type Outputs = VecDeque<Output>;

/// A session that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BindError {
    /// The resource is no resource.
    Malformed,
    /// Too many sessions of one account.
    TooMany,
}

struct Session {
    jid: FullJid,
    /// The address of ours that the client reached.
    reached_at: IpAddr,
    /// As last broadcast; `None` while unavailable.
    presence: Option<Element>,
    priority: i8,
    directed: BTreeSet<Jid>,
}

/// See the [module](self).
pub(crate) struct Router {
    domain: String,
    conference: String,
    services: Services,
    sessions: BTreeMap<SessionId, Session>,
    /// Sessions by user and resource.
    users: BTreeMap<String, BTreeMap<String, SessionId>>,
    muc: Muc,
    count: u64,
    outputs: Outputs,
}

impl Router {
    pub(crate) fn new(domain: &str, services: Services) -> Self {
        let conference = crate::conference_of(domain);
        Self {
            domain: domain.to_owned(),
            muc: Muc::new(&conference),
            conference,
            services,
            sessions: BTreeMap::new(),
            users: BTreeMap::new(),
            count: 0,
            outputs: Outputs::new(),
        }
    }

    /// Begins a session. An older one under the same resource ends: whoever comes back after an
    /// interruption is let in at once (RFC 6120 section 7.7.2.2).
    pub(crate) fn open(
        &mut self,
        user: &str,
        resource: &str,
        reached_at: IpAddr,
    ) -> Result<(SessionId, FullJid), BindError> {
        let account = BareJid::new(&format!("{user}@{}", self.domain));
        let jid = account.and_then(|account| account.with_resource_str(resource));
        let jid = jid.map_err(|_| BindError::Malformed)?;
        let resource = jid.resource().to_string();
        let older = self.users.get(user).and_then(|resources| resources.get(&resource)).copied();
        if let Some(older) = older {
            self.close(older);
            self.outputs.push_back(Output::End(older, "conflict"));
        }
        let resources = self.users.entry(user.to_owned()).or_default();
        if resources.len() >= RESOURCES_MAX {
            return Err(BindError::TooMany);
        }
        self.count += 1;
        let id = SessionId(self.count);
        resources.insert(resource, id);
        let directed = BTreeSet::new();
        let session =
            Session { jid: jid.clone(), reached_at, presence: None, priority: 0, directed };
        self.sessions.insert(id, session);
        Ok((id, jid))
    }

    /// Ends a session, with everything that others see of it.
    pub(crate) fn close(&mut self, id: SessionId) {
        self.muc.leave_all(id, &[], &mut self.outputs);
        self.go_unavailable(id, &Element::bare("presence", ns::JABBER_CLIENT));
        let Some(session) = self.sessions.remove(&id) else { return };
        let user = session.jid.node().map(ToString::to_string).unwrap_or_default();
        if let Some(resources) = self.users.get_mut(&user) {
            resources.remove(&session.jid.resource().to_string());
            if resources.is_empty() {
                self.users.remove(&user);
            }
        }
    }

    /// Ends everything, because the hub stops.
    pub(crate) fn shutdown(&mut self) {
        self.muc.shutdown(&mut self.outputs);
        for (id, _) in std::mem::take(&mut self.sessions) {
            self.outputs.push_back(Output::End(id, "system-shutdown"));
        }
        self.users.clear();
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How many are logged in.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Takes a stanza from a client. `unix_s`: seconds since 1970.
    pub(crate) fn handle_stanza(&mut self, unix_s: u64, id: SessionId, stanza: Element) {
        let Some(session) = self.sessions.get(&id) else { return };
        let jid = session.jid.clone();
        if let Some(condition) = fault(&stanza, &jid) {
            self.close(id);
            self.outputs.push_back(Output::End(id, condition));
            return;
        }
        if stanza.name() == "iq" && !stanza::is_sound_iq(&stanza) {
            return self.refuse(id, &stanza, "modify", "bad-request");
        }
        let to = match stanza.attr("to").map(Jid::new) {
            None => None,
            Some(Ok(to)) => Some(to),
            Some(Err(_)) => return self.refuse(id, &stanza, "modify", "jid-malformed"),
        };
        match to {
            None => self.for_server(unix_s, id, &jid.to_bare().into(), &stanza),
            Some(to) if to.domain().as_str() == self.conference => {
                let sender = Sender { session: id, jid: &jid };
                self.muc.handle_stanza(&sender, &to, &stanza, &mut self.outputs);
            }
            Some(to) if to.domain().as_str() != self.domain => {
                self.refuse(id, &stanza, "cancel", "remote-server-not-found");
            }
            Some(to) if to.node().is_none() => self.for_server(unix_s, id, &to, &stanza),
            Some(to) if to.is_bare() && to == jid.to_bare() && stanza.name() == "iq" => {
                self.for_server(unix_s, id, &to, &stanza);
            }
            Some(to) => self.for_user(id, &jid, &to, &stanza),
        }
    }

    /// Stanzas that the server itself answers; `to` is its address or the sender's account.
    fn for_server(&mut self, unix_s: u64, id: SessionId, to: &Jid, stanza: &Element) {
        match stanza.name() {
            "iq" if is_answer(stanza) => {}
            "iq" => {
                let Some(session) = self.sessions.get(&id) else { return };
                let jid = session.jid.as_str().to_owned();
                let answer = self.answer(unix_s, session, to, stanza);
                let answer = match answer {
                    Ok(payload) => Some(stanza::result(stanza, to.as_str(), &jid, payload)),
                    Err((kind, condition)) => refusal(stanza, to.as_str(), &jid, kind, condition),
                };
                self.outputs.extend(answer.map(|answer| Output::Send(id, answer)));
            }
            "presence" if stanza.attr("to").is_none() => self.broadcast(id, stanza),
            "message" if stanza.attr("to").is_some() => {
                self.refuse(id, stanza, "cancel", "service-unavailable");
            }
            _ => {}
        }
    }

    /// A presence to nobody in particular: to all sessions of the account, for rosters are empty.
    fn broadcast(&mut self, id: SessionId, stanza: &Element) {
        match stanza.attr("type") {
            None => {
                let Some(session) = self.sessions.get_mut(&id) else { return };
                let priority = stanza.get_child("priority", ns::JABBER_CLIENT);
                session.priority = priority.and_then(|p| p.text().trim().parse().ok()).unwrap_or(0);
                let is_first = session.presence.replace(stanza.clone()).is_none();
                self.tell_account(id, stanza);
                if is_first {
                    self.hear_account(id);
                }
            }
            Some("unavailable") => {
                self.go_unavailable(id, stanza);
                self.muc.leave_all(id, &[], &mut self.outputs);
            }
            Some(_) => {}
        }
    }

    /// Says a presence to all available sessions of the account.
    fn tell_account(&mut self, id: SessionId, stanza: &Element) {
        let Some(session) = self.sessions.get(&id) else { return };
        let from = session.jid.as_str();
        let resources = session.jid.node().and_then(|node| self.users.get(node.as_str()));
        for other in resources.into_iter().flat_map(BTreeMap::values) {
            let Some(to) = self.sessions.get(other).filter(|s| s.presence.is_some()) else {
                continue;
            };
            let stanza = addressed(stanza, from, to.jid.as_str());
            self.outputs.push_back(Output::Send(*other, stanza));
        }
    }

    /// Says the presences of the account's other sessions to a new one.
    fn hear_account(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(&id) else { return };
        let resources = session.jid.node().and_then(|node| self.users.get(node.as_str()));
        for other in resources.into_iter().flat_map(BTreeMap::values).filter(|other| **other != id)
        {
            let Some(from) = self.sessions.get(other) else { continue };
            if let Some(presence) = &from.presence {
                let stanza = addressed(presence, from.jid.as_str(), session.jid.as_str());
                self.outputs.push_back(Output::Send(id, stanza));
            }
        }
    }

    fn go_unavailable(&mut self, id: SessionId, stanza: &Element) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let mut stanza = stanza.clone();
        stanza::set(&mut stanza, minidom::rxml::xml_ncname!("type"), "unavailable");
        let was_there = session.presence.take().is_some();
        let jid = session.jid.clone();
        for to in std::mem::take(&mut session.directed) {
            self.deliver_presence(&jid, &to, &stanza);
        }
        if was_there {
            self.tell_account(id, &stanza);
        }
    }

    /// One client to another.
    fn for_user(&mut self, id: SessionId, jid: &FullJid, to: &Jid, stanza: &Element) {
        match stanza.name() {
            "presence" => self.directed_presence(id, jid, to, stanza),
            "message" => self.message(id, jid, to, stanza),
            _ => match self.session_of(to) {
                Some(target) => self.forward(jid, target, stanza),
                None => self.refuse(id, stanza, "cancel", "service-unavailable"),
            },
        }
    }

    fn directed_presence(&mut self, id: SessionId, jid: &FullJid, to: &Jid, stanza: &Element) {
        match stanza.attr("type") {
            None => {
                let Some(session) = self.sessions.get_mut(&id) else { return };
                if session.directed.len() < DIRECTED_MAX {
                    session.directed.insert(to.clone());
                }
                self.deliver_presence(jid, to, stanza);
            }
            Some("unavailable") => {
                let Some(session) = self.sessions.get_mut(&id) else { return };
                session.directed.remove(to);
                self.deliver_presence(jid, to, stanza);
            }
            Some("error") => self.deliver_presence(jid, to, stanza),
            // Subscriptions: there are no rosters to keep them in.
            Some(_) => {}
        }
    }

    fn deliver_presence(&mut self, from: &FullJid, to: &Jid, stanza: &Element) {
        if let Some(target) = self.session_of(to) {
            return self.forward(from, target, stanza);
        }
        if to.is_bare() {
            self.available(to).into_iter().for_each(|target| self.forward(from, target, stanza));
        }
    }

    /// RFC 6121 section 8.5, without offline storage.
    fn message(&mut self, id: SessionId, jid: &FullJid, to: &Jid, stanza: &Element) {
        if let Some(target) = self.session_of(to) {
            return self.forward(jid, target, stanza);
        }
        let kind = stanza.attr("type").unwrap_or("normal");
        let targets = match kind {
            "headline" | "error" if to.is_full() => return,
            "headline" => self.available(to),
            "chat" | "normal" => self.available(to),
            "groupchat" => Vec::new(),
            _ => return,
        };
        let is_headline = kind == "headline";
        let best =
            targets.iter().filter_map(|target| self.sessions.get(target)).map(|s| s.priority);
        let best = best.max().unwrap_or_default();
        let is_chosen = |s: &Session| s.priority >= 0 && (is_headline || s.priority == best);
        let targets: Vec<_> = targets
            .into_iter()
            .filter(|target| self.sessions.get(target).is_some_and(is_chosen))
            .collect();
        if targets.is_empty() && !is_headline {
            return self.refuse(id, stanza, "cancel", "service-unavailable");
        }
        targets.into_iter().for_each(|target| self.forward(jid, target, stanza));
    }

    fn session_of(&self, to: &Jid) -> Option<SessionId> {
        let resources = self.users.get(to.node()?.as_str())?;
        resources.get(to.resource()?.as_str()).copied()
    }

    fn available(&self, to: &Jid) -> Vec<SessionId> {
        let resources = to.node().and_then(|node| self.users.get(node.as_str()));
        let ids = resources.into_iter().flat_map(BTreeMap::values).copied();
        ids.filter(|id| self.sessions.get(id).is_some_and(|s| s.presence.is_some())).collect()
    }

    fn forward(&mut self, from: &FullJid, target: SessionId, stanza: &Element) {
        let Some(session) = self.sessions.get(&target) else { return };
        let mut stanza = stanza.clone();
        unset(&mut stanza, "to");
        let stanza = addressed(&stanza, from.as_str(), session.jid.as_str());
        self.outputs.push_back(Output::Send(target, stanza));
    }

    fn refuse(&mut self, id: SessionId, stanza: &Element, kind: &str, condition: &str) {
        let Some(session) = self.sessions.get(&id) else { return };
        let from = stanza.attr("to").unwrap_or(&self.domain);
        let error = refusal(stanza, from, session.jid.as_str(), kind, condition);
        self.outputs.extend(error.map(|error| Output::Send(id, error)));
    }
}

/// What ends the stream of whoever sends this.
fn fault(stanza: &Element, jid: &FullJid) -> Option<&'static str> {
    if stanza.ns() != ns::JABBER_CLIENT {
        return Some("unsupported-stanza-type");
    }
    if !matches!(stanza.name(), "iq" | "message" | "presence") {
        return Some("unsupported-stanza-type");
    }
    let is_own =
        |from: &str| Jid::new(from).is_ok_and(|from| from == *jid || from == jid.to_bare());
    stanza.attr("from").is_some_and(|from| !is_own(from)).then_some("invalid-from")
}

#[cfg(test)]
mod tests;
