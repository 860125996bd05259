//! One STUN message: parsed once, read through accessors that cannot fail, checked against a key.

mod attribute;
mod builder;
mod key;
mod layout;

use std::net::SocketAddr;
use std::ops::Range;

use stun_rs::attributes::StunAttribute;
use stun_rs::attributes::discovery::ChangeRequestFlags;
use stun_rs::attributes::stun::Fingerprint;
use stun_rs::{MessageClass, MessageDecoderBuilder, MessageMethod, StunMessage, methods};
use thiserror::Error;

pub use attribute::{Attribute, ErrorCode, Family, PasswordAlgorithms};
pub use builder::{BuildError, Builder};
pub use key::{Algorithm, Integrity, IntegrityError, Key, KeyError};
pub use layout::HEADER_LEN;
use layout::Layout;
pub(crate) use layout::every_attribute;

/// Ties a response to its request (RFC 8489 section 5). Must not be guessable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionId(pub [u8; 12]);

/// Class of a message (RFC 8489 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Wants an answer.
    Request,
    /// Wants none.
    Indication,
    /// Answers a request that was carried out.
    Success,
    /// Answers a request that was refused.
    Error,
}

impl Class {
    const fn codec(self) -> MessageClass {
        match self {
            Self::Request => MessageClass::Request,
            Self::Indication => MessageClass::Indication,
            Self::Success => MessageClass::SuccessResponse,
            Self::Error => MessageClass::ErrorResponse,
        }
    }

    const fn decoded(class: MessageClass) -> Self {
        match class {
            MessageClass::Request => Self::Request,
            MessageClass::Indication => Self::Indication,
            MessageClass::SuccessResponse => Self::Success,
            MessageClass::ErrorResponse => Self::Error,
        }
    }
}

/// Method of a message (RFC 8489 section 18.2, RFC 8656 section 17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Binding, also the connectivity check of ICE.
    Binding,
    /// Allocate a relayed address.
    Allocate,
    /// Refresh or delete an allocation.
    Refresh,
    /// Indication: data for a peer.
    Send,
    /// Indication: data from a peer.
    Data,
    /// Let a peer's address send to the allocation.
    CreatePermission,
    /// Give a peer a channel number.
    ChannelBind,
    /// One that we do not speak; its 12-bit number.
    Other(u16),
}

impl Method {
    fn codec(self) -> MessageMethod {
        match self {
            Self::Binding => methods::BINDING,
            Self::Allocate => methods::ALLOCATE,
            Self::Refresh => methods::REFRESH,
            Self::Send => methods::SEND,
            Self::Data => methods::DATA,
            Self::CreatePermission => methods::CREATE_PERMMISSION,
            Self::ChannelBind => methods::CHANNEL_BIND,
            Self::Other(number) => {
                MessageMethod::try_from(number & 0x0fff).unwrap_or(methods::RESERVED)
            }
        }
    }

    const fn decoded(number: u16) -> Self {
        match number {
            0x001 => Self::Binding,
            0x003 => Self::Allocate,
            0x004 => Self::Refresh,
            0x006 => Self::Send,
            0x007 => Self::Data,
            0x008 => Self::CreatePermission,
            0x009 => Self::ChannelBind,
            other => Self::Other(other),
        }
    }
}

/// Why bytes are not a STUN message that we can use. Always the sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// The header says another length than the datagram has, or the cookie is missing.
    #[error("not a STUN message of RFC 8489")]
    NotStun,
    /// An attribute breaks its own rules.
    #[error("malformed STUN attribute: {0}")]
    Attribute(String),
    /// FINGERPRINT is there, and wrong.
    #[error("the message's FINGERPRINT is wrong")]
    Fingerprint,
}

/// A parsed message over the bytes of its datagram.
///
/// Attributes behind MESSAGE-INTEGRITY are not seen (RFC 8489 section 14.5); of several
/// of a kind the first counts. A FINGERPRINT has been checked, if there was one; integrity is
/// checked by [`verify`](Self::verify), since the key depends on what the message says.
#[derive(Debug)]
pub struct Message<'a> {
    bytes: &'a [u8],
    decoded: StunMessage,
    layout: Layout,
}

/// Whether `datagram` looks like a STUN message: first bits, length and cookie. Costs nothing;
/// tells protocols apart that share a socket (RFC 7983).
pub fn looks_like_stun(datagram: &[u8]) -> bool {
    let Some(header) = datagram.first_chunk::<HEADER_LEN>() else { return false };
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    header[0] < 4
        && header[4..8] == [0x21, 0x12, 0xa4, 0x42]
        && length % 4 == 0
        && HEADER_LEN + length == datagram.len()
}

