//! Why something could not be measured.

use ipop_lab::LabError;

/// Ends a figure, or, when somebody asked for it, everything.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// Ctrl-C or a signal to end: not a result.
    #[error("stopped before it was done")]
    Stopped,
    /// What was tried and why it did not work.
    #[error("{0}")]
    Failed(String),
}

impl BenchError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }
}

impl From<LabError> for BenchError {
    fn from(error: LabError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<std::io::Error> for BenchError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
