//! What can go wrong at a TURN server, and whose fault it is.

use std::net::SocketAddr;

use thiserror::Error;

use crate::message::{ErrorCode, Message};

/// Why there is no allocation, or no permission or channel in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TurnError {
    /// No answer to any sending: unreachable, or UDP is blocked.
    #[error("no answer")]
    Timeout,
    /// The server does not know this user name with this password (401, 441).
    #[error("user name or password is wrong")]
    WrongCredential,
    /// The server wants another server to be used (300), which is not followed any further.
    #[error("the server sends its clients elsewhere{}", .0.map_or(String::new(), to))]
    Alternate(Option<SocketAddr>),
    /// The server forbids it to this user or for this peer (403).
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// There is an allocation from our address that we cannot end, or none where there should be
    /// one (437).
    #[error("the server's allocations do not fit ours")]
    Mismatch,
    /// The server has no relayed address of the family that was asked for (440).
    #[error("the server has no relayed address of that family")]
    NoFamily,
    /// There is no relayed address of the peer's family (443).
    #[error("the server does not relay to the peer's address family")]
    PeerFamily,
    /// The user has used up his quota (486).
    #[error("the user's quota is reached")]
    Quota,
    /// The server is full (508).
    #[error("the server is full")]
    Capacity,
    /// The server called each new nonce stale in its turn.
    #[error("the server finds every nonce stale")]
    StaleNonce,
    /// Any other error.
    #[error("refused with {} {}", .0.code, .0.reason)]
    Refused(ErrorCode),
    /// The server broke the protocol.
    #[error("the server's answer is of no use: {0}")]
    Malformed(&'static str),
    /// The connection to the server is gone, and with it the allocation.
    #[error("the connection is lost")]
    Disconnected,
    /// The allocation could not be refreshed in time.
    #[error("the allocation ran out")]
    Expired,
}

impl TurnError {
    /// The error in an error response.
    pub(super) fn of(response: &Message<'_>) -> Self {
        let Some(error) = response.error() else {
            return Self::Malformed("an error without a code");
        };
        match error.code {
            300 => Self::Alternate(response.alternate_server()),
            401 | 441 => Self::WrongCredential,
            403 => Self::Forbidden(error.reason),
            437 => Self::Mismatch,
            440 => Self::NoFamily,
            443 => Self::PeerFamily,
            486 => Self::Quota,
            508 => Self::Capacity,
            _ => Self::Refused(error),
        }
    }

    /// Whether the same question will get the same answer tomorrow, so that only another
    /// configuration helps.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::WrongCredential | Self::Forbidden(_) | Self::NoFamily => true,
            // Unknown attribute, unsupported transport.
            Self::Refused(error) => matches!(error.code, 400 | 420 | 442),
            _ => false,
        }
    }
}

/// Why a payload was not relayed: dropped, as on any full or missing path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RelayError {
    /// There is no allocation now.
    #[error("there is no allocation")]
    NotAllocated,
    /// There is no relayed address of the peer's family.
    #[error("there is no relayed address of the peer's family")]
    WrongFamily,
    /// More peers than the tables hold.
    #[error("too many peers")]
    TooManyPeers,
    /// The server refused this peer less than a minute ago.
    #[error("the server refused this peer")]
    Refused,
    /// The payload does not fit into a datagram.
    #[error("the payload is too long")]
    TooLong,
    /// The caller does not take the outputs.
    #[error("too many outputs wait to be taken")]
    Full,
}

fn to(server: SocketAddr) -> String {
    format!(": {server}")
}
