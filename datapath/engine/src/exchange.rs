//! What agent and workers tell each other: values in bounded queues, with a bell at each end.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use ipop_pipeline::{LinkCounters, LinkEntry, Path};
use ipop_shm::Ringer;
use ipop_uring::{Destination, Doorbell, UdpSocket};
use ipop_wire::LinkIndex;
use std::time::Instant;

/// Orders that may wait for a worker.
const ORDERS_MAX: usize = 1024;
/// Datagrams and notes that may wait for the agent; more are dropped and counted.
const NOTES_MAX: usize = 1024;
/// Frames that may wait for the first worker; more are dropped and counted.
const HANDED_MAX: usize = 128;

/// What the agent orders.
#[derive(Debug)]
pub(crate) enum ToWorker {
    /// Open datagrams of this session, and know how to seal for it.
    Install(Box<LinkEntry>, Option<Destination>),
    /// The session's path is another one.
    SetPath {
        /// Our index of the session.
        index: LinkIndex,
        /// The new path, and where that is.
        path: Option<(Path, Destination)>,
    },
    /// Seal frames for the session's peer with this session from now on.
    Activate {
        /// Our index of the session.
        index: LinkIndex,
        /// The peer's hardware address.
        mac: [u8; 6],
    },
    /// Forget the session.
    Remove(LinkIndex),
    /// Seal this control frame and send it.
    SendControl {
        /// Our index of the session.
        index: LinkIndex,
        /// The relay's channel that it takes.
        channel: Option<u16>,
        /// Where to, if not on the lane's path.
        to: Option<Destination>,
        /// The plaintext.
        data: Vec<u8>,
    },
    /// The same, to see whether the path carries a datagram of that length. One that is too long
    /// for the interface is reported, see [`FromWorker::TooBig`].
    SendProbe {
        /// Our index of the session.
        index: LinkIndex,
        /// The relay's channel that it takes.
        channel: Option<u16>,
        /// The plaintext.
        data: Vec<u8>,
    },
    /// Route an overlay network to the peer with this hardware address.
    AddRoute {
        /// Network address.
        address: IpAddr,
        /// Prefix length.
        prefix: u8,
        /// The peer's hardware address.
        mac: [u8; 6],
    },
    /// Tell the host again where a peer's addresses are.
    Announce([u8; 6]),
    /// Forget a route.
    RemoveRoute {
        /// Network address.
        address: IpAddr,
        /// Prefix length.
        prefix: u8,
    },
    /// The interface has these addresses now.
    SetOwnAddresses(Vec<IpAddr>),
    /// Read this socket too, and send from it what names its port.
    Attach(Arc<UdpSocket>),
    /// Let go of the attached socket with this port.
    Detach(u16),
    /// Publish the counters and send a report.
    Report,
    /// End.
    Stop,
}

/// What a worker tells.
#[derive(Debug)]
pub(crate) enum FromWorker {
    /// STUN, ChannelData or a handshake came in.
    Datagram {
        /// The address of ours that it was sent to, unspecified when the kernel did not say, and
        /// the socket's port.
        local: SocketAddr,
        /// The sender.
        remote: SocketAddr,
        /// All of it.
        data: Vec<u8>,
    },
    /// A control frame was opened.
    Control {
        /// Our index of the session.
        index: LinkIndex,
        /// The address of ours that it was sent to, with the socket's port.
        local: SocketAddr,
        /// The sender: the peer, or our relay where there is a channel.
        remote: SocketAddr,
        /// The relay's channel that it came through.
        channel: Option<u16>,
        /// The plaintext.
        data: Vec<u8>,
    },
    /// A probe is longer than what the interface on its way takes.
    TooBig {
        /// Our index of the session.
        index: LinkIndex,
        /// Bytes of UDP payload.
        datagram_len: u16,
    },
    /// The host wants to reach an address that no route covers.
    NoRoute(IpAddr),
    /// What the links carried so far.
    Report(Vec<LinkReport>),
    /// The worker has ended, and why, unless it was told to.
    Ended(Option<String>),
}

