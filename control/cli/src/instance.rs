//! A running instance's place on the machine: its run directory and what lies there.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipop_shm::Observer;
use ipop_steer::WORDS_VERSION;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::failure::{Code, Failure};

const ROOT: &str = "/run/ipop";
/// How long an orphan may take to end before it is killed.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(2);

/// An instance's run directory.
#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// The run directory of the instance `name`.
    ///
    /// # Errors
    /// When the name cannot be a folder's name.
    pub fn of(name: &str) -> Result<Self, Failure> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(allowed)
        {
            return Err(Failure::usage(format!(
                "instance name `{name}`: use 1 to 64 letters, digits, `-`, `_` or `.`"
            )));
        }
        Ok(Self(Path::new(ROOT).join(name)))
    }

    /// The instance that `name` means; without a name the only one that runs.
    ///
    /// # Errors
    /// When it does not run, or there is more than one to choose from.
    pub fn running(name: Option<&str>) -> Result<Self, Failure> {
        if let Some(name) = name {
            let found = Self::of(name)?;
            found.supervisor().ok_or_else(|| {
                Failure::new(
                    Code::NotRunning,
                    format!("instance `{name}` is not running (start it with `ipop up`)"),
                )
            })?;
            return Ok(found);
        }
        let mut names = running_names();
        match (names.pop(), names.as_slice()) {
            (Some(only), []) => Self::of(&only),
            (None, _) => Err(Failure::new(
                Code::NotRunning,
                "no instance is running (start one with `ipop up`)",
            )),
            (Some(last), others) => Err(Failure::usage(format!(
                "several instances run ({}, {last}): choose one with --name",
                others.join(", ")
            ))),
        }
    }

    /// Looks at the instance's segment.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or is of another release.
    pub fn observe(&self) -> Result<Observer, Failure> {
        ipop_shm::observe(&self.segment(), WORDS_VERSION).map_err(|error| {
            let text = format!("instance `{}` cannot be looked at: {error}", self.name());
            Failure::new(Code::NotRunning, text)
        })
    }

    /// Makes the directory for a new instance and marks it as this process's.
    ///
    /// # Errors
    /// When another process runs the instance, or the directory cannot be made.
    pub fn claim(&self) -> Result<(), Failure> {
        if let Some(pid) = self.supervisor() {
            return Err(Failure::failed(format!(
                "instance `{}` runs already (process {}): stop it with `ipop down --name {}`, \
                 or give this one another --name",
                self.name(),
                pid.as_raw_nonzero(),
                self.name()
            )));
        }
        self.end_orphans();
        let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(ROOT);
        let made = made.and_then(|()| match fs::DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
        made.and_then(|()| self.write("pid", &format!("{}\n", std::process::id()))).map_err(
            |error| {
                Failure::new(
                    Code::NotPermitted,
                    format!("cannot make the run directory {}: {error}", self.0.display()),
                )
            },
        )
    }

    /// Ends the processes of a supervisor that was killed before it could.
    fn end_orphans(&self) {
        for role in ["controller", "datapath"] {
            let Some(pid) = self.process(role) else { continue };
            tracing::warn!(
                "the {role} of a supervisor that was killed still runs (process {}): it is ended",
                pid.as_raw_nonzero()
            );
            let deadline = Instant::now() + ORPHAN_PATIENCE;
            let mut signal = Signal::TERM;
            while self.process(role) == Some(pid) {
                let _ = kill_process(pid, signal);
                if Instant::now() > deadline {
                    signal = Signal::KILL;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            // Its files, and with them its hold on the segment, go after its memory.
            while has_files(pid) && Instant::now() < deadline + ORPHAN_PATIENCE {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// The process of a role, if it is alive and runs for this very directory.
    fn process(&self, role: &str) -> Option<Pid> {
        let text = fs::read_to_string(self.0.join(format!("{role}.pid"))).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?)?;
        let own = self.0.as_os_str().as_encoded_bytes();
        command_line(pid).iter().any(|word| word == own).then_some(pid)
    }

    /// Removes the directory with all that is in it.
    pub fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!("cannot remove {}: {error}", self.0.display());
        }
        // The root goes with the last instance; it is not empty otherwise.
        let _ = fs::remove_dir(ROOT);
    }

    /// Writes a file that only the owner may read.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let path = self.0.join(file);
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(path)?.write_all(text.as_bytes())
    }

    /// The instance's name.
    pub fn name(&self) -> String {
        self.0.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The shared-memory segment.
    pub fn segment(&self) -> PathBuf {
        self.0.join("segment")
    }

    /// The process that runs the instance, if it is alive.
    pub fn supervisor(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.0.join("pid")).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?)?;
        let is_ours = test_kill_process(pid).is_ok() && is_ipop(pid);
        is_ours.then_some(pid)
    }
}

/// Process ids come round again: a stranger under an old id is not the instance.
fn is_ipop(pid: Pid) -> bool {
    command_line(pid).iter().any(|word| word == b"up")
}

/// Whether a process may still hold files: it is there, and more than an entry for its parent.
fn has_files(pid: Pid) -> bool {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let stat = fs::read_to_string(path).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}

/// The words that a process was started with; none once it has ended.
fn command_line(pid: Pid) -> Vec<Vec<u8>> {
    let path = format!("/proc/{}/cmdline", pid.as_raw_nonzero());
    let words = fs::read(path).unwrap_or_default();
    words.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

fn running_names() -> Vec<String> {
    let Ok(entries) = fs::read_dir(ROOT) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> =
        names.filter(|name| RunDir::of(name).is_ok_and(|dir| dir.supervisor().is_some())).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_root_are_refused() {
        for name in ["", "..", "a/b", ".hidden", "a b"] {
            assert!(RunDir::of(name).is_err(), "{name}");
        }
        assert_eq!(RunDir::of("node1").unwrap().name(), "node1");
    }
}
