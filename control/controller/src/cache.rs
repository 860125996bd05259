//! The file with what the policy remembers: beside the node's key, readable by its owner only.
//!
//! It is replaced as a whole, so that whoever dies while writing leaves the one before. Whatever is
//! wrong with it costs the memory and nothing else: a node starts without it.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ipop_group::Memory;

/// Longer files are not ours: all members that are remembered take less.
const LEN_MAX: u64 = 8 << 20;

/// The file.
#[derive(Debug)]
pub(crate) struct Cache {
    path: PathBuf,
    /// What was wrong with writing it; said once.
    complaint: Option<String>,
}

impl Cache {
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), complaint: None }
    }

    /// Reads the file; without one, or with a damaged one, nothing is remembered. The text says
    /// what is wrong with it.
    pub(crate) fn read(&self) -> (Memory, Option<String>) {
        match self.try_read() {
            Ok(memory) => (memory, None),
            Err(error) => {
                let path = self.path.display();
                let text = format!(
                    "{path}: {error}; nothing is remembered of the peers, and a new file is written"
                );
                (Memory::default(), Some(text))
            }
        }
    }

    fn try_read(&self) -> Result<Memory, String> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Memory::default());
            }
            result => result.map_err(|error| error.to_string())?,
        };
        let mut bytes = Vec::new();
        file.take(LEN_MAX).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        Memory::decode(&bytes).map_err(|error| error.to_string())
    }

    /// Replaces the file. A failure is returned once, until writing works again.
    pub(crate) fn write(&mut self, memory: &Memory) -> Option<String> {
        let failure = replace(&self.path, &memory.encode()).err().map(|error| {
            let path = self.path.display();
            format!("{path}: {error}; without it a restarted node needs its server")
        });
        let is_news = failure != self.complaint;
        self.complaint.clone_from(&failure);
        failure.filter(|_| is_news)
    }
}

/// Replaces a file as a whole; its owner alone can read it.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    // Whoever left such a file may have left it open to others.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ipop-cache-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    #[test]
    fn a_file_is_its_owners_and_comes_back() {
        let folder = folder("back");
        let path = folder.join("a.peers");
        let mut cache = Cache::at(&path);
        assert_eq!(cache.read(), (Memory::default(), None));
        std::fs::write(folder.join("a.peers.new"), "left by a dead one").expect("written");
        assert_eq!(cache.write(&Memory::default()), None);
        assert_eq!(cache.read(), (Memory::default(), None));
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn garbage_and_folders_are_said_and_replaced() {
        let folder = folder("garbage");
        let path = folder.join("a.peers");
        for garbage in [&b""[..], b"{}", &[0; 100]] {
            std::fs::write(&path, garbage).expect("written");
            let (memory, text) = Cache::at(&path).read();
            assert_eq!(memory, Memory::default());
            assert!(text.is_some_and(|text| text.contains("a.peers")));
            assert_eq!(Cache::at(&path).write(&memory), None);
            assert_eq!(Cache::at(&path).read().1, None);
        }
        let mut nowhere = Cache::at(&folder.join("none/a.peers"));
        assert!(nowhere.write(&Memory::default()).is_some());
        assert_eq!(nowhere.write(&Memory::default()), None, "said once");
        std::fs::remove_dir_all(folder).expect("removed");
    }
}
