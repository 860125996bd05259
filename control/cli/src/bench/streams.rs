//! TCP streams, filled at one end and emptied at the other.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::words::{BYTES_MAX, Moved, Secret};

const BLOCK_LEN: usize = 128 * 1024;
/// How long a stream may stand still.
const STILL_MAX: Duration = Duration::from_secs(10);
/// How long a connection may take, and its secret.
const OPEN_PATIENCE: Duration = Duration::from_secs(3);
/// The same at both ends, whatever the machine's default: figures are to be compared.
const CONGESTION_CONTROL: &[u8] = b"cubic";

/// Where streams are taken.
pub struct Listener(Socket);

impl Listener {
    /// On `port` (0: any) of all addresses; of one interface only, if that is named.
    ///
    /// # Errors
    /// The system's.
    pub fn open(interface: Option<&str>, port: u16) -> io::Result<Self> {
        let socket = any_address(Type::STREAM, port, |socket| {
            socket.set_reuse_address(true)?;
            socket.bind_device(interface.map(str::as_bytes))
        })?;
        socket.listen(16)?;
        Ok(Self(socket))
    }

    /// Whether its interface is still the one that it was opened on.
    pub fn is_attached(&self) -> bool {
        // The kernel knows the interface by its index, and has no name for one that is gone.
        self.0.device().is_ok()
    }

    /// Its port.
    ///
    /// # Errors
    /// The system's.
    pub fn port(&self) -> io::Result<u16> {
        let address = self.0.local_addr()?.as_socket();
        address.map(|address| address.port()).ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// The next connection, if one comes within `patience`.
    ///
    /// # Errors
    /// The system's; `WouldBlock` when none comes.
    pub fn accept(&self, patience: Duration) -> io::Result<(TcpStream, SocketAddr)> {
        self.0.set_read_timeout(Some(patience))?;
        let (socket, address) = self.0.accept()?;
        let address = address.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok((socket.into(), SocketAddr::new(address.ip().to_canonical(), address.port())))
    }

    /// The next `count` connections that come from `peer` and know the secret.
    ///
    /// # Errors
    /// When they do not come in time.
    pub fn take(&self, count: u32, secret: &Secret, peer: IpAddr) -> io::Result<Vec<TcpStream>> {
        let deadline = Instant::now() + OPEN_PATIENCE;
        let mut streams = Vec::new();
        while streams.len() < count as usize {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let (mut stream, from) = self.accept(left)?;
            if from.ip() != peer {
                continue;
            }
            let mut word = Secret([0; 16]);
            stream.set_read_timeout(Some(left))?;
            if stream.read_exact(&mut word.0).is_ok() && word == *secret {
                prepare(&stream)?;
                streams.push(stream);
            }
        }
        Ok(streams)
    }
}

/// A socket on a port of all addresses, of both families where there are two.
///
/// # Errors
/// The system's.
pub fn any_address(
    kind: Type,
    port: u16,
    prepare: impl Fn(&Socket) -> io::Result<()>,
) -> io::Result<Socket> {
    let both = Socket::new(Domain::IPV6, kind, None).and_then(|socket| {
        socket.set_only_v6(false)?;
        prepare(&socket)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
        Ok(socket)
    });
    both.or_else(|error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            return Err(error);
        }
        let socket = Socket::new(Domain::IPV4, kind, None)?;
        prepare(&socket)?;
        socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into())?;
        Ok(socket)
    })
}

/// Opens `count` streams to the other end.
///
/// # Errors
/// The system's, above all when the way is closed.
pub fn open(address: SocketAddr, count: u32, secret: &Secret) -> io::Result<Vec<TcpStream>> {
    let streams = (0..count).map(|_| {
        let mut stream = TcpStream::connect_timeout(&address, OPEN_PATIENCE)?;
        prepare(&stream)?;
        stream.write_all(&secret.0)?;
        Ok(stream)
    });
    streams.collect()
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(STILL_MAX))?;
    stream.set_write_timeout(Some(STILL_MAX))?;
    // A kernel without it goes on with its default.
    let _ = SockRef::from(stream).set_tcp_congestion(CONGESTION_CONTROL);
    Ok(())
}

