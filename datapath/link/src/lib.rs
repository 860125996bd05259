//! One link's life: ICE, handshake, keys, control frames.
