//! io_uring, the tap device and the UDP sockets; and a poll loop, where io_uring is forbidden.
//!
//! This is the edge of the datapath towards the kernel, and its only crate with `unsafe`.
//! A worker sees one [`Port`]: it waits once per turn, gets a [`Batch`] of what happened, and
//! hands filled output slots back. The port does no routing, no crypto, knows no peer, reads no
//! clock (but to end busy polling) and allocates nothing after it was opened.
//!
//! Memory is the one idea to understand. Input buffers and output slots are *owned values*
//! ([`TapFrame`], [`Datagram`], [`OutputSlot`]): whoever holds one is the only one that may touch
//! its bytes, the kernel included. Giving it back (`release_*`, `send`, `write_tap`, `discard`)
//! moves it, so a buffer cannot be used after it was returned, nor returned twice; and a worker
//! may hold an input and an output at once, which is what out-of-place decryption needs.
//!
//! Read [`Port`] first, then [`Batch`].

mod affinity;
mod attached;
mod buffers;
mod doorbell;
mod memory;
mod message;
mod netlink;
mod poll_port;
mod pool;
mod port;
mod queues;
mod ring;
mod segmentation;
mod slots;
mod status;
mod tag;
mod tap;
mod udp;
mod uring_port;
mod watch;

pub use affinity::{pin_to_core, run_in_real_time};
pub use doorbell::Doorbell;
pub use poll_port::PollPort;
pub use port::{
    ATTACHED_MAX, BUFFER_LEN, Batch, Completion, DATAGRAM_LEN_MAX, Datagram, Destination,
    OutputSlot, Port, PortError, SEGMENTS_MAX, SLOT_LEN, SendError, TapFrame, VNET_HEADER_LEN,
    WriteError,
};
pub use queues::{TAP_QUEUES_MAX, TapQueues};
pub use ring::{RingError, RingFeatures, probe};
pub use status::{Driver, PortConfig, PortCounters, PortFeatures};
pub use tap::{Offloads, Tap, TapError, TapQueue, is_overlay};
pub use udp::{Family, UdpError, UdpSocket};
pub use uring_port::UringPort;
pub use watch::{NetworkChange, NetworkWatch};
