//! Sockets that are opened for one link, some hundred at a time, so that its peer meets one of them
//! (`ipop_ice`, hard pairs).
//!
//! They are idle at first, and looked at by the agent between its turns. One that an authentic
//! check came to is attached to the first worker, for the link may use it: from then on the worker
//! reads it as its own. The others are closed within seconds.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipop_uring::{ATTACHED_MAX, Destination, Family, UdpSocket};
use rustix::event::{Timespec, epoll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that a node may need, if the system lets it: idle sockets and all else.
const FILES_MAX: u64 = 4096;
/// Datagrams taken in one turn at most, and their longest: checks are shorter.
const RECEIVES_MAX: usize = 64;
const DATAGRAM_LEN_MAX: usize = 1500;

/// See the head of this file.
#[derive(Default)]
pub(crate) struct Spares {
    /// By port.
    idle: BTreeMap<u16, Spare>,
    attached: BTreeMap<u16, Spare>,
    /// Of the idle ones; from the first one on.
    epoll: Option<OwnedFd>,
}

struct Spare {
    socket: Arc<UdpSocket>,
    /// The address of ours that it is to be used with.
    ip: IpAddr,
}

/// What came to an idle socket.
pub(crate) struct Received {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) data: Vec<u8>,
}

impl Spares {
    /// Opens a socket on any port and sends a datagram from there.
    pub(crate) fn open(&mut self, ip: IpAddr, remote: SocketAddr, data: &[u8]) -> io::Result<()> {
        let family = if ip.is_ipv4() { Family::V4 } else { Family::V6 };
        let socket = UdpSocket::bind(family, 0).map_err(io::Error::other)?;
        let port = socket.port();
        let epoll = match &self.epoll {
            Some(epoll) => epoll,
            None => {
                raise_limit();
                self.epoll.insert(epoll::create(epoll::CreateFlags::CLOEXEC)?)
            }
        };
        let data_of_event = epoll::EventData::new_u64(u64::from(port));
        epoll::add(epoll, &socket, data_of_event, epoll::EventFlags::IN)?;
        let to = Destination { remote, local_ip: ip, local_port: port };
        let sent = socket.send(data, &to).map_err(io::Error::other);
        self.idle.insert(port, Spare { socket: Arc::new(socket), ip });
        sent
    }

    /// Whether there are sockets that only the agent looks at.
    pub(crate) fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// The socket of a port.
    pub(crate) fn socket(&self, port: u16) -> Option<&Arc<UdpSocket>> {
        let spare = self.idle.get(&port).or_else(|| self.attached.get(&port));
        spare.map(|spare| &spare.socket)
    }

    /// What has come to idle sockets.
    pub(crate) fn receive(&self) -> Vec<Received> {
        let mut received = Vec::new();
        let Some(epoll) = self.epoll.as_ref().filter(|_| self.has_idle()) else { return received };
        let mut events = Vec::with_capacity(RECEIVES_MAX);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let ready = rustix::buffer::spare_capacity(&mut events);
        if epoll::wait(epoll, ready, Some(&now)).is_err() {
            return received;
        }
        let ports = events.iter().map(|event| event.data.u64() as u16);
        for spare in ports.filter_map(|port| self.idle.get(&port)) {
            let mut data = vec![0; DATAGRAM_LEN_MAX];
            if let Some((len, remote)) = spare.socket.receive(&mut data) {
                data.truncate(len);
                received.push(Received { local: spare.local(), remote, data });
            }
        }
        received
    }

    /// The socket for the first worker, if it was idle and the worker has room for it.
    pub(crate) fn attach(&mut self, port: u16) -> Option<Arc<UdpSocket>> {
        if self.attached.len() >= ATTACHED_MAX {
            return None;
        }
        let spare = self.idle.remove(&port)?;
        if let Some(epoll) = &self.epoll {
            let _ = epoll::delete(epoll, &spare.socket);
        }
        let socket = spare.socket.clone();
        self.attached.insert(port, spare);
        Some(socket)
    }

    /// Closes what is idle.
    pub(crate) fn close_idle(&mut self) {
        self.idle.clear();
    }

    /// Forgets the attached ones that are not needed; the worker has to let go of these ports.
    pub(crate) fn detach(&mut self, is_needed: impl Fn(SocketAddr) -> bool) -> Vec<u16> {
        let spent = self.attached.values().map(Spare::local).filter(|local| !is_needed(*local));
        let ports: Vec<u16> = spent.map(|local| local.port()).collect();
        self.attached.retain(|port, _| !ports.contains(port));
        ports
    }
}

impl Spare {
    fn local(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.socket.port())
    }
}

/// Asks for as many files as may be needed. Without them fewer sockets are opened.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(FILES_MAX, |maximum| maximum.min(FILES_MAX));
    if limit.current.is_some_and(|current| current < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_opened_socket_is_heard_until_it_is_attached_or_closed() {
        let peer = UdpSocket::bind(Family::V4, 0).unwrap();
        let home = IpAddr::from([127, 0, 0, 1]);
        let remote = SocketAddr::new(home, peer.port());
        let mut spares = Spares::default();
        for _ in 0..3 {
            spares.open(home, remote, b"open").unwrap();
        }
        let mut data = [0; 10];
        let senders: Vec<_> = (0..3).map(|_| peer.receive(&mut data).unwrap().1).collect();
        let answer = |to: SocketAddr| {
            let to = Destination { remote: to, local_ip: home, local_port: 0 };
            peer.send(b"yes", &to).unwrap();
        };
        assert!(spares.receive().is_empty());
        answer(senders[1]);
        let [received] = &spares.receive()[..] else { panic!("one datagram") };
        assert_eq!((received.local, received.remote), (senders[1], remote));
        assert_eq!(received.data, b"yes");
        assert!(spares.attach(senders[1].port()).is_some());
        assert!(spares.attach(senders[1].port()).is_none(), "it is attached already");
        answer(senders[1]);
        assert!(spares.receive().is_empty(), "the worker reads it now");
        spares.close_idle();
        assert!(spares.socket(senders[0].port()).is_none());
        assert!(spares.detach(|_| true).is_empty());
        assert_eq!(spares.detach(|_| false), [senders[1].port()]);
        assert!(spares.socket(senders[1].port()).is_none());
    }
}
