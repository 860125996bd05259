//! A small internet of network namespaces on one machine.
