//! Who we are to tools that ask: disco#info (XEP-0030) and software version (XEP-0092).

use crate::ns;
use minidom::Element;
use xso::{AsXml, FromXml};

/// What a node understands.
pub const FEATURES: &[&str] = &[
    ns::DISCO_INFO,
    ns::JINGLE,
    ns::JINGLE_DTLS,
    ns::JINGLE_ICE_UDP,
    ns::NODE,
    ns::PING,
    ns::VERSION,
    ns::VPN,
];

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::DISCO_INFO, name = "query")]
struct InfoElement {
    #[xml(attribute(default))]
    node: Option<String>,
    #[xml(child(n = ..))]
    identities: Vec<IdentityElement>,
    #[xml(child(n = ..))]
    features: Vec<FeatureElement>,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::DISCO_INFO, name = "identity")]
struct IdentityElement {
    #[xml(attribute(default))]
    category: Option<String>,
    #[xml(attribute(default, name = "type"))]
    kind: Option<String>,
    #[xml(attribute(default))]
    name: Option<String>,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::DISCO_INFO, name = "feature")]
struct FeatureElement {
    #[xml(attribute(default))]
    var: Option<String>,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::VERSION, name = "query")]
struct VersionElement {
    #[xml(extract(namespace = ns::VERSION, name = "name", default, fields(text(type_ = String))))]
    name: Option<String>,
    #[xml(extract(namespace = ns::VERSION, name = "version", default,
        fields(text(type_ = String))))]
    version: Option<String>,
}

/// Answers a disco#info query, echoing the node that it asks about.
pub fn emit_info(query: &Element) -> Element {
    let feature = |var: &&str| FeatureElement { var: Some((*var).to_owned()) };
    Element::from(InfoElement {
        node: query.attr("node").map(str::to_owned),
        identities: vec![IdentityElement {
            category: Some("client".to_owned()),
            kind: Some("bot".to_owned()),
            name: Some("IPOP".to_owned()),
        }],
        features: FEATURES.iter().map(feature).collect(),
    })
}

/// The features that a disco#info answer names; at most 256 of them.
pub fn features_of(answer: &Element) -> Vec<String> {
    let info = InfoElement::try_from(answer.clone());
    let features = info.map(|info| info.features).unwrap_or_default();
    features.into_iter().filter_map(|feature| feature.var).take(256).collect()
}

/// Answers a software version query.
pub fn emit_version() -> Element {
    Element::from(VersionElement {
        name: Some("IPOP".to_owned()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
    })
}
