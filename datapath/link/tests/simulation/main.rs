//! Nodes in virtual time on a small internet of routers, servers and faults.

mod lanes;
mod links;
mod moves;
mod node;
mod path_mtu;
mod reopened;
mod streams;
mod support;
