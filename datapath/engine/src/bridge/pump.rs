//! Moves datagrams between the node's socket and a connection.
//!
//! A turn, in the order of this file: sleep until something is ready; take the node's datagrams
//! into the queue; write the queue; read the stream and hand its messages to the node.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipop_stun::stream::{StreamReader, write_message};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::connection::Connection;
use super::{QUEUE_LEN_MAX, RECEIVE_BUFFER_LEN, Tallies, add};

/// Receive buffers, each with room for a whole GRO run.
const BUFFERS: usize = 2;
const BUFFER_LEN: usize = 64 * 1024;
/// Batches of datagrams, and readings of the stream, before the other side has its turn.
const BATCHES_PER_TURN: usize = 8;
/// Part of the queue that only STUN messages may use: without them an allocation ends.
const RESERVE_LEN: usize = 16 * 1024;
/// Longest row of messages that is handed over in one call: the longest payload of IPv4.
const ROW_LEN_MAX: usize = 65_507;

/// Why a connection's time is over.
pub(super) enum End {
    /// The bridge is to end.
    Stopped,
    /// Another server is to be connected to.
    Redirected,
    /// Something has changed: the connection is to be made anew, at once.
    Again,
    /// The connection broke, and why, for a person.
    Lost(String),
}

/// The node's side and the queue, which outlive connections.
pub(super) struct Pump {
    socket: UdpSocket,
    state: UdpSocketState,
    node: SocketAddr,
    buffers: Vec<Box<[u8]>>,
    /// What waits for the connection, from `sent` on.
    queue: Vec<u8>,
    sent: usize,
    /// Messages of equal length, the last one perhaps shorter, and that length.
    row: Vec<u8>,
    row_stride: usize,
    row_is_open: bool,
    tallies: Arc<Tallies>,
}

