//! The ticket: all that a node needs to join, in one string.
//!
//! `ipop1.` and, in Base64 (URL alphabet, no padding):
//!
//! ```text
//!  0       version, 1
//!  1..33   SHA-256 of the hub's leaf certificate (DER)
//! 33..65   group secret
//!          domain: length u8, bytes
//!          room:   length u8, bytes
//!          number of addresses u8, then each:
//!            kind u8 (4, 6, or 0 for a name), 4 or 16 bytes or (length u8, bytes), port u16
//!  last 4  first bytes of the SHA-256 of everything before
//! ```
//! Numbers are big endian. White space inside the string is ignored, as mail and terminals add it.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ipop_signal::{Host, HostPort};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

const PREFIX: &str = "ipop1.";
const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 4;
const TEXT_LEN_MAX: usize = 4096;
/// Longest name that a ticket carries, in bytes.
pub(crate) const NAME_LEN_MAX: usize = 253;
/// Most addresses that a ticket carries.
pub const ADDRESSES_MAX: usize = 16;

/// What a node needs to find a hub, to know it from others, and to be let in.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Where the hub listens for XMPP, the best first; at most [`ADDRESSES_MAX`].
    pub addresses: Vec<HostPort>,
    /// The hub's XMPP domain.
    pub domain: String,
    /// SHA-256 of the hub's leaf certificate in DER.
    pub certificate: [u8; 32],
    /// The group's room, without `@conference.` and the domain.
    pub room: String,
    /// What accounts are derived from; whoever has it is a member.
    pub secret: [u8; 32],
}

/// The text is no ticket of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTicket {
    /// Something else.
    #[error("this is no ticket: a ticket begins with {PREFIX:?}; `ipop hub` prints it")]
    NotATicket,
    /// From a later version.
    #[error("this ticket is of a version that this program does not know: update the program")]
    Version,
    /// Characters that tickets do not have.
    #[error("the ticket is mistyped: {0:?} does not occur in tickets. Copy it once more")]
    Character(char),
    /// Altered or incomplete.
    #[error("the ticket is mistyped or cut short: its checksum is wrong. Copy it once more")]
    Checksum,
    /// The checksum is right and the contents are not.
    #[error("the ticket is malformed: whatever made it is at fault")]
    Malformed,
}

impl Ticket {
    /// The room's full address.
    pub fn room_address(&self) -> String {
        format!("{}@{}", self.room, crate::conference_of(&self.domain))
    }

    /// Where the hub answers STUN, if it does so at the usual port.
    pub fn likely_stun(&self) -> Vec<SocketAddr> {
        let addresses = self.addresses.iter().filter_map(|at| match at.host {
            Host::Address(address) => Some(SocketAddr::new(address, crate::STUN_PORT)),
            Host::Name(_) => None,
        });
        addresses.collect()
    }

    fn pack(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend_from_slice(&self.certificate);
        out.extend_from_slice(&self.secret);
        put_text(&mut out, &self.domain);
        put_text(&mut out, &self.room);
        let addresses = &self.addresses[..self.addresses.len().min(ADDRESSES_MAX)];
        out.push(addresses.len() as u8);
        addresses.iter().for_each(|address| put_address(&mut out, address));
        let checksum = digest(&SHA256, &out);
        out.extend_from_slice(&checksum.as_ref()[..CHECKSUM_LEN]);
        out
    }

    fn unpack(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let [VERSION] = reader.array()? else { return None };
        let certificate = reader.array()?;
        let secret = reader.array()?;
        let domain = reader.text()?;
        let room = reader.text()?;
        let [count] = reader.array()?;
        let addresses: Option<Vec<_>> = (0..count).map(|_| reader.address()).collect();
        let ticket = Self { addresses: addresses?, domain, certificate, room, secret };
        let sound = reader.0.is_empty()
            && ticket.addresses.len() <= ADDRESSES_MAX
            && !ticket.domain.is_empty()
            && !ticket.room.is_empty();
        sound.then_some(ticket)
    }
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64.encode(self.pack()))
    }
}

/// Leaves the secret out.
impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("addresses", &self.addresses)
            .field("domain", &self.domain)
            .field("room", &self.room)
            .finish_non_exhaustive()
    }
}

impl FromStr for Ticket {
    type Err = InvalidTicket;

