//! Inner packets before and after the overlay, compared bit by bit.
//!
//! Hosts hand super-segments and unfinished checksums to an interface, and where one ends is
//! chance. So both sides are first brought to [`on_wire`] form: the packets that a card without
//! offloads would send. Then [`compare`] wants the same packets in the same order within each flow,
//! but for what [`Allowed`] names.

mod compare;
mod craft;
mod on_wire;

pub use compare::{Allowed, Way, compare};
pub use craft::{V4, V6, ethernet, tcp, transport_frame, udp};
pub use on_wire::on_wire;
