//! What a server says when it ends a stream (RFC 6120 section 4.9).

use crate::failure::Failure;
use ipop_jingle::ns;
use ipop_signal::FatalCause;
use minidom::Element;

/// The failure that a stream error means; `None` for any other element.
pub(crate) fn of(element: &Element) -> Option<Failure> {
    if !element.is("error", ns::STREAM) {
        return None;
    }
    let mut conditions = element.children().filter(|child| child.has_ns(ns::XMPP_STREAMS));
    let condition = conditions.find(|child| child.name() != "text").map_or("", Element::name);
    let text = element.get_child("text", ns::XMPP_STREAMS).map(Element::text);
    let said = text.filter(|text| !text.is_empty()).unwrap_or_else(|| condition.to_owned());
    let said: String = said.chars().take(200).collect();
    Some(match condition {
        "conflict" => Failure::fatal(
            FatalCause::Conflict,
            "the server gave this node's place to another login: the node runs twice, two nodes \
             share one key, or the account has more logins than the server allows. Stop one of \
             them, give it a key of its own, or give it another account",
        ),
        "host-unknown" => Failure::fatal(
            FatalCause::HostUnknown,
            format!(
                "the server does not serve the account's domain ({said}): check the account, and \
                 the server's address if one is configured"
            ),
        ),
        _ => Failure::retry(format!("the server ended the connection: {said}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(inside: &str) -> Option<Failure> {
        let text = format!("<error xmlns='{}'>{inside}</error>", ns::STREAM);
        of(&text.parse().unwrap())
    }

    #[test]
    fn what_a_person_must_mend_is_told_from_what_passes() {
        let condition = |name| read(&format!("<{name} xmlns='{}'/>", ns::XMPP_STREAMS));
        let is_fatal = |failure| matches!(failure, Some(Failure::Fatal { .. }));
        assert!(is_fatal(condition("conflict")));
        assert!(is_fatal(condition("host-unknown")));
        assert!(!is_fatal(condition("system-shutdown")));
        assert!(!is_fatal(read("")));
        assert_eq!(of(&Element::bare("error", "urn:x")), None);
    }
}
