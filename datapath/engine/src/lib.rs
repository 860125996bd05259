//! The datapath process: worker, link agent, steering adapter.
//!
//! ```text
//!  tap queues --> workers: port + pipeline each --> UDP sockets
//!                  |  ^
//!     FromWorker   |  |  ToWorker        (bounded queues, a doorbell each way)
//!                  v  |
//!                agent: Node of ipop-link (gathering, ICE, handshakes, keys)
//!                  |  ^
//!         events   |  |  commands        (the control ring in shared memory)
//!                  v  |
//!                controller, in its own process
//! ```
//! - A [`worker`] moves packets and nothing else. It owns its port (io_uring, or a poll loop where
//!   that is forbidden: [`ports`]) and its pipeline, shares no lock with anybody, and is steered by
//!   values from a bounded queue. There are as many as cores; worker k carries lane k of each link
//!   ([`workers`]).
//! - The [`agent`] lives on a thread of its own: it drives all links, talks to STUN and TURN
//!   servers on the workers' sockets, and tells workers which keys and paths to use.
//! - [`steering`] translates between the control ring and the agent; it knows both vocabularies,
//!   so that neither the links nor the ring know the other's.
//!
//! - A [`bridge`] stands for a TURN server over TCP or TLS; to all others it is a UDP address.
//!
//! A controller may vanish at any time: nothing here waits for it, and a full event ring only
//! counts. Left out: anything of XMPP, any policy.
//!
//! Read [`run`] and [`DatapathConfig`] first, then `worker.rs` and `agent.rs`.

#![forbid(unsafe_code)]

mod addresses;
mod agent;
mod auto_mtu;
pub mod bridge;
mod cipher;
mod clock;
mod config;
mod counting;
mod exchange;
mod interface;
mod journal;
mod last_ports;
mod mappings;
mod network;
mod note;
mod overflows;
mod ports;
mod process;
mod rows;
mod spares;
mod steering;
mod worker;
mod workers;

pub use config::DatapathConfig;
pub use ipop_link::REHANDSHAKE_AFTER;
pub use ports::Io;
pub use process::{EXIT_FATAL, RunError, WORKERS_AUTO_MAX, run};
pub use workers::QUEUES_MAX;
