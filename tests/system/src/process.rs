//! Programs that a test starts and ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Scratch;

/// The `ipop` binary under test: `$IPOP_BIN`, or the workspace's latest debug build.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("IPOP_BIN") {
        return path.into();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("target/debug/ipop");
    assert!(path.exists(), "{} is missing: run `cargo build` first", path.display());
    path.canonicalize().unwrap()
}

/// A running program; asked to end, then killed, when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it, with its output in the file `log`.
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let again = file.try_clone().unwrap();
        command.stdin(Stdio::null()).stdout(file).stderr(again);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed()).unwrap()
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid(), signal);
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks it to end and waits until it has.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait(Duration::from_secs(10))
    }

    /// Asks it to end, and kills it when it does not.
    pub fn end(&mut self) {
        if self.is_running() && self.stop().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Whether a datapath or controller still runs under this process id. One that has ended and waits
/// for its parent to notice has no command line.
pub fn is_running(pid: Pid) -> bool {
    let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
    line.is_ok_and(|line| String::from_utf8_lossy(&line).contains("--run-dir"))
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code; none when a signal or our patience ended it.
    pub code: Option<i32>,
    /// All that it printed.
    pub text: String,
}

/// Runs a program to its end, which comes within 20 s or is a failure.
pub fn ended(command: Command) -> Ended {
    ended_within(command, Duration::from_secs(20))
}

/// As [`ended`], for programs that take their time.
pub fn ended_within(command: Command, patience: Duration) -> Ended {
    let scratch = Scratch::new();
    let mut process = Process::start(command, scratch.path("log"));
    let status = process.wait(patience);
    assert!(status.is_some(), "still runs after {patience:?}:\n{}", process.log());
    Ended { code: status.and_then(|status| status.code()), text: process.log() }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.log.display(), self.log());
        }
    }
}
