//! What can go wrong while a lab is built.

use std::io;

/// Why a part of the lab could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A system tool could not be started at all.
    #[error("cannot start `{program}`: {source}; is its package installed?")]
    Start {
        /// The program's name.
        program: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A system tool refused what it was told to do.
    #[error("`{command}` failed: {stderr}")]
    Refused {
        /// The whole command line.
        command: String,
        /// What it printed on its standard error.
        stderr: String,
    },
    /// A system call of our own failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done, and to what.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A NAT kind that nobody knows.
    #[error("unknown NAT kind `{0}`: use one of {list}", list = crate::Nat::names())]
    UnknownNat(String),
    /// More sites than the address plan has room for.
    #[error("{0} sites asked for: the lab has room for {max}", max = crate::SITES_MAX)]
    TooManySites(usize),
    /// A router is wanted where there is none.
    #[error("the machine is not behind a router")]
    NoRouter,
    /// A public machine is wanted where there is a router.
    #[error("the machine is behind a router")]
    HasRouter,
}

impl LabError {
    pub(crate) fn system(what: impl Into<String>, source: io::Error) -> Self {
        Self::System { what: what.into(), source }
    }
}
