//! The one answer that a STUN server gives: where it saw the request come from (RFC 8489
//! section 6.3.1), and from another of its addresses if asked to (RFC 5780).
//!
//! Stateless: it remembers nobody, and a datagram that is no Binding request gets no answer.

use std::net::SocketAddr;

use crate::Dropped;
use crate::channel::ChannelData;
use crate::message::{
    Attribute, BuildError, Builder, Class, Message, Method, every_attribute, looks_like_stun,
};

/// Number of CHANGE-REQUEST, named when it cannot be honoured.
const CHANGE_REQUEST: u16 = 0x0003;

/// Two addresses of one server that differ in IP and in port; it listens on all four
/// combinations (RFC 5780 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alternates {
    /// The address that clients are told about.
    pub primary: SocketAddr,
    /// The other IP and the other port.
    pub other: SocketAddr,
}

impl Alternates {
    /// The address that differs from `local` in IP if `ip`, in port if `port`.
    fn changed(&self, local: SocketAddr, ip: bool, port: bool) -> SocketAddr {
        let from_primary_ip = (local.ip() == self.primary.ip()) != ip;
        let from_primary_port = (local.port() == self.primary.port()) != port;
        SocketAddr::new(
            if from_primary_ip { self.primary.ip() } else { self.other.ip() },
            if from_primary_port { self.primary.port() } else { self.other.port() },
        )
    }
}

/// Whether `datagram` may be shown to `turn-server-proto` 0.7, which panics on a NONCE that has
/// the cookie of RFC 8489 and a character of several bytes behind it: anybody could end the
/// process with one datagram. Nonces that a server made are ASCII, so nothing is lost. ChannelData
/// passes; what is neither that nor well-formed STUN does not.
pub fn is_fit_for_relay(datagram: &[u8]) -> bool {
    const NONCE: u16 = 0x0015;
    if looks_like_stun(datagram) {
        every_attribute(datagram, |kind, value| kind != NONCE || value.is_ascii())
    } else {
        ChannelData::parse(datagram).is_ok()
    }
}

/// An answer and the server's address that it must leave from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// One of the server's own addresses.
    pub from: SocketAddr,
    /// The datagram, for the sender of the request.
    pub data: Vec<u8>,
}

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct BindingServer {
    software: String,
    alternates: Option<Alternates>,
}

impl BindingServer {
    /// A server with one address. `software`: what SOFTWARE says, up to 127 characters.
    pub fn new(software: &str) -> Self {
        Self { software: software.chars().take(127).collect(), alternates: None }
    }

    /// Also answers behaviour discovery.
    #[must_use]
    pub fn with_alternates(mut self, alternates: Alternates) -> Self {
        self.alternates = Some(alternates);
        self
    }

    /// Answers `datagram`, which came from `remote` to the server's address `local`.
    pub fn answer(
        &self,
        local: SocketAddr,
        remote: SocketAddr,
        datagram: &[u8],
    ) -> Result<Answer, Dropped> {
        let request = Message::parse(datagram)?;
        if request.class() != Class::Request || request.method() != Method::Binding {
            return Err(Dropped::Unexpected);
        }
        let (ip, port) = request.change_request().unwrap_or_default();
        let mut unknown = request.unknown_required();
        if (ip || port) && self.alternates.is_none() {
            unknown.push(CHANGE_REQUEST);
        }
        let from = match self.alternates {
            Some(alternates) if unknown.is_empty() => alternates.changed(local, ip, port),
            _ => local,
        };
        let response = if unknown.is_empty() {
            self.success(&request, local, from, remote)
        } else {
            unknown.truncate(16);
            Builder::error(&request, 420, "Unknown Attribute")
                .with(Attribute::UnknownAttributes(unknown))
        };
        self.finish(response).map(|data| Answer { from, data }).map_err(|_| Dropped::Unexpected)
    }

    fn success(
        &self,
        request: &Message<'_>,
        local: SocketAddr,
        from: SocketAddr,
        remote: SocketAddr,
    ) -> Builder {
        let response = Builder::success(request).with(Attribute::XorMappedAddress(remote));
        match self.alternates {
            None => response,
            Some(alternates) => {
                let other = alternates.changed(local, true, true);
                let response = response.with(Attribute::ResponseOrigin(from));
                response.with(Attribute::OtherAddress(other))
            }
        }
    }

