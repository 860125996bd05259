//! What a worker sees of the kernel: the [`Port`] and the values that cross it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;
use std::time::Duration;

use crate::memory::Buffer;
use crate::udp::UdpSocket;

/// Bytes of virtio-net header in front of every tap frame, both ways.
pub const VNET_HEADER_LEN: usize = 12;

/// Bytes of an input buffer: the largest datagram with the kernel's receive header, or the
/// largest tap frame (64 KiB of IP, Ethernet with VLAN tag, virtio-net header).
pub const BUFFER_LEN: usize = 68 * 1024;

/// Bytes of an output slot; room for the largest tap frame.
pub const SLOT_LEN: usize = 68 * 1024;

/// Most bytes of one send, over all its segments: what fits the length field of IPv4 and UDP.
pub const DATAGRAM_LEN_MAX: usize = 65_507;

/// Most segments of one send. Newer kernels take 128; 64 is what all of them take.
pub const SEGMENTS_MAX: usize = 64;

/// Sockets that a port has beside its own, at most.
pub const ATTACHED_MAX: usize = 8;

/// Failures in a row, without one success, after which an input counts as broken.
pub(crate) const FAILURES_MAX: u32 = 64;

/// The kernel as a worker sees it: its tap queues, one UDP socket per address family, a doorbell.
///
/// One turn of a worker: [`wait`](Port::wait) fills a [`Batch`]; each input in it is worked on
/// and released; outputs are taken with [`output`](Port::output), filled and queued. Queued
/// outputs reach the kernel with the next `wait` at the latest.
///
/// Outputs are executed in the order queued.
pub trait Port {
    /// Submits what is queued, waits until something completes or `wait` is over (`None`: no
    /// limit; zero: no waiting), and reaps everything that has completed into `batch`.
    /// Output slots are free again when this returns. Does not wait while the batch is not
    /// empty, and may return with nothing before `wait` is over.
    ///
    /// # Errors
    /// Only what ends the port: the tap is gone, or the kernel refuses the ring. Failures of one
    /// input or output come as [`Completion`]s.
    fn wait(&mut self, wait: Option<Duration>, batch: &mut Batch) -> Result<(), PortError>;

    /// Returns a tap frame's buffer to the kernel.
    fn release_frame(&mut self, frame: TapFrame);

    /// Returns a datagram's buffer to the kernel.
    fn release_datagram(&mut self, datagram: Datagram);

    /// A free output slot, the most recently used first; `None` when all are on their way:
    /// drop and count.
    fn output(&mut self) -> Option<OutputSlot>;

    /// Queues the first `len` bytes as UDP datagrams of `segment_size` bytes, the last one
    /// possibly shorter (`segment_size` 0 or `>= len`: one datagram). Needs `len` in
    /// 1..=[`DATAGRAM_LEN_MAX`] and at most [`SEGMENTS_MAX`] segments; anything else completes as
    /// [`SendError::TooBig`].
    fn send(
        &mut self,
        slot: OutputSlot,
        len: usize,
        segment_size: usize,
        destination: &Destination,
    );

    /// Queues one frame, virtio-net header first, to be written to the tap. A range beyond the
    /// slot completes as [`WriteError::Malformed`].
    fn write_tap(&mut self, slot: OutputSlot, range: Range<usize>);

    /// Returns a slot unused.
    fn discard(&mut self, slot: OutputSlot);

    /// Sends one small datagram at once, past the queue: the link agent's way out. Never blocks.
    ///
    /// # Errors
    /// See [`SendError`].
    fn send_plain(&mut self, data: &[u8], destination: &Destination) -> Result<(), SendError>;

    /// Reads one more socket from the next [`wait`](Port::wait) on, and sends from it what names
    /// its port. `false`: there are [`ATTACHED_MAX`] already, or the kernel refuses.
    fn attach(&mut self, socket: Arc<UdpSocket>) -> bool;

    /// Lets go of the attached socket with this port, if there is one.
    fn detach(&mut self, port: u16);
}

/// What happened, in the order in which a worker has to look at it: fates of outputs, doorbell,
/// datagrams, tap frames.
///
/// Fates come first, and those of one slot in the order of its uses.
#[derive(Debug, Default)]
pub struct Batch {
    fates: Vec<Completion>,
    datagrams: Vec<Completion>,
    frames: Vec<Completion>,
}

impl Batch {
    /// A batch that holds `capacity` completions of each sort without allocating.
    pub fn with_capacity(capacity: usize) -> Batch {
        let list = || Vec::with_capacity(capacity);
        Batch { fates: list(), datagrams: list(), frames: list() }
    }

