//! Files that only their owner reads, written whole or not at all.

use crate::error::HubError;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Nothing that we wrote is larger.
const LEN_MAX: u64 = 1 << 20;
const PERMISSIONS: u32 = 0o777;
/// Permissions of the group and of everybody.
const FOR_OTHERS: u32 = 0o077;

/// Makes a directory for its owner alone, unless it is there.
pub(crate) fn make_directory(path: &Path) -> Result<(), HubError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| HubError::File { action: "make", path: path.to_owned(), source })
}

/// Writes a file (mode 0600) beside its place and moves it there, so that a reader sees the old or
/// the new one.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    let beside = beside(path);
    let written = write_beside(&beside, bytes).and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|source| {
        let _ = std::fs::remove_file(&beside);
        HubError::File { action: "write", path: path.to_owned(), source }
    })
}

/// Reads a file; `None` when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, HubError> {
    Ok(read_with_mode(path)?.map(|(bytes, _)| bytes))
}

/// The same for what nobody but its owner may be able to read.
pub(crate) fn read_secret(path: &Path) -> Result<Option<Vec<u8>>, HubError> {
    match read_with_mode(path)? {
        Some((_, mode)) if mode & FOR_OTHERS != 0 => {
            Err(HubError::Exposed { path: path.to_owned(), mode })
        }
        read => Ok(read.map(|(bytes, _)| bytes)),
    }
}

/// Contents and permission bits.
fn read_with_mode(path: &Path) -> Result<Option<(Vec<u8>, u32)>, HubError> {
    let read = || {
        let mut bytes = Vec::new();
        let file = File::open(path)?;
        let mode = file.metadata()?.permissions().mode() & PERMISSIONS;
        file.take(LEN_MAX).read_to_end(&mut bytes)?;
        Ok((bytes, mode))
    };
    match read() {
        Ok(read) => Ok(Some(read)),
        Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HubError::File { action: "read", path: path.to_owned(), source }),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

fn write_beside(beside: &Path, bytes: &[u8]) -> io::Result<()> {
    let _ = std::fs::remove_file(beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
    file.write_all(bytes)?;
    file.sync_all()
}
