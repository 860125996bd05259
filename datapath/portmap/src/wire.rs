//! The messages of PCP (RFC 6887) and NAT-PMP (RFC 6886), both on UDP port 5351, big endian.
//!
//! ```text
//! PCP MAP, request and response (sections 7.1, 7.2, 11.1), 60 bytes:
//!   0 version 2 | 1 R, opcode 1 | 2 reserved | 3 reserved or result | 4 lifetime u32, seconds
//!   8 client's address 16, or epoch u32 and reserved 12
//!  24 nonce 12 | 36 protocol 17 | 37 reserved 3 | 40 internal port u16 | 42 external port u16
//!  44 external address 16
//! NAT-PMP (sections 3.2, 3.3): address: 0 0 -> 0 128 result u16, epoch u32, address 4
//!   mapping: 0 1, reserved u16, internal port u16, external port u16, lifetime u32
//!         -> 0 129, result u16, epoch u32, internal port u16, external port u16, lifetime u32
//! ```

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

/// Routers listen there (RFC 6887 section 19.1).
pub(crate) const SERVER_PORT: u16 = 5351;
/// Bytes in a PCP nonce.
pub(crate) const NONCE_LEN: usize = 12;
/// No message is longer (RFC 6887 section 7).
pub(crate) const MESSAGE_LEN_MAX: usize = 1100;

const PCP_VERSION: u8 = 2;
const PCP_LEN: usize = 60;
const MAP: u8 = 1;
const RESPONSE: u8 = 0x80;
const UDP: u8 = 17;
/// RFC 6886 section 3.5.
const UNSUPPORTED_VERSION: u16 = 1;

/// What a router answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It maps this external port; NAT-PMP says the address in an answer of its own.
    Mapped { external: Option<Ipv4Addr>, port: u16, lifetime: u32 },
    /// Its outside, by NAT-PMP.
    Address(Ipv4Addr),
    /// It speaks another version of the two.
    OtherVersion,
    /// It refuses, with a result code (RFC 6887 section 7.4, RFC 6886 section 3.5).
    Refused(u16),
}

/// A PCP request to map our UDP socket for `lifetime` seconds; 0 gives the mapping back.
/// `suggested`: what was granted before, or port 0.
pub(crate) fn pcp_map(
    internal: SocketAddrV4,
    suggested: u16,
    lifetime: u32,
    nonce: [u8; NONCE_LEN],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(PCP_LEN);
    out.extend([PCP_VERSION, MAP, 0, 0]);
    out.extend(lifetime.to_be_bytes());
    out.extend(internal.ip().to_ipv6_mapped().octets());
    out.extend(nonce);
    out.extend([UDP, 0, 0, 0]);
    out.extend(internal.port().to_be_bytes());
    out.extend(suggested.to_be_bytes());
    out.extend(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets());
    out
}

/// A NAT-PMP request for the router's outside.
pub(crate) fn pmp_address() -> Vec<u8> {
    vec![0, 0]
}

/// A NAT-PMP request to map our UDP port.
pub(crate) fn pmp_map(internal: u16, suggested: u16, lifetime: u32) -> Vec<u8> {
    let mut out = vec![0, 1, 0, 0];
    out.extend(internal.to_be_bytes());
    out.extend(suggested.to_be_bytes());
    out.extend(lifetime.to_be_bytes());
    out
}

/// Reads the answer to [`pcp_map`] with this nonce and port. `None`: it is no such answer.
pub(crate) fn read_pcp(data: &[u8], internal: u16, nonce: [u8; NONCE_LEN]) -> Option<Answer> {
    match (byte(data, 0)?, byte(data, 1)?) {
        (PCP_VERSION, opcode) if opcode == RESPONSE | MAP => {}
        // A router that knows only NAT-PMP says so in its own format (RFC 6887 appendix A).
        (0, _) if word(data, 2)? == UNSUPPORTED_VERSION => return Some(Answer::OtherVersion),
        _ => return None,
    }
    let fits = data.get(24..24 + NONCE_LEN)? == nonce && word(data, 40)? == internal;
    match (byte(data, 3)?, fits) {
        (1, _) => Some(Answer::OtherVersion),
        (0, true) => {
            let octets: [u8; 16] = data.get(44..60)?.try_into().ok()?;
            let external = Ipv6Addr::from(octets).to_ipv4_mapped();
            Some(Answer::Mapped { external, port: word(data, 42)?, lifetime: long(data, 4)? })
        }
        (result, true) => Some(Answer::Refused(result.into())),
        _ => None,
    }
}

