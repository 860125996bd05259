//! What all servers of one address family show together, asked from one socket: where each sees
//! it, how far away each is, how large a datagram reaches it; and whether the NAT turns round what
//! is sent to its own outside (RFC 4787 section 6).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ipop_stun::{Class, Message};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};

/// How often a question is sent, and how long its answer is awaited each time.
const TRIES: u32 = 4;
const PATIENCE: Duration = Duration::from_millis(400);
/// IP packets that networks are made for, bytes, the largest first.
const PACKETS: [u16; 11] = [9000, 1500, 1492, 1480, 1460, 1440, 1420, 1400, 1380, 1280, 576];
/// An attribute that nobody knows, and nobody has to (RFC 8489 section 18.3).
const FILLER: u16 = 0xfffe;
const STUN_LEN: usize = 20;
const ATTRIBUTE_LEN: usize = 4;
const UDP_LEN: usize = 8;

/// A server as this socket sees it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The server.
    pub server: SocketAddr,
    /// Where it sees the socket; `None`: no answer.
    pub mapped: Option<SocketAddr>,
    /// Round trip, where one question sufficed.
    pub rtt: Option<Duration>,
    /// The largest IP packet that reaches it, of those that networks are made for; bytes.
    pub path_mtu: Option<u16>,
}

/// What was found out.
#[derive(Clone, Debug)]
pub(super) struct Survey {
    /// The socket's own address.
    pub local: SocketAddr,
    /// All servers.
    pub asked: Vec<Asked>,
    /// Whether the NAT turns round what is sent to its own outside; `None` without a NAT.
    pub hairpins: Option<bool>,
}

/// Asks servers of one family; there is at least one.
pub(super) fn survey(servers: &[SocketAddr]) -> io::Result<Survey> {
    let first = servers.first().copied().ok_or(io::ErrorKind::InvalidInput)?;
    let mut line = Line::open(first)?;
    let mut asked = line.ask(servers);
    let answering: Vec<_> = asked.iter().filter(|a| a.mapped.is_some()).map(|a| a.server).collect();
    let largest = line.measure(&answering);
    for (server, packet) in answering.iter().zip(largest) {
        if let Some(asked) = asked.iter_mut().find(|asked| asked.server == *server) {
            asked.path_mtu = packet;
        }
    }
    let mapped = asked.iter().find_map(|asked| asked.mapped.map(|mapped| (asked.server, mapped)));
    let hairpins = match mapped {
        Some((server, mapped)) if mapped != line.local => line.hairpins(server, mapped),
        _ => None,
    };
    Ok(Survey { local: line.local, asked, hairpins })
}

/// A socket with a number that nobody guesses, for its questions.
struct Line {
    socket: UdpSocket,
    local: SocketAddr,
    secret: [u8; 8],
}

