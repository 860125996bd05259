//! Requests that the server itself answers.

use super::{Router, Session};
use crate::disco;
use ipop_jingle::{ns, services};
use jid::Jid;
use minidom::Element;

const ROSTER: &str = "jabber:iq:roster";
const SESSION: &str = "urn:ietf:params:xml:ns:xmpp-session";

/// Kind and condition of a stanza error.
pub(super) type Refusal = (&'static str, &'static str);

impl Router {
    /// Answers a request to the server (or, on its behalf, to the sender's own account).
    pub(super) fn answer(
        &self,
        unix_s: u64,
        session: &Session,
        to: &Jid,
        iq: &Element,
    ) -> Result<Option<Element>, Refusal> {
        let unavailable = ("cancel", "service-unavailable");
        let payload = iq.children().next().ok_or(("modify", "bad-request"))?;
        let is_get = iq.attr("type") == Some("get");
        let to_account = to.node().is_some();
        match (payload.name(), payload.ns().as_str()) {
            ("ping", ns::PING) if is_get => Ok(None),
            ("session", SESSION) if !is_get => Ok(None),
            ("query", ROSTER) if to_account && is_get => Ok(Some(Element::bare("query", ROSTER))),
            ("query", ROSTER) if to_account => Err(("cancel", "not-allowed")),
            ("query", ns::VERSION) if is_get => Ok(Some(disco::version())),
            ("query", ns::DISCO_INFO | disco::ITEMS) if payload.attr("node").is_some() => {
                Err(("cancel", "item-not-found"))
            }
            ("query", ns::DISCO_INFO) if is_get && to_account => {
                Ok(Some(disco::info(("account", "registered", ""), &[ns::DISCO_INFO])))
            }
            ("query", ns::DISCO_INFO) if is_get => Ok(Some(server_info())),
            ("query", disco::ITEMS) if is_get => Ok(Some(self.items(to_account))),
            ("services", ns::EXT_DISCO) if is_get => {
                Ok(Some(services::emit(&self.offer(unix_s, session))))
            }
            ("credentials", ns::EXT_DISCO) if is_get => {
                let offer = services::emit(&self.offer(unix_s, session));
                credentials(payload, &offer).map(Some).ok_or(("cancel", "item-not-found"))
            }
            _ => Err(unavailable),
        }
    }

    fn items(&self, to_account: bool) -> Element {
        let rooms = (self.conference.as_str(), "Groups");
        disco::items((!to_account).then_some(rooms).into_iter())
    }

    fn offer(&self, unix_s: u64, session: &Session) -> ipop_signal::IceServers {
        let user = session.jid.node().map(ToString::to_string).unwrap_or_default();
        self.services.offer(&user, session.reached_at, unix_s)
    }
}

fn server_info() -> Element {
    let features = [ns::DISCO_INFO, disco::ITEMS, ns::EXT_DISCO, ns::PING, ns::VERSION, ROSTER];
    disco::info(("server", "im", "IPOP hub"), &features)
}

/// The services of an offer that a question for credentials names (XEP-0215 section 3.3).
fn credentials(question: &Element, offer: &Element) -> Option<Element> {
    let asked = question.get_child("service", ns::EXT_DISCO)?;
    let same = |offered: &&Element, name: &str| {
        asked.attr(name).is_none_or(|value| offered.attr(name) == Some(value))
    };
    let mut answer = Element::bare("credentials", ns::EXT_DISCO);
    for service in offer.children() {
        let is_asked = ["host", "type", "port"].iter().all(|name| same(&service, name));
        if is_asked && service.attr("username").is_some() {
            answer.append_child(service.clone());
        }
    }
    answer.children().next().is_some().then_some(answer)
}
