//! The `ipop` command.

fn main() {}