impl Line {
    /// A socket for servers of the family of `server`.
    fn open(server: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0))?;
        match server {
            SocketAddr::V4(_) => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?,
            SocketAddr::V6(_) => set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?,
        }
        let local = super::drive::local_address(&socket, server)?;
        let [a, b, c, d, e, f, g, h, ..] = super::seed();
        Ok(Self { socket, local, secret: [a, b, c, d, e, f, g, h] })
    }

    /// A Binding request with this number that fills an IP packet of `packet` bytes, or is as
    /// short as can be.
    fn question(&self, number: u32, packet: Option<u16>) -> Vec<u8> {
        let headers = if self.local.is_ipv4() { 20 } else { 40 } + UDP_LEN;
        let payload = packet.map_or(STUN_LEN, |packet| usize::from(packet) - headers);
        // Attributes end at multiples of four.
        let body = (payload - STUN_LEN) / 4 * 4;
        let mut question = vec![0, 1];
        question.extend((body as u16).to_be_bytes());
        question.extend([0x21, 0x12, 0xa4, 0x42]);
        question.extend(self.secret);
        question.extend(number.to_be_bytes());
        if body >= ATTRIBUTE_LEN {
            question.extend(FILLER.to_be_bytes());
            question.extend(((body - ATTRIBUTE_LEN) as u16).to_be_bytes());
            question.resize(STUN_LEN + body, 0);
        }
        question
    }

    /// The next answer within `patience`: who gave it, to which question, and where it sees us.
    fn answer(&self, patience: Duration) -> Option<(SocketAddr, u32, Option<SocketAddr>)> {
        let deadline = Instant::now() + patience;
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.socket.set_read_timeout(Some(left)).ok()?;
            let Ok((len, from)) = self.socket.recv_from(&mut buffer) else { continue };
            if let Some((number, mapped)) = self.read(&buffer[..len]) {
                return Some((from, number, mapped));
            }
        }
    }

    /// The number of the question that a message belongs to, and the address in it.
    fn read(&self, data: &[u8]) -> Option<(u32, Option<SocketAddr>)> {
        let message = Message::parse(data).ok()?;
        let id = message.transaction().0;
        let (secret, number) = id.split_first_chunk::<8>()?;
        let number = u32::from_be_bytes(number.try_into().ok()?);
        let mapped = match message.class() {
            Class::Success => message.mapped_address(),
            _ => None,
        };
        (*secret == self.secret).then_some((number, mapped))
    }

    /// Asks all servers at once where they see us.
    fn ask(&mut self, servers: &[SocketAddr]) -> Vec<Asked> {
        let blank = |server| Asked { server, mapped: None, rtt: None, path_mtu: None };
        let mut asked: Vec<_> = servers.iter().copied().map(blank).collect();
        for attempt in 0..TRIES {
            let sent = Instant::now();
            for (number, one) in asked.iter().enumerate().filter(|(_, one)| one.mapped.is_none()) {
                let _ = self.socket.send_to(&self.question(number as u32, None), one.server);
            }
            let deadline = sent + PATIENCE;
            while asked.iter().any(|one| one.mapped.is_none()) {
                let left = deadline.saturating_duration_since(Instant::now());
                let Some((from, number, mapped)) = self.answer(left) else { break };
                let one = asked.get_mut(number as usize).filter(|one| one.server == from);
                let Some(one) = one.filter(|one| one.mapped.is_none()) else { continue };
                one.mapped = mapped;
                one.rtt = (attempt == 0).then(|| sent.elapsed());
            }
        }
        asked
    }

    /// The largest packet that reaches each of the servers, which answer short questions.
    fn measure(&mut self, servers: &[SocketAddr]) -> Vec<Option<u16>> {
        let mut best = vec![None; servers.len()];
        // The largest that our own interface takes.
        let mut goals = vec![PACKETS.first().copied(); servers.len()];
        let number_of = |server: usize, packet: u16| (server as u32) << 16 | u32::from(packet);
        for _ in 0..TRIES - 1 {
            for (at, server) in servers.iter().enumerate() {
                let larger = PACKETS.iter().copied().filter(|packet| best[at] < Some(*packet));
                for packet in larger.filter(|packet| Some(*packet) <= goals[at]).collect::<Vec<_>>()
                {
                    let question = self.question(number_of(at, packet), Some(packet));
                    let sent = self.socket.send_to(&question, *server);
                    if sent.is_err_and(|error| error.raw_os_error() == Some(EMSGSIZE)) {
                        goals[at] = PACKETS.iter().copied().find(|smaller| *smaller < packet);
                    }
                }
            }
            let deadline = Instant::now() + PATIENCE;
            while best.iter().zip(&goals).any(|(best, goal)| best < goal) {
                let left = deadline.saturating_duration_since(Instant::now());
                let Some((from, number, _)) = self.answer(left) else { break };
                let at = (number >> 16) as usize;
                if servers.get(at) == Some(&from) {
                    best[at] = best[at].max(Some(number as u16));
                }
            }
        }
        best
    }

    /// Whether two sockets behind this NAT reach each other by its outside. Both send first, so
    /// that no filter is in the way.
    fn hairpins(&mut self, server: SocketAddr, mapped: SocketAddr) -> Option<bool> {
        let mut other = Line::open(server).ok()?;
        let others = other.ask(&[server]).first().and_then(|asked| asked.mapped)?;
        let (to_other, to_us) = (self.question(1, None), other.question(2, None));
        for _ in 0..TRIES - 1 {
            let _ = self.socket.send_to(&to_other, others);
            let _ = other.socket.send_to(&to_us, mapped);
            if other.hears(&to_other) || self.hears(&to_us) {
                return Some(true);
            }
        }
        Some(false)
    }

    /// Whether this very datagram comes soon.
    fn hears(&self, datagram: &[u8]) -> bool {
        let deadline = Instant::now() + PATIENCE / 2;
        let mut buffer = [0; 2048];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.socket.set_read_timeout(Some(left)).is_err() {
                return false;
            }
            let len = self.socket.recv_from(&mut buffer).map_or(0, |(len, _)| len);
            if buffer[..len] == *datagram {
                return true;
            }
        }
    }
}

/// "Message too long": the interface does not take it.
const EMSGSIZE: i32 = rustix::io::Errno::MSGSIZE.raw_os_error();

#[cfg(test)]
mod tests {
    use super::*;

    fn line(local: &str) -> Line {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        Line { socket, local: local.parse().unwrap(), secret: [7; 8] }
    }

    #[test]
    fn questions_fill_their_packets_and_are_stun() {
        for (local, headers) in [("192.0.2.1:5", 28), ("[2001:db8::1]:5", 48)] {
            let line = line(local);
            for packet in PACKETS {
                let question = line.question(packet.into(), Some(packet));
                let short = usize::from(packet) - headers - question.len();
                assert!(short < 4, "{packet}: {short}");
                assert_eq!(line.read(&question), Some((u32::from(packet), None)));
            }
            assert_eq!(line.question(3, None).len(), STUN_LEN);
        }
    }

    #[test]
    fn a_server_that_answers_is_measured_and_others_are_not() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addresses = [server.local_addr().unwrap(), silent.local_addr().unwrap()];
        std::thread::spawn(move || {
            let mut buffer = [0; 16_384];
            while let Ok((len, from)) = server.recv_from(&mut buffer) {
                // A path of 1450 bytes of IP.
                if len <= 1450 - 28 {
                    let question = Message::parse(&buffer[..len]).unwrap();
                    let mapped = ipop_stun::Attribute::XorMappedAddress(from);
                    let answer = ipop_stun::Builder::success(&question).with(mapped);
                    server.send_to(&answer.build().unwrap(), from).unwrap();
                }
            }
        });
        let found = survey(&addresses).unwrap();
        assert_eq!(found.asked[0].mapped, Some(found.local));
        assert_eq!(found.asked[0].path_mtu, Some(1440));
        assert!(found.asked[0].rtt.is_some());
        assert_eq!((found.asked[1].mapped, found.asked[1].path_mtu), (None, None));
        assert_eq!(found.hairpins, None, "no NAT");
    }
}
