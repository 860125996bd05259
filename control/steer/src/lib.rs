//! The words between controller and datapath: commands, events, rows, counters.
