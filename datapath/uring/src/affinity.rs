//! Threads and cores.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Binds the calling thread to the `n`th (modulo their number) of the cores it may run on, and
/// says which that is. Counting allowed cores rather than all of them honours cpusets.
///
/// # Errors
/// What the kernel said; the thread then runs where it did.
pub fn pin_to_core(n: usize) -> io::Result<usize> {
    let allowed = sched_getaffinity(None)?;
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect();
    let core = *cores.get(n % cores.len().max(1)).ok_or(io::ErrorKind::NotFound)?;
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one)?;
    Ok(core)
}
