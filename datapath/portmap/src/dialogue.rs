//! Questions to one router: PCP, then NAT-PMP, then UPnP.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use crate::gateway::default_gateway;
use crate::wire::{self, Answer, MESSAGE_LEN_MAX, NONCE_LEN, SERVER_PORT};
use crate::{LIFETIME_SECONDS, MapError, Mapping, Protocol, igd, is_private};

/// From a question to its repetition; doubles. RFC 6886 section 3.1 begins with 250 ms and waits
/// for a minute in all: a router next door that has not answered after two seconds will not.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const QUESTIONS: u32 = 3;

/// A conversation about one port.
pub(crate) struct Dialogue {
    gateway: Ipv4Addr,
    socket: UdpSocket,
    internal: SocketAddrV4,
    nonce: [u8; NONCE_LEN],
    suggested: u16,
}

impl Dialogue {
    /// With the router of the default route.
    pub(crate) fn open(port: u16) -> Result<Self, MapError> {
        let gateway = default_gateway()?.ok_or(MapError::NoGateway)?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((gateway, SERVER_PORT))?;
        let SocketAddr::V4(ours) = socket.local_addr()? else { return Err(MapError::NoGateway) };
        if !is_private(*ours.ip()) {
            return Err(MapError::Public(*ours.ip()));
        }
        let internal = SocketAddrV4::new(*ours.ip(), port);
        Ok(Self { gateway, socket, internal, nonce: nonce()?, suggested: 0 })
    }

    /// Whether the router and our address to it are still the ones that were asked.
    pub(crate) fn is_current(&self) -> bool {
        let reopened = Self::open(self.internal.port());
        reopened.is_ok_and(|now| (now.gateway, now.internal) == (self.gateway, self.internal))
    }

    /// Asks for the mapping, or for more of its time.
    pub(crate) fn ask(&mut self) -> Result<Mapping, MapError> {
        let mut reasons = Vec::new();
        for (protocol, way) in [
            (Protocol::Pcp, Self::by_pcp as fn(&Self) -> Result<Mapping, String>),
            (Protocol::NatPmp, Self::by_pmp),
            (Protocol::Upnp, Self::by_upnp),
        ] {
            match way(self) {
                Ok(mapping) if is_private(*mapping.external.ip()) => {
                    let _ = self.give_back(&mapping);
                    return Err(MapError::Behind(*mapping.external.ip()));
                }
                Ok(mapping) => {
                    self.suggested = mapping.external.port();
                    return Ok(mapping);
                }
                Err(reason) => reasons.push(format!("{protocol}: {reason}")),
            }
        }
        Err(MapError::Refused { gateway: self.gateway, reasons: reasons.join("; ") })
    }

    /// Tells the router that a mapping is not needed any more; an answer is not waited for.
    pub(crate) fn give_back(&self, mapping: &Mapping) -> Result<(), String> {
        let end = match mapping.protocol {
            Protocol::Pcp => wire::pcp_map(self.internal, 0, 0, self.nonce),
            Protocol::NatPmp => wire::pmp_map(self.internal.port(), 0, 0),
            Protocol::Upnp => return igd::unmap(mapping),
        };
        self.socket.send(&end).map(drop).map_err(|error| error.to_string())
    }

    fn by_pcp(&self) -> Result<Mapping, String> {
        let request = wire::pcp_map(self.internal, self.suggested, LIFETIME_SECONDS, self.nonce);
        let read = |data: &[u8]| wire::read_pcp(data, self.internal.port(), self.nonce);
        match self.exchange(&request, read)? {
            Answer::Mapped { external: Some(external), port, lifetime } => {
                Ok(self.mapping(Protocol::Pcp, external, port, lifetime))
            }
            other => Err(refusal(other)),
        }
    }

    fn by_pmp(&self) -> Result<Mapping, String> {
        let port = self.internal.port();
        let read = |data: &[u8]| wire::read_pmp(data, port);
        let external = match self.exchange(&wire::pmp_address(), |data| {
            read(data).filter(|answer| !matches!(answer, Answer::Mapped { .. }))
        })? {
            Answer::Address(external) => external,
            other => return Err(refusal(other)),
        };
        let request = wire::pmp_map(port, self.suggested, LIFETIME_SECONDS);
        match self.exchange(&request, |data| {
            read(data).filter(|answer| !matches!(answer, Answer::Address(_)))
        })? {
            Answer::Mapped { port, lifetime, .. } => {
                Ok(self.mapping(Protocol::NatPmp, external, port, lifetime))
            }
            other => Err(refusal(other)),
        }
    }

    fn by_upnp(&self) -> Result<Mapping, String> {
        igd::map(self.internal, self.suggested)
    }

    fn mapping(&self, protocol: Protocol, ip: Ipv4Addr, port: u16, seconds: u32) -> Mapping {
        Mapping {
            protocol,
            internal: self.internal,
            external: SocketAddrV4::new(ip, port),
            lifetime: Duration::from_secs(seconds.into()),
        }
    }

    /// Asks until an answer is understood, a few times.
    fn exchange(
        &self,
        request: &[u8],
        read: impl Fn(&[u8]) -> Option<Answer>,
    ) -> Result<Answer, String> {
        let mut buffer = [0; MESSAGE_LEN_MAX];
        for question in 0..QUESTIONS {
            self.socket.send(request).map_err(|error| error.to_string())?;
            let end = Instant::now() + FIRST_WAIT * 2u32.pow(question);
            while let Some(len) = self.receive(&mut buffer, end).map_err(|e| e.to_string())? {
                if let Some(answer) = read(&buffer[..len]) {
                    return Ok(answer);
                }
            }
        }
        Err("no answer".to_owned())
    }

    /// The next datagram of the router, until `end`.
    fn receive(&self, buffer: &mut [u8], end: Instant) -> io::Result<Option<usize>> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.recv(buffer) {
                Ok(len) => return Ok(Some(len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn refusal(answer: Answer) -> String {
    match answer {
        Answer::OtherVersion => "not spoken".to_owned(),
        Answer::Refused(code) => format!("refused with code {code}"),
        Answer::Mapped { .. } | Answer::Address(_) => "an answer to something else".to_owned(),
    }
}

fn nonce() -> io::Result<[u8; NONCE_LEN]> {
    let mut nonce = [0; NONCE_LEN];
    let filled = rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())?;
    // So few bytes come at once or not at all (getrandom(2)).
    if filled == NONCE_LEN { Ok(nonce) } else { Err(ErrorKind::UnexpectedEof.into()) }
}
