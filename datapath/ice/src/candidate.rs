//! Candidates (RFC 8445 section 5.1) and credentials (section 5.3).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// How a transport address was learned; better kinds come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateKind {
    /// An address of an interface.
    Host,
    /// Seen by the peer.
    PeerReflexive,
    /// Seen by a STUN server.
    ServerReflexive,
    /// Lent by a TURN server.
    Relayed,
}

impl CandidateKind {
    /// The type preference that RFC 8445 section 5.1.2.2 recommends.
    const fn preference(self) -> u32 {
        match self {
            Self::Host => 126,
            Self::PeerReflexive => 110,
            Self::ServerReflexive => 100,
            Self::Relayed => 0,
        }
    }
}

/// A UDP address at which one end may be reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Lane number plus one.
    pub component: u16,
    /// How it was learned.
    pub kind: CandidateKind,
    /// Where to send to.
    pub address: SocketAddr,
    /// What its owner sends from: the host candidate's address, or the relayed address itself.
    /// Of a remote candidate it is not known and equals the address.
    pub base: SocketAddr,
    /// What a derived address was derived from, for diagnosis.
    pub related: Option<SocketAddr>,
    /// See [`priority`].
    pub priority: u32,
    /// See [`foundation`].
    pub foundation: String,
}

impl Candidate {
    /// Whether an address may be sent checks to, whoever named it.
    pub(crate) fn is_usable(&self) -> bool {
        let ip = self.address.ip();
        // One that is mapped into IPv6 would be none of these.
        let is_mapped = ip.to_canonical() != ip;
        let is_broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        self.address.port() != 0
            && !is_broadcast
            && !is_mapped
            && !ip.is_unspecified()
            && !ip.is_multicast()
            && !ip.is_loopback()
    }
}

/// A candidate's priority (RFC 8445 section 5.1.2.1). `local_preference`: 65535 for the best
/// interface and family, less for others. `component`: 1 to 256.
pub fn priority(kind: CandidateKind, local_preference: u16, component: u16) -> u32 {
    let component = u32::from(component.clamp(1, 256));
    kind.preference() << 24 | u32::from(local_preference) << 8 | (256 - component)
}

/// A foundation (RFC 8445 section 5.1.1.3): equal for candidates of one kind, base address and
/// server, different otherwise as far as 32 bits go.
pub fn foundation(kind: CandidateKind, base: IpAddr, server: Option<IpAddr>) -> String {
    let mut hash = 0x811c_9dc5_u32;
    let mut add = |byte: u8| hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    add(kind.preference() as u8);
    for ip in std::iter::once(base).chain(server) {
        match ip {
            IpAddr::V4(ip) => ip.octets().into_iter().for_each(&mut add),
            IpAddr::V6(ip) => ip.octets().into_iter().for_each(&mut add),
        }
    }
    format!("{hash:08x}")
}

/// What one end's checks are authenticated with.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name fragment.
    pub ufrag: String,
    /// Password.
    pub pwd: String,
}

/// Leaves the password out.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_follow_the_formula_and_the_kinds() {
        assert_eq!(priority(CandidateKind::Host, 65535, 1), 2_130_706_431);
        assert_eq!(priority(CandidateKind::Relayed, 65535, 1), 16_777_215);
        let kinds = [
            CandidateKind::Host,
            CandidateKind::PeerReflexive,
            CandidateKind::ServerReflexive,
            CandidateKind::Relayed,
        ];
        assert!(kinds.windows(2).all(|k| priority(k[0], 0, 256) > priority(k[1], 65535, 1)));
    }

    #[test]
    fn foundations_tell_kind_base_and_server_apart() {
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let host = foundation(CandidateKind::Host, a, None);
        assert_eq!(host, foundation(CandidateKind::Host, a, None));
        assert_ne!(host, foundation(CandidateKind::Host, b, None));
        assert_ne!(host, foundation(CandidateKind::ServerReflexive, a, Some(b)));
    }
}
