//! Programs that end with their value, and what they cost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::BenchError;
use crate::stop::Stop;

/// How long a program may take to end after it was asked to.
const FAREWELL: Duration = Duration::from_secs(5);
/// Lines of a program's output that an error shows.
const LINES_SHOWN: usize = 4;

/// A running program; dropped, it is asked to end, then killed.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    name: String,
    output: PathBuf,
    errors: PathBuf,
}

impl Process {
    /// Starts `command`, with its output in `<folder>/<name>.out` and `.err`.
    pub(crate) fn start(
        mut command: Command,
        folder: &Path,
        name: &str,
    ) -> Result<Self, BenchError> {
        let output = folder.join(format!("{name}.out"));
        let errors = folder.join(format!("{name}.err"));
        command
            .stdin(Stdio::null())
            .stdout(fs::File::create(&output)?)
            .stderr(fs::File::create(&errors)?);
        let child = command
            .spawn()
            .map_err(|error| BenchError::new(format!("cannot start {name}: {error}")))?;
        Ok(Self { child, name: name.to_owned(), output, errors })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error with its last words when it has ended on its own.
    pub(crate) fn check(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let words = self.last_words();
                Err(BenchError::new(format!("{} ended ({status}): {words}", self.name)))
            }
        }
    }

    /// Waits for its end and returns what it printed. Anything but success within `patience` is an
    /// error.
    pub(crate) fn finish(mut self, patience: Duration, stop: &Stop) -> Result<String, BenchError> {
        let status = stop.wait(patience, || Ok(self.child.try_wait()?))?;
        match status {
            Some(status) if status.success() => Ok(fs::read_to_string(&self.output)?),
            Some(status) => {
                let words = self.last_words();
                Err(BenchError::new(format!("{} failed ({status}): {words}", self.name)))
            }
            None => {
                let seconds = patience.as_secs();
                Err(BenchError::new(format!("{} did not end within {seconds} s", self.name)))
            }
        }
    }

    /// The end of its error output, else of its output, on one line.
    fn last_words(&self) -> String {
        let read = |path: &Path| {
            let text = fs::read(path).unwrap_or_default();
            last_lines(&String::from_utf8_lossy(&text))
        };
        let errors = read(&self.errors);
        if errors.is_empty() { read(&self.output) } else { errors }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed())
            && matches!(self.child.try_wait(), Ok(None))
        {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + FAREWELL;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_show_the_end_of_the_output_on_one_line() {
        assert_eq!(last_lines("a\n\n b \nc\nd\ne\n"), "b | c | d | e");
        assert_eq!(last_lines("\n"), "");
    }
}
