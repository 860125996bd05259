//! Attributes as they are put into a message, and their way to the codec.

use std::net::SocketAddr;

use stun_rs::attributes::discovery::{
    ChangeRequest, ChangeRequestFlags, OtherAddress, ResponseOrigin, ResponsePort,
};
use stun_rs::attributes::ice::{IceControlled, IceControlling, Priority, UseCandidate};
use stun_rs::attributes::stun as base;
use stun_rs::attributes::turn::{
    AdditionalAddressFamily, ChannelNumber, Data, DontFragment, EvenPort, LifeTime,
    RequestedAddressFamily, RequestedTrasport, XorPeerAddress, XorRelayedAddress,
};
use stun_rs::{AddressFamily, AlgorithmId, StunAttribute, StunError, protocols};

use super::Algorithm;

/// Address family of REQUESTED-ADDRESS-FAMILY and ADDITIONAL-ADDRESS-FAMILY (RFC 8656 sections 18.6
/// and 18.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `address`.
    pub fn of(address: &SocketAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) const fn decoded(family: AddressFamily) -> Self {
        match family {
            AddressFamily::IPv4 => Self::V4,
            AddressFamily::IPv6 => Self::V6,
        }
    }

    const fn encoded(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::IPv4,
            Self::V6 => AddressFamily::IPv6,
        }
    }
}

/// ERROR-CODE (RFC 8489 section 14.8).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ErrorCode {
    /// 300 to 699.
    pub code: u16,
    /// What the sender says about it: not to be trusted, for people to read.
    pub reason: String,
}

/// PASSWORD-ALGORITHMS (RFC 8489 section 14.11) in the server's order, so that it can be echoed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PasswordAlgorithms(Vec<(u16, Vec<u8>)>);

impl PasswordAlgorithms {
    /// A list without parameters.
    pub fn new(algorithms: &[Algorithm]) -> Self {
        Self(algorithms.iter().map(|a| (a.number(), Vec::new())).collect())
    }

    /// The first algorithm of the list that we know (RFC 8489 section 9.2.5).
    pub fn choose(&self) -> Option<Algorithm> {
        self.0.iter().find_map(|(number, _)| match number {
            1 => Some(Algorithm::Md5),
            2 => Some(Algorithm::Sha256),
            _ => None,
        })
    }

    pub(super) fn decoded(codec: &base::PasswordAlgorithms) -> Self {
        let entry = |a: &base::PasswordAlgorithm| {
            (u16::from(a.algorithm()), a.parameters().unwrap_or_default().to_vec())
        };
        Self(codec.iter().map(entry).collect())
    }

    fn encoded(&self) -> base::PasswordAlgorithms {
        let entries = self.0.iter().map(|(number, parameters)| {
            let parameters = (!parameters.is_empty()).then_some(parameters.as_slice());
            base::PasswordAlgorithm::new(stun_rs::Algorithm::new(
                AlgorithmId::from(*number),
                parameters,
            ))
        });
        base::PasswordAlgorithms::from(entries.collect::<Vec<_>>())
    }

    fn value_len(&self) -> usize {
        self.0.iter().map(|(_, parameters)| 4 + parameters.len().next_multiple_of(4)).sum()
    }
}