    /// Adds a completion at its place.
    pub fn push(&mut self, completion: Completion) {
        match completion {
            Completion::Datagram(_) => self.datagrams.push(completion),
            Completion::TapFrame(_) => self.frames.push(completion),
            _ => self.fates.push(completion),
        }
    }

    /// Takes everything out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Completion> + '_ {
        self.fates.drain(..).chain(self.datagrams.drain(..)).chain(self.frames.drain(..))
    }

    /// How many completions it holds.
    pub fn len(&self) -> usize {
        self.fates.len() + self.datagrams.len() + self.frames.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One thing that happened. Slots are named by [`OutputSlot::index`] and are free already.
#[derive(Debug)]
pub enum Completion {
    /// A send left, all its segments.
    Sent {
        /// Slot it came from.
        slot: u16,
    },
    /// A send did not leave, or not all of it.
    SendFailed {
        /// Slot it came from.
        slot: u16,
        /// Why.
        error: SendError,
    },
    /// A frame was written to the tap.
    Written {
        /// Slot it came from.
        slot: u16,
    },
    /// The tap refused a frame.
    WriteFailed {
        /// Slot it came from.
        slot: u16,
        /// Why.
        error: WriteError,
    },
    /// Somebody rang the doorbell, once or more.
    Doorbell,
    /// A received datagram that had to be thrown away: truncated, or without a usable address.
    DatagramLost,
    /// One or more datagrams of one size from one peer.
    Datagram(Datagram),
    /// One frame, possibly a super-segment, that the host wants to send.
    TapFrame(TapFrame),
}

impl Completion {
    pub(crate) fn of_send(slot: u16, result: Result<(), SendError>) -> Completion {
        match result {
            Ok(()) => Completion::Sent { slot },
            Err(error) => Completion::SendFailed { slot, error },
        }
    }

    pub(crate) fn of_write(slot: u16, result: Result<(), WriteError>) -> Completion {
        match result {
            Ok(()) => Completion::Written { slot },
            Err(error) => Completion::WriteFailed { slot, error },
        }
    }
}

/// A frame read from the tap: virtio-net header, then Ethernet.
///
/// To be given back with [`Port::release_frame`]: a buffer that is dropped instead is lost to
/// its port.
#[derive(Debug)]
#[must_use = "a buffer that is not released is lost to its port"]
pub struct TapFrame {
    pub(crate) buffer: Buffer,
    pub(crate) len: u32,
}

impl TapFrame {
    /// Virtio-net header and frame.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer.bytes()[..self.len as usize]
    }

    /// A frame that belongs to no port, for in-memory ports. At most [`BUFFER_LEN`] bytes are
    /// taken.
    ///
    /// # Errors
    /// When memory cannot be mapped.
    pub fn detached(bytes: &[u8]) -> io::Result<TapFrame> {
        let (buffer, len) = detached_buffer(bytes)?;
        Ok(TapFrame { buffer, len })
    }
}

/// What one receive brought: `data` is a row of datagrams of `segment_size` bytes each, the last
/// one possibly shorter, all from `remote` to [`local`](Datagram::local).
///
/// To be given back with [`Port::release_datagram`]: a buffer that is dropped instead is lost to
/// its port.
#[derive(Debug)]
#[must_use = "a buffer that is not released is lost to its port"]
pub struct Datagram {
    pub(crate) buffer: Buffer,
    pub(crate) start: u32,
    pub(crate) len: u32,
    pub(crate) segment_size: u32,
    pub(crate) remote: SocketAddr,
    pub(crate) local_ip: IpAddr,
    pub(crate) local_port: u16,
}

impl Datagram {
    /// All segments, one behind the other.
    pub fn data(&self) -> &[u8] {
        &self.buffer.bytes()[self.start as usize..][..self.len as usize]
    }

    /// Bytes per segment; the length of `data` for a lone datagram, never 0.
    pub fn segment_size(&self) -> usize {
        (self.segment_size as usize).max(1)
    }

    /// The datagrams, one by one.
    pub fn segments(&self) -> std::slice::Chunks<'_, u8> {
        self.data().chunks(self.segment_size())
    }

    /// Who sent it. Tells the family too: a socket is of one family.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The address of ours that it was sent to; unspecified when the kernel did not say.
    pub fn local_ip(&self) -> IpAddr {
        self.local_ip
    }

    /// The same with the port of the socket that it came to.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.local_ip, self.local_port)
    }

    /// A datagram that belongs to no port, for in-memory ports. At most [`BUFFER_LEN`] bytes are
    /// taken; a `segment_size` of 0 means one datagram.
    ///
    /// # Errors
    /// When memory cannot be mapped.
    pub fn detached(
        data: &[u8],
        segment_size: usize,
        remote: SocketAddr,
        local_ip: IpAddr,
    ) -> io::Result<Datagram> {
        let (buffer, len) = detached_buffer(data)?;
        let segment_size = u32::try_from(segment_size).unwrap_or(len);
        let segment_size = if segment_size == 0 { len } else { segment_size };
        Ok(Datagram { buffer, start: 0, len, segment_size, remote, local_ip, local_port: 0 })
    }
}

