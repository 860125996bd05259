//! Runs one system tool to its end.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::LabError;

/// Runs `line` (words split at blanks) and returns its standard output.
///
/// # Errors
/// [`LabError::Start`] when the program is missing, [`LabError::Refused`] with its standard error
/// when it exits with anything but 0.
pub fn run(line: &str) -> Result<String, LabError> {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    finish(line, program, output)
}

/// Runs `line` with `input` on its standard input.
pub(crate) fn run_with_input(line: &str, input: &str) -> Result<String, LabError> {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            if let Some(mut pipe) = child.stdin.take() {
                pipe.write_all(input.as_bytes())?;
            }
            child.wait_with_output()
        });
    finish(line, program, output)
}

fn finish(line: &str, program: &str, out: std::io::Result<Output>) -> Result<String, LabError> {
    let out = out.map_err(|source| LabError::Start { program: program.to_owned(), source })?;
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
    }
    Err(LabError::Refused {
        command: line.to_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).trim().to_owned(),
    })
}
