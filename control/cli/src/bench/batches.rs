//! Many small packets with one system call, each a datagram of its own to the kernel: a call for
//! each would measure the calls.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use rustix::net::{
    MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, addr::SocketAddrArg as _, sendmmsg,
};

/// Packets of one call.
const BATCH_LEN: usize = 64;
/// Longest packet.
const PACKET_LEN_MAX: usize = 64;

/// Sends a packet again and again, to `to` or where the socket is connected to, for as long as
/// `goes_on` says so; returns how often the kernel took it.
pub fn flood(
    socket: &UdpSocket,
    packet: &[u8],
    to: Option<SocketAddr>,
    goes_on: impl Fn() -> bool,
) -> u64 {
    let to: Option<SocketAddrAny> = to.map(|address| address.as_any());
    let slices = [IoSlice::new(packet)];
    let mut controls: Vec<_> = (0..BATCH_LEN).map(|_| SendAncillaryBuffer::default()).collect();
    let header = |control| match &to {
        Some(address) => MMsgHdr::new_with_addr(address, &slices, control),
        None => MMsgHdr::new(&slices, control),
    };
    let mut batch: Vec<_> = controls.iter_mut().map(header).collect();
    let mut sent = 0;
    while goes_on() {
        // What a full queue refuses is not sent, which is what is measured.
        sent += sendmmsg(socket, &mut batch, SendFlags::empty()).unwrap_or(0) as u64;
    }
    sent
}

/// Room for the packets that one call receives.
pub struct Arrivals {
    headers: MultiHeaders<SockaddrStorage>,
    buffers: Vec<[u8; PACKET_LEN_MAX]>,
}

impl Arrivals {
    /// Allocates it.
    pub fn new() -> Self {
        let headers = MultiHeaders::preallocate(BATCH_LEN, None);
        Self { headers, buffers: vec![[0; PACKET_LEN_MAX]; BATCH_LEN] }
    }

    /// Waits for packets, as long as the socket's timeout says; hands over each with its sender.
    ///
    /// # Errors
    /// The system's, above all when nothing comes in time.
    pub fn receive(
        &mut self,
        socket: &UdpSocket,
        mut each: impl FnMut(&[u8], SocketAddr),
    ) -> io::Result<()> {
        let mut slices: Vec<_> =
            self.buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        let messages =
            recvmmsg(socket.as_raw_fd(), &mut self.headers, slices.iter_mut(), flags, None)
                .map_err(|error: Errno| io::Error::from(error))?;
        for message in messages {
            let from = message.address.as_ref().and_then(socket_address);
            let nobody = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            each(message.iovs().next().unwrap_or_default(), from.unwrap_or(nobody));
        }
        Ok(())
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::from((v4.ip(), v4.port())));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::from((v6.ip(), v6.port()))))
}
