//! Where a pipeline puts what it made: output slots that somebody else lends, and items for the
//! link agent.

use std::net::{IpAddr, SocketAddr};
use std::ops::{DerefMut, Range};

use ipop_wire::{Header, LinkIndex};

/// Bytes that a slot must have, so that the largest frame of a tap and the headroom in front of it
/// fit: a slot that is shorter works, but large super-segments then come out in pieces.
pub const SLOT_LEN: usize = 66 * 1024;

/// Most bytes of one send over all its segments: what the length fields of IPv4 and UDP can say.
pub const SEND_LEN_MAX: usize = 65_507;

/// The outside of a pipeline. A slot is reserved, filled, and then moved back by exactly one of
/// [`send`](Sink::send), [`write_tap`](Sink::write_tap) and [`discard`](Sink::discard); between
/// calls of the pipeline it may hold slots until the batch is flushed.
pub trait Sink {
    /// An output buffer of [`SLOT_LEN`] bytes or more, with any contents.
    type Slot: DerefMut<Target = [u8]>;

    /// A free slot; `None` when all are on their way: the pipeline drops and counts.
    fn reserve(&mut self) -> Option<Self::Slot>;

    /// Takes a slot back unused.
    fn discard(&mut self, slot: Self::Slot);

    /// Queues the front of the slot as datagrams of one link.
    fn send(&mut self, slot: Self::Slot, run: SendRun);

    /// Queues one frame for the tap, virtio-net header first.
    fn write_tap(&mut self, slot: Self::Slot, range: Range<usize>);

    /// Takes a frame as it was read from the tap, for the first worker. Never called unless
    /// [`Config::hands_over`](crate::Config::hands_over) says so. Must not block; the bytes are
    /// lent for the call.
    fn hand_over(&mut self, tap_frame: &[u8]);

    /// Takes what the link agent has to see. Must not block; the bytes are lent for the call.
    fn to_agent(&mut self, item: ToAgent<'_>);
}

/// One send: `len` bytes, datagrams of `segment_size` bytes each, the last one possibly shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendRun {
    /// Whose path they take (our own index of the link).
    pub link: LinkIndex,
    /// Bytes of all datagrams, at most [`SEND_LEN_MAX`].
    pub len: usize,
    /// Bytes of each datagram but the last; never 0, never above `len`.
    pub segment_size: usize,
}

impl SendRun {
    /// How many datagrams these are.
    pub fn datagrams(&self) -> usize {
        self.len.div_ceil(self.segment_size)
    }
}

/// Where a received buffer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The sender: a peer, a STUN server, or a relay.
    pub remote: SocketAddr,
    /// The address of ours that it was sent to, unspecified when the kernel did not say, and the
    /// socket's port.
    pub local: SocketAddr,
}

/// What the fast path does not handle itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToAgent<'a> {
    /// A STUN message: a check, or a server's answer.
    Stun {
        /// Sender.
        source: Source,
        /// All of it.
        datagram: &'a [u8],
    },
    /// A ChannelData message whose payload is not a sealed datagram of ours (a relayed check).
    TurnChannel {
        /// Sender: a relay, if it is honest.
        source: Source,
        /// All of it, prefix included.
        datagram: &'a [u8],
    },
    /// A handshake datagram. Nothing in it is authenticated.
    Handshake {
        /// Sender: a peer, or a relay when there is a channel.
        source: Source,
        /// The relay's channel that it came through.
        channel: Option<u16>,
        /// The tunnel header.
        header: Header,
        /// What follows the header.
        body: &'a [u8],
    },
    /// An authentic control message of a link.
    Control {
        /// Our own index of the link.
        link: LinkIndex,
        /// Sender: the peer, or a relay when there is a channel.
        source: Source,
        /// The relay's channel that it came through.
        channel: Option<u16>,
        /// The opened body.
        body: &'a [u8],
    },
    /// The host wants to reach this address, and no link leads there. Repeated at most once a
    /// second for the same address, as long as few different ones are asked for.
    NoRoute(IpAddr),
}
