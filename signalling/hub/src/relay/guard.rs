//! What of the network's datagrams is shown to a protocol machine at all.
//!
//! `turn-server-proto` 0.7 panics on a NONCE with the cookie of RFC 8489 and a character of several
//! bytes behind it, so anybody could end the process with one datagram. Nonces that a server made
//! are ASCII, and nothing else passes here.

/// Largest datagram of IPv4.
pub(super) const DATAGRAM_LEN_MAX: usize = 65_535;
/// Requests are small; only data are not.
const REQUEST_LEN_MAX: usize = 2048;
const HEADER_LEN: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const USERNAME: u16 = 0x0006;
const NONCE: u16 = 0x0015;

/// What a datagram is, as far as its outside tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A STUN Binding request.
    Binding,
    /// Any other request: it is answered, and may make state.
    Request,
    /// A Send indication or ChannelData: never answered.
    Data,
}

/// Sorts a datagram; `None` for what no machine shall see.
pub(super) fn kind_of(datagram: &[u8]) -> Option<Kind> {
    let (first, second) = (*datagram.first()?, *datagram.get(1)?);
    if (0x40..0x80).contains(&first) {
        return (datagram.len() >= 4).then_some(Kind::Data);
    }
    if !is_sound(datagram) {
        return None;
    }
    let kind = u16::from_be_bytes([first, second]);
    match (kind & 0x0110, kind) {
        (0x0000, 0x0001) if datagram.len() <= REQUEST_LEN_MAX => Some(Kind::Binding),
        (0x0000, _) if datagram.len() <= REQUEST_LEN_MAX => Some(Kind::Request),
        (0x0010, 0x0016) => Some(Kind::Data),
        _ => None,
    }
}

/// Where the value of USERNAME stands in a sound message.
pub(super) fn username_at(message: &[u8]) -> Option<std::ops::Range<usize>> {
    attributes(message).find(|(kind, _)| *kind == USERNAME).map(|(_, value)| value)
}

/// A STUN message that its attributes fill exactly, with an ASCII NONCE if any.
fn is_sound(message: &[u8]) -> bool {
    let has_header = message.len() >= HEADER_LEN && message.len().is_multiple_of(4);
    if !has_header || message[0] > 3 || message[4..8] != COOKIE {
        return false;
    }
    let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
    let mut end = HEADER_LEN;
    let mut sound = true;
    for (kind, value) in attributes(message) {
        end = value.end.next_multiple_of(4);
        sound &= kind != NONCE || message[value].is_ascii();
    }
    sound && HEADER_LEN + length == message.len() && end == message.len()
}

/// Types and places of values, up to the first attribute that does not fit.
fn attributes(message: &[u8]) -> impl Iterator<Item = (u16, std::ops::Range<usize>)> {
    let mut at = HEADER_LEN;
    std::iter::from_fn(move || {
        let header = message.get(at..at + 4)?;
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let value = at + 4..at + 4 + length;
        let end = value.end.next_multiple_of(4);
        if end > message.len() {
            return None;
        }
        at = end;
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (kind, value) in attributes {
            body.extend_from_slice(&kind.to_be_bytes());
            body.extend_from_slice(&(value.len() as u16).to_be_bytes());
            body.extend_from_slice(value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut message = kind.to_be_bytes().to_vec();
        message.extend_from_slice(&(body.len() as u16).to_be_bytes());
        message.extend_from_slice(&COOKIE);
        message.extend_from_slice(&[7; 12]);
        message.extend_from_slice(&body);
        message
    }

    #[test]
    fn datagrams_are_sorted() {
        assert_eq!(kind_of(&message(0x0001, &[])), Some(Kind::Binding));
        assert_eq!(kind_of(&message(0x0003, &[(USERNAME, b"u")])), Some(Kind::Request));
        assert_eq!(kind_of(&message(0x0016, &[(0x13, &[0; 3000])])), Some(Kind::Data));
        assert_eq!(kind_of(&[0x40, 0, 0, 0]), Some(Kind::Data));
        // Responses, other indications, requests too large, other protocols, nothing.
        assert_eq!(kind_of(&message(0x0101, &[])), None);
        assert_eq!(kind_of(&message(0x0113, &[])), None);
        assert_eq!(kind_of(&message(0x0011, &[])), None);
        assert_eq!(kind_of(&message(0x0003, &[(0x8022, &[0; 3000])])), None);
        assert_eq!(kind_of(&[0x80; 40]), None);
        assert_eq!(kind_of(&[]), None);
        assert_eq!(kind_of(&[0]), None);
    }

    #[test]
    fn what_ends_the_machine_does_not_pass() {
        let nonce = "obMatJos2aaa\u{e9}x".as_bytes();
        assert_eq!(kind_of(&message(0x0003, &[(NONCE, nonce)])), None);
        let mut short = message(0x0003, &[(USERNAME, b"user")]);
        short.truncate(24);
        assert_eq!(kind_of(&short), None);
        let mut long = message(0x0003, &[(USERNAME, b"user")]);
        long.extend_from_slice(&[0; 4]);
        assert_eq!(kind_of(&long), None);
    }

    #[test]
    fn the_user_name_is_found() {
        let message = message(0x0003, &[(0x19, &[17, 0, 0, 0]), (USERNAME, b"1:alice")]);
        assert_eq!(&message[username_at(&message).unwrap()], b"1:alice");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            let _ = kind_of(&bytes);
        }

        #[test]
        fn arbitrary_attributes_never_panic(body in any::<Vec<u8>>(), length in any::<u16>()) {
            let mut message = message(0x0003, &[]);
            message.extend_from_slice(&body);
            message[2..4].copy_from_slice(&length.to_be_bytes());
            let _ = kind_of(&message);
            let _ = username_at(&message);
        }
    }
}
