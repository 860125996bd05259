//! What a node offers for a session: carried in the handshake's transport parameters (RFC 9001
//! section 8.2, contents our own), so it is authenticated with the handshake.
//!
//! A list of items, each `{tag: u16, length: u16, value}`, big endian, in any order. Unknown tags
//! are skipped, so later versions can add some.
//!
//! | tag | value |
//! | --- | --- |
//! | 1 | protocol version, u16 |
//! | 2 | link index, u32: what the peer has to write into the tunnel header |
//! | 3 | lane count, u8, at least 1 |
//! | 4 | MTU of the tap in bytes, u16 |
//! | 5 | ciphers: each {id u8, cost in picoseconds per byte u32} |

use ipop_wire::LinkIndex;
use thiserror::Error;

use crate::cipher::Cipher;

/// The protocol version that this crate speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// Longer offers are refused unread.
pub(crate) const OFFER_LEN_MAX: usize = 1024;

const TAG_VERSION: u16 = 1;
const TAG_LINK_INDEX: u16 = 2;
const TAG_LANES: u16 = 3;
const TAG_MTU: u16 = 4;
const TAG_CIPHERS: u16 = 5;
const CIPHER_ITEM_LEN: usize = 5;

/// One node's side of the negotiation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Protocol version; the session uses the lower of both.
    pub version: u16,
    /// The sender's own index for this session: the peer writes it into every tunnel header.
    pub link_index: LinkIndex,
    /// How many lanes the sender can serve, at least 1; the session has the lower of both.
    pub lanes: u8,
    /// MTU of the sender's tap in bytes.
    pub mtu: u16,
    /// Ciphers with what they cost the sender, in picoseconds per byte.
    pub ciphers: Vec<(Cipher, u32)>,
}

/// Why a peer's offer cannot be used. The peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OfferError {
    /// No transport parameters came, or more than 1024 bytes.
    #[error("the offer is missing or too long")]
    Length,
    /// An item reaches over the end, or its value has the wrong length.
    #[error("item {0} of the offer is malformed")]
    Malformed(u16),
    /// The same item twice.
    #[error("item {0} of the offer appears twice")]
    Repeated(u16),
    /// A required item is not there.
    #[error("item {0} of the offer is missing")]
    Missing(u16),
}

impl Offer {
    /// The bytes on the wire.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        let mut item = |tag: u16, value: &[u8]| {
            out.extend_from_slice(&tag.to_be_bytes());
            out.extend_from_slice(&(value.len() as u16).to_be_bytes());
            out.extend_from_slice(value);
        };
        item(TAG_VERSION, &self.version.to_be_bytes());
        item(TAG_LINK_INDEX, &self.link_index.0.to_be_bytes());
        item(TAG_LANES, &[self.lanes]);
        item(TAG_MTU, &self.mtu.to_be_bytes());
        let ciphers: Vec<u8> = self
            .ciphers
            .iter()
            .flat_map(|(cipher, cost)| {
                let [a, b, c, d] = cost.to_be_bytes();
                [cipher.id(), a, b, c, d]
            })
            .collect();
        item(TAG_CIPHERS, &ciphers);
        out
    }

    /// Reads an offer. Unknown items and unknown ciphers are skipped.
    ///
    /// # Errors
    /// [`OfferError`] names the item.
    pub fn parse(bytes: &[u8]) -> Result<Offer, OfferError> {
        if bytes.is_empty() || bytes.len() > OFFER_LEN_MAX {
            return Err(OfferError::Length);
        }
        let mut fields = Fields::default();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (tag, value, behind) = split_item(rest)?;
            fields.take(tag, value)?;
            rest = behind;
        }
        Ok(Offer {
            version: fields.version.ok_or(OfferError::Missing(TAG_VERSION))?,
            link_index: fields.link_index.ok_or(OfferError::Missing(TAG_LINK_INDEX))?,
            lanes: fields.lanes.ok_or(OfferError::Missing(TAG_LANES))?,
            mtu: fields.mtu.ok_or(OfferError::Missing(TAG_MTU))?,
            ciphers: fields.ciphers.ok_or(OfferError::Missing(TAG_CIPHERS))?,
        })
    }
}

#[derive(Default)]
struct Fields {
    version: Option<u16>,
    link_index: Option<LinkIndex>,
    lanes: Option<u8>,
    mtu: Option<u16>,
    ciphers: Option<Vec<(Cipher, u32)>>,
}

