//! What a server offers for a login, and may be expected to offer again.

use ipop_jingle::ns;
use minidom::Element;

/// XEP-0305 section 4.
const PIPELINING: &str = "urn:xmpp:features:pipelining";
/// More names than this, or longer ones, are no offer but a burden.
const MECHANISMS_MAX: usize = 64;
const NAME_LEN_MAX: usize = 64;

/// What a server offers for a login, as the features of its stream say (RFC 6120 section 6.3).
///
/// Who knows it beforehand, by a ticket or from the last login, need not wait for it: see
/// [`Config::expected`](crate::Config::expected).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Names of SASL mechanisms.
    pub mechanisms: Vec<String>,
    /// A login may be bound to the TLS connection by `tls-exporter` (XEP-0440).
    pub binds_exporter: bool,
    /// The server minds nobody who goes on before it has answered (XEP-0305): a new stream may
    /// follow the last word of a login at once.
    pub pipelines: bool,
}

impl Offer {
    /// What a server that nobody knows yet is taken to offer: the mechanism that all of them have
    /// (RFC 6120 section 13.8.1). One that could bind the login refuses it then, for it is told
    /// that we could too, and is asked as it should be.
    pub(crate) fn usual() -> Self {
        Self { mechanisms: vec!["SCRAM-SHA-1".to_owned()], ..Self::default() }
    }

    pub(crate) fn of(features: &Element) -> Self {
        let list = features.get_child("mechanisms", ns::SASL);
        let names = list.into_iter().flat_map(Element::children).map(Element::text);
        Self {
            mechanisms: names
                .filter(|name| name.len() <= NAME_LEN_MAX)
                .take(MECHANISMS_MAX)
                .collect(),
            binds_exporter: takes_exporter(features),
            pipelines: features.has_child("pipelining", PIPELINING),
        }
    }

    pub(crate) fn has(&self, mechanism: &str) -> bool {
        self.mechanisms.iter().any(|offered| offered == mechanism)
    }
}

/// The server lists the bindings that it takes (XEP-0440). One that lists none may take only those
/// of older TLS versions, and a login that failed for that reason would look like a wrong password.
fn takes_exporter(features: &Element) -> bool {
    let list = features.get_child("sasl-channel-binding", ns::SASL_CB);
    list.is_some_and(|list| list.children().any(|c| c.attr("type") == Some("tls-exporter")))
}