/// A buffer to build one output in, [`SLOT_LEN`] bytes. Contents are whatever was there before.
///
/// To be given back with [`Port::send`], [`Port::write_tap`] or [`Port::discard`]: a slot that is
/// dropped instead is lost to its port.
#[derive(Debug)]
#[must_use = "a slot that is not given back is lost to its port"]
pub struct OutputSlot {
    pub(crate) buffer: Buffer,
}

impl OutputSlot {
    /// Its number, 0 to the port's slot count; dense, so that tables can be indexed with it.
    pub fn index(&self) -> u16 {
        self.buffer.index()
    }

    /// `count` slots that belong to no port, for in-memory ports.
    ///
    /// # Errors
    /// When memory cannot be mapped.
    pub fn detached(count: u16) -> io::Result<Vec<OutputSlot>> {
        let buffers = Buffer::allocate(count, SLOT_LEN)?;
        Ok(buffers.into_iter().map(|buffer| OutputSlot { buffer }).collect())
    }
}

impl Deref for OutputSlot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.bytes()
    }
}

impl DerefMut for OutputSlot {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.buffer.bytes_mut()
    }
}

/// Where a datagram goes, and from which address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Whom to send to. Chooses the socket by its family.
    pub remote: SocketAddr,
    /// Source address; unspecified, or of the other family: the routing table's choice.
    pub local_ip: IpAddr,
    /// Source port, if one of the sockets given by [`Port::attach`] is to send it; 0, or any other:
    /// the port's own socket does.
    pub local_port: u16,
}

/// Why a send failed. Nothing here ends a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// A datagram is larger than the path's first hop takes, or the call broke `send`'s limits.
    #[error("datagram too big for the interface (EMSGSIZE)")]
    TooBig,
    /// The remote host has nobody on that port.
    #[error("connection refused by the remote host")]
    Refused,
    /// No route, interface down, or the source address is not ours (any more).
    #[error("unreachable: no route, interface down or source address gone (errno {0})")]
    Unreachable(i32),
    /// A firewall or policy forbids it.
    #[error("not permitted by a local firewall or policy (errno {0})")]
    Denied(i32),
    /// The socket's or the kernel's buffers are full: the datagram is dropped.
    #[error("send buffer full (errno {0})")]
    NoBuffers(i32),
    /// The port has no socket of that family.
    #[error("no socket for this address family")]
    NoSocket,
    /// Anything else.
    #[error("send failed (errno {0})")]
    Other(i32),
}

/// Why the tap refused a frame. Nothing here ends a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The virtio-net header and the frame do not fit together, or the frame is too short.
    #[error("malformed frame or virtio-net header (EINVAL)")]
    Malformed,
    /// The interface is down.
    #[error("the tap interface is down (EIO)")]
    InterfaceDown,
    /// The kernel has no memory: the frame is dropped.
    #[error("no buffer space (errno {0})")]
    NoBuffers(i32),
    /// Anything else.
    #[error("tap write failed (errno {0})")]
    Other(i32),
}

/// What ends a port.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The tap interface was deleted under us.
    #[error("the tap interface is gone (deleted by someone else?): start the datapath again")]
    TapGone,
    /// The tap cannot be read any more.
    #[error("reading the tap fails again and again: {0}")]
    TapRead(io::Error),
    /// A UDP socket cannot be read any more.
    #[error("receiving on the UDP socket fails again and again: {0}")]
    Receive(io::Error),
    /// The kernel refuses to run the ring.
    #[error("io_uring_enter failed: {0}")]
    Enter(io::Error),
    /// The kernel refuses to say what is ready.
    #[error("poll failed: {0}")]
    Poll(io::Error),
}

impl WriteError {
    pub(crate) fn from_errno(errno: i32) -> WriteError {
        match errno {
            libc::EINVAL => WriteError::Malformed,
            libc::EIO | libc::ENETDOWN => WriteError::InterfaceDown,
            libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN => WriteError::NoBuffers(errno),
            _ => WriteError::Other(errno),
        }
    }
}

fn detached_buffer(bytes: &[u8]) -> io::Result<(Buffer, u32)> {
    let mut buffer = Buffer::allocate(1, BUFFER_LEN)?.remove(0);
    let len = bytes.len().min(BUFFER_LEN);
    buffer.bytes_mut()[..len].copy_from_slice(&bytes[..len]);
    Ok((buffer, u32::try_from(len).map_err(io::Error::other)?))
}
