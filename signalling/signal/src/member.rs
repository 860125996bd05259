//! Members of a group and what they say about themselves.

use crate::{Candidate, Fingerprint, IceCredentials, NAME_LEN_MAX, SESSION_LEN_MAX};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// A text that came from outside and does not keep its bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be {} to {} bytes of allowed characters", .len.start(), .len.end())]
pub struct InvalidText {
    /// Which text.
    pub what: &'static str,
    /// Its permitted lengths in bytes.
    pub len: RangeInclusive<usize>,
}

pub(crate) fn checked(
    what: &'static str,
    text: &str,
    len: RangeInclusive<usize>,
    allowed: fn(u8) -> bool,
) -> Result<String, InvalidText> {
    if len.contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err(InvalidText { what, len })
    }
}

/// Opaque address of a member at the signalling network: compare it, hand it back, nothing else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerAddress(pub String);

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one attempt of a pair of members at a link; chosen by the one who offers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(String);

impl SessionId {
    /// Takes 1 to 64 visible ASCII characters.
    ///
    /// # Errors
    /// [`InvalidText`] for any other text.
    pub fn new(text: &str) -> Result<Self, InvalidText> {
        let allowed = |byte: u8| byte.is_ascii_graphic();
        checked("session id", text, 1..=SESSION_LEN_MAX, allowed).map(Self)
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How an overlay address came about, which decides who keeps it when two members claim it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Written in the node's configuration.
    Fixed,
    /// Computed from the fingerprint.
    Derived,
}

/// An address of a member inside the overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OverlayAddress {
    /// The address.
    pub address: IpAddr,
    /// Length of the overlay network's prefix in bits: 0..=32 for IPv4, 0..=128 for IPv6.
    pub prefix: u8,
    /// How it came about.
    pub origin: Origin,
    /// How often it was computed anew because somebody else had it; 0 at first and when fixed.
    pub attempt: u32,
}

impl OverlayAddress {
    /// Whether the prefix length fits the address family.
    pub fn is_valid(&self) -> bool {
        self.prefix <= if self.address.is_ipv4() { 32 } else { 128 }
    }
}

/// What a member needs to know for a session that nobody offers: see [`Announcement::invitation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// This node's share of the ICE credentials of its sessions, see [`IceCredentials::joined`].
    pub credentials: IceCredentials,
    /// Where it may be reached, as far as it knows by then; at most [`crate::CANDIDATES_MAX`].
    pub candidates: Vec<Candidate>,
}

/// What a node tells the group about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The key hash that links to this node are pinned to.
    pub fingerprint: Fingerprint,
    /// For people: 1..=64 bytes, see [`Announcement::is_valid_name`].
    pub name: String,
    /// At most [`crate::ADDRESSES_MAX`].
    pub addresses: Vec<OverlayAddress>,
    /// Any two members that announce one may begin a session without a word, by what both have
    /// said to all.
    pub invitation: Option<Invitation>,
}

impl Announcement {
    /// Whether a text may be a node's name: 1..=64 bytes, no control characters, no white space,
    /// neither of the two code points that XML cannot carry.
    pub fn is_valid_name(text: &str) -> bool {
        let in_xml = |c: char| !matches!(c, '\u{fffe}' | '\u{ffff}');
        let allowed = |c: char| !c.is_control() && !c.is_whitespace() && in_xml(c);
        (1..=NAME_LEN_MAX).contains(&text.len()) && text.chars().all(allowed)
    }

    /// The name to appear under: the node's name and the first 8 digits of its UID, so that two
    /// nodes of one name can be told apart by people too.
    pub fn nickname(&self) -> String {
        format!("{}-{}", self.name, &self.fingerprint.uid_hex()[..8])
    }

    /// The same node as others see it.
    pub fn at(self, address: PeerAddress) -> Member {
        let Self { fingerprint, name, addresses, invitation } = self;
        Member { address, fingerprint, name, addresses, invitation }
    }
}

/// A node that is in the group now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where signalling reaches it.
    pub address: PeerAddress,
    /// The key hash that links to it are pinned to. Claimed, not proven, until a handshake is done.
    pub fingerprint: Fingerprint,
    /// For people: 1..=64 bytes.
    pub name: String,
    /// At most [`crate::ADDRESSES_MAX`].
    pub addresses: Vec<OverlayAddress>,
    /// See [`Announcement::invitation`].
    pub invitation: Option<Invitation>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_ids_are_bounded_and_visible() {
        assert!(SessionId::new("a1-b2").is_ok());
        assert!(SessionId::new("").is_err());
        assert!(SessionId::new("a b").is_err());
        assert!(SessionId::new("é").is_err());
        assert!(SessionId::new(&"x".repeat(65)).is_err());
        assert_eq!(
            SessionId::new("").unwrap_err().to_string(),
            "session id must be 1 to 64 bytes of allowed characters"
        );
    }

    #[test]
    fn names_are_bounded_and_in_one_word() {
        assert!(Announcement::is_valid_name("böse-kiste"));
        assert!(!Announcement::is_valid_name(""));
        assert!(!Announcement::is_valid_name("two words"));
        assert!(!Announcement::is_valid_name("tab\u{7}"));
        assert!(!Announcement::is_valid_name(&"x".repeat(65)));
    }

    #[test]
    fn a_nickname_tells_namesakes_apart() {
        let node = |byte| Announcement {
            fingerprint: Fingerprint([byte; 32]),
            name: "alpha".into(),
            addresses: Vec::new(),
            invitation: None,
        };
        assert_eq!(node(0xab).nickname(), "alpha-abababab");
        assert_ne!(node(1).nickname(), node(2).nickname());
    }
}
