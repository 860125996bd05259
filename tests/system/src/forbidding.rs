//! Programs that may not use io_uring, as most containers run them.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// The system calls of io_uring: setup, enter, register. Calls this new have the same number on
/// every architecture.
pub const IO_URING: [i64; 3] = [425, 426, 427];

/// `EPERM`, with which containers refuse.
const NOT_PERMITTED: u32 = 1;

/// Runs `work` on a thread to which the kernel refuses these system calls, and to every program
/// that it starts.
pub fn without_calls<T: Send>(calls: &[i64], work: impl FnOnce() -> T + Send) -> T {
    let filter = SeccompFilter::new(
        calls.iter().map(|call| (*call, Vec::new())).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(NOT_PERMITTED),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    std::thread::scope(|scope| {
        let confined = scope.spawn(move || {
            seccompiler::apply_filter(&program).unwrap();
            work()
        });
        confined.join().unwrap()
    })
}