impl Fields {
    fn take(&mut self, tag: u16, value: &[u8]) -> Result<(), OfferError> {
        match tag {
            TAG_VERSION => set(&mut self.version, tag, fixed(value).map(u16::from_be_bytes)),
            TAG_LINK_INDEX => {
                let index = fixed(value).map(u32::from_be_bytes).map(LinkIndex);
                set(&mut self.link_index, tag, index)
            }
            TAG_LANES => {
                let lanes = fixed(value).map(u8::from_be_bytes).filter(|lanes| *lanes > 0);
                set(&mut self.lanes, tag, lanes)
            }
            TAG_MTU => set(&mut self.mtu, tag, fixed(value).map(u16::from_be_bytes)),
            TAG_CIPHERS => set(&mut self.ciphers, tag, parse_ciphers(value)),
            _ => Ok(()),
        }
    }
}

fn set<T>(field: &mut Option<T>, tag: u16, value: Option<T>) -> Result<(), OfferError> {
    if field.is_some() {
        return Err(OfferError::Repeated(tag));
    }
    *field = Some(value.ok_or(OfferError::Malformed(tag))?);
    Ok(())
}

fn fixed<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    value.try_into().ok()
}

fn parse_ciphers(value: &[u8]) -> Option<Vec<(Cipher, u32)>> {
    let (items, []) = value.as_chunks::<CIPHER_ITEM_LEN>() else { return None };
    let known = items
        .iter()
        .filter_map(|[id, cost @ ..]| Some((Cipher::from_id(*id)?, u32::from_be_bytes(*cost))));
    Some(known.collect())
}

fn split_item(bytes: &[u8]) -> Result<(u16, &[u8], &[u8]), OfferError> {
    let Some((&[t0, t1, l0, l1], rest)) = bytes.split_first_chunk::<4>() else {
        return Err(OfferError::Length);
    };
    let tag = u16::from_be_bytes([t0, t1]);
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let (value, behind) = rest.split_at_checked(length).ok_or(OfferError::Malformed(tag))?;
    Ok((tag, value, behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offers() -> impl Strategy<Value = Offer> {
        let cipher = (1u8..=3, any::<u32>())
            .prop_map(|(id, cost)| (Cipher::from_id(id).expect("ids 1 to 3 exist"), cost));
        let ciphers = proptest::collection::vec(cipher, 0..8);
        (any::<u16>(), any::<u32>(), 1u8.., any::<u16>(), ciphers).prop_map(
            |(version, index, lanes, mtu, ciphers)| Offer {
                version,
                link_index: LinkIndex(index),
                lanes,
                mtu,
                ciphers,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_emitted_parses_to_itself(offer in offers()) {
            prop_assert_eq!(Offer::parse(&offer.emit()), Ok(offer));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1100)) {
            let _ = Offer::parse(&bytes);
        }

        #[test]
        fn every_prefix_is_refused(offer in offers(), cut in any::<proptest::sample::Index>()) {
            let bytes = offer.emit();
            prop_assert!(Offer::parse(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn unknown_items_and_ciphers_are_skipped(offer in offers(), value in any::<[u8; 9]>()) {
            let later = [&[0x7f, 0xff, 0, 9][..], &value, &offer.emit()].concat();
            prop_assert_eq!(Offer::parse(&later), Ok(offer));
        }
    }

    #[test]
    fn refusals_name_the_item() {
        let offer = Offer {
            version: 1,
            link_index: LinkIndex(2),
            lanes: 1,
            mtu: 1400,
            ciphers: vec![(Cipher::Aes256Gcm, 7)],
        };
        let good = offer.emit();
        assert_eq!(Offer::parse(&[]), Err(OfferError::Length));
        assert_eq!(Offer::parse(&[0; 1025]), Err(OfferError::Length));
        assert_eq!(Offer::parse(&good[6..]), Err(OfferError::Missing(TAG_VERSION)));
        let twice = [&good[..], &good[..6]].concat();
        assert_eq!(Offer::parse(&twice), Err(OfferError::Repeated(TAG_VERSION)));
        let no_lanes = Offer { lanes: 0, ..offer };
        assert_eq!(Offer::parse(&no_lanes.emit()), Err(OfferError::Malformed(TAG_LANES)));
        let new_cipher = [&good[..good.len() - 6], &[10, 9, 0, 0, 0, 1, 2, 0, 0, 0, 7]].concat();
        assert_eq!(Offer::parse(&new_cipher), Ok(Offer::parse(&good).expect("good")));
    }
}
