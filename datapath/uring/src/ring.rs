//! The io_uring itself: set-up by what the kernel has, queueing, one enter per turn, shutdown.
//!
//! The ring is made disabled and enabled by the first [`enter`](Ring::enter), so a port may be
//! opened on one thread and run on another: SINGLE_ISSUER binds it to whoever enables it.

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use io_uring::types::{CancelBuilder, Napi, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode, squeue};

/// How long a shutdown waits for operations to come back before it gives up.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(2);
const SHUTDOWN_STEP: Duration = Duration::from_millis(50);
/// How long a probe waits for an operation that is done at once.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// What of io_uring is in use here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFeatures {
    /// Completion work runs only when the worker asks for it (Linux 6.1).
    pub deferred: bool,
    /// One queued read serves all tap frames (Linux 6.7); else several reads are queued.
    pub tap_multishot: bool,
    /// The submission queue goes without its index array (Linux 6.6).
    pub no_index_array: bool,
    /// A waiting worker does not count as waiting for a disk (Linux 6.15).
    pub no_iowait: bool,
}

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The system call does not exist.
    #[error(
        "io_uring is not there (ENOSYS): the kernel is built without it, or a seccomp profile \
         hides it; in a container use a profile that allows io_uring_setup, io_uring_enter and \
         io_uring_register (docker: --security-opt seccomp=...)"
    )]
    Missing,
    /// Switched off by the administrator.
    #[error(
        "io_uring is switched off by the sysctl kernel.io_uring_disabled = {level}: \
         `sysctl kernel.io_uring_disabled=0` allows it (with 1, also to members of the group in \
         kernel.io_uring_group)"
    )]
    Disabled {
        /// Value of the sysctl.
        level: u8,
    },
    /// Forbidden by something else.
    #[error(
        "io_uring is not permitted (EPERM): most likely the seccomp profile of the container; \
         use one that allows io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Forbidden,
    /// The kernel lacks something that cannot be done without.
    #[error("this kernel's io_uring is too old: Linux 6.1 or newer is needed ({missing})")]
    TooOld {
        /// What is missing.
        missing: &'static str,
    },
    /// Not enough memory, or not enough that may be locked.
    #[error("no memory for io_uring: raise the limit of locked memory (`ulimit -l`)")]
    Memory,
    /// Anything else.
    #[error("cannot {action} the io_uring: {source}")]
    Refused {
        /// What was attempted.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Tries whether io_uring can be used here, and with what: makes a ring and runs an operation, as
/// each of the three system calls may be forbidden alone.
///
/// # Errors
/// [`RingError`] says why not and what to do.
pub fn probe() -> Result<RingFeatures, RingError> {
    let mut ring = Ring::open(8, 16)?;
    // SAFETY: a no-op points at no memory.
    unsafe { ring.push(opcode::Nop::new().build(), 0) };
    ring.enter(Some(PROBE_PATIENCE)).map_err(set_up_failed)?;
    if !ring.has_events() {
        return Err(RingError::Refused { action: "run", source: io::ErrorKind::TimedOut.into() });
    }
    Ok(ring.features)
}

/// One completion, as it was reaped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) user_data: u64,
    pub(crate) result: i32,
    flags: u32,
}

impl Event {
    /// Whether its operation goes on.
    pub(crate) fn more(&self) -> bool {
        cqueue::more(self.flags)
    }

