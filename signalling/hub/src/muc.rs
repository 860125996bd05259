//! Groups: multi-user chat as far as nodes and ordinary clients need it (XEP-0045).
//!
//! Rooms are made by the first who enters and go with the last. Real addresses stay hidden; what
//! an occupant's presence carries is passed on as it is. Requests between occupants are remembered
//! until answered, so that an answer reaches exactly the one who asked.

mod occupant;
mod requests;
mod room;
mod settings;

use crate::disco;
use crate::router::{Output, Outputs, SessionId};
use crate::stanza::{self, is_answer, refusal};
use ipop_jingle::{ns, room as muc};
use jid::{FullJid, Jid};
use minidom::Element;
use room::Room;
use std::collections::{BTreeMap, BTreeSet};

/// Rooms of one hub.
const ROOMS_MAX: usize = 1024;
/// Rooms that one session may be in.
const ROOMS_PER_SESSION_MAX: usize = 32;
const SELF_PING: &str = "http://jabber.org/protocol/muc#self-ping-optimization";

/// Whose stanza it is.
pub(crate) struct Sender<'a> {
    pub(crate) session: SessionId,
    pub(crate) jid: &'a FullJid,
}

/// All rooms.
pub(crate) struct Muc {
    domain: String,
    rooms: BTreeMap<String, Room>,
    /// Which rooms a session is in, by their names.
    memberships: BTreeMap<SessionId, BTreeSet<String>>,
}

impl Muc {
    pub(crate) fn new(domain: &str) -> Self {
        Self { domain: domain.to_owned(), rooms: BTreeMap::new(), memberships: BTreeMap::new() }
    }

    /// Takes a stanza to the service, a room or an occupant.
    pub(crate) fn handle_stanza(
        &mut self,
        sender: &Sender<'_>,
        to: &Jid,
        stanza: &Element,
        out: &mut Outputs,
    ) {
        let Some(name) = to.node().map(ToString::to_string) else {
            return self.for_service(sender, stanza, out);
        };
        let nick = to.resource().map(ToString::to_string);
        match (stanza.name(), nick) {
            ("presence", Some(nick)) => self.presence(sender, &name, &nick, stanza, out),
            ("presence", None) if stanza.attr("type").is_none() => {
                refuse(sender, stanza, "modify", "jid-malformed", out);
            }
            ("presence", None) => {}
            ("message", nick) => match self.rooms.get_mut(&name) {
                Some(room) => room.message(sender, nick.as_deref(), stanza, out),
                None => refuse(sender, stanza, "cancel", "item-not-found", out),
            },
            (_, Some(nick)) => match self.rooms.get_mut(&name) {
                Some(room) => room.private_iq(sender, &nick, stanza, out),
                // Also the answer to "am I in the room?" (XEP-0410).
                None => refuse(sender, stanza, "cancel", "not-acceptable", out),
            },
            (_, None) => self.for_room(sender, &name, stanza, out),
        }
    }

    /// Takes a session out of all rooms; `statuses` tell the others why.
    pub(crate) fn leave_all(&mut self, session: SessionId, statuses: &[u16], out: &mut Outputs) {
        for name in self.memberships.remove(&session).unwrap_or_default() {
            self.leave(&name, session, None, statuses, out);
        }
    }

    /// Tells everybody that the service goes away (status 332).
    pub(crate) fn shutdown(&mut self, out: &mut Outputs) {
        for room in self.rooms.values() {
            room.shutdown(out);
        }
        self.rooms.clear();
        self.memberships.clear();
    }

    fn presence(
        &mut self,
        sender: &Sender<'_>,
        name: &str,
        nick: &str,
        stanza: &Element,
        out: &mut Outputs,
    ) {
        let is_inside = self.is_inside(sender.session, name);
        match stanza.attr("type") {
            None if is_inside => {
                if let Some(room) = self.rooms.get_mut(name) {
                    room.update(sender, nick, stanza, out);
                }
            }
            None => self.enter(sender, name, nick, stanza, out),
            Some("unavailable") if is_inside => {
                self.memberships.entry(sender.session).or_default().remove(name);
                self.leave(name, sender.session, Some(stanza), &[], out);
            }
            // An occupant that cannot take what the room sends is of no use in it.
            Some("error") if is_inside => {
                self.memberships.entry(sender.session).or_default().remove(name);
                self.leave(name, sender.session, None, &[muc::status::ERROR], out);
            }
            Some(_) => {}
        }
    }