    fn finish(&self, response: Builder) -> Result<Vec<u8>, BuildError> {
        response.with(Attribute::Software(self.software.clone())).fingerprint().build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::binding_request;
    use crate::message::TransactionId;

    const ID: TransactionId = TransactionId([9; 12]);
    const CLIENT: &str = "203.0.113.5:4242";

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn alternates() -> Alternates {
        Alternates { primary: at("198.18.0.20:3478"), other: at("198.18.0.21:3479") }
    }

    #[test]
    fn a_binding_request_is_answered_with_its_source() {
        let server = BindingServer::new("ipop");
        let request = binding_request(ID, None).unwrap();
        let answer = server.answer(at("198.18.0.20:3478"), at(CLIENT), &request).unwrap();
        assert_eq!(answer.from, at("198.18.0.20:3478"));
        let message = Message::parse(&answer.data).unwrap();
        assert_eq!((message.class(), message.transaction()), (Class::Success, ID));
        assert_eq!(message.xor_mapped_address(), Some(at(CLIENT)));
        assert_eq!(message.software(), Some("ipop"));
        assert_eq!(message.other_address(), None);
        assert!(message.has_fingerprint());
    }

    #[test]
    fn nothing_else_is_answered() {
        let server = BindingServer::new("ipop");
        let request = binding_request(ID, None).unwrap();
        let response = server.answer(at("198.18.0.20:3478"), at(CLIENT), &request).unwrap().data;
        let allocate = Builder::request(Method::Allocate, ID).build().unwrap();
        let indication = Builder::new(Class::Indication, Method::Binding, ID).build().unwrap();
        for datagram in [&response, &allocate, &indication, &vec![], &vec![0; 20]] {
            assert!(server.answer(at("198.18.0.20:3478"), at(CLIENT), datagram).is_err());
        }
    }

    #[test]
    fn what_must_be_known_and_is_not_is_named() {
        let server = BindingServer::new("ipop");
        let mut request = Builder::request(Method::Binding, ID).build().unwrap();
        request.extend_from_slice(&[0x7f, 0x01, 0, 1, 0xff, 0, 0, 0]);
        request[3] = 8;
        let answer = server.answer(at("198.18.0.20:3478"), at(CLIENT), &request).unwrap();
        let message = Message::parse(&answer.data).unwrap();
        assert_eq!(message.error().unwrap().code, 420);
        assert_eq!(message.unknown_attributes(), Some(&[0x7f01][..]));

        let change = binding_request(ID, Some((true, false))).unwrap();
        let answer = server.answer(at("198.18.0.20:3478"), at(CLIENT), &change).unwrap();
        let message = Message::parse(&answer.data).unwrap();
        assert_eq!(message.unknown_attributes(), Some(&[CHANGE_REQUEST][..]));
        let no_change = binding_request(ID, Some((false, false))).unwrap();
        let answer = server.answer(at("198.18.0.20:3478"), at(CLIENT), &no_change).unwrap();
        assert_eq!(Message::parse(&answer.data).unwrap().class(), Class::Success);
    }

    #[test]
    fn change_request_moves_the_answer_from_each_of_the_four_addresses() {
        let server = BindingServer::new("ipop").with_alternates(alternates());
        for (local, both) in [
            ("198.18.0.20:3478", "198.18.0.21:3479"),
            ("198.18.0.20:3479", "198.18.0.21:3478"),
            ("198.18.0.21:3478", "198.18.0.20:3479"),
            ("198.18.0.21:3479", "198.18.0.20:3478"),
        ] {
            let (local, both) = (at(local), at(both));
            for (ip, port) in [(false, false), (false, true), (true, false), (true, true)] {
                let request = binding_request(ID, Some((ip, port))).unwrap();
                let answer = server.answer(local, at(CLIENT), &request).unwrap();
                let expected = SocketAddr::new(
                    if ip { both.ip() } else { local.ip() },
                    if port { both.port() } else { local.port() },
                );
                assert_eq!(answer.from, expected);
                let message = Message::parse(&answer.data).unwrap();
                assert_eq!(message.other_address(), Some(both));
                assert_eq!(message.response_origin(), Some(expected));
            }
        }
    }
}
