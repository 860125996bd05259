//! What a node says about itself in its group presence.
//!
//! ```xml
//! <node xmlns='urn:ipop:node:0' name='alpha' instance='5f0c6d1e9a2b7733'>
//!   <fingerprint hash='sha-256'>02:1A:..</fingerprint>
//!   <address ip='10.77.0.9' prefix='16' origin='derived' attempt='0'/>
//!   <transport xmlns='urn:xmpp:jingle:transports:ice-udp:1' ufrag='8hhy' pwd='asd88fgpdd77..'>
//!     <candidate .../>
//!   </transport>
//! </node>
//! ```
//! The transport is the node's invitation: what a Jingle session would say of it (XEP-0176).

use crate::ns;
use crate::transport::{IceTransport, Setup};
use ipop_signal::{ADDRESSES_MAX, Announcement, Fingerprint, Invitation, Origin, OverlayAddress};
use minidom::Element;
use xso::{AsXml, FromXml};

const INSTANCE_LEN_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::NODE, name = "node")]
struct NodeElement {
    #[xml(attribute)]
    name: String,
    #[xml(attribute(default))]
    instance: Option<String>,
    #[xml(child)]
    fingerprint: FingerprintElement,
    #[xml(child(n = ..))]
    addresses: Vec<AddressElement>,
    /// Transports, and what later versions may say.
    #[xml(element(n = ..))]
    others: Vec<Element>,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::NODE, name = "fingerprint")]
struct FingerprintElement {
    #[xml(attribute)]
    hash: String,
    #[xml(text)]
    value: String,
}

#[derive(Clone, Debug, PartialEq, FromXml, AsXml)]
#[xml(namespace = ns::NODE, name = "address")]
struct AddressElement {
    #[xml(attribute(default))]
    ip: Option<String>,
    #[xml(attribute(default))]
    prefix: Option<String>,
    #[xml(attribute(default))]
    origin: Option<String>,
    #[xml(attribute(default))]
    attempt: Option<String>,
}

/// A node's description, and which run of the node it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What the node says.
    pub announcement: Announcement,
    /// Differs from run to run of a node, so that a node that came back under its old address is
    /// not taken for one that never left. Empty when not given; at most 64 bytes.
    pub instance: String,
}

impl Node {
    /// Reads a `<node/>`; `None` when it lacks a usable name or a SHA-256 fingerprint. Addresses
    /// that cannot be read are left out, as is an invitation without credentials.
    pub fn parse(element: &Element) -> Option<Self> {
        let element = NodeElement::try_from(element.clone()).ok()?;
        let instance = element.instance.unwrap_or_default();
        let usable = Announcement::is_valid_name(&element.name)
            && element.fingerprint.hash == "sha-256"
            && instance.len() <= INSTANCE_LEN_MAX;
        if !usable {
            return None;
        }
        let fingerprint: Fingerprint = element.fingerprint.value.parse().ok()?;
        let addresses = element.addresses.iter().filter_map(AddressElement::address);
        let addresses = addresses.take(ADDRESSES_MAX).collect();
        let invitation = element.others.iter().find_map(invitation);
        let announcement = Announcement { fingerprint, name: element.name, addresses, invitation };
        Some(Self { announcement, instance })
    }

    /// Writes a `<node/>`.
    pub fn emit(&self) -> Element {
        let Announcement { fingerprint, name, addresses, invitation } = &self.announcement;
        Element::from(NodeElement {
            name: name.clone(),
            instance: (!self.instance.is_empty()).then(|| self.instance.clone()),
            fingerprint: FingerprintElement {
                hash: "sha-256".to_owned(),
                value: fingerprint.to_colon_hex(),
            },
            addresses: addresses.iter().map(AddressElement::of).collect(),
            others: invitation.iter().map(transport).collect(),
        })
    }
}

fn invitation(element: &Element) -> Option<Invitation> {
    if !element.is("transport", ns::JINGLE_ICE_UDP) {
        return None;
    }
    let IceTransport { credentials, candidates, .. } = IceTransport::parse(element)?;
    Some(Invitation { credentials: credentials?, candidates })
}

fn transport(invitation: &Invitation) -> Element {
    let Invitation { credentials, candidates } = invitation;
    let transport = IceTransport {
        credentials: Some(credentials.clone()),
        candidates: candidates.clone(),
        ..IceTransport::default()
    };
    transport.emit(Setup::ActPass)
}

impl AddressElement {
    fn of(address: &OverlayAddress) -> Self {
        let origin = match address.origin {
            Origin::Fixed => "fixed",
            Origin::Derived => "derived",
        };
        Self {
            ip: Some(address.address.to_string()),
            prefix: Some(address.prefix.to_string()),
            origin: Some(origin.to_owned()),
            attempt: Some(address.attempt.to_string()),
        }
    }

    fn address(&self) -> Option<OverlayAddress> {
        let origin = match self.origin.as_deref()? {
            "fixed" => Origin::Fixed,
            "derived" => Origin::Derived,
            _ => return None,
        };
        let attempt = self.attempt.as_deref().unwrap_or("0").parse().ok()?;
        let address = OverlayAddress {
            address: self.ip.as_deref()?.parse().ok()?,
            prefix: self.prefix.as_deref()?.parse().ok()?,
            origin,
            attempt,
        };
        address.is_valid().then_some(address)
    }
}