    fn from_str(text: &str) -> Result<Self, InvalidTicket> {
        if text.len() > TEXT_LEN_MAX {
            return Err(InvalidTicket::NotATicket);
        }
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let Some(body) = text.strip_prefix(PREFIX) else {
            return Err(match text.strip_prefix("ipop").and_then(|rest| rest.split_once('.')) {
                Some((version, _)) if version.parse::<u8>().is_ok() => InvalidTicket::Version,
                _ => InvalidTicket::NotATicket,
            });
        };
        let is_known = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
        if let Some(stranger) = body.chars().find(|c| !is_known(c)) {
            return Err(InvalidTicket::Character(stranger));
        }
        let bytes = BASE64.decode(body).map_err(|_| InvalidTicket::Checksum)?;
        let at = bytes.len().checked_sub(CHECKSUM_LEN).ok_or(InvalidTicket::Checksum)?;
        let (body, checksum) = bytes.split_at(at);
        if digest(&SHA256, body).as_ref()[..CHECKSUM_LEN] != *checksum {
            return Err(InvalidTicket::Checksum);
        }
        Self::unpack(body).ok_or(InvalidTicket::Malformed)
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(NAME_LEN_MAX)];
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

fn put_address(out: &mut Vec<u8>, address: &HostPort) {
    match &address.host {
        Host::Address(IpAddr::V4(ip)) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        Host::Address(IpAddr::V6(ip)) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
        Host::Name(name) => {
            out.push(0);
            put_text(out, name);
        }
    }
    out.extend_from_slice(&address.port.to_be_bytes());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn text(&mut self) -> Option<String> {
        let [len] = self.array()?;
        let (text, rest) = self.0.split_at_checked(len.into())?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }

    fn address(&mut self) -> Option<HostPort> {
        let host = match self.array()? {
            [4] => Host::Address(IpAddr::from(self.array::<4>()?)),
            [6] => Host::Address(IpAddr::from(self.array::<16>()?)),
            [0] => Host::of(&self.text()?),
            _ => return None,
        };
        Some(HostPort { host, port: u16::from_be_bytes(self.array()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ticket() -> Ticket {
        Ticket {
            addresses: vec![
                HostPort { host: Host::of("192.0.2.1"), port: 5222 },
                HostPort { host: Host::of("2001:db8::1"), port: 5222 },
                HostPort { host: Host::of("hub.example"), port: 443 },
            ],
            domain: "ipop.internal".into(),
            certificate: [1; 32],
            room: "ipop".into(),
            secret: [2; 32],
        }
    }

    fn hosts() -> impl Strategy<Value = Host> {
        prop_oneof![
            any::<std::net::Ipv4Addr>().prop_map(|ip| Host::Address(ip.into())),
            any::<std::net::Ipv6Addr>().prop_map(|ip| Host::Address(ip.into())),
            "[a-z][a-z0-9.-]{0,60}x".prop_map(Host::Name),
        ]
    }

    fn tickets() -> impl Strategy<Value = Ticket> {
        let address = (hosts(), any::<u16>()).prop_map(|(host, port)| HostPort { host, port });
        let addresses = prop::collection::vec(address, 0..ADDRESSES_MAX);
        let keys = (any::<[u8; 32]>(), any::<[u8; 32]>());
        (addresses, "[a-z0-9.]{1,60}", keys, "[a-z0-9]{1,30}").prop_map(
            |(addresses, domain, (certificate, secret), room)| Ticket {
                addresses,
                domain,
                certificate,
                room,
                secret,
            },
        )
    }

    #[test]
    fn each_mistake_is_told_from_the_others() {
        let text = ticket().to_string();
        assert_eq!(text.parse(), Ok(ticket()));
        assert_eq!(format!(" {}\n{}\n", &text[..40], &text[40..]).parse(), Ok(ticket()));
        let parse = |text: &str| text.parse::<Ticket>().unwrap_err();
        assert_eq!(parse(""), InvalidTicket::NotATicket);
        assert_eq!(parse("xmpp:room@example"), InvalidTicket::NotATicket);
        assert_eq!(parse("ipop2.AAAA"), InvalidTicket::Version);
        assert_eq!(parse(&text.replacen("A", "!", 1)), InvalidTicket::Character('!'));
        assert_eq!(parse(&text[..text.len() - 1]), InvalidTicket::Checksum);
        assert_eq!(parse(&text[..50]), InvalidTicket::Checksum);
        assert_eq!(parse("ipop1."), InvalidTicket::Checksum);
        assert!(!format!("{:?}", ticket()).contains("secret: "));
    }

    proptest! {
        #[test]
        fn tickets_come_back(ticket in tickets()) {
            prop_assert_eq!(ticket.to_string().parse(), Ok(ticket));
        }

        #[test]
        fn a_wrong_character_is_found(
            ticket in tickets(),
            at in any::<prop::sample::Index>(),
            to in "[A-Za-z0-9_-]",
        ) {
            let text = ticket.to_string();
            let at = PREFIX.len() + at.index(text.len() - PREFIX.len());
            let mut wrong = text.clone();
            wrong.replace_range(at..at + 1, &to);
            prop_assume!(wrong != text);
            prop_assert!(wrong.parse::<Ticket>().is_err());
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}", bytes in any::<Vec<u8>>()) {
            let _ = text.parse::<Ticket>();
            let _ = format!("{PREFIX}{text}").parse::<Ticket>();
            let _ = Ticket::unpack(&bytes);
        }
    }
}
