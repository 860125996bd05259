//! UDP sockets: one per address family, bound to every address, large and exact.
//!
//! A socket reports the local address of what it receives (packet info), takes joined datagrams
//! (GRO), never lets the network fragment what it sends (path MTU probing), and has buffers for
//! a burst of super-datagrams. It is in blocking mode, as io_uring wants it, until a poll loop
//! wants it otherwise; the plain sends here ask not to block one by one.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
    set_ipv6_v6only, set_socket_recv_buffer_size, set_socket_recv_buffer_size_force,
    set_socket_send_buffer_size, set_socket_send_buffer_size_force, socket_recv_buffer_size,
    socket_send_buffer_size,
};
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, getsockname, recvfrom, socket_with,
};

use crate::message::Envelope;
use crate::port::{Destination, SendError};
use crate::segmentation::segmentation;

/// Asked for per direction. A received super-datagram is charged about twice its length, so this
/// is some 60 of them; without CAP_NET_ADMIN the kernel's `rmem_max` and `wmem_max` cap it.
const SOCKET_BUFFER_LEN: usize = 8 << 20;

/// `SO_MEMINFO` (`linux/sock_diag.h`): so many numbers, and which of them counts drops.
const MEMORY_INFO_LEN: usize = 9;
const MEMORY_INFO_DROPS: usize = 8;

/// Address family of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6 alone: no mapped addresses.
    V6,
}

