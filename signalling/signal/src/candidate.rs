//! Where a peer may be reached (RFC 8445 section 5.1), without any machinery.

use crate::member::{InvalidText, checked};
use std::net::SocketAddr;

/// How a candidate's address was found (RFC 8445 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CandidateKind {
    /// An address of an interface of the host.
    Host,
    /// Seen by a STUN server in front of a NAT.
    ServerReflexive,
    /// Seen by the peer.
    PeerReflexive,
    /// Lent by a TURN server.
    Relayed,
}

/// One UDP address to try.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Lane number plus one; 1..=256.
    pub component: u16,
    /// How the address was found.
    pub kind: CandidateKind,
    /// The address itself.
    pub address: SocketAddr,
    /// What the address was derived from; tells operators about the path, checks do without it.
    pub related: Option<SocketAddr>,
    /// RFC 8445 section 5.1.2; greater is better.
    pub priority: u32,
    /// 1..=32 ice-chars; equal for candidates of like kind, base and server.
    pub foundation: String,
}

impl Candidate {
    /// Whether the foundation is 1..=32 of the characters that RFC 8839 section 5.1 calls ice-char.
    pub fn is_valid_foundation(text: &str) -> bool {
        (1..=32).contains(&text.len()) && text.bytes().all(is_ice_char)
    }
}

/// What authenticates connectivity checks towards one agent (RFC 8445 section 5.3).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IceCredentials {
    /// User name fragment, 4..=32 ice-chars.
    pub ufrag: String,
    /// Password, 22..=64 ice-chars.
    pub pwd: String,
}

impl IceCredentials {
    /// Checks both parts.
    ///
    /// # Errors
    /// [`InvalidText`] when a part is too short (the standard asks for 24 and 128 bits), too long
    /// for us, or holds other than ice-chars.
    pub fn new(ufrag: &str, pwd: &str) -> Result<Self, InvalidText> {
        Ok(Self {
            ufrag: checked("ICE user name fragment", ufrag, 4..=32, is_ice_char)?,
            pwd: checked("ICE password", pwd, 22..=64, is_ice_char)?,
        })
    }

    /// Those of one end in its session with another, where both ends know both shares: fragments
    /// and passwords of both, its own first. Each pair of ends has others. `None` where they get
    /// too long.
    pub fn joined(&self, other: &Self) -> Option<Self> {
        let ufrag = self.ufrag.clone() + &other.ufrag;
        Self::new(&ufrag, &(self.pwd.clone() + &other.pwd)).ok()
    }
}

/// Leaves the password out: credentials end up in logs otherwise.
impl std::fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

fn is_ice_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_bounded_and_of_ice_chars() {
        let pwd = "0123456789abcdefABCDEF";
        assert!(IceCredentials::new("abc+", pwd).is_ok());
        assert!(IceCredentials::new("abc", pwd).is_err());
        assert!(IceCredentials::new("abc:", pwd).is_err());
        assert!(IceCredentials::new(&"a".repeat(33), pwd).is_err());
        assert!(IceCredentials::new("abcd", &pwd[1..]).is_err());
        assert!(IceCredentials::new("abcd", &"p".repeat(65)).is_err());
    }

    #[test]
    fn both_ends_make_the_same_credentials_of_two_shares() {
        let share =
            |letter: &str| IceCredentials::new(&letter.repeat(4), &letter.repeat(22)).unwrap();
        let (a, b) = (share("a"), share("b"));
        let of_a = a.joined(&b).unwrap();
        assert_eq!((of_a.ufrag.as_str(), of_a.pwd.len()), ("aaaabbbb", 44));
        assert_ne!(Some(of_a), b.joined(&a));
        let long = IceCredentials::new(&"b".repeat(29), &"b".repeat(22)).unwrap();
        assert_eq!(a.joined(&long), None);
    }

    #[test]
    fn the_password_stays_out_of_debug_output() {
        let credentials = IceCredentials::new("abcd", "0123456789abcdefABCDEF").unwrap();
        assert!(!format!("{credentials:?}").contains("0123"));
    }
}