/// Reads the answer to [`pmp_address`], or to [`pmp_map`] of this port.
pub(crate) fn read_pmp(data: &[u8], internal: u16) -> Option<Answer> {
    if byte(data, 0)? != 0 || byte(data, 1)? & RESPONSE == 0 {
        return None;
    }
    match (word(data, 2)?, byte(data, 1)? & !RESPONSE) {
        (UNSUPPORTED_VERSION, _) => Some(Answer::OtherVersion),
        (0, 0) => {
            let octets: [u8; 4] = data.get(8..12)?.try_into().ok()?;
            Some(Answer::Address(octets.into()))
        }
        (0, 1) if word(data, 8)? == internal => {
            let (port, lifetime) = (word(data, 10)?, long(data, 12)?);
            Some(Answer::Mapped { external: None, port, lifetime })
        }
        (0, _) => None,
        (result, _) => Some(Answer::Refused(result)),
    }
}

fn byte(data: &[u8], at: usize) -> Option<u8> {
    data.get(at).copied()
}

fn word(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

fn long(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONCE: [u8; NONCE_LEN] = *b"twelve bytes";

    fn internal() -> SocketAddrV4 {
        "192.168.1.2:4000".parse().expect("an address")
    }

    /// The router's answer to a request, as RFC 6887 section 11.1 has it.
    fn granted(request: &[u8], external: SocketAddrV4, result: u8) -> Vec<u8> {
        let mut data = request.to_vec();
        (data[1], data[3]) = (RESPONSE | MAP, result);
        data[8..24].fill(0);
        data[42..44].copy_from_slice(&external.port().to_be_bytes());
        data[44..60].copy_from_slice(&external.ip().to_ipv6_mapped().octets());
        data
    }

    #[test]
    fn a_pcp_request_is_laid_out_as_the_standard_has_it() {
        let request = pcp_map(internal(), 0x1234, 0x0102_0304, NONCE);
        assert_eq!(request.len(), PCP_LEN);
        assert_eq!(request[..8], [2, 1, 0, 0, 1, 2, 3, 4]);
        assert_eq!(request[18..24], [0xff, 0xff, 192, 168, 1, 2]);
        assert_eq!(request[24..36], NONCE);
        assert_eq!(request[36..44], [17, 0, 0, 0, 0x0f, 0xa0, 0x12, 0x34]);
    }

    #[test]
    fn a_grant_is_read_and_one_for_others_is_not() {
        let external: SocketAddrV4 = "198.18.1.2:5000".parse().expect("an address");
        let request = pcp_map(internal(), 0, 3600, NONCE);
        let answer = granted(&request, external, 0);
        let mapped = Answer::Mapped { external: Some(*external.ip()), port: 5000, lifetime: 3600 };
        assert_eq!(read_pcp(&answer, 4000, NONCE), Some(mapped));
        assert_eq!(read_pcp(&answer, 4001, NONCE), None);
        assert_eq!(read_pcp(&answer, 4000, [0; NONCE_LEN]), None);
        assert_eq!(read_pcp(&request, 4000, NONCE), None, "our own request");
        assert_eq!(
            read_pcp(&granted(&request, external, 8), 4000, NONCE),
            Some(Answer::Refused(8))
        );
        assert_eq!(read_pcp(&granted(&request, external, 1), 9, NONCE), Some(Answer::OtherVersion));
        let pmp_only = [0, 0x80, 0, 1, 0, 0, 0, 9];
        assert_eq!(read_pcp(&pmp_only, 4000, NONCE), Some(Answer::OtherVersion));
    }

    #[test]
    fn nat_pmp_answers_are_read() {
        let address = [0, 128, 0, 0, 0, 0, 0, 9, 198, 18, 1, 2];
        assert_eq!(read_pmp(&address, 4000), Some(Answer::Address([198, 18, 1, 2].into())));
        let mut mapping = vec![0, 129, 0, 0, 0, 0, 0, 9, 0x0f, 0xa0, 0x13, 0x88, 0, 0, 0x0e, 0x10];
        let mapped = Answer::Mapped { external: None, port: 5000, lifetime: 3600 };
        assert_eq!(read_pmp(&mapping, 4000), Some(mapped));
        assert_eq!(read_pmp(&mapping, 4001), None);
        mapping[3] = 2;
        assert_eq!(read_pmp(&mapping, 4000), Some(Answer::Refused(2)));
        assert_eq!(read_pmp(&pmp_map(4000, 0, 1), 4000), None, "our own request");
        assert_eq!(read_pmp(&pmp_address(), 4000), None, "our own request");
    }

    proptest! {
        #[test]
        fn garbage_does_no_harm(data in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (read_pcp(&data, 4000, NONCE), read_pmp(&data, 4000));
        }

        #[test]
        fn a_cut_answer_is_none(len in 4usize..60) {
            let external: SocketAddrV4 = "198.18.1.2:5000".parse().expect("an address");
            let answer = granted(&pcp_map(internal(), 0, 3600, NONCE), external, 0);
            prop_assert_eq!(read_pcp(&answer[..len], 4000, NONCE), None);
        }
    }
}
