//! One room.

use super::occupant::{Notice, Occupant, words_of};
use super::requests::Requests;
use super::settings::{self, Change};
use super::{Sender, refuse, refuse_entry};
use crate::disco;
use crate::router::{Output, Outputs, SessionId};
use crate::stanza::{self, addressed, set, unset};
use ipop_jingle::{ns, room::status, stanza::StanzaError};
use jid::BareJid;
use minidom::Element;
use minidom::rxml::xml_ncname;
use std::collections::BTreeMap;

const OCCUPANTS_MAX: usize = 1024;
/// Largest presence, or message to all, in bytes of XML.
const PUBLIC_LEN_MAX: usize = 16 * 1024;
const NICK_LEN_MAX: usize = 128;

/// See the [module](self).
pub(super) struct Room {
    address: String,
    /// Who made the room.
    owner: BareJid,
    password: Option<String>,
    subject: Option<Element>,
    occupants: BTreeMap<String, Occupant>,
    nicks: BTreeMap<SessionId, String>,
    requests: Requests,
}

impl Room {
    /// A room that asks for the password which its maker knows it by.
    pub(super) fn new(address: String, owner: BareJid, password: Option<String>) -> Self {
        Self {
            address,
            owner,
            password,
            subject: None,
            occupants: BTreeMap::new(),
            nicks: BTreeMap::new(),
            requests: Requests::default(),
        }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn is_empty(&self) -> bool {
        self.occupants.is_empty()
    }

    /// Lets somebody in, or says why not; whether it did.
    pub(super) fn enter(
        &mut self,
        sender: &Sender<'_>,
        nick: &str,
        password: Option<&str>,
        stanza: &Element,
        is_new: bool,
        out: &mut Outputs,
    ) -> bool {
        if let Some((kind, condition)) = self.obstacle(nick, password, stanza) {
            refuse_entry(sender, stanza, kind, condition, out);
            return false;
        }
        let is_owner = sender.jid.to_bare() == self.owner;
        let occupant = Occupant::new(sender.session, sender.jid.as_str(), is_owner, stanza);
        for (other_nick, other) in &self.occupants {
            let presence = other.presence(&self.place(other_nick), &occupant, &Notice::default());
            out.push_back(Output::Send(sender.session, presence));
        }
        self.occupants.insert(nick.to_owned(), occupant);
        self.nicks.insert(sender.session, nick.to_owned());
        let statuses = if is_new { vec![status::CREATED] } else { Vec::new() };
        self.tell_others(nick, &Notice::default(), out);
        self.tell_self(nick, stanza, &Notice { statuses, ..Notice::default() }, out);
        self.tell_subject(sender, out);
        true
    }

    fn obstacle(
        &self,
        nick: &str,
        password: Option<&str>,
        stanza: &Element,
    ) -> Option<(&'static str, &'static str)> {
        if self.password.is_some() && self.password.as_deref() != password {
            Some(("auth", "not-authorized"))
        } else if self.occupants.contains_key(nick) {
            Some(("cancel", "conflict"))
        } else if self.occupants.len() >= OCCUPANTS_MAX {
            Some(("wait", "service-unavailable"))
        } else if nick.len() > NICK_LEN_MAX {
            Some(("modify", "not-acceptable"))
        } else if stanza::write(stanza).len() > PUBLIC_LEN_MAX {
            Some(("modify", "policy-violation"))
        } else {
            None
        }
    }

    /// An occupant says something else about itself, takes another nick, or both.
    pub(super) fn update(
        &mut self,
        sender: &Sender<'_>,
        nick: &str,
        stanza: &Element,
        out: &mut Outputs,
    ) {
        let Some(old) = self.nicks.get(&sender.session).cloned() else { return };
        if stanza::write(stanza).len() > PUBLIC_LEN_MAX || nick.len() > NICK_LEN_MAX {
            return refuse_entry(sender, stanza, "modify", "policy-violation", out);
        }
        if old != nick {
            if self.occupants.contains_key(nick) {
                return refuse_entry(sender, stanza, "cancel", "conflict", out);
            }
            self.rename(sender.session, &old, nick, out);
        }
        let Some(occupant) = self.occupants.get_mut(nick) else { return };
        occupant.say(stanza);
        // Whoever asks to enter once more may have lost track of who is there.
        if stanza.has_child("x", ns::MUC) {
            self.tell_all_to(nick, out);
        }
        self.tell_others(nick, &Notice::default(), out);
        self.tell_self(nick, stanza, &Notice::default(), out);
        if stanza.has_child("x", ns::MUC) {
            self.tell_subject(sender, out);
        }
    }

    fn rename(&mut self, session: SessionId, old: &str, new: &str, out: &mut Outputs) {
        let renamed =
            || Notice { statuses: vec![status::RENAMED], new_nick: Some(new), gone: true };
        self.tell_others(old, &renamed(), out);
        self.tell_self(old, &Element::bare("presence", ns::JABBER_CLIENT), &renamed(), out);
        if let Some(occupant) = self.occupants.remove(old) {
            self.occupants.insert(new.to_owned(), occupant);
            self.nicks.insert(session, new.to_owned());
        }
    }

    /// Somebody goes; `goodbye` is what it says about that itself.
    pub(super) fn leave(
        &mut self,
        session: SessionId,
        goodbye: Option<&Element>,
        statuses: &[u16],
        out: &mut Outputs,
    ) {
        let Some(nick) = self.nicks.remove(&session) else { return };
        let Some(occupant) = self.occupants.remove(&nick) else { return };
        let from = self.place(&nick);
        let words = goodbye.map(words_of);
        let words = words.unwrap_or_else(|| Element::bare("presence", ns::JABBER_CLIENT));
        let notice = Notice { statuses: statuses.to_vec(), gone: true, ..Notice::default() };
        let knows = goodbye.is_none() && statuses.is_empty();
        for to in self.occupants.values().chain((!knows).then_some(&occupant)) {
            let presence = occupant.presence_saying(&words, &from, to, &notice);
            out.push_back(Output::Send(to.session, presence));
        }
        for (asker, id) in self.requests.leave(session) {
            self.answer_for_the_gone(asker, &from, &id, out);
        }
    }

    fn answer_for_the_gone(&self, asker: SessionId, from: &str, id: &str, out: &mut Outputs) {
        let asker = self.nicks.get(&asker).and_then(|nick| self.occupants.get(nick));
        let Some(asker) = asker else { return };
        let mut error = Element::bare("iq", ns::JABBER_CLIENT);
        set(&mut error, xml_ncname!("type"), "error");
        set(&mut error, xml_ncname!("id"), id);
        error.append_child(StanzaError::new("cancel", "recipient-unavailable").emit());
        let error = addressed(&error, from, &asker.jid);
        out.push_back(Output::Send(asker.session, error));
    }

    /// Tells each occupant that it is out because the service stops.
    pub(super) fn shutdown(&self, out: &mut Outputs) {
        let words = Element::bare("presence", ns::JABBER_CLIENT);
        for (nick, occupant) in &self.occupants {
            let statuses = vec![status::SHUTDOWN];
            let notice = Notice { statuses, gone: true, ..Notice::default() };
            let from = self.place(nick);
            let presence = occupant.presence_saying(&words, &from, occupant, &notice);
            out.push_back(Output::Send(occupant.session, presence));
        }
    }

    /// Messages to all (`groupchat`) and to one (XEP-0045 sections 7.4 and 7.5).
    pub(super) fn message(
        &mut self,
        sender: &Sender<'_>,
        to_nick: Option<&str>,
        stanza: &Element,
        out: &mut Outputs,
    ) {
        let is_to_all = stanza.attr("type") == Some("groupchat");
        let Some(nick) = self.nicks.get(&sender.session) else {
            return refuse(sender, stanza, "modify", "not-acceptable", out);
        };
        let from = self.place(nick);
        match to_nick {
            None if is_to_all => self.message_to_all(sender, &from, stanza, out),
            Some(_) if is_to_all => refuse(sender, stanza, "modify", "bad-request", out),
            None => refuse(sender, stanza, "cancel", "service-unavailable", out),
            Some(to_nick) => match self.occupants.get(to_nick) {
                None => refuse(sender, stanza, "cancel", "item-not-found", out),
                Some(to) => {
                    let mut message = without_user_element(stanza);
                    message.append_child(Element::bare("x", ns::MUC_USER));
                    let message = addressed(&message, &from, &to.jid);
                    out.push_back(Output::Send(to.session, message));
                }
            },
        }
    }

    fn message_to_all(
        &mut self,
        sender: &Sender<'_>,
        from: &str,
        stanza: &Element,
        out: &mut Outputs,
    ) {
        if stanza::write(stanza).len() > PUBLIC_LEN_MAX {
            return refuse(sender, stanza, "modify", "policy-violation", out);
        }
        let has = |name: &str| stanza.has_child(name, ns::JABBER_CLIENT);
        if has("subject") && !has("body") {
            if sender.jid.to_bare() != self.owner {
                return refuse(sender, stanza, "auth", "forbidden", out);
            }
            let mut subject = without_user_element(stanza);
            set(&mut subject, xml_ncname!("from"), from);
            unset(&mut subject, "id");
            self.subject = Some(subject);
        }
        let message = without_user_element(stanza);
        for to in self.occupants.values() {
            out.push_back(Output::Send(to.session, addressed(&message, from, &to.jid)));
        }
    }

    /// A request or answer between occupants, who see only each other's places in the room.
    pub(super) fn private_iq(
        &mut self,
        sender: &Sender<'_>,
        to_nick: &str,
        stanza: &Element,
        out: &mut Outputs,
    ) {
        let Some(nick) = self.nicks.get(&sender.session) else {
            return refuse(sender, stanza, "cancel", "not-acceptable", out);
        };
        let id = stanza.attr("id").unwrap_or_default();
        let Some(to) = self.occupants.get(to_nick) else {
            return refuse(sender, stanza, "cancel", "item-not-found", out);
        };
        if stanza::is_answer(stanza) {
            if !self.requests.end(to.session, sender.session, id) {
                return;
            }
        } else if to.session == sender.session && is_ping(stanza) {
            let from = self.place(to_nick);
            let result = stanza::result(stanza, &from, sender.jid.as_str(), None);
            return out.push_back(Output::Send(sender.session, result));
        } else {
            self.requests.begin(sender.session, to.session, id);
        }
        let iq = addressed(stanza, &self.place(nick), &to.jid);
        out.push_back(Output::Send(to.session, iq));
    }

    /// Answers a request to the room itself.
    pub(super) fn answer(
        &mut self,
        sender: &Sender<'_>,
        stanza: &Element,
    ) -> Result<Option<Element>, (&'static str, &'static str)> {
        let payload = stanza.children().next().ok_or(("modify", "bad-request"))?;
        let is_get = stanza.attr("type") == Some("get");
        match (payload.name(), payload.ns().as_str()) {
            ("query", ns::DISCO_INFO) if is_get => Ok(Some(self.info())),
            ("query", disco::ITEMS) if is_get => Ok(Some(disco::items(std::iter::empty()))),
            ("ping", ns::PING) if is_get => Ok(None),
            ("query", ns::MUC_OWNER) if sender.jid.to_bare() != self.owner => {
                Err(("auth", "forbidden"))
            }
            ("query", ns::MUC_OWNER) if is_get => {
                Ok(Some(settings::form(self.password.as_deref())))
            }
            ("query", ns::MUC_OWNER) => match settings::change_of(payload) {
                Some(Change::Nothing) => Ok(None),
                Some(Change::Password(password)) => {
                    self.password = password;
                    Ok(None)
                }
                None => Err(("cancel", "feature-not-implemented")),
            },
            _ => Err(("cancel", "service-unavailable")),
        }
    }

    fn info(&self) -> Element {
        let secured =
            if self.password.is_some() { "muc_passwordprotected" } else { "muc_unsecured" };
        disco::info(
            ("conference", "text", &self.address),
            &[
                ns::DISCO_INFO,
                ns::MUC,
                "muc_open",
                "muc_public",
                "muc_semianonymous",
                "muc_temporary",
                "muc_unmoderated",
                secured,
                super::SELF_PING,
            ],
        )
    }

    /// An occupant's presence to all others.
    fn tell_others(&self, nick: &str, notice: &Notice<'_>, out: &mut Outputs) {
        let Some(occupant) = self.occupants.get(nick) else { return };
        let from = self.place(nick);
        let others = self.occupants.values().filter(|other| other.session != occupant.session);
        for to in others {
            out.push_back(Output::Send(to.session, occupant.presence(&from, to, notice)));
        }
    }

    /// An occupant's presence to itself, with the id of what it answers.
    fn tell_self(&self, nick: &str, cause: &Element, notice: &Notice<'_>, out: &mut Outputs) {
        let Some(occupant) = self.occupants.get(nick) else { return };
        let mut presence = occupant.presence(&self.place(nick), occupant, notice);
        if let Some(id) = cause.attr("id") {
            set(&mut presence, xml_ncname!("id"), id);
        }
        out.push_back(Output::Send(occupant.session, presence));
    }

    /// All other occupants' presences to one.
    fn tell_all_to(&self, nick: &str, out: &mut Outputs) {
        let Some(to) = self.occupants.get(nick) else { return };
        for (other_nick, other) in self.occupants.iter().filter(|(other, _)| *other != nick) {
            let presence = other.presence(&self.place(other_nick), to, &Notice::default());
            out.push_back(Output::Send(to.session, presence));
        }
    }

    /// Ends the account of a room's state to somebody who enters (XEP-0045 section 7.2.15).
    fn tell_subject(&self, sender: &Sender<'_>, out: &mut Outputs) {
        let message = match &self.subject {
            Some(subject) => {
                let from = subject.attr("from").unwrap_or(&self.address);
                addressed(subject, from, sender.jid.as_str())
            }
            None => {
                let mut message = Element::bare("message", ns::JABBER_CLIENT);
                set(&mut message, xml_ncname!("type"), "groupchat");
                message.append_child(Element::bare("subject", ns::JABBER_CLIENT));
                addressed(&message, &self.address, sender.jid.as_str())
            }
        };
        out.push_back(Output::Send(sender.session, message));
    }

    fn place(&self, nick: &str) -> String {
        format!("{}/{nick}", self.address)
    }
}

fn is_ping(stanza: &Element) -> bool {
    stanza.attr("type") == Some("get") && stanza.has_child("ping", ns::PING)
}

/// What only a room may say is left out.
fn without_user_element(stanza: &Element) -> Element {
    let mut stanza = stanza.clone();
    while stanza.remove_child("x", ns::MUC_USER).is_some() {}
    stanza
}