    /// Index of the provided buffer that it used.
    pub(crate) fn buffer(&self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// An io_uring whose operations are counted, so that its owner knows when memory is its own
/// again.
pub(crate) struct Ring {
    uring: IoUring,
    features: RingFeatures,
    enabled: bool,
    /// Operations queued or running: each ends with exactly one completion without "more".
    in_flight: usize,
}

impl Ring {
    /// A ring for up to `submissions` queued and `completions` unreaped at a time.
    pub(crate) fn open(submissions: u32, completions: u32) -> Result<Ring, RingError> {
        let (uring, deferred, no_index_array) = open_best(submissions, completions)?;
        Ring::with(uring, deferred, no_index_array)
    }

    fn with(uring: IoUring, deferred: bool, no_index_array: bool) -> Result<Ring, RingError> {
        let mut known = Probe::new();
        uring
            .submitter()
            .register_probe(&mut known)
            .map_err(|source| RingError::Refused { action: "ask for the operations of", source })?;
        let features = RingFeatures {
            deferred,
            tap_multishot: known.is_supported(opcode::ReadMulti::CODE),
            no_index_array,
            no_iowait: uring.params().is_feature_no_iowait(),
        };
        Ok(Ring { uring, features, enabled: false, in_flight: 0 })
    }

    pub(crate) fn features(&self) -> RingFeatures {
        self.features
    }

    /// Whether no operation is queued or running.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// Whether completions are there to be reaped without waiting.
    pub(crate) fn has_events(&mut self) -> bool {
        !self.uring.completion().is_empty()
    }

    /// Whether the kernel has taken all that was queued.
    pub(crate) fn is_submitted(&mut self) -> bool {
        self.uring.submission().is_empty()
    }

    pub(crate) fn register_files(&self, files: &[RawFd]) -> Result<(), RingError> {
        let result = self.uring.submitter().register_files(files);
        result.map_err(|source| RingError::Refused { action: "register files with", source })
    }

    /// # Safety
    /// `address` points at `entries` (a power of two) buffer ring entries in pages of their own
    /// that stay mapped until the ring is closed or idle for good.
    pub(crate) unsafe fn register_buffers(
        &self,
        address: *mut u8,
        entries: u16,
        group: u16,
    ) -> Result<(), RingError> {
        let address = address as u64;
        // SAFETY: the caller vouches for address and length.
        let result = unsafe {
            self.uring.submitter().register_buf_ring_with_flags(address, entries, group, 0)
        };
        result.map_err(|source| match source.raw_os_error() {
            Some(libc::EINVAL) => RingError::TooOld { missing: "provided buffer rings" },
            Some(libc::ENOMEM) => RingError::Memory,
            _ => RingError::Refused { action: "register buffers with", source },
        })
    }

    /// Queues an operation; `false` if the kernel takes no more now.
    ///
    /// # Safety
    /// All memory that the entry points at stays valid, and is not touched in a way that
    /// conflicts with the operation, until its last completion was reaped.
    pub(crate) unsafe fn push(&mut self, entry: squeue::Entry, user_data: u64) -> bool {
        let entry = entry.user_data(user_data);
        // SAFETY: the caller vouches for the entry.
        let mut pushed = unsafe { self.uring.submission().push(&entry) }.is_ok();
        if !pushed && self.submit(None, 0).is_ok() {
            // SAFETY: as above.
            pushed = unsafe { self.uring.submission().push(&entry) }.is_ok();
        }
        self.in_flight += usize::from(pushed);
        pushed
    }

    /// Whether the kernel has completions to post, or has posted some: without a system call.
    pub(crate) fn has_work(&mut self) -> bool {
        self.has_events() || self.uring.submission().taskrun()
    }

    /// Has the kernel poll network cards for up to `time` before a wait sleeps; whether it does.
    pub(crate) fn poll_cards(&self, time: Duration) -> bool {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let mut napi = Napi::new().set_busy_poll_timeout(micros).set_prefer_busy_poll(true);
        self.uring.submitter().register_napi(&mut napi).is_ok()
    }

    /// Submits all that is queued, runs the completions that are due, and waits for one if
    /// `wait` is not zero (`None`: as long as it takes).
    pub(crate) fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        if !self.enabled {
            self.uring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        let limit = wait.map(Timespec::from);
        let count = usize::from(wait != Some(Duration::ZERO));
        let result = self.submit(limit.as_ref().filter(|_| count > 0), count);
        match result.as_ref().map_err(io::Error::raw_os_error) {
            // Time over, a signal, or a kernel that wants its completions reaped first.
            Err(Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            _ => result,
        }
    }

    /// Takes all completions that are there.
    pub(crate) fn reap(&mut self, events: &mut Vec<Event>) {
        for entry in self.uring.completion() {
            let event = Event {
                user_data: entry.user_data(),
                result: entry.result(),
                flags: entry.flags(),
            };
            self.in_flight -= usize::from(!event.more());
            events.push(event);
        }
    }

    /// Cancels everything and lets go of the files, so that they close when their other owners
    /// do. Returns whether the ring is idle: if not, the kernel may still use memory it was
    /// given.
    pub(crate) fn shut_down(&mut self) -> bool {
        let deadline = Instant::now() + SHUTDOWN_PATIENCE;
        if self.enabled && !self.is_idle() {
            let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
            // SAFETY: a cancellation points at no memory.
            unsafe { self.push(cancel, u64::MAX) };
            let mut events = Vec::new();
            while !self.is_idle() && Instant::now() < deadline {
                if self.enter(Some(SHUTDOWN_STEP)).is_err() {
                    break;
                }
                events.clear();
                self.reap(&mut events);
            }
        }
        // An operation that was queued but never seen by the kernel dies with the ring.
        let idle = self.is_idle() || !self.enabled;
        if idle {
            let _ = self.uring.submitter().unregister_files();
        }
        idle
    }

    /// GETEVENTS always: without it a kernel with deferred completion work does none.
    fn submit(&mut self, limit: Option<&Timespec>, wait_count: usize) -> io::Result<()> {
        let queued = self.uring.submission().len() as u32;
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        flags.set(EnterFlags::NO_IOWAIT, self.features.no_iowait);
        let mut arguments = SubmitArgs::new();
        if let Some(limit) = limit {
            arguments = arguments.timespec(limit);
        }
        let (submitter, count) = (self.uring.submitter(), wait_count as u32);
        // SAFETY: EXT_ARG goes with a `SubmitArgs`, which lives over the call, as does the
        // timespec that it may point at; queued entries are vouched for by `push`.
        unsafe { submitter.enter(queued, count, flags.bits(), Some(&arguments)) }.map(drop)
    }
}

/// The best of the set-ups that the kernel takes: ring, whether deferred, whether without array.
fn open_best(submissions: u32, completions: u32) -> Result<(IoUring, bool, bool), RingError> {
    let mut last = None;
    for (deferred, no_index_array) in [(true, true), (true, false), (false, false)] {
        match open_as(submissions, completions, deferred, no_index_array) {
            Ok(uring) => return Ok((uring, deferred, no_index_array)),
            // A flag that the kernel does not know.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = Some(error),
            Err(error) => return Err(set_up_failed(error)),
        }
    }
    Err(last.map_or(RingError::Missing, set_up_failed))
}

fn open_as(
    submissions: u32,
    completions: u32,
    deferred: bool,
    no_index_array: bool,
) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_r_disabled().setup_submit_all().setup_coop_taskrun();
    builder.setup_taskrun_flag().setup_single_issuer().setup_cqsize(completions);
    if deferred {
        builder.setup_defer_taskrun();
    }
    if no_index_array {
        builder.setup_no_sqarray();
    }
    builder.build(submissions)
}

fn set_up_failed(source: io::Error) -> RingError {
    match source.raw_os_error() {
        Some(libc::ENOSYS) => RingError::Missing,
        Some(libc::EPERM | libc::EACCES) => match disabled_level() {
            Some(level @ 1..) => RingError::Disabled { level },
            _ => RingError::Forbidden,
        },
        Some(libc::EINVAL) => RingError::TooOld { missing: "set-up flags" },
        Some(libc::ENOMEM) => RingError::Memory,
        _ => RingError::Refused { action: "open", source },
    }
}

fn disabled_level() -> Option<u8> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_own_advice() {
        let text = |errno| set_up_failed(io::Error::from_raw_os_error(errno)).to_string();
        assert!(text(libc::ENOSYS).contains("seccomp"));
        assert!(text(libc::EINVAL).contains("6.1"));
        assert!(text(libc::ENOMEM).contains("ulimit -l"));
        assert!(text(libc::EPERM).contains("io_uring"));
        assert!(text(libc::EMFILE).contains("cannot open"));
    }

    #[test]
    fn every_set_up_carries_an_operation_and_ends_one() {
        for (deferred, no_index_array) in [(true, true), (true, false), (false, false)] {
            let uring = match open_as(8, 16, deferred, no_index_array) {
                // Linux 6.6.
                Err(error) if no_index_array && error.raw_os_error() == Some(libc::EINVAL) => {
                    continue;
                }
                uring => uring.unwrap(),
            };
            let mut ring = Ring::with(uring, deferred, no_index_array).unwrap();
            let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
            let fd = std::os::fd::AsRawFd::as_raw_fd(&event);
            let poll = opcode::PollAdd::new(io_uring::types::Fd(fd), libc::POLLIN as u32);
            // SAFETY: a poll points at no memory.
            assert!(unsafe { ring.push(poll.multi(true).build(), 7) });
            ring.enter(Some(Duration::from_millis(5))).unwrap();
            assert!(!ring.has_events());
            rustix::io::write(&event, &1u64.to_ne_bytes()).unwrap();
            let mut events = Vec::new();
            ring.enter(None).unwrap();
            ring.reap(&mut events);
            assert!(events.iter().any(|event| event.user_data == 7 && event.more()));
            assert!(!ring.is_idle());
            assert!(ring.shut_down() && ring.is_idle());
        }
    }

    #[test]
    fn a_ring_that_never_ran_shuts_down() {
        let mut ring = Ring::open(8, 16).unwrap();
        // SAFETY: a no-op points at no memory.
        assert!(unsafe { ring.push(opcode::Nop::new().build(), 1) });
        assert!(ring.shut_down());
    }
}
