//! Stanzas as elements: addressing and refusing them without touching what is inside.

use ipop_jingle::ns;
use ipop_jingle::stanza::StanzaError;
use minidom::Element;
use minidom::rxml::{Namespace, NcNameStr, xml_ncname};

/// Sets an attribute without namespace.
pub(crate) fn set(element: &mut Element, name: &'static NcNameStr, value: &str) {
    element.set_attr(Namespace::NONE, name.into(), value);
}

/// Removes an attribute without namespace.
pub(crate) fn unset(element: &mut Element, name: &str) {
    element.attrs_mut().remove(&Namespace::NONE, name);
}

/// The same stanza from and to somebody.
pub(crate) fn addressed(element: &Element, from: &str, to: &str) -> Element {
    let mut element = element.clone();
    set(&mut element, xml_ncname!("from"), from);
    set(&mut element, xml_ncname!("to"), to);
    element
}

/// Whether a stanza must not be answered with an error (RFC 6120 section 8.3.1).
pub(crate) fn is_answer(stanza: &Element) -> bool {
    match stanza.attr("type") {
        Some("error") => true,
        Some("result") => stanza.name() == "iq",
        _ => false,
    }
}

/// Refuses a stanza; `None` when it is an answer itself.
pub(crate) fn refusal(
    stanza: &Element,
    from: &str,
    to: &str,
    kind: &str,
    condition: &str,
) -> Option<Element> {
    if is_answer(stanza) {
        return None;
    }
    let mut error = Element::bare(stanza.name(), ns::JABBER_CLIENT);
    set(&mut error, xml_ncname!("type"), "error");
    set(&mut error, xml_ncname!("from"), from);
    set(&mut error, xml_ncname!("to"), to);
    if let Some(id) = stanza.attr("id") {
        set(&mut error, xml_ncname!("id"), id);
    }
    error.append_child(StanzaError::new(kind, condition).emit());
    Some(error)
}

/// Answers an IQ.
pub(crate) fn result(iq: &Element, from: &str, to: &str, payload: Option<Element>) -> Element {
    let mut result = Element::bare("iq", ns::JABBER_CLIENT);
    set(&mut result, xml_ncname!("type"), "result");
    set(&mut result, xml_ncname!("from"), from);
    set(&mut result, xml_ncname!("to"), to);
    set(&mut result, xml_ncname!("id"), iq.attr("id").unwrap_or_default());
    if let Some(payload) = payload {
        result.append_child(payload);
    }
    result
}

/// An element with one text attribute per pair.
pub(crate) fn with_attributes(
    name: &str,
    ns: &str,
    attributes: &[(&'static NcNameStr, &str)],
) -> Element {
    let mut element = Element::bare(name, ns);
    attributes.iter().for_each(|(name, value)| set(&mut element, name, value));
    element
}

/// Whether an IQ keeps to RFC 6120 section 8.2.3.
pub(crate) fn is_sound_iq(iq: &Element) -> bool {
    let children = iq.children().count();
    let has_id = iq.attr("id").is_some_and(|id| !id.is_empty());
    has_id
        && match iq.attr("type") {
            Some("get" | "set") => children == 1,
            Some("result") => children <= 1,
            Some("error") => true,
            _ => false,
        }
}

/// Writes an element; nothing when XML cannot carry it.
pub(crate) fn write(element: &Element) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Err(error) = element.write_to(&mut bytes) {
        tracing::warn!(%error, name = element.name(), "left out what XML cannot carry");
        bytes.clear();
    }
    bytes
}
