//! Atomics and futexes, by one door: with `--cfg loom` the same code runs on loom's models.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};

pub(crate) use futex::FutexWord;

#[cfg(not(loom))]
mod futex {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use rustix::thread::{Timespec, futex};

    /// A word on which a thread of one process sleeps until one of another wakes it.
    #[repr(transparent)]
    pub(crate) struct FutexWord(AtomicU32);

    impl FutexWord {
        pub(crate) fn load(&self, ordering: Ordering) -> u32 {
            self.0.load(ordering)
        }

        pub(crate) fn swap(&self, value: u32, ordering: Ordering) -> u32 {
            self.0.swap(value, ordering)
        }

        pub(crate) fn replace(&self, current: u32, new: u32) -> bool {
            self.0.compare_exchange(current, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        }

        /// Sleeps while the word is `expected`, at most for `timeout`. May return early.
        pub(crate) fn wait(&self, expected: u32, timeout: Duration) {
            // Without the flag PRIVATE, because the other end is another process. The errors are
            // EAGAIN (the word has changed), EINTR and ETIMEDOUT: the caller looks again anyway.
            // A timeout that overflows a timespec is as good as none.
            let timeout = Timespec::try_from(timeout).ok();
            let _ = futex::wait(&self.0, futex::Flags::empty(), expected, timeout.as_ref());
        }

        /// Wakes whoever sleeps on the word.
        pub(crate) fn wake(&self) {
            // It fails for addresses only that are no memory of ours.
            let _ = futex::wake(&self.0, futex::Flags::empty(), i32::MAX as u32);
        }
    }
}

#[cfg(loom)]
mod futex {
    use std::time::Duration;

    use loom::sync::atomic::{AtomicU32, Ordering};
    use loom::sync::{Condvar, Mutex};

    /// The futex as loom sees it: no timeout, so that a lost wake-up is a deadlock that loom finds.
    pub(crate) struct FutexWord {
        value: AtomicU32,
        kernel: Mutex<()>,
        sleepers: Condvar,
    }

    impl FutexWord {
        pub(crate) fn new() -> Self {
            Self { value: AtomicU32::new(0), kernel: Mutex::new(()), sleepers: Condvar::new() }
        }

        pub(crate) fn load(&self, ordering: Ordering) -> u32 {
            self.value.load(ordering)
        }

        pub(crate) fn swap(&self, value: u32, ordering: Ordering) -> u32 {
            self.value.swap(value, ordering)
        }

        pub(crate) fn replace(&self, current: u32, new: u32) -> bool {
            self.value.compare_exchange(current, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        }

        pub(crate) fn wait(&self, expected: u32, _timeout: Duration) {
            let kernel = self.kernel.lock().expect("no holder of the lock panics");
            if self.value.load(Ordering::SeqCst) == expected {
                drop(self.sleepers.wait(kernel));
            }
        }

        pub(crate) fn wake(&self) {
            let _kernel = self.kernel.lock().expect("no holder of the lock panics");
            self.sleepers.notify_all();
        }
    }
}