/// What a session carried so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkReport {
    /// Our index of the session.
    pub index: LinkIndex,
    /// Its counters.
    pub counters: LinkCounters,
    /// How often its sending key was ratcheted.
    pub epoch: u64,
    /// When an authentic datagram came last.
    pub heard: Option<Instant>,
}

/// The agent's end: orders to one worker.
#[derive(Clone)]
pub(crate) struct Orders {
    queue: Arc<ArrayQueue<ToWorker>>,
    doorbell: Doorbell,
}

impl Orders {
    /// Queues an order; gives it back when the queue is full.
    pub(crate) fn send(&self, order: ToWorker) -> Result<(), ToWorker> {
        self.queue.push(order)?;
        self.doorbell.ring();
        Ok(())
    }
}

/// The worker's end of its orders.
pub(crate) struct Inbox(Orders);

impl Inbox {
    pub(crate) fn take(&self) -> Option<ToWorker> {
        self.0.queue.pop()
    }

    /// Has the worker look again in its next turn.
    pub(crate) fn ring_again(&self) {
        self.0.doorbell.ring();
    }
}

/// A worker's end: notes to the agent, each with the worker's number.
#[derive(Clone)]
pub(crate) struct Notes {
    worker: u8,
    queue: Arc<ArrayQueue<(u8, FromWorker)>>,
    ringer: Ringer,
}

impl Notes {
    /// The same queue, for another worker.
    pub(crate) fn of_worker(&self, worker: u8) -> Self {
        Self { worker, ..self.clone() }
    }

    /// Queues a note; `false` when the queue is full and the note is dropped.
    pub(crate) fn send(&self, note: FromWorker) -> bool {
        let is_taken = self.queue.push((self.worker, note)).is_ok();
        self.ringer.ring();
        is_taken
    }
}

/// The agent's end of the notes.
pub(crate) struct NoteInbox(Arc<ArrayQueue<(u8, FromWorker)>>);

impl NoteInbox {
    /// The next note, and which worker it is from.
    pub(crate) fn take(&self) -> Option<(u8, FromWorker)> {
        self.0.pop()
    }
}

/// A queue of orders to the worker with that doorbell.
pub(crate) fn orders(doorbell: Doorbell) -> (Orders, Inbox) {
    let queue = Arc::new(ArrayQueue::new(ORDERS_MAX));
    let orders = Orders { queue, doorbell };
    (orders.clone(), Inbox(orders))
}

/// A queue of notes to the agent, which sleeps at the control ring's bell.
pub(crate) fn notes(ringer: Ringer) -> (Notes, NoteInbox) {
    let queue = Arc::new(ArrayQueue::new(NOTES_MAX));
    (Notes { worker: 0, queue: queue.clone(), ringer }, NoteInbox(queue))
}

/// Frames on their way from any worker to the first one, as they were read from the tap. Not the
/// fast path: a frame comes here when its link has no other lane.
#[derive(Clone)]
pub(crate) struct Handover {
    queue: Arc<ArrayQueue<Box<[u8]>>>,
    doorbell: Doorbell,
}

impl Handover {
    /// A queue to the worker with that doorbell.
    pub(crate) fn new(doorbell: Doorbell) -> Self {
        Self { queue: Arc::new(ArrayQueue::new(HANDED_MAX)), doorbell }
    }

    /// Queues a copy; `false` when the queue is full and the frame is dropped.
    pub(crate) fn send(&self, frame: &[u8]) -> bool {
        let is_taken = !self.queue.is_full() && self.queue.push(frame.into()).is_ok();
        self.doorbell.ring();
        is_taken
    }

    /// The first worker's end.
    pub(crate) fn take(&self) -> Option<Box<[u8]>> {
        self.queue.pop()
    }
}
