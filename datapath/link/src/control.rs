//! Control frames: what link agents tell each other under the session's keys.
//!
//! They travel as the plaintext of datagrams of kind control, sealed by the worker that owns the
//! lane, so an authentic one proves that the peer's keys work.
//!
//! ```text
//! +---------------+------------------------------------------------
//! |     type      |  body
//! +---------------+------------------------------------------------
//!   1 ping           nonce u64: to be answered
//!   2 pong           nonce u64 of the ping
//!   3 bye            reason, UTF-8, at most 200 bytes: the link is closed
//!   4 rehandshake    nothing: the server asks the client for new keys
//!   9 lanes          count u8, then for lane 1 to count: port for IPv4 u16, for IPv6 u16
//!  10 relays         count u8, then for lane 1 to count an address of the sender's at a relay:
//!                    family u8 (0 none, and no more of it; 4, 6), port u16, 4 or 16 bytes
//!  16 words          at most 480 bytes, from controller to controller
//! ```
//! Big endian. What follows the body is ignored, and so are other types: room for later versions,
//! and for the padding of a ping that asks whether the path carries a datagram of its length.

use std::net::{IpAddr, SocketAddr};

use crate::lanes::LanePorts;

/// Longest reason in a bye, in bytes.
pub const REASON_LEN_MAX: usize = 200;

const PING: u8 = 1;
const PONG: u8 = 2;
const BYE: u8 = 3;
const REHANDSHAKE: u8 = 4;
const LANES: u8 = 9;
const RELAYS: u8 = 10;
const WORDS: u8 = 16;

/// Relayed addresses that are told at most; a node has fewer workers.
const RELAYS_MAX: usize = 32;

/// Longest words from controller to controller, in bytes: their datagram passes wherever IPv4 does
/// (RFC 791: 576 bytes with IP header).
pub const WORDS_LEN_MAX: usize = 480;

/// A message from link agent to link agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// To be answered with a pong of the same nonce.
    Ping(u64),
    /// The answer.
    Pong(u64),
    /// The sender closed the link, for this reason.
    Bye(String),
    /// The server wants new keys; only a client starts a handshake.
    Rehandshake,
    /// The sender's ports of lane 1 and those behind it, at most 255.
    Lanes(Vec<LanePorts>),
    /// The sender's addresses at relays for lane 1 and those behind it, at most 32.
    Relays(Vec<Option<SocketAddr>>),
    /// From controller to controller; the datapath does not read it.
    Words(Vec<u8>),
}

impl Control {
    /// The bytes on the wire.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let with_nonce = |kind: u8, nonce: &u64| [&[kind][..], &nonce.to_be_bytes()].concat();
        match self {
            Control::Ping(nonce) => with_nonce(PING, nonce),
            Control::Pong(nonce) => with_nonce(PONG, nonce),
            Control::Bye(reason) => [&[BYE], cut(reason).as_bytes()].concat(),
            Control::Rehandshake => vec![REHANDSHAKE],
            Control::Lanes(ports) => lanes(ports),
            Control::Relays(relays) => emit_relays(relays),
            Control::Words(words) => [&[WORDS], &words[..words.len().min(WORDS_LEN_MAX)]].concat(),
        }
    }

    /// A ping padded to `len` bytes; never shorter than a ping.
    #[must_use]
    pub fn emit_probe(nonce: u64, len: usize) -> Vec<u8> {
        let mut bytes = Control::Ping(nonce).emit();
        bytes.resize(bytes.len().max(len), 0);
        bytes
    }

    /// Reads a frame; `None` for unknown types and malformed bodies, which are to be ignored.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Control> {
        let (&kind, body) = bytes.split_first()?;
        let nonce = || body.first_chunk().map(|nonce| u64::from_be_bytes(*nonce));
        match kind {
            PING => nonce().map(Control::Ping),
            PONG => nonce().map(Control::Pong),
            BYE => Some(Control::Bye(readable(body))),
            REHANDSHAKE => Some(Control::Rehandshake),
            LANES => parse_lanes(body),
            RELAYS => parse_relays(body).map(Control::Relays),
            WORDS if body.len() <= WORDS_LEN_MAX => Some(Control::Words(body.to_vec())),
            _ => None,
        }
    }
}

fn lanes(ports: &[LanePorts]) -> Vec<u8> {
    let count = u8::try_from(ports.len()).unwrap_or(u8::MAX);
    let mut bytes = vec![LANES, count];
    for ports in &ports[..usize::from(count)] {
        bytes.extend(ports.v4.to_be_bytes());
        bytes.extend(ports.v6.to_be_bytes());
    }
    bytes
}

