//! io_uring, the tap device and the UDP sockets.
