//! Jingle sessions (XEP-0166): one message about one session, as an element and as a value.
//!
//! ```xml
//! <jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='a73s'
//!         initiator='room@muc/nick'>
//!   <content creator='initiator' name='vpn'>
//!     <description xmlns='urn:ipop:vpn:0'/>
//!     <transport .../>
//!   </content>
//! </jingle>
//! ```

use crate::ns;
use crate::transport::{IceTransport, Setup};
use ipop_signal::{ByeReason, Candidate, Fingerprint, IceCredentials, SessionId};
use minidom::Element;
use xso::{AsXml, FromXml};

const CONTENT_NAME: &str = "vpn";

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::JINGLE, name = "jingle")]
struct JingleElement {
    #[xml(attribute)]
    action: String,
    #[xml(attribute)]
    sid: String,
    #[xml(attribute(default))]
    initiator: Option<String>,
    #[xml(attribute(default))]
    responder: Option<String>,
    #[xml(child(n = ..))]
    contents: Vec<ContentElement>,
    #[xml(child(n = ..))]
    reasons: Vec<ReasonElement>,
    #[xml(element(n = ..))]
    others: Vec<Element>,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::JINGLE, name = "content")]
struct ContentElement {
    #[xml(attribute(default))]
    creator: Option<String>,
    #[xml(attribute(default))]
    name: Option<String>,
    #[xml(element(n = ..))]
    children: Vec<Element>,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::JINGLE, name = "reason")]
struct ReasonElement {
    #[xml(element(n = ..))]
    children: Vec<Element>,
}

/// What one message about a session says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// session-initiate.
    Initiate(Proposal),
    /// session-accept.
    Accept(Proposal),
    /// transport-info: candidates as they are found.
    Info {
        /// Of the sender; `None` when left out or out of bounds.
        credentials: Option<IceCredentials>,
        /// The new ones.
        candidates: Vec<Candidate>,
        /// No more will follow.
        end: bool,
    },
    /// session-terminate.
    Terminate(ByeReason),
    /// An empty session-info, which asks whether the session is there (XEP-0166 section 6.8).
    Ping,
}

/// What both ends say to set up a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Of the sender.
    pub credentials: IceCredentials,
    /// The sender's key hash.
    pub fingerprint: Fingerprint,
    /// Those known by now.
    pub candidates: Vec<Candidate>,
    /// No more will follow.
    pub end: bool,
}

/// A Jingle request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which session.
    pub session: SessionId,
    /// What about it.
    pub body: Body,
}

/// Why a Jingle request is not taken, and so how to answer it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It breaks the standard or our bounds: answer `bad-request`.
    Malformed(&'static str),
    /// The standard has it, we do not: answer `feature-not-implemented`.
    Unsupported,
    /// A session about something else than a link, or over something else than ICE-UDP:
    /// acknowledge, then terminate with this reason (XEP-0166 section 6.3.2).
    NotOurs {
        /// The session to terminate.
        session: SessionId,
        /// `unsupported-applications` or `unsupported-transports`.
        reason: &'static str,
    },
}

impl Message {
    /// Reads a `<jingle/>`.
    ///
    /// # Errors
    /// [`Refusal`] says how the request is to be answered.
    pub fn parse(element: &Element) -> Result<Self, Refusal> {
        let jingle = JingleElement::try_from(element.clone())
            .map_err(|_| Refusal::Malformed("not a jingle element"))?;
        let session =
            SessionId::new(&jingle.sid).map_err(|_| Refusal::Malformed("unusable session id"))?;
        let body = match jingle.action.as_str() {
            "session-initiate" => Body::Initiate(proposal(&session, &jingle.contents)?),
            "session-accept" => Body::Accept(proposal(&session, &jingle.contents)?),
            "transport-info" => info(&jingle.contents)?,
            "session-terminate" => Body::Terminate(reason_of(&jingle.reasons)),
            "session-info" if jingle.others.is_empty() => Body::Ping,
            _ => return Err(Refusal::Unsupported),
        };
        Ok(Self { session, body })
    }

    /// Writes a `<jingle/>`; `own` is the sender's address, as the other end sees it.
    pub fn emit(&self, own: &str) -> Element {
        let mut jingle = JingleElement {
            action: self.body.action().to_owned(),
            sid: self.session.as_str().to_owned(),
            initiator: None,
            responder: None,
            contents: Vec::new(),
            reasons: Vec::new(),
            others: Vec::new(),
        };
        match &self.body {
            Body::Initiate(proposal) => {
                jingle.initiator = Some(own.to_owned());
                jingle.contents.push(proposal.content(Setup::ActPass));
            }
            Body::Accept(proposal) => {
                jingle.responder = Some(own.to_owned());
                jingle.contents.push(proposal.content(Setup::Passive));
            }
            Body::Info { credentials, candidates, end } => {
                let transport = IceTransport {
                    credentials: credentials.clone(),
                    candidates: candidates.clone(),
                    gathering_complete: *end,
                    ..IceTransport::default()
                };
                jingle.contents.push(content(vec![transport.emit(Setup::ActPass)]));
            }
            Body::Terminate(reason) => jingle.reasons.push(reason_element(*reason)),
            Body::Ping => {}
        }
        Element::from(jingle)
    }

