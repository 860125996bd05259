//! The rules, one file each. Every `check` looks at the whole tree.

pub mod headers;
pub mod layering;
pub mod leftovers;
pub mod links;
pub mod purity;
pub mod size;
pub mod unsafety;