impl Family {
    pub(crate) fn of(address: &SocketAddr) -> Family {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

/// One bound UDP socket. `Sync`: the link agent sends on it while a port reads it.
#[derive(Debug)]
pub struct UdpSocket {
    fd: OwnedFd,
    family: Family,
    port: u16,
    receive_buffer_len: usize,
    send_buffer_len: usize,
}

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// The port is taken.
    #[error("UDP port {port} is in use by another process: stop it, or choose another port or 0")]
    PortTaken {
        /// The port asked for.
        port: u16,
    },
    /// The kernel has no such family.
    #[error("this system has no {family:?}")]
    NoFamily {
        /// The family asked for.
        family: Family,
    },
    /// Anything else the kernel said.
    #[error("cannot {action} on the {family:?} UDP socket: {source}")]
    Refused {
        /// What was attempted.
        action: &'static str,
        /// On which socket.
        family: Family,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl UdpSocket {
    /// Opens a socket on `port` of all addresses (0: any free port).
    ///
    /// # Errors
    /// [`UdpError`] says what is wrong. IPv6 may be missing: `NoFamily`.
    pub fn bind(family: Family, port: u16) -> Result<UdpSocket, UdpError> {
        let domain = match family {
            Family::V4 => AddressFamily::INET,
            Family::V6 => AddressFamily::INET6,
        };
        let refused = |action| {
            move |errno: rustix::io::Errno| UdpError::Refused {
                action,
                family,
                source: errno.into(),
            }
        };
        let fd = socket_with(domain, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            .map_err(|errno| open_failed(family, errno))?;
        set_options(&fd, family).map_err(refused("set options"))?;
        set_buffers(&fd).map_err(refused("set buffer sizes"))?;
        let wildcard: SocketAddr = match family {
            Family::V4 => (Ipv4Addr::UNSPECIFIED, port).into(),
            Family::V6 => (Ipv6Addr::UNSPECIFIED, port).into(),
        };
        bind(&fd, &wildcard).map_err(|errno| bind_failed(family, port, errno))?;
        let bound = getsockname(&fd).and_then(SocketAddr::try_from);
        Ok(UdpSocket {
            port: bound.map_err(refused("read the port"))?.port(),
            receive_buffer_len: socket_recv_buffer_size(&fd).unwrap_or(0),
            send_buffer_len: socket_send_buffer_size(&fd).unwrap_or(0),
            fd,
            family,
        })
    }

    /// Its family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The port it is bound to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes of receive buffer that the kernel granted (it doubles what is asked for).
    pub fn receive_buffer_len(&self) -> usize {
        self.receive_buffer_len
    }

    /// Bytes of send buffer that the kernel granted.
    pub fn send_buffer_len(&self) -> usize {
        self.send_buffer_len
    }

    /// Datagrams that found its receive buffer full since it was opened.
    pub fn overflows(&self) -> u32 {
        let mut info = [0_u32; MEMORY_INFO_LEN];
        let mut len = size_of_val(&info) as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to the array, which is as long.
        unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        // It stays zero where the kernel does not say.
        info[MEMORY_INFO_DROPS]
    }

    /// Sends one datagram now. Never blocks.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(&self, data: &[u8], destination: &Destination) -> Result<(), SendError> {
        self.transmit(data, 0, destination).map_err(SendError::from_errno)
    }

    /// Sends one datagram now with this hop limit (TTL) instead of the system's. Never blocks.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send_near(
        &self,
        data: &[u8],
        hop_limit: u8,
        destination: &Destination,
    ) -> Result<(), SendError> {
        let mut envelope = Envelope::new();
        let message = envelope.seal_near(data.as_ptr(), data.len(), hop_limit, destination);
        // SAFETY: the message points into `envelope` and `data`, which outlive it unmoved.
        let sent = unsafe { self.send_message(message, destination) };
        sent.map_err(SendError::from_errno)
    }

    /// Sends `data` now as datagrams of `segment_size` bytes, the last one possibly shorter, in
    /// one call; one by one where the route takes no segmentation. Never blocks.
    ///
    /// # Errors
    /// See [`SendError`]; the first failure ends the row. Beyond the limits of
    /// [`crate::Port::send`]: `TooBig`.
    pub fn send_segments(
        &self,
        data: &[u8],
        segment_size: usize,
        destination: &Destination,
    ) -> Result<(), SendError> {
        match segmentation(data.len(), segment_size) {
            None => Err(SendError::TooBig),
            Some(0) => self.send(data, destination),
            Some(size) => match self.transmit(data, size, destination) {
                Err(libc::EIO | libc::EINVAL) => self.send_each(data, size, destination),
                result => result.map_err(SendError::from_errno),
            },
        }
    }

    /// Takes a datagram, if there is one: its bytes and who sent it. What is longer than `data` is
    /// cut. For sockets that no port reads.
    pub fn receive(&self, data: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let (len, _, sender) = recvfrom(&self.fd, data, RecvFlags::DONTWAIT).ok()?;
        Some((len, SocketAddr::try_from(sender?).ok()?))
    }

    /// As [`send_segments`](Self::send_segments), one call each.
    pub(crate) fn send_each(
        &self,
        data: &[u8],
        segment_size: u16,
        destination: &Destination,
    ) -> Result<(), SendError> {
        let mut segments = data.chunks(usize::from(segment_size.max(1)));
        segments.try_for_each(|segment| self.send(segment, destination))
    }

    fn transmit(
        &self,
        data: &[u8],
        segment_size: u16,
        destination: &Destination,
    ) -> Result<(), libc::c_int> {
        let mut envelope = Envelope::new();
        let message = envelope.seal(data.as_ptr(), data.len(), segment_size, destination);
        // SAFETY: the message points into `envelope` and `data`, which outlive it unmoved.
        unsafe { self.send_message(message, destination) }
    }

    /// # Safety
    /// The message is as an [`Envelope`] sealed it, and that and its payload are where they were.
    unsafe fn send_message(
        &self,
        message: *const libc::msghdr,
        destination: &Destination,
    ) -> Result<(), libc::c_int> {
        if destination.remote.is_ipv4() != (self.family == Family::V4) {
            return Err(libc::EAFNOSUPPORT);
        }
        // SAFETY: the caller's word; sendmsg only reads what the message points at.
        let sent = unsafe { libc::sendmsg(self.fd.as_raw_fd(), message, libc::MSG_DONTWAIT) };
        match sent {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
        }
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl SendError {
    pub(crate) fn from_errno(errno: libc::c_int) -> SendError {
        match errno {
            libc::EMSGSIZE => SendError::TooBig,
            libc::ECONNREFUSED => SendError::Refused,
            libc::EPERM | libc::EACCES => SendError::Denied(errno),
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => SendError::NoBuffers(errno),
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EADDRNOTAVAIL => {
                SendError::Unreachable(errno)
            }
            libc::EAFNOSUPPORT => SendError::NoSocket,
            // An address of ours in packet info that is gone.
            libc::EINVAL => SendError::Unreachable(errno),
            _ => SendError::Other(errno),
        }
    }
}

fn set_options(fd: &OwnedFd, family: Family) -> rustix::io::Result<()> {
    match family {
        Family::V4 => {
            set_ip_mtu_discover(fd, Ipv4PathMtuDiscovery::PROBE)?;
            set_int(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        }
        Family::V6 => {
            set_ipv6_v6only(fd, true)?;
            set_ipv6_mtu_discover(fd, Ipv6PathMtuDiscovery::PROBE)?;
            set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        }
    }
    set_int(fd, libc::SOL_UDP, libc::UDP_GRO, 1)
}

fn set_buffers(fd: &OwnedFd) -> rustix::io::Result<()> {
    set_socket_recv_buffer_size_force(fd, SOCKET_BUFFER_LEN)
        .or_else(|_| set_socket_recv_buffer_size(fd, SOCKET_BUFFER_LEN))?;
    set_socket_send_buffer_size_force(fd, SOCKET_BUFFER_LEN)
        .or_else(|_| set_socket_send_buffer_size(fd, SOCKET_BUFFER_LEN))
}

fn set_int(
    fd: &OwnedFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> rustix::io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    let value = (&raw const value).cast();
    // SAFETY: `value` points at a live int, and `len` is an int's size.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, value, len) };
    if result == 0 {
        return Ok(());
    }
    Err(rustix::io::Errno::from_io_error(&io::Error::last_os_error())
        .unwrap_or(rustix::io::Errno::IO))
}

fn open_failed(family: Family, errno: rustix::io::Errno) -> UdpError {
    match errno {
        rustix::io::Errno::AFNOSUPPORT => UdpError::NoFamily { family },
        _ => UdpError::Refused { action: "open", family, source: errno.into() },
    }
}

fn bind_failed(family: Family, port: u16, errno: rustix::io::Errno) -> UdpError {
    match errno {
        rustix::io::Errno::ADDRINUSE => UdpError::PortTaken { port },
        rustix::io::Errno::ADDRNOTAVAIL => UdpError::NoFamily { family },
        _ => UdpError::Refused { action: "bind", family, source: errno.into() },
    }
}
