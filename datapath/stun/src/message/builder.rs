//! Messages on their way out.

use stun_rs::{MessageEncoderBuilder, StunMessageBuilder};
use thiserror::Error;

use super::layout::{
    ATTRIBUTE_HEADER_LEN, FINGERPRINT, HEADER_LEN, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256,
};
use super::{Attribute, Class, ErrorCode, Integrity, Key, Message, Method, TransactionId};

const INTEGRITY_LEN: usize = 24;
const INTEGRITY_SHA256_LEN: usize = 36;
const FINGERPRINT_LEN: usize = 8;
const FINGERPRINT_XOR: u32 = 0x5354_554e;
/// ADDITIONAL-ADDRESS-FAMILY as drafts of RFC 8656 numbered it, and coturn does to this day
/// (4.6). Who does not know it need not, so both are sent.
const DRAFT_ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8032;
const IPV6: u8 = 2;

/// Why a message cannot be built: our misuse, or a name that STUN cannot carry.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BuildError {
    /// A value that its attribute does not allow, such as a user name with control characters.
    #[error("an attribute's value is not allowed: {0}")]
    Value(String),
    /// More than the 65 535 bytes that the length field can tell.
    #[error("the message would have {0} bytes, more than fit into its length field")]
    TooLong(usize),
}

/// A message under construction.
///
/// Attributes stand in the order in which they were added; integrity and fingerprint come last
/// whenever they were asked for.
#[derive(Debug, Clone)]
#[must_use]
pub struct Builder {
    class: Class,
    method: Method,
    transaction: TransactionId,
    attributes: Vec<Attribute>,
    integrity: Option<(Integrity, Key)>,
    fingerprint: bool,
}

impl Builder {
    /// A message without attributes.
    pub fn new(class: Class, method: Method, transaction: TransactionId) -> Self {
        Self {
            class,
            method,
            transaction,
            attributes: Vec::new(),
            integrity: None,
            fingerprint: false,
        }
    }

    /// A request.
    pub fn request(method: Method, transaction: TransactionId) -> Self {
        Self::new(Class::Request, method, transaction)
    }

    /// The success response to `request`.
    pub fn success(request: &Message<'_>) -> Self {
        Self::new(Class::Success, request.method(), request.transaction())
    }

    /// The error response to `request`.
    pub fn error(request: &Message<'_>, code: u16, reason: &str) -> Self {
        Self::new(Class::Error, request.method(), request.transaction())
            .with(Attribute::ErrorCode(ErrorCode { code, reason: reason.to_owned() }))
    }

    /// Adds an attribute.
    pub fn with(mut self, attribute: Attribute) -> Self {
        self.attributes.push(attribute);
        self
    }

    /// Ends the message with MESSAGE-INTEGRITY, as ICE does.
    pub fn integrity(mut self, key: &Key) -> Self {
        self.integrity = Some((Integrity::Sha1, key.clone()));
        self
    }

    /// Ends the message with MESSAGE-INTEGRITY-SHA256 instead.
    pub fn integrity_sha256(mut self, key: &Key) -> Self {
        self.integrity = Some((Integrity::Sha256, key.clone()));
        self
    }

    /// Ends the message with FINGERPRINT.
    pub fn fingerprint(mut self) -> Self {
        self.fingerprint = true;
        self
    }

    /// Encodes the message.
    pub fn build(self) -> Result<Vec<u8>, BuildError> {
        let len = self.len();
        if len - HEADER_LEN > usize::from(u16::MAX) {
            return Err(BuildError::TooLong(len));
        }
        let is_for_both = self.attributes.contains(&Attribute::AdditionalAddressFamilyV6);
        let codec_id = stun_rs::TransactionId::from(self.transaction.0);
        let mut message = StunMessageBuilder::new(self.method.codec(), self.class.codec())
            .with_transaction_id(codec_id);
        for attribute in self.attributes {
            let attribute = attribute.encoded().map_err(|e| BuildError::Value(e.to_string()))?;
            message = message.with_attribute(attribute);
        }
        let mut bytes = vec![0; len];
        let written = MessageEncoderBuilder::default()
            .build()
            .encode(&mut bytes, &message.build())
            .map_err(|e| BuildError::Value(e.to_string()))?;
        bytes.truncate(written);
        if is_for_both {
            append(&mut bytes, DRAFT_ADDITIONAL_ADDRESS_FAMILY, &[IPV6, 0, 0, 0]);
        }
        if let Some((kind, key)) = self.integrity {
            let (number, tag_len) = match kind {
                Integrity::Sha1 => (MESSAGE_INTEGRITY, INTEGRITY_LEN - ATTRIBUTE_HEADER_LEN),
                Integrity::Sha256 => {
                    (MESSAGE_INTEGRITY_SHA256, INTEGRITY_SHA256_LEN - ATTRIBUTE_HEADER_LEN)
                }
            };
            announce(&mut bytes, ATTRIBUTE_HEADER_LEN + tag_len);
            let tag = key.sign(kind, &bytes);
            append(&mut bytes, number, tag.as_ref());
        }
        if self.fingerprint {
            announce(&mut bytes, FINGERPRINT_LEN);
            let sum = crc32(&bytes) ^ FINGERPRINT_XOR;
            append(&mut bytes, FINGERPRINT, &sum.to_be_bytes());
        }
        Ok(bytes)
    }

    fn len(&self) -> usize {
        let attributes: usize =
            self.attributes.iter().map(|a| 4 + a.value_len().next_multiple_of(4)).sum();
        let integrity = match self.integrity {
            Some((Integrity::Sha1, _)) => INTEGRITY_LEN,
            Some((Integrity::Sha256, _)) => INTEGRITY_SHA256_LEN,
            None => 0,
        };
        HEADER_LEN + attributes + integrity + if self.fingerprint { FINGERPRINT_LEN } else { 0 }
    }
}

/// Adds an attribute whose value needs no padding.
fn append(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    announce(message, ATTRIBUTE_HEADER_LEN + value.len());
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&(value.len() as u16).to_be_bytes());
    message.extend_from_slice(value);
}

/// Lets the length field count so many bytes that are to come.
fn announce(message: &mut [u8], more: usize) {
    let length = (message.len() - HEADER_LEN + more) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

/// CRC-32 of ITU V.42 (RFC 8489 section 14.7).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _: u32| (sum >> 1) ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 };
    !bytes.iter().fold(u32::MAX, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}
