//! The datapath process: worker, link agent, steering adapter.
