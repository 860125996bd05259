//! One who is in a room, and the presences that say so.

use crate::router::SessionId;
use crate::stanza::{self, set, unset, with_attributes};
use ipop_jingle::{ns, room::status};
use minidom::Element;
use minidom::rxml::xml_ncname;

/// One who is in a room.
pub(super) struct Occupant {
    pub(super) session: SessionId,
    /// The real address.
    pub(super) jid: String,
    pub(super) is_owner: bool,
    /// What the occupant says about itself, without addresses.
    words: Element,
}

/// What a room adds to an occupant's words.
#[derive(Default)]
pub(super) struct Notice<'a> {
    pub(super) statuses: Vec<u16>,
    pub(super) new_nick: Option<&'a str>,
    /// The occupant is not there any more.
    pub(super) gone: bool,
}

impl Occupant {
    pub(super) fn new(session: SessionId, jid: &str, is_owner: bool, stanza: &Element) -> Self {
        Self { session, jid: jid.to_owned(), is_owner, words: words_of(stanza) }
    }

    pub(super) fn say(&mut self, stanza: &Element) {
        self.words = words_of(stanza);
    }

    /// The presence of this occupant as the occupant `to` gets it. `from` is its address in the
    /// room.
    pub(super) fn presence(&self, from: &str, to: &Self, notice: &Notice<'_>) -> Element {
        self.presence_saying(&self.words, from, to, notice)
    }

    /// The same with other words.
    pub(super) fn presence_saying(
        &self,
        words: &Element,
        from: &str,
        to: &Self,
        notice: &Notice<'_>,
    ) -> Element {
        let mut presence = stanza::addressed(words, from, &to.jid);
        if notice.gone {
            set(&mut presence, xml_ncname!("type"), "unavailable");
        }
        let is_self = self.session == to.session;
        let statuses = notice.statuses.iter().copied().chain(is_self.then_some(status::SELF));
        presence.append_child(self.user_element(notice, statuses));
        presence
    }

    fn user_element(&self, notice: &Notice<'_>, statuses: impl Iterator<Item = u16>) -> Element {
        let affiliation = if self.is_owner { "owner" } else { "none" };
        let role = match (notice.gone && notice.new_nick.is_none(), self.is_owner) {
            (true, _) => "none",
            (false, true) => "moderator",
            (false, false) => "participant",
        };
        let attributes = [(xml_ncname!("affiliation"), affiliation), (xml_ncname!("role"), role)];
        let mut item = with_attributes("item", ns::MUC_USER, &attributes);
        if let Some(nick) = notice.new_nick {
            set(&mut item, xml_ncname!("nick"), nick);
        }
        let mut user = Element::bare("x", ns::MUC_USER);
        user.append_child(item);
        for code in statuses {
            let code = code.to_string();
            let attributes = [(xml_ncname!("code"), code.as_str())];
            user.append_child(with_attributes("status", ns::MUC_USER, &attributes));
        }
        user
    }
}

/// A presence without what only the sender's side of it is about, and without what only a room may
/// say.
pub(super) fn words_of(stanza: &Element) -> Element {
    let mut words = stanza.clone();
    ["from", "to", "id", "type"].iter().for_each(|name| unset(&mut words, name));
    for ns in [ns::MUC, ns::MUC_USER] {
        while words.remove_child("x", ns).is_some() {}
    }
    words
}
