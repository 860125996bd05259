//! Checks on the tree itself: what the compiler and clippy do not see, a test does.
//!
//! The architecture is a list of folders and of what each may import; it stays true only if
//! breaking it breaks the build. `layers.rs` holds that list as data, `rules/` one file per rule,
//! and `tests/tree.rs` runs each rule on the tree. A [`Finding`] says where, which rule, and the
//! way out.
//!
//! Rust is read as tokens, with comments and literals apart ([`Source`]), so that a word in a
//! string is not taken for code, nor code for a word; there is no parser and no dependency.
//!
//! Left out on purpose: formatting (`cargo fmt`), lints that clippy has, licences and advisories
//! (`deny.toml`), and taste.
//!
//! Read [`Tree`] and [`Finding`] first.

#![forbid(unsafe_code)]

mod finding;
pub mod layers;
mod manifest;
mod markdown;
pub mod rules;
mod scan;
mod scope;
mod source;
mod tree;

pub use finding::Finding;
pub use manifest::{Dependency, Manifest};
pub use markdown::Document;
pub use source::{Comment, Source, Token};
pub use tree::{Crate, Role, RustFile, Tree};
