//! The bytes between controller and datapath: the shared-memory segment.
//!
//! The datapath creates one file, a controller attaches to it by its path, and that is all the
//! connection there is between the two processes: no socket, no message broker, no hand-over. In
//! the file are
//!
//! - a ring of commands and a ring of events ([`Producer`], [`Consumer`]): records of bytes,
//!   published by one store, with a bell ([`Doorbell`]) for a consumer that sleeps;
//! - tables of rows ([`RowWriter`], [`RowReader`]) that are read while they change: the link table,
//!   and a note by each side;
//! - counters ([`WorkerCounters`]), one block per worker, counted without locked instructions;
//! - a log of distinct errors by each side ([`ErrorLog`]);
//! - a journal of the datapath ([`Journal`]): its latest records, for who wants to look back;
//! - who is alive ([`Holder`], [`Watch`]).
//!
//! Any side may die at any instruction, and a new controller goes on where the old one stopped. A
//! new datapath makes a new file of the next generation, and the old file ends with whoever still
//! has it attached. Any number of observers may read, also after both have died.
//!
//! Read [`DatapathEnd`] and [`ControllerEnd`] first; the layout is drawn in `layout.rs`.
//!
//! Left out on purpose: the words. Nothing here knows a command, an event, a counter's meaning or a
//! link's state; those are bytes, and `ipop-steer`'s to read. Clocks are left out too: times are
//! handed in as Unix milliseconds.
//!
//! # Trust
//! Both sides run as the owner of the file, whose permissions admit nobody else. Still no content
//! is believed: it is copied out and then checked, memory that others write is touched by atomics
//! only, positions come from the own memory, and loops are bounded. The exception is the length of
//! the file: whoever shortens it kills the processes that have it mapped (SIGBUS), and only the
//! owner can.

// The model holds the parts that race, not all that uses them.
#![cfg_attr(loom, allow(dead_code))]

#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("the segment is laid out for 64-bit little-endian machines");

mod counters;
mod doorbell;
mod error_log;
mod journal;
mod memory;
mod ring;
mod rows;
mod sync;

#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod file;
#[cfg(not(loom))]
mod layout;
#[cfg(not(loom))]
mod lock;
#[cfg(not(loom))]
mod presence;
#[cfg(not(loom))]
mod segment;

#[cfg(all(test, loom))]
mod loom_models;

pub use counters::{CounterReader, WorkerCounters};
pub use doorbell::{Doorbell, Ringer, Wake};
pub use error_log::{ErrorLog, ErrorLogReader, LoggedError};
pub use journal::{Journal, JournalReader};
pub use ring::{Consumer, Producer, PushError, RingFault, RingState};
pub use rows::{RowError, RowReader, RowWriter};

#[cfg(not(loom))]
pub use error::{AttachError, CreateError, OpenError};
#[cfg(not(loom))]
pub use layout::{Layout, LayoutError};
#[cfg(not(loom))]
pub use presence::{Holder, Presence, Watch};
#[cfg(not(loom))]
pub use segment::{ControllerEnd, DatapathEnd, Observer, attach, create, observe};
