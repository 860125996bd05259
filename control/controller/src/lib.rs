//! Runs a policy between the control ring and signalling.
