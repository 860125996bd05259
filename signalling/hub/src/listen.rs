//! Sockets that wait for clients.

use crate::error::HubError;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use tokio::net::TcpListener;

const BACKLOG: i32 = 1024;
/// Bytes that may wait in the kernel for the relay; less where the system allows no more.
const UDP_BUFFER: usize = 4 << 20;
/// How often a port is sought that is free in both families.
const ATTEMPTS: usize = 16;

/// XMPP listeners: one per family.
pub(crate) fn tcp(address: SocketAddr) -> Result<Vec<TcpListener>, HubError> {
    let made = in_families(address, |at| {
        let listener = tcp_listener(at)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    });
    made.map_err(|(at, error)| refused("TCP", at, error))
}

/// STUN and TURN sockets: one per family.
pub(crate) fn udp(address: SocketAddr) -> Result<Vec<std::net::UdpSocket>, HubError> {
    let made = in_families(address, |at| {
        let socket = udp_socket(at)?;
        let bound = socket.local_addr()?;
        Ok((socket, bound))
    });
    made.map_err(|(at, error)| refused("UDP", at, error))
}

/// A UDP socket for the relay.
pub(crate) fn udp_socket(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Smaller ones do as well.
    let _ = socket.set_recv_buffer_size(UDP_BUFFER);
    let _ = socket.set_send_buffer_size(UDP_BUFFER);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    // Its connections have it too: what is lost of a login is sent again at once, see the client.
    let _ = socket.set_tcp_thin_linear_timeouts(true);
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// `[::]` stands for both families, the same port in each; IPv6 may be missing on the machine.
fn in_families<S>(
    address: SocketAddr,
    make: impl Fn(SocketAddr) -> io::Result<(S, SocketAddr)>,
) -> Result<Vec<S>, (SocketAddr, io::Error)> {
    let is_both = address.is_ipv6() && address.ip().is_unspecified();
    if !is_both {
        return Ok(vec![make(address).map_err(|error| (address, error))?.0]);
    }
    let v4 = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    let mut attempts = if address.port() == 0 { ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let (first, bound) = match make(address) {
            Ok(made) => made,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err((address, error)),
            Err(error) => {
                tracing::info!(%error, "no IPv6 on this machine");
                let at = v4(address.port());
                return Ok(vec![make(at).map_err(|error| (at, error))?.0]);
            }
        };
        match make(v4(bound.port())) {
            Ok((second, _)) => return Ok(vec![first, second]),
            Err(_) if attempts > 0 => {}
            Err(error) => return Err((v4(bound.port()), error)),
        }
    }
}

fn refused(protocol: &'static str, address: SocketAddr, source: io::Error) -> HubError {
    let remedy = match (source.kind(), protocol) {
        (io::ErrorKind::AddrInUse, "TCP") => {
            "Something listens there already, another hub or XMPP server perhaps: stop it, or \
             choose another port with --listen"
        }
        (io::ErrorKind::AddrInUse, _) => {
            "Something listens there already, another hub or TURN server perhaps: stop it, or \
             choose another port with --stun-port"
        }
        (io::ErrorKind::AddrNotAvailable, _) => {
            "This machine does not have that address: choose another with --listen"
        }
        (io::ErrorKind::PermissionDenied, _) => {
            "Ports below 1024 take CAP_NET_BIND_SERVICE: choose a higher one"
        }
        _ => "Choose another address with --listen",
    };
    HubError::Listen { protocol, address, source, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn both_families_share_a_port() {
        let listeners = tcp("[::]:0".parse().unwrap()).unwrap();
        let ports: Vec<_> = listeners.iter().map(|l| l.local_addr().unwrap().port()).collect();
        assert!(ports.iter().all(|port| *port == ports[0]));
        let sockets = udp("[::]:0".parse().unwrap()).unwrap();
        let ports: Vec<_> = sockets.iter().map(|s| s.local_addr().unwrap().port()).collect();
        assert!(ports.iter().all(|port| *port == ports[0]));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_taken_port_is_named_with_the_way_out() {
        let taken = udp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = taken[0].local_addr().unwrap();
        let text = udp(address).err().unwrap().to_string();
        assert!(text.contains(&address.to_string()) && text.contains("--stun-port"), "{text}");
        let taken = tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let text = tcp(taken[0].local_addr().unwrap()).err().unwrap().to_string();
        assert!(text.contains("--listen"), "{text}");
        let text = tcp("192.0.2.1:0".parse().unwrap()).err().unwrap().to_string();
        assert!(text.contains("does not have that address"), "{text}");
    }
}
