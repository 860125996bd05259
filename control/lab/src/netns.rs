//! One network namespace: a machine of the lab.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::run::{run, run_with_input};
use crate::{LabError, sys};

/// Every name of ours begins so, followed by the process id of the lab that made it.
const PREFIX: &str = "ipl";

/// A named network namespace, removed when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace `<label>` of this process, with its loopback up.
    ///
    /// # Errors
    /// When `ip netns` refuses: no root, or the name is taken.
    pub fn create(label: &str) -> Result<Self, LabError> {
        // Several labs of one process, its tests', have the same labels.
        static CREATED: AtomicU32 = AtomicU32::new(0);
        let number = CREATED.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{label}", std::process::id());
        run(&format!("ip netns add {name}"))?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that names this namespace to the kernel.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run inside: its process is the program's own, not a wrapper's.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `ip <words>` inside.
    ///
    /// # Errors
    /// As [`run`].
    pub fn ip(&self, words: &str) -> Result<String, LabError> {
        run(&format!("ip -n {} {words}", self.name))
    }

    /// Runs `line` inside, to its end.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(&self, line: &str) -> Result<String, LabError> {
        run(&format!("ip netns exec {} {line}", self.name))
    }

    /// The hardware address of an interface inside.
    ///
    /// # Errors
    /// As [`run`], and when the interface has none.
    pub fn mac(&self, interface: &str) -> Result<[u8; 6], LabError> {
        let text = self.run(&format!("cat /sys/class/net/{interface}/address"))?;
        let bytes = text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16));
        let bytes: Option<Vec<_>> = bytes.map(Result::ok).collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
            let what = format!("hardware address of {interface} in {}", self.name);
            LabError::system(what, std::io::ErrorKind::InvalidData.into())
        })
    }

    /// Runs `work` on a thread inside the namespace: sockets that it opens belong there for good.
    ///
    /// # Errors
    /// What `work` returns, or why the namespace cannot be entered.
    pub fn inside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, LabError> {
        inside(&self.path(), work)
    }

    /// Loads nftables `rules` inside.
    ///
    /// # Errors
    /// As [`run`].
    pub fn nft(&self, rules: &str) -> Result<String, LabError> {
        run_with_input(&format!("ip netns exec {} nft -f -", self.name), rules)
    }

    /// Turns on IPv4 forwarding: the namespace becomes a router.
    ///
    /// # Errors
    /// As [`run`].
    pub fn forward(&self) -> Result<(), LabError> {
        self.run("sysctl -qw net.ipv4.ip_forward=1").map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and `remove_stale` finds what is left.
        let _ = run(&format!("ip netns del {}", self.name));
    }
}

/// Runs `work` on a thread inside the namespace that the file at `path` names.
///
/// # Errors
/// What `work` returns, or why the namespace cannot be entered.
pub fn inside<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, LabError> {
    sys::inside(path, work)
        .map_err(|source| LabError::system(format!("inside {}", path.display()), source))
}

/// Removes namespaces that labs left behind whose process is gone (killed before it could clean
/// up), and returns how many.
///
/// # Errors
/// When the namespaces cannot be listed.
pub fn remove_stale() -> Result<usize, LabError> {
    let listing = run("ip netns list")?;
    let mut removed = 0;
    for name in listing.lines().filter_map(|line| line.split_whitespace().next()) {
        let Some(pid) = owner(name) else { continue };
        if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
            run(&format!("ip netns del {name}"))?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_have_an_owner() {
        assert_eq!(owner("ipl123-hub"), Some(123));
        assert_eq!(owner("iplab"), None);
        assert_eq!(owner("other-1"), None);
    }
}