fn parse_lanes(body: &[u8]) -> Option<Control> {
    let (&count, body) = body.split_first()?;
    let (ports, _) = body.get(..usize::from(count) * 4)?.as_chunks::<4>();
    let of = |[a, b, c, d]: &[u8; 4]| LanePorts {
        v4: u16::from_be_bytes([*a, *b]),
        v6: u16::from_be_bytes([*c, *d]),
    };
    Some(Control::Lanes(ports.iter().map(of).collect()))
}

fn emit_relays(relays: &[Option<SocketAddr>]) -> Vec<u8> {
    let relays = &relays[..relays.len().min(RELAYS_MAX)];
    let mut bytes = vec![RELAYS, relays.len() as u8];
    for relay in relays {
        let Some(relay) = relay else {
            bytes.push(0);
            continue;
        };
        bytes.push(if relay.is_ipv4() { 4 } else { 6 });
        bytes.extend(relay.port().to_be_bytes());
        match relay.ip() {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
    }
    bytes
}

fn parse_relays(body: &[u8]) -> Option<Vec<Option<SocketAddr>>> {
    let (&count, mut body) = body.split_first()?;
    let mut relays = Vec::new();
    for _ in 0..usize::from(count).min(RELAYS_MAX) {
        let (&family, rest) = body.split_first()?;
        if family == 0 {
            body = rest;
            relays.push(None);
            continue;
        }
        let (&port, rest) = rest.split_first_chunk::<2>()?;
        let (ip, rest) = match family {
            4 => rest.split_first_chunk::<4>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
            6 => rest.split_first_chunk::<16>().map(|(ip, rest)| (IpAddr::from(*ip), rest))?,
            _ => return None,
        };
        body = rest;
        relays.push(Some(SocketAddr::new(ip, u16::from_be_bytes(port))));
    }
    Some(relays)
}

fn cut(reason: &str) -> &str {
    let mut end = reason.len().min(REASON_LEN_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

/// A peer's words end up on a terminal: no control characters, bounded, always text.
fn readable(body: &[u8]) -> String {
    let body = &body[..body.len().min(REASON_LEN_MAX)];
    let text = String::from_utf8_lossy(body);
    let shown: String = text.chars().filter(|c| !c.is_control()).collect();
    cut(&shown).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn controls() -> impl Strategy<Value = Control> {
        prop_oneof![
            any::<u64>().prop_map(Control::Ping),
            any::<u64>().prop_map(Control::Pong),
            "[^\\p{Cc}]{0,50}".prop_map(Control::Bye),
            Just(Control::Rehandshake),
            proptest::collection::vec(any::<(u16, u16)>(), 0..20).prop_map(|ports| {
                let of = |(v4, v6)| LanePorts { v4, v6 };
                Control::Lanes(ports.into_iter().map(of).collect())
            }),
            proptest::collection::vec(any::<Option<(IpAddr, u16)>>(), 0..=RELAYS_MAX).prop_map(
                |relays| {
                    let of = |relay: Option<(IpAddr, u16)>| relay.map(SocketAddr::from);
                    Control::Relays(relays.into_iter().map(of).collect())
                }
            ),
            proptest::collection::vec(any::<u8>(), 0..=WORDS_LEN_MAX).prop_map(Control::Words),
        ]
    }

    proptest! {
        #[test]
        fn what_is_emitted_parses_to_itself(control in controls()) {
            prop_assert_eq!(Control::parse(&control.emit()), Some(control));
        }

        #[test]
        fn a_probe_is_a_ping_of_any_length(nonce in any::<u64>(), len in 0usize..3000) {
            let probe = Control::emit_probe(nonce, len);
            prop_assert_eq!(probe.len(), len.max(9));
            prop_assert_eq!(Control::parse(&probe), Some(Control::Ping(nonce)));
        }

        #[test]
        fn no_bytes_panic_and_reasons_stay_short(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
        ) {
            if let Some(Control::Bye(reason)) = Control::parse(&bytes) {
                prop_assert!(reason.len() <= REASON_LEN_MAX);
                prop_assert!(!reason.contains(|c: char| c.is_control()));
            }
        }

        #[test]
        fn long_reasons_are_cut_between_characters(reason in ".{0,300}") {
            prop_assert!(Control::Bye(reason).emit().len() <= 1 + REASON_LEN_MAX);
        }
    }

    #[test]
    fn later_types_and_short_bodies_are_ignored() {
        assert_eq!(Control::parse(&[]), None);
        assert_eq!(Control::parse(&[99, 1, 2]), None);
        assert_eq!(Control::parse(&[LANES, 2, 0, 1, 0, 2, 0, 3]), None);
        assert_eq!(Control::parse(&[PING, 1, 2]), None);
        assert_eq!(Control::parse(&[RELAYS, 1, 4, 0, 1, 10, 0, 0]), None);
        assert_eq!(Control::parse(&[RELAYS, 1, 5, 0, 1, 10, 0, 0, 1]), None);
        assert_eq!(Control::parse(&[WORDS; WORDS_LEN_MAX + 2]), None);
    }
}
