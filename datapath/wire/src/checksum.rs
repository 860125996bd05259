//! The Internet checksum (RFC 1071), computed whole, changed in place (RFC 1624), or left as the
//! sum of the pseudo header for whoever completes it.
//!
//! Two forms of the same number occur. A *sum* is the folded ones'-complement sum; a *checksum* is
//! its complement, as it stands in headers. A packet whose checksum is to be completed by a device
//! (`NEEDS_CSUM`) carries the *sum* of its pseudo header in the checksum field.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Ones'-complement addition of two sums.
#[inline]
pub const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

/// The sum of `bytes` as big-endian 16-bit words; an odd last byte is padded with a zero behind it.
pub fn sum(bytes: &[u8]) -> u16 {
    // Word order within the 64-bit lanes does not matter to a ones'-complement sum, and byte order
    // only swaps the result (RFC 1071 section 2 B), so whole lanes are added with an end-around
    // carry.
    let (lanes, rest) = bytes.as_chunks::<8>();
    let mut total = 0u64;
    for lane in lanes {
        let (sum, carry) = total.overflowing_add(u64::from_be_bytes(*lane));
        total = sum + u64::from(carry);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let (sum, carry) = total.overflowing_add(u64::from_be_bytes(last));
    fold(sum + u64::from(carry))
}

/// The checksum of `bytes`: what a header field holds so that everything sums up to 0xffff.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// The checksum after one 16-bit word below it changed from `old` to `new` (RFC 1624 equation 3).
#[inline]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !replace(!checksum, old, new)
}

/// The sum after one 16-bit word in it changed from `old` to `new`.
#[inline]
pub const fn replace(sum: u16, old: u16, new: u16) -> u16 {
    add(add(sum, !old), new)
}

/// Sum of the pseudo header of IPv4 (RFC 9293 section 3.1); `length` is that of transport header
/// and payload, in bytes.
pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, length: u16) -> u16 {
    let addresses = add(sum(&source.octets()), sum(&destination.octets()));
    add(add(addresses, u16::from(protocol)), length)
}

/// Sum of the pseudo header of IPv6 (RFC 8200 section 8.1); `length` is that of transport header
/// and payload, in bytes.
pub fn pseudo_v6(source: &Ipv6Addr, destination: &Ipv6Addr, protocol: u8, length: u32) -> u16 {
    let addresses = add(sum(&source.octets()), sum(&destination.octets()));
    let length = add((length >> 16) as u16, length as u16);
    add(add(addresses, u16::from(protocol)), length)
}

#[inline]
const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slow_sum(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    /// 0 and 0xffff are the same number.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a == 0 && b == 0xffff) || (a == 0xffff && b == 0)
    }

    proptest! {
        #[test]
        fn lanes_sum_as_words_do(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(same(sum(&bytes), slow_sum(&bytes)));
        }

        #[test]
        fn an_update_is_a_recomputation(mut bytes in proptest::array::uniform20(any::<u8>()),
                                        at in 0..10usize, new: u16) {
            let before = checksum(&bytes);
            let old = u16::from_be_bytes([bytes[at * 2], bytes[at * 2 + 1]]);
            bytes[at * 2..at * 2 + 2].copy_from_slice(&new.to_be_bytes());
            prop_assert!(same(update(before, old, new), checksum(&bytes)));
        }
    }

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(sum(&[0xff; 64]), 0xffff);
        assert_eq!(sum(&[]), 0);
    }
}
