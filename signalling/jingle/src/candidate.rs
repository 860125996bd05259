//! One ICE candidate (XEP-0176 section 5.4).

use crate::ns;
use ipop_signal::{Candidate, CandidateKind};
use std::net::{IpAddr, SocketAddr};
use xso::{AsXml, FromXml};

/// The element as it is written. Every attribute is optional text, so that one candidate that we
/// do not understand (TCP, an mDNS name in place of an address) costs itself and not its stanza.
#[derive(Clone, Debug, Default, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::JINGLE_ICE_UDP, name = "candidate")]
pub(crate) struct CandidateElement {
    #[xml(attribute(default))]
    component: Option<String>,
    #[xml(attribute(default))]
    foundation: Option<String>,
    #[xml(attribute(default))]
    generation: Option<String>,
    #[xml(attribute(default))]
    id: Option<String>,
    #[xml(attribute(default))]
    ip: Option<String>,
    #[xml(attribute(default))]
    port: Option<String>,
    #[xml(attribute(default))]
    priority: Option<String>,
    #[xml(attribute(default))]
    protocol: Option<String>,
    #[xml(attribute(default, name = "rel-addr"))]
    rel_addr: Option<String>,
    #[xml(attribute(default, name = "rel-port"))]
    rel_port: Option<String>,
    #[xml(attribute(default, name = "type"))]
    kind: Option<String>,
}

impl CandidateElement {
    /// Writes a candidate. Its id, unique within the session as XEP-0176 asks, says what it is.
    pub(crate) fn of(candidate: &Candidate) -> Self {
        let place = candidate.address.to_string().replace(|c: char| !c.is_alphanumeric(), "-");
        let id = format!("{}-{}-{place}", kind_name(candidate.kind), candidate.component);
        Self {
            component: Some(candidate.component.to_string()),
            foundation: Some(candidate.foundation.clone()),
            generation: Some("0".to_owned()),
            id: Some(id),
            ip: Some(candidate.address.ip().to_string()),
            port: Some(candidate.address.port().to_string()),
            priority: Some(candidate.priority.to_string()),
            protocol: Some("udp".to_owned()),
            rel_addr: candidate.related.map(|related| related.ip().to_string()),
            rel_port: candidate.related.map(|related| related.port().to_string()),
            kind: Some(kind_name(candidate.kind).to_owned()),
        }
    }

    /// Reads a candidate; `None` when it is none that UDP can use.
    pub(crate) fn candidate(&self) -> Option<Candidate> {
        if !self.protocol.as_deref()?.eq_ignore_ascii_case("udp") {
            return None;
        }
        let foundation = self.foundation.clone()?;
        let component = number::<u16>(&self.component)?;
        let address = address(&self.ip, &self.port)?;
        let usable = Candidate::is_valid_foundation(&foundation)
            && (1..=256).contains(&component)
            && address.port() != 0
            && !address.ip().is_unspecified();
        usable.then_some(Candidate {
            component,
            kind: kind_of(self.kind.as_deref()?)?,
            address,
            related: self::address(&self.rel_addr, &self.rel_port),
            priority: number(&self.priority)?,
            foundation,
        })
    }
}

fn number<N: std::str::FromStr>(text: &Option<String>) -> Option<N> {
    text.as_deref()?.trim().parse().ok()
}

fn address(ip: &Option<String>, port: &Option<String>) -> Option<SocketAddr> {
    Some(SocketAddr::new(number::<IpAddr>(ip)?, number(port)?))
}

fn kind_name(kind: CandidateKind) -> &'static str {
    match kind {
        CandidateKind::Host => "host",
        CandidateKind::ServerReflexive => "srflx",
        CandidateKind::PeerReflexive => "prflx",
        CandidateKind::Relayed => "relay",
    }
}

fn kind_of(name: &str) -> Option<CandidateKind> {
    match name {
        "host" => Some(CandidateKind::Host),
        "srflx" => Some(CandidateKind::ServerReflexive),
        "prflx" => Some(CandidateKind::PeerReflexive),
        "relay" => Some(CandidateKind::Relayed),
        _ => None,
    }
}