/// One attribute of a message under construction. Integrity and fingerprint are added by the
/// [`Builder`](super::Builder), so that they stand where they must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attribute {
    /// USERNAME (RFC 8489 section 14.3); in ICE `receiver's ufrag:sender's ufrag`.
    Username(String),
    /// REALM (RFC 8489 section 14.9).
    Realm(String),
    /// NONCE (RFC 8489 section 14.10).
    Nonce(String),
    /// PASSWORD-ALGORITHMS (RFC 8489 section 14.11).
    PasswordAlgorithms(PasswordAlgorithms),
    /// PASSWORD-ALGORITHM (RFC 8489 section 14.12).
    PasswordAlgorithm(Algorithm),
    /// SOFTWARE (RFC 8489 section 14.14), up to 509 bytes.
    Software(String),
    /// ERROR-CODE (RFC 8489 section 14.8).
    ErrorCode(ErrorCode),
    /// UNKNOWN-ATTRIBUTES (RFC 8489 section 14.13), beside error 420.
    UnknownAttributes(Vec<u16>),
    /// ALTERNATE-SERVER (RFC 8489 section 14.15), beside error 300.
    AlternateServer(SocketAddr),
    /// XOR-MAPPED-ADDRESS (RFC 8489 section 14.2).
    XorMappedAddress(SocketAddr),
    /// MAPPED-ADDRESS (RFC 8489 section 14.1): only for clients of RFC 3489.
    MappedAddress(SocketAddr),
    /// PRIORITY (RFC 8445 section 7.1.1).
    Priority(u32),
    /// USE-CANDIDATE (RFC 8445 section 7.1.2).
    UseCandidate,
    /// ICE-CONTROLLED with the tie-breaker (RFC 8445 section 7.1.3).
    IceControlled(u64),
    /// ICE-CONTROLLING with the tie-breaker (RFC 8445 section 7.1.3).
    IceControlling(u64),
    /// LIFETIME in seconds (RFC 8656 section 18.2).
    LifetimeSeconds(u32),
    /// REQUESTED-TRANSPORT = UDP (RFC 8656 section 18.7).
    RequestedTransportUdp,
    /// REQUESTED-ADDRESS-FAMILY (RFC 8656 section 18.6).
    RequestedAddressFamily(Family),
    /// ADDITIONAL-ADDRESS-FAMILY = IPv6, beside IPv4: the only value there is (RFC 8656 section
    /// 18.11). Comes with the number that drafts gave it, for servers that know no other.
    AdditionalAddressFamilyV6,
    /// EVEN-PORT, with the bit that reserves the next port (RFC 8656 section 18.5).
    EvenPort(bool),
    /// DONT-FRAGMENT (RFC 8656 section 18.9).
    DontFragment,
    /// CHANNEL-NUMBER (RFC 8656 section 18.1).
    ChannelNumber(u16),
    /// XOR-PEER-ADDRESS (RFC 8656 section 18.3).
    XorPeerAddress(SocketAddr),
    /// XOR-RELAYED-ADDRESS (RFC 8656 section 18.4).
    XorRelayedAddress(SocketAddr),
    /// DATA (RFC 8656 section 18.4).
    Data(Vec<u8>),
    /// CHANGE-REQUEST (RFC 5780 section 7.2).
    ChangeRequest {
        /// Answer from the other address.
        ip: bool,
        /// Answer from the other port.
        port: bool,
    },
    /// RESPONSE-PORT (RFC 5780 section 7.5): answer to this port of the sender's address.
    ResponsePort(u16),
    /// RESPONSE-ORIGIN (RFC 5780 section 7.3).
    ResponseOrigin(SocketAddr),
    /// OTHER-ADDRESS (RFC 5780 section 7.4).
    OtherAddress(SocketAddr),
}

const fn address_len(address: &SocketAddr) -> usize {
    if address.is_ipv4() { 8 } else { 20 }
}