    /// A session-terminate for a [`Refusal::NotOurs`].
    pub fn emit_not_ours(session: &SessionId, reason: &str) -> Element {
        let reason = ReasonElement { children: vec![Element::bare(reason, ns::JINGLE)] };
        Element::from(JingleElement {
            action: "session-terminate".to_owned(),
            sid: session.as_str().to_owned(),
            initiator: None,
            responder: None,
            contents: Vec::new(),
            reasons: vec![reason],
            others: Vec::new(),
        })
    }
}

impl Body {
    fn action(&self) -> &'static str {
        match self {
            Self::Initiate(_) => "session-initiate",
            Self::Accept(_) => "session-accept",
            Self::Info { .. } => "transport-info",
            Self::Terminate(_) => "session-terminate",
            Self::Ping => "session-info",
        }
    }
}

impl Proposal {
    fn content(&self, setup: Setup) -> ContentElement {
        let transport = IceTransport {
            credentials: Some(self.credentials.clone()),
            fingerprint: Some(self.fingerprint),
            candidates: self.candidates.clone(),
            gathering_complete: self.end,
            remote_candidate: false,
        };
        content(vec![Element::bare("description", ns::VPN), transport.emit(setup)])
    }
}

fn content(children: Vec<Element>) -> ContentElement {
    ContentElement {
        creator: Some("initiator".to_owned()),
        name: Some(CONTENT_NAME.to_owned()),
        children,
    }
}

fn proposal(session: &SessionId, contents: &[ContentElement]) -> Result<Proposal, Refusal> {
    let is_ours = |content: &&ContentElement| {
        content.children.iter().any(|child| child.is("description", ns::VPN))
    };
    let not_ours = |reason| Refusal::NotOurs { session: session.clone(), reason };
    if contents.is_empty() {
        return Err(Refusal::Malformed("no content"));
    }
    let ours = contents.iter().find(is_ours).ok_or(not_ours("unsupported-applications"))?;
    let transport = transport(ours).ok_or(not_ours("unsupported-transports"))?;
    Ok(Proposal {
        credentials: transport.credentials.ok_or(Refusal::Malformed("no ICE credentials"))?,
        fingerprint: transport.fingerprint.ok_or(Refusal::Malformed("no SHA-256 fingerprint"))?,
        candidates: transport.candidates,
        end: transport.gathering_complete,
    })
}

fn info(contents: &[ContentElement]) -> Result<Body, Refusal> {
    let mut transports = contents.iter().filter_map(transport);
    let transport = transports.next().ok_or(Refusal::Malformed("no ICE-UDP transport"))?;
    Ok(Body::Info {
        credentials: transport.credentials,
        candidates: transport.candidates,
        end: transport.gathering_complete,
    })
}

fn transport(content: &ContentElement) -> Option<IceTransport> {
    let is_ice = |child: &&Element| child.is("transport", ns::JINGLE_ICE_UDP);
    content.children.iter().find(is_ice).and_then(IceTransport::parse)
}

/// The standard has no word for a session that is not known; `general-error` may carry one child of
/// another namespace that says more (XEP-0166 section 7.4).
fn reason_element(reason: ByeReason) -> ReasonElement {
    let mut children = vec![Element::bare(reason_name(reason), ns::JINGLE)];
    if reason == ByeReason::UnknownSession {
        children.push(Element::bare("unknown-session", ns::JINGLE_ERRORS));
    }
    ReasonElement { children }
}

fn reason_name(reason: ByeReason) -> &'static str {
    match reason {
        ByeReason::Success => "success",
        ByeReason::Decline => "decline",
        ByeReason::AlternativeSession => "alternative-session",
        ByeReason::Gone => "gone",
        ByeReason::ConnectivityError => "connectivity-error",
        ByeReason::SecurityError => "security-error",
        ByeReason::Timeout => "timeout",
        ByeReason::UnknownSession | ByeReason::GeneralError => "general-error",
    }
}

fn reason_of(reasons: &[ReasonElement]) -> ByeReason {
    let children = || reasons.iter().flat_map(|reason| &reason.children);
    if children().any(|child| child.is("unknown-session", ns::JINGLE_ERRORS)) {
        return ByeReason::UnknownSession;
    }
    let named = |child: &Element| match child.name() {
        "success" => Some(ByeReason::Success),
        "decline" | "busy" | "cancel" => Some(ByeReason::Decline),
        "alternative-session" => Some(ByeReason::AlternativeSession),
        "gone" => Some(ByeReason::Gone),
        "connectivity-error" | "failed-transport" => Some(ByeReason::ConnectivityError),
        "security-error" => Some(ByeReason::SecurityError),
        "timeout" | "expired" => Some(ByeReason::Timeout),
        _ => None,
    };
    let ours = children().filter(|child| child.has_ns(ns::JINGLE));
    ours.filter_map(named).next().unwrap_or(ByeReason::GeneralError)
}
