//! Answers to those who ask about us: disco#info, ping, version. Anything else we do not do.

use ipop_jingle::session::Refusal;
use ipop_jingle::stanza::{Iq, IqBody, StanzaError};
use ipop_jingle::{disco, ns};

/// The answer to a request; those who are not `entitled` hear what they would hear if nobody were
/// here (RFC 6120 section 8.5.3.2).
pub(crate) fn answer(request: &Iq, entitled: bool) -> Iq {
    let known = match &request.body {
        IqBody::Get(query) if entitled && query.is("query", ns::DISCO_INFO) => {
            Some(IqBody::Result(Some(disco::emit_info(query))))
        }
        IqBody::Get(query) if entitled && query.is("query", ns::VERSION) => {
            Some(IqBody::Result(Some(disco::emit_version())))
        }
        IqBody::Get(ping) if entitled && ping.is("ping", ns::PING) => Some(IqBody::Result(None)),
        _ => None,
    };
    let unavailable = || IqBody::Error(StanzaError::new("cancel", "service-unavailable"));
    request.answer(known.unwrap_or_else(unavailable))
}

/// The error that answers a Jingle request which is not taken.
pub(crate) fn refusal(refusal: &Refusal) -> StanzaError {
    match refusal {
        Refusal::Malformed(text) => {
            let mut error = StanzaError::new("modify", "bad-request");
            error.text = Some((*text).to_owned());
            error
        }
        Refusal::Unsupported | Refusal::NotOurs { .. } => {
            StanzaError::new("cancel", "feature-not-implemented")
        }
    }
}