impl Attribute {
    /// Bytes of the value, at most, without padding.
    pub(super) fn value_len(&self) -> usize {
        match self {
            Self::Username(s) | Self::Realm(s) | Self::Nonce(s) | Self::Software(s) => s.len(),
            Self::PasswordAlgorithms(list) => list.value_len(),
            Self::ErrorCode(error) => 4 + error.reason.len(),
            Self::UnknownAttributes(types) => 2 * types.len(),
            Self::AlternateServer(a)
            | Self::XorMappedAddress(a)
            | Self::MappedAddress(a)
            | Self::XorPeerAddress(a)
            | Self::XorRelayedAddress(a)
            | Self::ResponseOrigin(a)
            | Self::OtherAddress(a) => address_len(a),
            Self::UseCandidate | Self::DontFragment => 0,
            Self::EvenPort(_) => 1,
            Self::IceControlled(_) | Self::IceControlling(_) => 8,
            Self::Data(data) => data.len(),
            // Twice, with a header in between: see the builder.
            Self::AdditionalAddressFamilyV6 => 12,
            Self::PasswordAlgorithm(_)
            | Self::Priority(_)
            | Self::LifetimeSeconds(_)
            | Self::RequestedTransportUdp
            | Self::RequestedAddressFamily(_)
            | Self::ChannelNumber(_)
            | Self::ResponsePort(_)
            | Self::ChangeRequest { .. } => 4,
        }
    }

    pub(super) fn encoded(self) -> Result<StunAttribute, StunError> {
        Ok(match self {
            Self::Username(s) => base::UserName::new(s)?.into(),
            Self::Realm(s) => base::Realm::new(s)?.into(),
            Self::Nonce(s) => base::Nonce::new(s)?.into(),
            Self::Software(s) => base::Software::new(s)?.into(),
            Self::PasswordAlgorithms(list) => list.encoded().into(),
            Self::PasswordAlgorithm(algorithm) => {
                let id = AlgorithmId::from(algorithm.number());
                base::PasswordAlgorithm::new(stun_rs::Algorithm::from(id)).into()
            }
            Self::ErrorCode(error) => {
                base::ErrorCode::new(stun_rs::ErrorCode::new(error.code, &error.reason)?).into()
            }
            Self::UnknownAttributes(types) => {
                base::UnknownAttributes::from(types.as_slice()).into()
            }
            Self::AlternateServer(a) => base::AlternateServer::from(a).into(),
            Self::XorMappedAddress(a) => base::XorMappedAddress::from(a).into(),
            Self::MappedAddress(a) => base::MappedAddress::from(a).into(),
            Self::Priority(priority) => Priority::from(priority).into(),
            Self::UseCandidate => UseCandidate::default().into(),
            Self::IceControlled(tie_breaker) => IceControlled::from(tie_breaker).into(),
            Self::IceControlling(tie_breaker) => IceControlling::from(tie_breaker).into(),
            Self::LifetimeSeconds(seconds) => LifeTime::from(seconds).into(),
            Self::RequestedTransportUdp => RequestedTrasport::from(protocols::UDP).into(),
            Self::RequestedAddressFamily(family) => {
                RequestedAddressFamily::new(family.encoded()).into()
            }
            Self::AdditionalAddressFamilyV6 => {
                AdditionalAddressFamily::new(Family::V6.encoded()).into()
            }
            Self::EvenPort(reserve) => EvenPort::new(reserve).into(),
            Self::DontFragment => DontFragment::default().into(),
            Self::ChannelNumber(number) => ChannelNumber::new(number).into(),
            Self::XorPeerAddress(a) => XorPeerAddress::from(a).into(),
            Self::XorRelayedAddress(a) => XorRelayedAddress::from(a).into(),
            Self::Data(data) => Data::from(data).into(),
            Self::ChangeRequest { ip, port } => change_request(ip, port).into(),
            Self::ResponsePort(port) => ResponsePort::from(port).into(),
            Self::ResponseOrigin(a) => ResponseOrigin::from(a).into(),
            Self::OtherAddress(a) => OtherAddress::from(a).into(),
        })
    }
}

fn change_request(ip: bool, port: bool) -> ChangeRequest {
    ChangeRequest::new(match (ip, port) {
        (true, true) => Some(ChangeRequestFlags::ChangeIp | ChangeRequestFlags::ChangePort),
        (true, false) => Some(ChangeRequestFlags::ChangeIp.into()),
        (false, true) => Some(ChangeRequestFlags::ChangePort.into()),
        (false, false) => None,
    })
}
