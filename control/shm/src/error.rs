//! What can go wrong with a segment file, and what to do about it.

use std::io;
use std::path::PathBuf;

use crate::layout::LayoutError;

/// The file is no segment that this program can read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such file.
    #[error("{path}: no segment here: the datapath is not running", path = .path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// It is something else.
    #[error("{path}: not a segment; if nobody needs it, remove it", path = .path.display())]
    NotASegment {
        /// The file.
        path: PathBuf,
    },
    /// Its creator has not finished, or died before it could.
    #[error("{path}: not ready: try again, or restart the datapath", path = .path.display())]
    NotReady {
        /// The file.
        path: PathBuf,
    },
    /// It was made by a program of another major version.
    #[error(
        "{path}: segment version {found_major}, this program has {ours_major}: \
         run datapath and controller of one release",
        path = .path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Major version of the file.
        found_major: u64,
        /// Major version of this program.
        ours_major: u64,
    },
    /// The datapath speaks other words.
    #[error(
        "{path}: the datapath speaks version {found} of the control words, this program {ours}: \
         take the program that the instance was started with, or start it again",
        path = .path.display()
    )]
    Words {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Version of this program.
        ours: u32,
    },
    /// It belongs to somebody else, who could pull it away from under us.
    #[error("{path}: owned by user {owner}: run as that user", path = .path.display())]
    NotOwner {
        /// The file.
        path: PathBuf,
        /// User id.
        owner: u32,
    },
    /// Others may open it too, and could steer the datapath.
    #[error(
        "{path}: open to others (mode {mode:03o}): restart the datapath to make it anew",
        path = .path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// It is shorter than its header says: using it would kill this program.
    #[error(
        "{path}: cut off at {len} of {expected} bytes: restart the datapath",
        path = .path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes there are.
        len: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// Its header contradicts itself.
    #[error("{path}: damaged header: restart the datapath", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("{path}: cannot {what}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// No segment was created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The sizes make no segment.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A datapath uses this file.
    #[error(
        "{path}: in use by the datapath with process id {pid}: stop that, or take another run \
         directory",
        path = .path.display()
    )]
    DatapathLives {
        /// The file.
        path: PathBuf,
        /// Its process id, in its own namespace.
        pid: u64,
    },
    /// Others start and stop datapaths on this file as fast as we look.
    #[error("{path}: changes hands again and again", path = .path.display())]
    Contended {
        /// The file.
        path: PathBuf,
    },
    /// What is there already cannot be replaced.
    #[error(transparent)]
    Existing(#[from] OpenError),
}

/// No controller was attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The file is not usable.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The datapath that made the segment is gone.
    #[error("{path}: its datapath (process id {pid}) is gone: start one", path = .path.display())]
    DatapathGone {
        /// The file.
        path: PathBuf,
        /// Its process id, in its own namespace.
        pid: u64,
    },
    /// Another controller holds the segment, and lives.
    #[error(
        "{path}: steered by the controller with process id {pid}: stop that first",
        path = .path.display()
    )]
    ControllerLives {
        /// The file.
        path: PathBuf,
        /// Its process id, in its own namespace.
        pid: u64,
    },
}
