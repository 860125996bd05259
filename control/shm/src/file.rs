//! The segment's file: how it comes to its path, and what is checked before it is mapped.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering as StdOrdering};

use rustix::fs::{FallocateFlags, fallocate};

use crate::error::{CreateError, OpenError};
use crate::layout::{
    HEADER_WORDS, Header, HeaderFault, PAGE, SUCCESSION_LOCK, VERSION, VERSION_MAJOR, VERSION_WORD,
};
use crate::lock;
use crate::memory::{Access, Memory, WORD};
use crate::presence::Role;
use crate::sync::Ordering;

/// The file at the path before a new segment comes there.
pub(crate) enum Predecessor {
    /// There is none.
    Nothing,
    /// A segment whose datapath is gone, and which nobody else can replace meanwhile.
    Dead {
        /// Of the segment; 0 if its header cannot be read.
        generation: u64,
        /// Holds the lock that keeps other creators away.
        file: File,
    },
    /// Another datapath is replacing it right now.
    Busy,
}

impl Predecessor {
    /// Looks at the path. A file that is no segment is nobody's to overwrite.
    pub(crate) fn at(path: &Path) -> Result<Self, CreateError> {
        let file = match open_file(path, Access::Write) {
            Err(OpenError::NotFound { .. }) => return Ok(Self::Nothing),
            result => result?,
        };
        let generation = match read_header(path, &file) {
            Ok(header) => header.generation,
            Err(error @ (OpenError::NotASegment { .. } | OpenError::Io { .. })) => {
                return Err(error.into());
            }
            Err(_) => 0,
        };
        // Not the lock of the role: a controller that attaches just now would take this process
        // for the living datapath of the old segment.
        if !lock::try_lock(&file, SUCCESSION_LOCK).map_err(io_error(path, "lock"))? {
            return Ok(Self::Busy);
        }
        let role = Role::Datapath;
        if lock::is_locked(&file, role.lock_byte()).map_err(io_error(path, "ask for locks"))? {
            let pid = pid_in_file(&file, role);
            return Err(CreateError::DatapathLives { path: path.to_owned(), pid });
        }
        Ok(Self::Dead { generation, file })
    }

    /// Generation of the segment; 0 if there is none.
    pub(crate) fn generation(&self) -> u64 {
        if let Self::Dead { generation, .. } = self { *generation } else { 0 }
    }
}

/// Whether the path leads to this file.
fn leads_to(path: &Path, file: &File) -> bool {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let here = fs::symlink_metadata(path).map(identity).ok();
    here.is_some() && here == file.metadata().map(identity).ok()
}

/// A segment that is being made. Its name goes away with it.
pub(crate) struct Draft {
    path: PathBuf,
    file: File,
}

impl Draft {
    pub(crate) fn new(path: &Path) -> Result<Self, OpenError> {
        static DRAFTS: AtomicU32 = AtomicU32::new(0);
        let number = DRAFTS.fetch_add(1, StdOrdering::Relaxed);
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}-{number}.new", std::process::id()));
        let draft = path.with_file_name(name);
        // One that a process of the same id left behind when it died.
        let _ = fs::remove_file(&draft);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&draft).map_err(io_error(path, "create a file beside it"))?;
        Ok(Self { path: draft, file })
    }

    /// Gives the file its length, header and lock. All room is allocated now, because a full file
    /// system would later show as SIGBUS.
    pub(crate) fn fill(&self, header: &Header) -> Result<Arc<Memory>, OpenError> {
        let len = (header.plan.len * WORD) as u64;
        allocate(&self.file, len).map_err(io_error(&self.path, "allocate its room"))?;
        let file = self.file.try_clone().map_err(io_error(&self.path, "duplicate it"))?;
        lock::try_lock(&file, Role::Datapath.lock_byte()).map_err(io_error(&self.path, "lock"))?;
        let memory = map(&self.path, file, header, Access::Write)?;
        let words = &memory.words()[..HEADER_WORDS];
        for (word, value) in words.iter().zip(header.emit()) {
            word.store(value, Ordering::Relaxed);
        }
        // The segment is ready, but for its being at its place.
        words[VERSION_WORD].store(VERSION, Ordering::Release);
        Ok(memory)
    }

    /// Moves the finished file to its path; false if somebody else was faster.
    pub(crate) fn publish(self, path: &Path, old: &Predecessor) -> Result<bool, OpenError> {
        let moved = match old {
            Predecessor::Nothing => fs::hard_link(&self.path, path),
            // As long as the path leads there, its lock keeps all others from replacing it.
            Predecessor::Dead { file, .. } if leads_to(path, file) => fs::rename(&self.path, path),
            Predecessor::Dead { .. } | Predecessor::Busy => return Ok(false),
        };
        match moved {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            result => result.map(|()| true).map_err(io_error(path, "put the new segment there")),
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename it is not there any more.
        let _ = fs::remove_file(&self.path);
    }
}

