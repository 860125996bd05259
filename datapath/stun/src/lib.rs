//! STUN messages over the `stun-rs` codec.
//!
//! Read [`Message`] and [`Builder`] first.
#![forbid(unsafe_code)]

pub mod message;
pub mod random;

pub use message::{
    Algorithm, Attribute, BuildError, Builder, Class, ErrorCode, Family, Integrity, IntegrityError,
    Key, KeyError, Message, Method, ParseError, PasswordAlgorithms, TransactionId,
};
pub use random::Random;
