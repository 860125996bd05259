//! The stanzas around the payloads: requests, answers, errors, presence (RFC 6120 section 8).

use crate::ns;
use minidom::Element;
use xso::{AsXml, FromXml};

/// A request or an answer to one.
#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::JABBER_CLIENT, name = "iq")]
struct IqElement {
    #[xml(attribute(default))]
    from: Option<String>,
    #[xml(attribute(default))]
    to: Option<String>,
    #[xml(attribute(default))]
    id: Option<String>,
    #[xml(attribute(default, name = "type"))]
    kind: Option<String>,
    #[xml(element(n = ..))]
    children: Vec<Element>,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::JABBER_CLIENT, name = "presence")]
struct PresenceElement {
    #[xml(attribute(default))]
    from: Option<String>,
    #[xml(attribute(default))]
    to: Option<String>,
    #[xml(attribute(default))]
    id: Option<String>,
    #[xml(attribute(default, name = "type"))]
    kind: Option<String>,
    #[xml(element(n = ..))]
    children: Vec<Element>,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::JABBER_CLIENT, name = "error")]
struct ErrorElement {
    #[xml(attribute(default, name = "type"))]
    kind: Option<String>,
    #[xml(element(n = ..))]
    children: Vec<Element>,
}

/// What an IQ is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IqBody {
    /// Asks for something.
    Get(Element),
    /// Sets something.
    Set(Element),
    /// Answers, possibly with nothing but the fact.
    Result(Option<Element>),
    /// Refuses.
    Error(StanzaError),
}

/// An IQ stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iq {
    /// Sender; servers fill it in.
    pub from: Option<String>,
    /// Receiver; `None` is the account's own server.
    pub to: Option<String>,
    /// Ties an answer to its request.
    pub id: String,
    /// What it is.
    pub body: IqBody,
}

/// What a presence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresenceKind {
    /// Is here.
    Available,
    /// Is gone.
    Unavailable,
    /// Could not be delivered, or was refused.
    Error,
    /// About subscriptions, which groups have no use for.
    Other,
}

/// A presence stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Sender; servers fill it in.
    pub from: Option<String>,
    /// Receiver; `None` broadcasts.
    pub to: Option<String>,
    /// Ties an error to its cause.
    pub id: Option<String>,
    /// What it is.
    pub kind: PresenceKind,
    /// Everything inside, an error too.
    pub payloads: Vec<Element>,
}

/// Why a stanza was refused (RFC 6120 section 8.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StanzaError {
    /// `cancel`, `wait`, `modify`, `auth` or `continue`: what to do about it.
    pub kind: String,
    /// The defined condition, `item-not-found` for one.
    pub condition: String,
    /// For people, where the other end said something.
    pub text: Option<String>,
    /// A condition of the application's own: its name.
    pub application: Option<String>,
}

/// Longest text of an error that is kept, in characters.
const ERROR_TEXT_LEN_MAX: usize = 256;

impl Iq {
    /// A request to set something.
    pub fn set(to: impl Into<String>, id: impl Into<String>, payload: Element) -> Self {
        Self { from: None, to: Some(to.into()), id: id.into(), body: IqBody::Set(payload) }
    }

    /// A request for something.
    pub fn get(to: impl Into<String>, id: impl Into<String>, payload: Element) -> Self {
        Self { from: None, to: Some(to.into()), id: id.into(), body: IqBody::Get(payload) }
    }

    /// The answer to this request.
    pub fn answer(&self, body: IqBody) -> Self {
        Self { from: self.to.clone(), to: self.from.clone(), id: self.id.clone(), body }
    }

    /// Reads an `<iq/>`; `None` when it breaks RFC 6120 section 8.2.3.
    pub fn parse(element: &Element) -> Option<Self> {
        let element = IqElement::try_from(element.clone()).ok()?;
        let mut children = element.children;
        let body = match element.kind.as_deref()? {
            "get" if children.len() == 1 => IqBody::Get(children.remove(0)),
            "set" if children.len() == 1 => IqBody::Set(children.remove(0)),
            "result" if children.len() <= 1 => IqBody::Result(children.pop()),
            "error" => IqBody::Error(StanzaError::of(&children)),
            _ => return None,
        };
        Some(Self { from: element.from, to: element.to, id: element.id?, body })
    }

