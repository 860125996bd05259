//! Which programs there are, where missing ones come from, and how to get them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ipop_lab::Tool;

use crate::error::BenchError;

/// While this program is there and exits with 101, Debian starts no services of new packages.
const SERVICES_OFF: &str = "/usr/sbin/policy-rc.d";

/// A program that something needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    /// Its name on the PATH.
    pub program: &'static str,
    /// Who offers it.
    pub from: From,
}

/// Who offers a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// A Debian package.
    Debian(&'static str),
    /// A crate in the registry.
    Crate {
        /// Its name.
        name: &'static str,
        /// Debian packages that it takes to build it.
        packages: &'static [&'static str],
    },
}

impl Need {
    /// A program of a Debian package.
    pub(crate) const fn debian(program: &'static str, package: &'static str) -> Self {
        Self { program, from: From::Debian(package) }
    }

    /// A program of a crate.
    pub(crate) const fn of_crate(program: &'static str, name: &'static str) -> Self {
        Self { program, from: From::Crate { name, packages: &[] } }
    }

    /// The same of one that takes these Debian packages to build.
    pub(crate) const fn built_with(self, packages: &'static [&'static str]) -> Self {
        match self.from {
            From::Crate { name, .. } => Self { from: From::Crate { name, packages }, ..self },
            From::Debian(_) => self,
        }
    }

    /// Debian packages that are to be there first.
    fn packages(&self) -> Vec<&'static str> {
        match self.from {
            From::Debian(package) => vec![package],
            From::Crate { packages, .. } => packages.to_vec(),
        }
    }
}

/// Where a program is; programs of crates are in a folder of our own.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let own = crates_root().map(|root| root.join("bin"));
    let folders = own.into_iter().chain(std::env::split_paths(&path)).chain(more);
    folders.map(|folder| folder.join(program)).find(|path| is_program(path))
}

/// Installs what is missing of `needs`. What cannot be had is returned with the reason: the others
/// are measured all the same.
pub(crate) fn install(needs: &[Need]) -> Vec<(Need, String)> {
    let missing: Vec<Need> =
        needs.iter().copied().filter(|need| find(need.program).is_none()).collect();
    let mut packages: Vec<Tool> = Vec::new();
    for need in &missing {
        for package in need.packages() {
            if packages.iter().all(|tool| tool.package != package) {
                packages.push(Tool { program: need.program, package });
            }
        }
    }
    let debian = if packages.is_empty() { Ok(()) } else { install_debian(&packages) };
    let outcome = |need: Need| match need.from {
        From::Debian(_) => debian.as_ref().map_err(ToString::to_string).copied(),
        // Without what it is built with it may still be: cargo says.
        From::Crate { name, .. } => install_crate(name).map_err(|error| error.to_string()),
    };
    missing.into_iter().filter_map(|need| outcome(need).err().map(|why| (need, why))).collect()
}

/// The way to get a program by hand.
pub(crate) fn hint(need: Need) -> String {
    let program = need.program;
    match need.from {
        From::Debian(package) => {
            format!("`{program}` is missing: apt-get install {package}, or --install-missing")
        }
        From::Crate { name, packages } => {
            let first = match packages {
                [] => String::new(),
                packages => format!("apt-get install {}, ", packages.join(" ")),
            };
            format!("`{program}` is missing: {first}cargo install {name}, or --install-missing")
        }
    }
}

fn install_debian(tools: &[Tool]) -> Result<(), BenchError> {
    let packages: Vec<_> = tools.iter().map(|tool| tool.package).collect();
    eprintln!("installing Debian packages: {}", packages.join(" "));
    let _quiet = QuietServices::ensure()?;
    Ok(ipop_lab::install(tools)?)
}

fn install_crate(name: &str) -> Result<(), BenchError> {
    eprintln!("building the crate {name}: this may take minutes");
    let root = crates_root().ok_or_else(|| BenchError::new("no folder to install crates into"))?;
    let status = Command::new(cargo())
        .args(["install", "--locked", "--quiet", name, "--root"])
        .arg(root)
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(BenchError::new(format!("`cargo install {name}` failed ({status})")))
}

/// Cargo, the same that runs us where it does.
pub(crate) fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// The folder that cargo builds into: `target`, with this program two levels below.
pub(crate) fn target_folder() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.ancestors().nth(2).map(Path::to_path_buf)
}

fn crates_root() -> Option<PathBuf> {
    Some(target_folder()?.join("bench/crates"))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Keeps Debian from starting the servers that it installs, while it lives.
struct QuietServices {
    ours: bool,
}

impl QuietServices {
    fn ensure() -> Result<Self, BenchError> {
        let path = Path::new(SERVICES_OFF);
        if path.exists() {
            return Ok(Self { ours: false });
        }
        let quiet = Self { ours: true };
        fs::write(path, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        Ok(quiet)
    }
}

impl Drop for QuietServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(SERVICES_OFF);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_and_folders_are_none() {
        assert!(find("sh").is_some());
        assert!(find("share").is_none());
        assert!(find("no-such-program").is_none());
    }

    #[test]
    fn a_hint_names_program_package_and_flag() {
        let text = hint(Need::debian("tincd", "tinc"));
        for word in ["`tincd`", "apt-get install tinc", "--install-missing"] {
            assert!(text.contains(word), "{text}");
        }
        assert!(hint(Need::of_crate("a", "b")).contains("cargo install b"));
    }
}
