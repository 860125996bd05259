//! STUN messages over stun-rs, STUN and TURN client machines.
