//! The bytes between controller and datapath: the shared-memory segment.
