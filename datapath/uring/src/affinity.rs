//! Threads and cores: where a thread runs, and before whom.

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

/// The lowest real-time priority: before all ordinary threads, behind all other real-time ones.
const REAL_TIME_PRIORITY: libc::c_int = 1;

/// Schedules the calling thread in real time (`SCHED_RR`, priority 1): it runs as soon as there is
/// something to do, before ordinary threads. Threads that it starts are ordinary.
///
/// # Errors
/// What the kernel said, which is [`io::ErrorKind::PermissionDenied`] without CAP_SYS_NICE; the
/// thread is then scheduled as before.
pub fn run_in_real_time() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: REAL_TIME_PRIORITY };
    let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
    // SAFETY: thread 0 is the calling one, and the parameter lives through the call.
    if unsafe { libc::sched_setscheduler(0, policy, &raw const parameter) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
