//! Pings through the overlay: ICMP echo (RFC 792, RFC 4443) from a raw socket.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ipop_wire::checksum::checksum;
use socket2::{Domain, Protocol, Socket, Type};

const PAYLOAD_LEN: usize = 32;

/// One target to ping.
pub struct Pinger {
    socket: UdpSocket,
    is_ipv4: bool,
    identifier: u16,
    sequence: u16,
}

impl Pinger {
    /// Opens a socket towards `target`. `identifier` keeps several pingers of a machine apart.
    ///
    /// # Errors
    /// Without the right to open raw sockets, or when there is no route.
    pub fn open(target: IpAddr, identifier: u16) -> io::Result<Self> {
        Self::open_from(None, target, identifier)
    }

    /// As [`Pinger::open`], from an address of this machine: fails as long as it has not got it.
    ///
    /// # Errors
    /// As [`Pinger::open`], and when the machine does not have the address.
    pub fn open_from(source: Option<IpAddr>, target: IpAddr, identifier: u16) -> io::Result<Self> {
        let (domain, protocol) = match target {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
        if let Some(source) = source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        socket.connect(&SocketAddr::new(target, 0).into())?;
        // The standard library's calls work on a raw socket as well, without any unsafe code.
        let socket = UdpSocket::from(OwnedFd::from(socket));
        Ok(Self { socket, is_ipv4: target.is_ipv4(), identifier, sequence: 0 })
    }

    /// Sends one ping and waits up to `patience` for its answer. `None`: no answer in time.
    ///
    /// # Errors
    /// When the ping cannot be sent or the socket fails.
    pub fn ping(&mut self, patience: Duration) -> io::Result<Option<Duration>> {
        self.sequence = self.sequence.wrapping_add(1);
        let start = Instant::now();
        self.socket.send(&self.request())?;
        let mut answer = [0; 1500];
        loop {
            let left = patience.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.recv(&mut answer) {
                Ok(length) if self.is_reply(&answer[..length]) => return Ok(Some(start.elapsed())),
                Ok(_) => {}
                Err(error) if is_timeout(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a ping every `interval` until one of them is answered, and returns when that was.
    /// `None`: `goes_on` said no before.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn until_answered(
        &mut self,
        interval: Duration,
        goes_on: impl Fn() -> bool,
    ) -> io::Result<Option<Instant>> {
        let mut answer = [0; 1500];
        while goes_on() {
            self.sequence = self.sequence.wrapping_add(1);
            // Without an interface yet there is no way: the next one may find it.
            let _ = self.socket.send(&self.request());
            let next = Instant::now() + interval;
            loop {
                let left = next.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                self.socket.set_read_timeout(Some(left))?;
                match self.socket.recv(&mut answer) {
                    Ok(length) if self.is_any_reply(&answer[..length]) => {
                        return Ok(Some(Instant::now()));
                    }
                    Ok(_) => {}
                    Err(error) if is_timeout(&error) => break,
                    Err(_) => std::thread::sleep(left),
                }
            }
        }
        Ok(None)
    }

    fn request(&self) -> [u8; 8 + PAYLOAD_LEN] {
        let mut packet = [0x69; 8 + PAYLOAD_LEN];
        packet[0] = if self.is_ipv4 { 8 } else { 128 };
        packet[1..4].fill(0);
        packet[4..6].copy_from_slice(&self.identifier.to_be_bytes());
        packet[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        // The kernel fills in the ICMPv6 checksum, which covers addresses; ICMPv4's is ours.
        if self.is_ipv4 {
            let sum = checksum(&packet);
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        packet
    }

    fn is_reply(&self, packet: &[u8]) -> bool {
        self.reply_sequence(packet) == Some(self.sequence)
    }

    fn is_any_reply(&self, packet: &[u8]) -> bool {
        self.reply_sequence(packet).is_some()
    }

    /// The sequence number of an answer to one of our pings.
    fn reply_sequence(&self, packet: &[u8]) -> Option<u16> {
        let header = match (self.is_ipv4, packet.first()) {
            (true, Some(first)) => usize::from(first & 0x0f) * 4,
            _ => 0,
        };
        let icmp = packet.get(header..).filter(|icmp| icmp.len() >= 8)?;
        let is_ours = icmp[0] == if self.is_ipv4 { 0 } else { 129 }
            && icmp[4..6] == self.identifier.to_be_bytes();
        is_ours.then(|| u16::from_be_bytes([icmp[6], icmp[7]]))
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_answers() {
        let mut pinger = Pinger::open(IpAddr::from([127, 0, 0, 1]), 7).unwrap();
        for _ in 0..3 {
            assert!(pinger.ping(Duration::from_secs(1)).unwrap().is_some());
        }
    }

    #[test]
    fn a_request_has_a_right_checksum() {
        let pinger = Pinger::open(IpAddr::from([127, 0, 0, 1]), 9).unwrap();
        assert_eq!(checksum(&pinger.request()), 0);
    }
}
