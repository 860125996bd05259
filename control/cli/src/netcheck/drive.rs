//! Runs one of the STUN crate's machines on a socket of its own.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use ipop_stun::Input;

/// How long a test may take.
const PATIENCE: Duration = Duration::from_secs(12);

/// A machine as the loop sees it.
pub(super) trait Machine {
    /// Takes a datagram.
    fn input(&mut self, now: Instant, input: Input<'_>);
    /// Does what is due.
    fn timeout(&mut self, now: Instant);
    /// When the next thing is due.
    fn due(&self) -> Option<Instant>;
    /// The next datagram to send.
    fn transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)>;
    /// Whether all is known.
    fn is_done(&self) -> bool;
}

/// Drives a machine until it is done, or time is over. `make` is told the socket's address.
pub(super) fn drive<M: Machine>(
    server: SocketAddr,
    make: impl FnOnce(SocketAddr) -> M,
) -> io::Result<M> {
    let wildcard: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((wildcard, 0))?;
    let machine = make(local_address(&socket, server)?);
    drive_on(&socket, machine)
}

/// As [`drive`], on a socket that is there.
pub(super) fn drive_on<M: Machine>(socket: &UdpSocket, mut machine: M) -> io::Result<M> {
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 2048];
    loop {
        while let Some((to, data)) = machine.transmit() {
            // What cannot be sent is repeated, and shows as silence in the end.
            let _ = socket.send_to(&data, to);
        }
        let now = Instant::now();
        if machine.is_done() || now >= deadline {
            return Ok(machine);
        }
        let due = machine.due().unwrap_or(deadline).min(deadline);
        let pause = due.saturating_duration_since(now).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(pause))?;
        if let Ok((length, remote)) = socket.recv_from(&mut buffer) {
            machine.input(Instant::now(), Input { remote, data: &buffer[..length] });
        }
        machine.timeout(Instant::now());
    }
}

/// The address that the machine sends to `server` from, with the socket's port.
pub(super) fn local_address(socket: &UdpSocket, server: SocketAddr) -> io::Result<SocketAddr> {
    let own = socket.local_addr()?;
    // A connected socket knows its source address; nothing is sent for that.
    let probe = UdpSocket::bind(SocketAddr::new(own.ip(), 0))?;
    probe.connect(server)?;
    Ok(SocketAddr::new(probe.local_addr()?.ip(), own.port()))
}
