//! What the hub says about itself (XEP-0030, XEP-0092).

use crate::stanza::with_attributes;
use ipop_jingle::ns;
use minidom::Element;
use minidom::rxml::xml_ncname;

/// Items of service discovery.
pub(crate) const ITEMS: &str = "http://jabber.org/protocol/disco#items";

/// An answer to disco#info: one identity, some features.
pub(crate) fn info(identity: (&str, &str, &str), features: &[&str]) -> Element {
    let (category, kind, name) = identity;
    let mut query = Element::bare("query", ns::DISCO_INFO);
    query.append_child(with_attributes(
        "identity",
        ns::DISCO_INFO,
        &[
            (xml_ncname!("category"), category),
            (xml_ncname!("type"), kind),
            (xml_ncname!("name"), name),
        ],
    ));
    for feature in features {
        let attributes = [(xml_ncname!("var"), *feature)];
        query.append_child(with_attributes("feature", ns::DISCO_INFO, &attributes));
    }
    query
}

/// An answer to disco#items: addresses and names.
pub(crate) fn items<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> Element {
    let mut query = Element::bare("query", ITEMS);
    for (jid, name) in entries {
        let attributes = [(xml_ncname!("jid"), jid), (xml_ncname!("name"), name)];
        query.append_child(with_attributes("item", ITEMS, &attributes));
    }
    query
}

/// An answer to a question for the software's version.
pub(crate) fn version() -> Element {
    let part = |name: &str, text: &str| Element::builder(name, ns::VERSION).append(text).build();
    let mut query = Element::bare("query", ns::VERSION);
    query.append_child(part("name", "IPOP hub"));
    query.append_child(part("version", env!("CARGO_PKG_VERSION")));
    query
}