impl Pump {
    pub(super) fn new(socket: UdpSocket, tallies: Arc<Tallies>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // Less will do as well.
        let _ = set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_LEN);
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let node = socket.peer_addr()?;
        Ok(Self {
            socket,
            state,
            node,
            buffers: Vec::new(),
            queue: Vec::new(),
            sent: 0,
            row: Vec::new(),
            row_stride: 0,
            row_is_open: false,
            tallies,
        })
    }

    /// Forgets what waits, and what has come meanwhile.
    pub(super) fn discard(&mut self) {
        self.buffers.resize_with(BUFFERS, || vec![0; BUFFER_LEN].into_boxed_slice());
        let mut metas = [RecvMeta::default(); BUFFERS];
        while self.receive(&mut metas).is_ok() {}
        self.queue.clear();
        self.sent = 0;
    }

    /// Works until the connection breaks, or `heed`, which is given the connection's own address
    /// and called when the bell rings, says that it is over.
    pub(super) fn run(
        &mut self,
        mut connection: Connection,
        bell: &OwnedFd,
        heed: &mut dyn FnMut(IpAddr) -> Option<End>,
    ) -> End {
        let Some(local) = connection.local_ip() else {
            return End::Lost("the connection has no address".to_owned());
        };
        let mut reader = StreamReader::new();
        loop {
            let is_pending = self.sent < self.queue.len() || connection.wants_write();
            let of_stream = if is_pending { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            let mut fds = [
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::new(&connection, of_stream),
                PollFd::new(bell, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return End::Lost(format!("poll: {errno}")),
            }
            let [node, stream, rung] = fds.map(|fd| fd.revents());
            if !rung.is_empty()
                && let Some(end) = heed(local)
            {
                return end;
            }
            let ended = match node.is_empty() {
                true => self.flush(&mut connection).err(),
                false => self.take_datagrams(&mut connection).err(),
            };
            let ended = ended.or_else(|| {
                // Errors and the other end's goodbye are read as well.
                if (stream - PollFlags::OUT).is_empty() {
                    return None;
                }
                self.read(&mut connection, &mut reader).err()
            });
            if let Some(text) = ended {
                return End::Lost(text);
            }
        }
    }

    /// Each batch is written before the next one is read, so that a burst does not fill the queue.
    fn take_datagrams(&mut self, connection: &mut Connection) -> Result<(), String> {
        let mut metas = [RecvMeta::default(); BUFFERS];
        for _ in 0..BATCHES_PER_TURN {
            let Ok(count) = self.receive(&mut metas) else { break };
            let Self { buffers, queue, sent, tallies, .. } = self;
            for (buffer, meta) in buffers.iter().zip(&metas[..count]) {
                let bytes = buffer.get(..meta.len).unwrap_or_default();
                for datagram in bytes.chunks(meta.stride.max(1)) {
                    enqueue(queue, *sent, datagram, tallies);
                }
            }
            self.flush(connection)?;
        }
        self.flush(connection)
    }

    fn receive(&mut self, metas: &mut [RecvMeta; BUFFERS]) -> io::Result<usize> {
        let mut buffers = self.buffers.iter_mut();
        let mut slices: [_; BUFFERS] = std::array::from_fn(|_| {
            IoSliceMut::new(buffers.next().map_or(&mut [], |buffer| &mut buffer[..]))
        });
        self.state.recv(UdpSockRef::from(&self.socket), &mut slices, metas)
    }

    fn flush(&mut self, connection: &mut Connection) -> Result<(), String> {
        self.sent += connection.write(&self.queue[self.sent..]).map_err(|error| broken(&error))?;
        if self.sent == self.queue.len() {
            self.queue.clear();
            self.sent = 0;
        } else if self.sent > QUEUE_LEN_MAX {
            self.queue.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    fn read(
        &mut self,
        connection: &mut Connection,
        reader: &mut StreamReader,
    ) -> Result<(), String> {
        for _ in 0..BATCHES_PER_TURN {
            match connection.read(reader.spare()) {
                Ok(count) => reader.filled(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(broken(&error)),
            }
            let malformed = |error| format!("the server does not speak TURN: {error}");
            while let Some(message) = reader.message().map_err(malformed)? {
                self.hand_over(message);
            }
        }
        self.end_row();
        Ok(())
    }

    /// Puts a message into the row, or begins another.
    fn hand_over(&mut self, message: &[u8]) {
        let segments_max = self.state.max_gso_segments();
        let fits = self.row_is_open
            && message.len() <= self.row_stride
            && self.row.len() + message.len() <= ROW_LEN_MAX
            && self.row.len() < self.row_stride * segments_max;
        if !fits {
            self.end_row();
            self.row_stride = message.len();
            self.row_is_open = true;
        }
        self.row.extend_from_slice(message);
        // A shorter one is the last.
        self.row_is_open &= message.len() == self.row_stride;
    }

    fn end_row(&mut self) {
        if self.row.is_empty() {
            return;
        }
        let is_single = self.row.len() <= self.row_stride;
        let transmit = Transmit {
            destination: self.node,
            ecn: None,
            contents: &self.row,
            segment_size: (!is_single).then_some(self.row_stride),
            src_ip: None,
        };
        if let Err(error) = self.state.try_send(UdpSockRef::from(&self.socket), &transmit) {
            tracing::trace!("the node takes no datagram: {error}");
            add(&self.tallies.refused, self.row.len().div_ceil(self.row_stride) as u64);
        }
        self.row.clear();
        self.row_is_open = false;
    }
}

/// Puts a datagram behind those that wait for the connection, if there is room.
fn enqueue(queue: &mut Vec<u8>, sent: usize, datagram: &[u8], tallies: &Tallies) {
    let is_stun = datagram.first().is_some_and(|first| *first <= 3);
    let room = if is_stun { QUEUE_LEN_MAX } else { QUEUE_LEN_MAX - RESERVE_LEN };
    if queue.len() - sent + datagram.len() > room {
        add(&tallies.full, 1);
    } else if write_message(datagram, queue).is_err() {
        add(&tallies.malformed, 1);
    }
}

fn broken(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the server has closed the connection".to_owned(),
        _ => format!("the connection is lost: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_full_queue_drops_whole_datagrams_and_keeps_room_for_stun() {
        let (mut queue, tallies) = (Vec::new(), Tallies::default());
        let mut data = vec![0x40, 0, 0x03, 0xe8];
        data.resize(1004, 7);
        for _ in 0..1000 {
            enqueue(&mut queue, 0, &data, &tallies);
        }
        let kept = queue.len() / 1004;
        assert_eq!((queue.len() % 1004, kept), (0, (QUEUE_LEN_MAX - RESERVE_LEN) / 1004));
        assert_eq!(tallies.full.load(Ordering::Relaxed), 1000 - kept as u64);
        let stun = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[9; 12]].concat();
        enqueue(&mut queue, 0, &stun, &tallies);
        assert!(queue.ends_with(&stun));
        enqueue(&mut queue, 0, b"\x80nothing", &tallies);
        assert_eq!(tallies.malformed.load(Ordering::Relaxed), 1);
    }
}
