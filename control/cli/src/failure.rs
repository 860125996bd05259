//! How a command ends when it does not end well: an exit code for programs, a text for people.

use std::fmt;
use std::process::ExitCode;

/// What a program may conclude from the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Something went wrong while running: 1.
    Failed = 1,
    /// The command line or the configuration is wrong: 2.
    Usage = 2,
    /// There is no such instance running: 3.
    NotRunning = 3,
    /// The time was up before the condition held: 4.
    TimedOut = 4,
    /// A permission or a device is missing: 5.
    NotPermitted = 5,
}

/// The end of a command.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    text: String,
}

impl Failure {
    /// A failure with its exit code; the text says what was wrong, where, and what to do.
    pub fn new(code: Code, text: impl fmt::Display) -> Self {
        Self { code, text: text.to_string() }
    }

    /// A failure of the run itself.
    pub fn failed(text: impl fmt::Display) -> Self {
        Self::new(Code::Failed, text)
    }

    /// A failure of the command line or configuration.
    pub fn usage(text: impl fmt::Display) -> Self {
        Self::new(Code::Usage, text)
    }

    /// What the process exits with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