    fn enter(
        &mut self,
        sender: &Sender<'_>,
        name: &str,
        nick: &str,
        stanza: &Element,
        out: &mut Outputs,
    ) {
        let Some(join) = stanza.get_child("x", ns::MUC).and_then(muc::parse_join) else {
            return refuse_entry(sender, stanza, "cancel", "not-acceptable", out);
        };
        let of_session = self.memberships.get(&sender.session).map_or(0, BTreeSet::len);
        let is_new = !self.rooms.contains_key(name);
        if of_session >= ROOMS_PER_SESSION_MAX || (is_new && self.rooms.len() >= ROOMS_MAX) {
            return refuse_entry(sender, stanza, "wait", "resource-constraint", out);
        }
        let address = format!("{name}@{}", self.domain);
        let room = self.rooms.entry(name.to_owned()).or_insert_with(|| {
            let owner = sender.jid.to_bare();
            Room::new(address, owner, join.password.clone())
        });
        let entered = room.enter(sender, nick, join.password.as_deref(), stanza, is_new, out);
        if entered {
            self.memberships.entry(sender.session).or_default().insert(name.to_owned());
        } else if is_new {
            self.rooms.remove(name);
        }
    }

    fn leave(
        &mut self,
        name: &str,
        session: SessionId,
        goodbye: Option<&Element>,
        statuses: &[u16],
        out: &mut Outputs,
    ) {
        if self.memberships.get(&session).is_some_and(BTreeSet::is_empty) {
            self.memberships.remove(&session);
        }
        let Some(room) = self.rooms.get_mut(name) else { return };
        room.leave(session, goodbye, statuses, out);
        if room.is_empty() {
            self.rooms.remove(name);
        }
    }

    fn is_inside(&self, session: SessionId, name: &str) -> bool {
        self.memberships.get(&session).is_some_and(|rooms| rooms.contains(name))
    }

    fn for_service(&self, sender: &Sender<'_>, stanza: &Element, out: &mut Outputs) {
        if stanza.name() != "iq" {
            return refuse(sender, stanza, "cancel", "service-unavailable", out);
        }
        let payload = stanza.children().next();
        let payload = payload.map(|payload| (payload.name().to_owned(), payload.ns()));
        let question = payload.as_ref().map(|(name, ns)| (name.as_str(), ns.as_str()));
        let answer = match question.filter(|_| stanza.attr("type") == Some("get")) {
            Some(("query", ns::DISCO_INFO)) => Some(disco::info(
                ("conference", "text", "Groups"),
                &[ns::DISCO_INFO, disco::ITEMS, ns::MUC, ns::PING, SELF_PING],
            )),
            Some(("query", disco::ITEMS)) => {
                let rooms = self.rooms.iter();
                Some(disco::items(rooms.map(|(name, room)| (room.address(), name.as_str()))))
            }
            Some(("ping", ns::PING)) => None,
            _ => return refuse(sender, stanza, "cancel", "service-unavailable", out),
        };
        let answer = stanza::result(stanza, &self.domain, sender.jid.as_str(), answer);
        out.push_back(Output::Send(sender.session, answer));
    }

    fn for_room(&mut self, sender: &Sender<'_>, name: &str, stanza: &Element, out: &mut Outputs) {
        if is_answer(stanza) {
            return;
        }
        let Some(room) = self.rooms.get_mut(name) else {
            return refuse(sender, stanza, "cancel", "item-not-found", out);
        };
        match room.answer(sender, stanza) {
            Ok(payload) => {
                let result = stanza::result(stanza, room.address(), sender.jid.as_str(), payload);
                out.push_back(Output::Send(sender.session, result));
            }
            Err((kind, condition)) => refuse(sender, stanza, kind, condition, out),
        }
    }
}

/// Refuses a stanza in the name of whom it was for.
fn refuse(sender: &Sender<'_>, stanza: &Element, kind: &str, condition: &str, out: &mut Outputs) {
    let from = stanza.attr("to").unwrap_or_default();
    let error = refusal(stanza, from, sender.jid.as_str(), kind, condition);
    out.extend(error.map(|error| Output::Send(sender.session, error)));
}

/// The same for a presence that asks to enter: it says that it is the room who refuses.
fn refuse_entry(
    sender: &Sender<'_>,
    stanza: &Element,
    kind: &str,
    condition: &str,
    out: &mut Outputs,
) {
    let from = stanza.attr("to").unwrap_or_default();
    if let Some(mut error) = refusal(stanza, from, sender.jid.as_str(), kind, condition) {
        error.append_child(Element::bare("x", ns::MUC));
        out.push_back(Output::Send(sender.session, error));
    }
}

#[cfg(test)]
mod tests;
