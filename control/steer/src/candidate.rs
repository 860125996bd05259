//! What ICE needs of both ends, as data.

use std::fmt;
use std::net::SocketAddr;

use crate::codec::{DecodeError, Reader, Writer, coded_enum};
use crate::limits::{FOUNDATION_LEN_MAX, PWD_LEN_MAX, UFRAG_LEN_MAX};

coded_enum! {
    /// How a transport address was learned (RFC 8445, section 5.1.1).
    pub enum CandidateKind {
        /// An address of an interface of the host.
        Host = 1,
        /// The outside of a NAT, as a STUN server saw it.
        ServerReflexive = 2,
        /// The outside of a NAT, as the peer saw it.
        PeerReflexive = 3,
        /// An address on a TURN server.
        Relayed = 4,
    }
}

/// A transport address at which a node may be reached. The transport is always UDP.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// ICE component: lane number plus one.
    pub component: u16,
    /// How the address was learned.
    pub kind: CandidateKind,
    /// Where to send.
    pub address: SocketAddr,
    /// For a derived address the one it was derived from (RFC 8839, section 5.1).
    pub related: Option<SocketAddr>,
    /// Priority (RFC 8445, section 5.1.2).
    pub priority: u32,
    /// Foundation, at most [`FOUNDATION_LEN_MAX`] bytes.
    pub foundation: String,
}

impl Candidate {
    pub(crate) fn put(&self, to: &mut Writer<'_>) {
        to.u16(self.component);
        self.kind.put(to);
        to.socket_address(&self.address);
        to.option(self.related.as_ref(), |to, related| to.socket_address(related));
        to.u32(self.priority);
        to.text("foundation", &self.foundation, FOUNDATION_LEN_MAX);
    }

    pub(crate) fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            component: from.u16()?,
            kind: CandidateKind::take(from)?,
            address: from.socket_address()?,
            related: from.option(Reader::socket_address)?,
            priority: from.u32()?,
            foundation: from.text(FOUNDATION_LEN_MAX)?,
        })
    }
}

/// Short-term credentials of one end of one ICE session (RFC 8445, section 5.3).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IceCredentials {
    /// User name fragment, at most [`UFRAG_LEN_MAX`] bytes.
    pub ufrag: String,
    /// Password, at most [`PWD_LEN_MAX`] bytes.
    pub pwd: String,
}

impl IceCredentials {
    pub(crate) fn put(&self, to: &mut Writer<'_>) {
        to.text("ufrag", &self.ufrag, UFRAG_LEN_MAX);
        to.text("pwd", &self.pwd, PWD_LEN_MAX);
    }

    pub(crate) fn take(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { ufrag: from.text(UFRAG_LEN_MAX)?, pwd: from.text(PWD_LEN_MAX)? })
    }
}

impl fmt::Debug for IceCredentials {
    /// Shows the user name fragment only: the password stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}