fn allocate(file: &File, len: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let zeros = [0; PAGE];
            (0..len).step_by(PAGE).try_for_each(|offset| file.write_all_at(&zeros, offset))
        }
        result => Ok(result?),
    }
}

/// Opens a finished segment and checks all that can be checked before it is used.
pub(crate) fn open(path: &Path, access: Access) -> Result<(File, Header), OpenError> {
    let file = open_file(path, access)?;
    let header = read_header(path, &file)?;
    let meta = file.metadata().map_err(io_error(path, "look at it"))?;
    if meta.mode() & 0o077 != 0 {
        return Err(OpenError::Exposed { path: path.to_owned(), mode: meta.mode() & 0o777 });
    }
    let len = meta.len();
    let expected = (header.plan.len * WORD) as u64;
    if len < expected {
        return Err(OpenError::Truncated { path: path.to_owned(), len, expected });
    }
    Ok((file, header))
}

/// Opens a file of ours. Others' files are refused: who may shorten a file that we have mapped can
/// kill us. Only root may look at them.
fn open_file(path: &Path, access: Access) -> Result<File, OpenError> {
    let mut options = OpenOptions::new();
    options.read(true).write(access == Access::Write);
    // Neither a symbolic link to elsewhere nor a fifo that nobody writes to.
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
    let file = options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => OpenError::NotFound { path: path.to_owned() },
        _ => io_error(path, "open it")(error),
    })?;
    let meta = file.metadata().map_err(io_error(path, "look at it"))?;
    let user = rustix::process::geteuid();
    if !meta.is_file() {
        return Err(OpenError::NotASegment { path: path.to_owned() });
    }
    if meta.uid() != user.as_raw() && !(user.is_root() && access == Access::Read) {
        return Err(OpenError::NotOwner { path: path.to_owned(), owner: meta.uid() });
    }
    Ok(file)
}

fn read_header(path: &Path, file: &File) -> Result<Header, OpenError> {
    let mut page = [0; PAGE];
    let len = read_page(file, &mut page).map_err(io_error(path, "read it"))?;
    let path = path.to_owned();
    Header::parse(&page)
        .and_then(|header| {
            // A page that was cut off and happens to make sense is still cut off.
            if len < PAGE { Err(HeaderFault::Inconsistent) } else { Ok(header) }
        })
        .map_err(|fault| match fault {
            HeaderFault::NoMagic => OpenError::NotASegment { path },
            _ if len < PAGE => {
                OpenError::Truncated { path, len: len as u64, expected: PAGE as u64 }
            }
            HeaderFault::NotReady => OpenError::NotReady { path },
            HeaderFault::Version { found } => {
                OpenError::Version { path, found_major: found >> 16, ours_major: VERSION_MAJOR }
            }
            HeaderFault::Inconsistent => OpenError::Damaged { path },
        })
}

/// Reads as much of the first page as there is.
fn read_page(file: &File, page: &mut [u8; PAGE]) -> io::Result<usize> {
    let mut len = 0;
    while len < PAGE {
        match file.read_at(&mut page[len..], len as u64) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// The process id that the header names, for messages; 0 if it cannot be read.
pub(crate) fn pid_in_file(file: &File, role: Role) -> u64 {
    let mut bytes = [0; WORD];
    let read = file.read_exact_at(&mut bytes, (role.start() * WORD) as u64);
    if read.is_ok() { u64::from_le_bytes(bytes) } else { 0 }
}

pub(crate) fn map(
    path: &Path,
    file: File,
    header: &Header,
    access: Access,
) -> Result<Arc<Memory>, OpenError> {
    let memory = Memory::map(file, header.plan.len, access).map_err(io_error(path, "map it"))?;
    Ok(Arc::new(memory))
}

pub(crate) fn io_error(path: &Path, what: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Io { path: path.to_owned(), what, source }
}