    /// Writes an `<iq/>`.
    pub fn emit(self) -> Element {
        let (kind, children) = match self.body {
            IqBody::Get(payload) => ("get", vec![payload]),
            IqBody::Set(payload) => ("set", vec![payload]),
            IqBody::Result(payload) => ("result", payload.into_iter().collect()),
            IqBody::Error(error) => ("error", vec![error.emit()]),
        };
        Element::from(IqElement {
            from: self.from,
            to: self.to,
            id: Some(self.id),
            kind: Some(kind.to_owned()),
            children,
        })
    }
}

impl Presence {
    /// A presence to somebody in particular.
    pub fn to(to: impl Into<String>, kind: PresenceKind, payloads: Vec<Element>) -> Self {
        Self { from: None, to: Some(to.into()), id: None, kind, payloads }
    }

    /// Reads a `<presence/>`.
    pub fn parse(element: &Element) -> Option<Self> {
        let element = PresenceElement::try_from(element.clone()).ok()?;
        let kind = match element.kind.as_deref() {
            None => PresenceKind::Available,
            Some("unavailable") => PresenceKind::Unavailable,
            Some("error") => PresenceKind::Error,
            Some(_) => PresenceKind::Other,
        };
        let PresenceElement { from, to, id, children, .. } = element;
        Some(Self { from, to, id, kind, payloads: children })
    }

    /// Writes a `<presence/>`; [`PresenceKind::Other`] as a probe.
    pub fn emit(self) -> Element {
        let kind = match self.kind {
            PresenceKind::Available => None,
            PresenceKind::Unavailable => Some("unavailable"),
            PresenceKind::Error => Some("error"),
            PresenceKind::Other => Some("probe"),
        };
        Element::from(PresenceElement {
            from: self.from,
            to: self.to,
            id: self.id,
            kind: kind.map(str::to_owned),
            children: self.payloads,
        })
    }
}

impl StanzaError {
    /// An error of a defined condition.
    pub fn new(kind: &str, condition: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            condition: condition.to_owned(),
            text: None,
            application: None,
        }
    }

    /// Finds the error among a stanza's children; one that says nothing is `undefined-condition`.
    pub fn of(children: &[Element]) -> Self {
        let is_error = |child: &&Element| child.is("error", ns::JABBER_CLIENT);
        let error = children.iter().find(is_error).cloned();
        let Some(error) = error.and_then(|error| ErrorElement::try_from(error).ok()) else {
            return Self::new("cancel", "undefined-condition");
        };
        let standard = || error.children.iter().filter(|child| child.has_ns(ns::XMPP_STANZAS));
        let condition = standard().find(|child| child.name() != "text");
        let text = standard().find(|child| child.name() == "text").map(Element::text);
        let shortened = |text: String| text.chars().take(ERROR_TEXT_LEN_MAX).collect();
        let others = error.children.iter().find(|child| !child.has_ns(ns::XMPP_STANZAS));
        Self {
            kind: error.kind.clone().unwrap_or_else(|| "cancel".to_owned()),
            condition: condition.map_or("undefined-condition", Element::name).to_owned(),
            text: text.filter(|text| !text.is_empty()).map(shortened),
            application: others.map(|child| child.name().to_owned()),
        }
    }

    /// Writes an `<error/>`. An application's own condition is written in Jingle's namespace.
    pub fn emit(&self) -> Element {
        let mut children = vec![Element::bare(self.condition.as_str(), ns::XMPP_STANZAS)];
        let text = self
            .text
            .iter()
            .map(|text| Element::builder("text", ns::XMPP_STANZAS).append(text.as_str()).build());
        children.extend(text);
        let own = self.application.iter().map(|name| Element::bare(name, ns::JINGLE_ERRORS));
        children.extend(own);
        Element::from(ErrorElement { kind: Some(self.kind.clone()), children })
    }
}

impl std::fmt::Display for StanzaError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.application.as_ref().unwrap_or(&self.condition))?;
        match &self.text {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

/// A ping (XEP-0199).
pub fn emit_ping() -> Element {
    Element::bare("ping", ns::PING)
}
