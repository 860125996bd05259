//! Why there is no connection: what a person must mend, and what time may mend.

use ipop_signal::FatalCause;

/// The end of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Trying again is pointless.
    Fatal {
        /// What kind of thing is wrong.
        cause: FatalCause,
        /// What is wrong and what to do.
        text: String,
    },
    /// Trying again may help.
    Retry(String),
}

impl Failure {
    pub(crate) fn fatal(cause: FatalCause, text: impl Into<String>) -> Self {
        Self::Fatal { cause, text: text.into() }
    }

    pub(crate) fn retry(text: impl Into<String>) -> Self {
        Self::Retry(text.into())
    }
}