macro_rules! accessor {
    ($(#[$doc:meta])* $name:ident -> $type:ty, $variant:ident($value:ident) => $result:expr) => {
        $(#[$doc])*
        pub fn $name(&self) -> Option<$type> {
            self.decoded.attributes().iter().find_map(|attribute| match attribute {
                StunAttribute::$variant($value) => Some($result),
                _ => None,
            })
        }
    };
}

impl<'a> Message<'a> {
    /// Parses a whole datagram.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        if !looks_like_stun(datagram) {
            return Err(ParseError::NotStun);
        }
        let malformed = || ParseError::Attribute("attributes do not fill the message".into());
        let layout = Layout::of(datagram).ok_or_else(malformed)?;
        check_fingerprint(datagram, &layout)?;
        let decoder = MessageDecoderBuilder::default().build();
        let (decoded, _) =
            decoder.decode(datagram).map_err(|e| ParseError::Attribute(e.to_string()))?;
        Ok(Self { bytes: datagram, decoded, layout })
    }

    /// Checks MESSAGE-INTEGRITY-SHA256 if the message has it, else MESSAGE-INTEGRITY, and says
    /// which of them held.
    pub fn verify(&self, key: &Key) -> Result<Integrity, IntegrityError> {
        let (kind, value) = match (&self.layout.integrity_sha256, &self.layout.integrity) {
            (Some(value), _) => (Integrity::Sha256, value),
            (None, Some(value)) => (Integrity::Sha1, value),
            (None, None) => return Err(IntegrityError::Missing),
        };
        let (end, length) = layout::covered(self.bytes, value).ok_or(IntegrityError::Mismatch)?;
        let tag = self.bytes.get(value.clone()).ok_or(IntegrityError::Mismatch)?;
        if key.matches(kind, &self.bytes[..end], length, tag) {
            Ok(kind)
        } else {
            Err(IntegrityError::Mismatch)
        }
    }

    /// The message's class.
    pub fn class(&self) -> Class {
        Class::decoded(self.decoded.class())
    }

    /// The message's method.
    pub fn method(&self) -> Method {
        Method::decoded(self.decoded.method().as_u16())
    }

    /// The message's transaction id.
    pub fn transaction(&self) -> TransactionId {
        TransactionId(*self.decoded.transaction_id().as_bytes())
    }

    /// Whether the message carries an integrity attribute, right or wrong.
    pub fn has_integrity(&self) -> bool {
        self.layout.integrity.is_some() || self.layout.integrity_sha256.is_some()
    }

    /// Whether the message carries FINGERPRINT; it was right then.
    pub fn has_fingerprint(&self) -> bool {
        self.layout.fingerprint.is_some()
    }

    /// Comprehension-required attributes that we do not know: a request that has some is answered
    /// with 420, a response or indication is dropped (RFC 8489 section 6.3).
    pub fn unknown_required(&self) -> Vec<u16> {
        let unknown = |attribute: &&StunAttribute| {
            matches!(
                attribute,
                StunAttribute::Unknown(_)
                    // The codec knows these, we do not do what they ask for.
                    | StunAttribute::UserHash(_)
                    | StunAttribute::ReservationToken(_)
                    | StunAttribute::Padding(_)
                    | StunAttribute::ResponsePort(_)
            )
        };
        self.decoded
            .attributes()
            .iter()
            .filter(unknown)
            .map(StunAttribute::attribute_type)
            .filter(|kind| kind.is_comprehension_required())
            .map(|kind| kind.as_u16())
            .collect()
    }

    accessor! {
        /// USERNAME.
        username -> &str, UserName(a) => a.as_str()
    }
    accessor! {
        /// REALM.
        realm -> &str, Realm(a) => a.as_str()
    }
    accessor! {
        /// NONCE.
        nonce -> &str, Nonce(a) => a.as_str()
    }
    accessor! {
        /// SOFTWARE.
        software -> &str, Software(a) => a.as_str()
    }
    accessor! {
        /// PASSWORD-ALGORITHMS.
        password_algorithms -> PasswordAlgorithms,
        PasswordAlgorithms(a) => PasswordAlgorithms::decoded(a)
    }
    accessor! {
        /// ERROR-CODE.
        error -> ErrorCode, ErrorCode(a) => ErrorCode {
            code: a.error_code().error_code(),
            reason: a.error_code().reason().to_owned(),
        }
    }
    accessor! {
        /// UNKNOWN-ATTRIBUTES: what the other side did not know.
        unknown_attributes -> &[u16], UnknownAttributes(a) => a.attributes()
    }
    accessor! {
        /// ALTERNATE-SERVER.
        alternate_server -> SocketAddr, AlternateServer(a) => *a.socket_address()
    }
    accessor! {
        /// XOR-MAPPED-ADDRESS.
        xor_mapped_address -> SocketAddr, XorMappedAddress(a) => *a.socket_address()
    }
    accessor! {
        /// MAPPED-ADDRESS: rewritten by some NATs, so the last resort.
        plain_mapped_address -> SocketAddr, MappedAddress(a) => *a.socket_address()
    }
    accessor! {
        /// PRIORITY.
        priority -> u32, Priority(a) => a.as_u32()
    }
    accessor! {
        /// Tie-breaker of ICE-CONTROLLED.
        ice_controlled -> u64, IceControlled(a) => a.as_u64()
    }
    accessor! {
        /// Tie-breaker of ICE-CONTROLLING.
        ice_controlling -> u64, IceControlling(a) => a.as_u64()
    }
    accessor! {
        /// LIFETIME in seconds.
        lifetime_seconds -> u32, LifeTime(a) => a.as_u32()
    }
    accessor! {
        /// Protocol number of REQUESTED-TRANSPORT; 17 is UDP.
        requested_transport -> u8, RequestedTrasport(a) => a.protocol().as_u8()
    }
    accessor! {
        /// CHANNEL-NUMBER.
        channel_number -> u16, ChannelNumber(a) => a.number()
    }
    accessor! {
        /// XOR-PEER-ADDRESS, the first.
        xor_peer_address -> SocketAddr, XorPeerAddress(a) => *a.socket_address()
    }
    accessor! {
        /// REQUESTED-ADDRESS-FAMILY.
        requested_address_family -> Family,
        RequestedAddressFamily(a) => Family::decoded(a.family())
    }
    accessor! {
        /// ADDITIONAL-ADDRESS-FAMILY.
        additional_address_family -> Family,
        AdditionalAddressFamily(a) => Family::decoded(a.family())
    }
    accessor! {
        /// RESPONSE-ORIGIN: where the answer says it was sent from.
        response_origin -> SocketAddr, ResponseOrigin(a) => *a.socket_address()
    }
    accessor! {
        /// OTHER-ADDRESS: the server's second address and port.
        other_address -> SocketAddr, OtherAddress(a) => *a.socket_address()
    }
    accessor! {
        /// CHANGE-REQUEST as (address, port).
        change_request -> (bool, bool), ChangeRequest(a) => (
            a.flags().contains(ChangeRequestFlags::ChangeIp),
            a.flags().contains(ChangeRequestFlags::ChangePort),
        )
    }

    /// Where the server saw the request come from: XOR-MAPPED-ADDRESS, else MAPPED-ADDRESS.
    pub fn mapped_address(&self) -> Option<SocketAddr> {
        self.xor_mapped_address().or_else(|| self.plain_mapped_address())
    }

    /// XOR-RELAYED-ADDRESS, the first of each family: two where both were asked for (RFC 8656
    /// section 7.3).
    pub fn xor_relayed_addresses(&self) -> Vec<SocketAddr> {
        let all = self.decoded.attributes().iter().filter_map(|attribute| match attribute {
            StunAttribute::XorRelayedAddress(a) => Some(*a.socket_address()),
            _ => None,
        });
        let mut found: Vec<SocketAddr> = Vec::new();
        for address in all {
            if found.iter().all(|known| Family::of(known) != Family::of(&address)) {
                found.push(address);
            }
        }
        found
    }

    /// Whether USE-CANDIDATE is there.
    pub fn use_candidate(&self) -> bool {
        self.decoded.attributes().iter().any(StunAttribute::is_use_candidate)
    }

    /// Where in the datagram the value of DATA stands.
    pub fn data_range(&self) -> Option<Range<usize>> {
        self.layout.data.clone()
    }
}

/// Checks FINGERPRINT if there is one (RFC 8489 section 14.7).
fn check_fingerprint(datagram: &[u8], layout: &Layout) -> Result<(), ParseError> {
    let Some(value) = &layout.fingerprint else { return Ok(()) };
    let claimed: [u8; 4] = datagram
        .get(value.clone())
        .and_then(|value| value.try_into().ok())
        .ok_or(ParseError::Fingerprint)?;
    let (end, _) = layout::covered(datagram, value).ok_or(ParseError::Fingerprint)?;
    if Fingerprint::from(claimed).validate(&datagram[..end]) {
        Ok(())
    } else {
        Err(ParseError::Fingerprint)
    }
}

#[cfg(test)]
mod tests;
