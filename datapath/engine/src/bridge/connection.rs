//! One connection, TCP or TLS over TCP, that never blocks.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use rustls::ClientConnection;
use socket2::{SockRef, TcpKeepalive};

use super::{BridgeTls, trust};

/// For the connection, and as much again for TLS.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what was sent may stay without acknowledgement: then the connection is dead.
const SILENCE_MAX_MS: u32 = 5_000;
/// Where nothing is said for so long, the kernel asks, and again every second: a dead connection is
/// noticed without traffic too.
const ASK_AFTER: Duration = Duration::from_secs(3);
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Bytes that the kernel takes beyond those under way: what waits, waits here, where it is counted.
const UNSENT_MAX: u32 = 64 * 1024;

/// See the head of this file.
pub(super) struct Connection {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Connection {
    /// Connects to `to`; nothing if the bell rang before that was done. The text says to people
    /// why there is no connection.
    pub(super) fn make(
        to: SocketAddr,
        tls: Option<&BridgeTls>,
        bell: &OwnedFd,
    ) -> Result<Option<Self>, String> {
        let session = tls.map(trust::client).transpose()?.map(Box::new);
        let Some(tcp) = dial(to, bell).map_err(|error| format!("cannot connect: {error}"))? else {
            return Ok(None);
        };
        let mut made = Self { tcp, tls: session };
        let Some(tls) = tls else { return Ok(Some(made)) };
        let is_whole = made.shake_hands(bell).map_err(|error| trust::failure(tls, &error))?;
        Ok(is_whole.then_some(made))
    }

    fn shake_hands(&mut self, bell: &OwnedFd) -> io::Result<bool> {
        let deadline = Instant::now() + PATIENCE;
        let Some(tls) = &mut self.tls else { return Ok(true) };
        while tls.is_handshaking() || tls.wants_write() {
            match tls.complete_io(&mut self.tcp) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let wanted = if tls.wants_write() {
                        PollFlags::OUT | PollFlags::IN
                    } else {
                        PollFlags::IN
                    };
                    if !await_ready(&self.tcp, wanted, bell, deadline)? {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Our end's address.
    pub(super) fn local_ip(&self) -> Option<IpAddr> {
        self.tcp.local_addr().ok().map(|local| local.ip())
    }

    /// Whether there is more to write than what [`write`](Self::write) was given.
    pub(super) fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Writes what goes at once; the number of bytes that need not be given again.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> io::Result<usize> {
        let whole = bytes.len();
        let Some(tls) = &mut self.tls else {
            while !bytes.is_empty() {
                match self.tcp.write(bytes) {
                    Ok(count) => bytes = &bytes[count..],
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            return Ok(whole - bytes.len());
        };
        loop {
            while tls.wants_write() {
                match tls.write_tls(&mut self.tcp) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(whole - bytes.len());
                    }
                    Err(error) => return Err(error),
                }
            }
            if bytes.is_empty() {
                return Ok(whole);
            }
            // Takes as much as its buffer holds, 64 KiB.
            let count = tls.writer().write(bytes)?;
            bytes = &bytes[count..];
        }
    }

    /// Reads what is there into `room`, which is not empty; `WouldBlock` if there is nothing.
    ///
    /// # Errors
    /// `UnexpectedEof` when the other end has closed.
    pub(super) fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let closed = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let Some(tls) = &mut self.tls else {
            return match self.tcp.read(room)? {
                0 => Err(closed()),
                count => Ok(count),
            };
        };
        loop {
            match tls.reader().read(room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Err(closed()),
                result => return result,
            }
            if tls.read_tls(&mut self.tcp)? == 0 {
                return Err(closed());
            }
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp.as_fd()
    }
}

fn dial(to: SocketAddr, bell: &OwnedFd) -> io::Result<Option<TcpStream>> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_tcp_user_timeout(&socket, SILENCE_MAX_MS)?;
    let socket_ref = SockRef::from(&socket);
    socket_ref.set_tcp_notsent_lowat(UNSENT_MAX)?;
    let keepalive = TcpKeepalive::new().with_time(ASK_AFTER).with_interval(ASK_AGAIN);
    socket_ref.set_tcp_keepalive(&keepalive)?;
    match connect(&socket, &to) {
        Ok(()) => {}
        Err(Errno::INPROGRESS) => {
            let deadline = Instant::now() + PATIENCE;
            if !await_ready(&socket, PollFlags::OUT, bell, deadline)? {
                return Ok(None);
            }
            sockopt::socket_error(&socket)??;
        }
        Err(errno) => return Err(errno.into()),
    }
    Ok(Some(TcpStream::from(socket)))
}

/// Waits until the socket is ready; false if the bell rang first.
fn await_ready(
    socket: &impl AsFd,
    wanted: PollFlags,
    bell: &OwnedFd,
    deadline: Instant,
) -> io::Result<bool> {
    loop {
        let pause = deadline.saturating_duration_since(Instant::now());
        if pause.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s"));
        }
        let pause = Timespec::try_from(pause).map_err(io::Error::other)?;
        let mut fds = [PollFd::new(socket, wanted), PollFd::new(bell, PollFlags::IN)];
        match poll(&mut fds, Some(&pause)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        if !fds[1].revents().is_empty() {
            return Ok(false);
        }
        if !fds[0].revents().is_empty() {
            return Ok(true);
        }
    }
}
