//! WIP
#![allow(dead_code)]
#![forbid(unsafe_code)]
mod assembler;
mod backoff;
mod scram;
