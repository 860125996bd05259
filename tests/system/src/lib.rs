//! The real binary against real kernels, servers and NATs.
