//! Identity, TLS 1.3 handshake machine, seal and open, replay window, epochs.
