//! The ICE-UDP transport of a session (XEP-0176) with the fingerprint of XEP-0320 inside.
//!
//! ```xml
//! <transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='8hhy' pwd='asd88fgpdd77..'>
//!   <fingerprint xmlns='urn:xmpp:jingle:apps:dtls:0' hash='sha-256' setup='actpass'>
//!     02:1A:..</fingerprint>
//!   <candidate component='1' foundation='1' generation='0' id='c0' ip='10.0.1.1' port='8998'
//!              priority='2130706431' protocol='udp' type='host'/>
//!   <gathering-complete/>
//! </transport>
//! ```
//! The fingerprint is that of the node's raw public key (SHA-256 of its SubjectPublicKeyInfo,
//! RFC 7250), where XEP-0320 has a certificate's.

use crate::candidate::CandidateElement;
use crate::ns;
use ipop_signal::{CANDIDATES_MAX, Candidate, Fingerprint, IceCredentials};
use minidom::Element;
use xso::{AsXml, FromXml};

#[derive(Clone, Debug, Default, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::JINGLE_ICE_UDP, name = "transport")]
struct TransportElement {
    #[xml(attribute(default))]
    ufrag: Option<String>,
    #[xml(attribute(default))]
    pwd: Option<String>,
    #[xml(child(n = ..))]
    fingerprints: Vec<FingerprintElement>,
    #[xml(child(n = ..))]
    candidates: Vec<CandidateElement>,
    #[xml(child(n = ..))]
    remote_candidates: Vec<RemoteCandidateElement>,
    #[xml(child(n = ..))]
    gathering_complete: Vec<GatheringCompleteElement>,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::JINGLE_DTLS, name = "fingerprint")]
struct FingerprintElement {
    #[xml(attribute(default))]
    hash: Option<String>,
    #[xml(attribute(default))]
    setup: Option<String>,
    #[xml(text)]
    value: String,
}

/// What a controlling agent of others says when it has chosen (XEP-0176 section 5.8).
#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::JINGLE_ICE_UDP, name = "remote-candidate")]
struct RemoteCandidateElement;

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::JINGLE_ICE_UDP, name = "gathering-complete")]
struct GatheringCompleteElement;

/// Who opens the handshake (RFC 8842 section 5.2, as XEP-0320 carries it). Ours is always opened by
/// the one who offered, so this is written for others and not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// In an offer: either way would do.
    ActPass,
    /// In an answer: the one who offered opens.
    Passive,
}

/// What a transport element says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IceTransport {
    /// ICE user name fragment and password, where both are given and within their bounds.
    pub credentials: Option<IceCredentials>,
    /// The SHA-256 fingerprint, where there is exactly one.
    pub fingerprint: Option<Fingerprint>,
    /// The candidates that UDP can use, at most [`CANDIDATES_MAX`].
    pub candidates: Vec<Candidate>,
    /// No more candidates will follow.
    pub gathering_complete: bool,
    /// A pair was chosen by the other end. Read so that it is not taken for an empty message; the
    /// checks themselves tell our agent.
    pub remote_candidate: bool,
}

impl IceTransport {
    /// Reads a `<transport/>`; what is unusable in it is left out.
    pub(crate) fn parse(element: &Element) -> Option<Self> {
        let element = TransportElement::try_from(element.clone()).ok()?;
        let credentials = match (&element.ufrag, &element.pwd) {
            (Some(ufrag), Some(pwd)) => IceCredentials::new(ufrag, pwd).ok(),
            _ => None,
        };
        let readable = element.candidates.iter().filter_map(CandidateElement::candidate);
        Some(Self {
            credentials,
            fingerprint: sha256_of(&element.fingerprints),
            candidates: readable.take(CANDIDATES_MAX).collect(),
            gathering_complete: !element.gathering_complete.is_empty(),
            remote_candidate: !element.remote_candidates.is_empty(),
        })
    }

    /// Writes a `<transport/>`.
    pub(crate) fn emit(&self, setup: Setup) -> Element {
        let fingerprint = self.fingerprint.map(|fingerprint| FingerprintElement {
            hash: Some("sha-256".to_owned()),
            setup: Some(setup.name().to_owned()),
            value: fingerprint.to_colon_hex(),
        });
        let element = TransportElement {
            ufrag: self.credentials.as_ref().map(|credentials| credentials.ufrag.clone()),
            pwd: self.credentials.as_ref().map(|credentials| credentials.pwd.clone()),
            fingerprints: fingerprint.into_iter().collect(),
            candidates: self.candidates.iter().map(CandidateElement::of).collect(),
            remote_candidates: self
                .remote_candidate
                .then_some(RemoteCandidateElement)
                .into_iter()
                .collect(),
            gathering_complete: self
                .gathering_complete
                .then_some(GatheringCompleteElement)
                .into_iter()
                .collect(),
        };
        Element::from(element)
    }
}

impl Setup {
    fn name(self) -> &'static str {
        match self {
            Self::ActPass => "actpass",
            Self::Passive => "passive",
        }
    }
}

/// Two different fingerprints would leave open which one pins the link, so they count as none.
fn sha256_of(elements: &[FingerprintElement]) -> Option<Fingerprint> {
    let is_sha256 = |element: &&FingerprintElement| element.hash.as_deref() == Some("sha-256");
    let mut values = elements.iter().filter(is_sha256).map(|element| element.value.parse().ok());
    let first = values.next()??;
    values.all(|other| other == Some(first)).then_some(first)
}