/// Fills streams for a while, then ends them.
///
/// # Errors
/// When one stands still, or breaks before the time is over.
pub fn fill(streams: Vec<TcpStream>, time: Duration) -> io::Result<()> {
    let deadline = Instant::now() + time;
    let bytes_max = share(&streams);
    each(streams, |mut stream| {
        let block = vec![0x5a; BLOCK_LEN];
        let mut bytes = 0;
        while Instant::now() < deadline && bytes < bytes_max {
            match stream.write_all(&block) {
                Ok(()) => bytes += BLOCK_LEN as u64,
                // The other end does not read for longer, and the rest waits in buffers.
                Err(error) if hung_up(&error) && Instant::now() >= deadline => break,
                Err(error) => return Err(error),
            }
        }
        // It is closed anyway.
        let _ = stream.shutdown(Shutdown::Write);
        Ok(())
    })
    .map(drop)
}

/// Empties streams until they end, or for a while from the first byte on.
///
/// # Errors
/// When one stands still, or breaks.
pub fn empty(streams: Vec<TcpStream>, time: Duration) -> io::Result<Moved> {
    let bytes_max = share(&streams);
    let parts = each(streams, |mut stream| {
        let mut block = vec![0; BLOCK_LEN];
        // What comes first says nothing about the time that it took.
        let mut length = stream.read(&mut block)?;
        let first = Instant::now();
        let (mut last, mut bytes) = (first, 0);
        while length > 0 && last < first + time && bytes < bytes_max {
            length = stream.read(&mut block)?;
            last = Instant::now();
            bytes += length as u64;
        }
        Ok((first, last, bytes))
    })?;
    let begin = parts.iter().map(|(first, ..)| *first).min();
    let end = parts.iter().map(|(_, last, _)| *last).max();
    let time = begin.zip(end).map_or(Duration::ZERO, |(begin, end)| end - begin);
    let bytes = parts.iter().map(|(.., bytes)| bytes).sum();
    Ok(Moved { bytes, seconds: time.as_secs_f64() })
}

/// What each stream may carry.
fn share(streams: &[TcpStream]) -> u64 {
    BYTES_MAX / streams.len().max(1) as u64
}

fn hung_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Works on all streams at once; the first failure is the result.
fn each<T: Send>(
    streams: Vec<TcpStream>,
    work: impl Fn(TcpStream) -> io::Result<T> + Sync,
) -> io::Result<Vec<T>> {
    let work = &work;
    std::thread::scope(|scope| {
        let start = |stream| scope.spawn(move || work(stream));
        let threads: Vec<_> = streams.into_iter().map(start).collect();
        let ended = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a stream's thread panicked")))
        };
        // All of them before the first failure, so that none is left.
        let results: Vec<_> = threads.into_iter().map(ended).collect();
        results.into_iter().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_with_the_secret_are_taken_and_counted() {
        let (secret, wrong) = (Secret([3; 16]), Secret([4; 16]));
        let listener = Listener::open(Some("lo"), 0).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], listener.port().unwrap()));
        let strangers = open(address, 2, &wrong).unwrap();
        let streams = open(address, 3, &secret).unwrap();
        let taken = listener.take(3, &secret, address.ip()).unwrap();
        drop(strangers);
        let time = Duration::from_millis(50);
        let filler = std::thread::spawn(move || fill(streams, time));
        let moved = empty(taken, Duration::from_secs(5)).unwrap();
        filler.join().unwrap().unwrap();
        assert!(moved.bytes >= BLOCK_LEN as u64 && moved.seconds > 0.0, "{moved:?}");
        assert!(moved.rate() > 0.0);
    }

    #[test]
    fn an_end_that_has_read_enough_is_no_failure_after_the_time() {
        let secret = Secret([3; 16]);
        let listener = Listener::open(Some("lo"), 0).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], listener.port().unwrap()));
        let start = |time| {
            let streams = open(address, 1, &secret).unwrap();
            let taken = listener.take(1, &secret, address.ip()).unwrap();
            (std::thread::spawn(move || fill(streams, time)), taken)
        };
        // Nobody reads, so that the writer waits beyond its time.
        let (filler, taken) = start(Duration::from_millis(20));
        std::thread::sleep(Duration::from_millis(100));
        drop(taken);
        assert!(filler.join().unwrap().is_ok());
        let (filler, taken) = start(Duration::from_secs(20));
        empty(taken, Duration::from_millis(20)).unwrap();
        assert!(filler.join().unwrap().is_err());
    }
}
