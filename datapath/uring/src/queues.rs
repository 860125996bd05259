//! The tap queues of one worker.
//!
//! Each queue has a ring of its own in the kernel, which spreads flows over them: by a hash, and
//! what answers a flow takes the queue that the flow was written to. A port reads its queues in
//! turns and writes what a peer sent to a queue that depends on the peer, so what goes to a peer
//! comes back by that queue too. Who floods one peer therefore fills that peer's queue; the others
//! keep their room and their turns. A flow stays in its order, but for its very first frames: the
//! kernel has found a queue for an answer before it knows where what it answers was written to.

use std::io;

use crate::port::VNET_HEADER_LEN;
use crate::tap::TapQueue;

/// Where the last byte of a frame's source address is, behind the virtio-net header.
const SOURCE_MAC_END: usize = VNET_HEADER_LEN + 11;

/// Queues that a worker has at most.
pub const TAP_QUEUES_MAX: usize = 8;

/// One to [`TAP_QUEUES_MAX`] queues of one tap.
#[derive(Debug)]
pub struct TapQueues(Vec<TapQueue>);

impl TapQueues {
    /// `None` where there are none, or too many.
    pub fn new(queues: Vec<TapQueue>) -> Option<TapQueues> {
        (1..=TAP_QUEUES_MAX).contains(&queues.len()).then_some(TapQueues(queues))
    }

    /// Other handles of the same queues, which stay open until all are closed.
    ///
    /// # Errors
    /// When the process may have no more files.
    pub fn try_clone(&self) -> io::Result<TapQueues> {
        self.0.iter().map(TapQueue::try_clone).collect::<io::Result<_>>().map(TapQueues)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &TapQueue> {
        self.0.iter()
    }

    pub(crate) fn get(&self, place: usize) -> &TapQueue {
        &self.0[place]
    }

    /// Which queue a frame is to be written to, virtio-net header first: that of its sender.
    #[inline]
    pub(crate) fn place_of(&self, frame: &[u8]) -> usize {
        frame.get(SOURCE_MAC_END).map_or(0, |byte| usize::from(*byte) % self.0.len())
    }
}

impl From<TapQueue> for TapQueues {
    fn from(queue: TapQueue) -> TapQueues {
        TapQueues(vec![queue])
    }
}
