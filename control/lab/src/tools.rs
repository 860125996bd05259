//! Which system tools the lab needs, and the Debian package of each.

use std::path::Path;
use std::process::Command;

use crate::LabError;

/// A system tool and the Debian package that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The program's name on the PATH.
    pub program: &'static str,
    /// The Debian package to install.
    pub package: &'static str,
}

const NEEDED: [Tool; 3] = [
    Tool { program: "ip", package: "iproute2" },
    Tool { program: "nft", package: "nftables" },
    Tool { program: "sysctl", package: "procps" },
];

/// The tools that the lab needs and this machine lacks.
pub fn missing() -> Vec<Tool> {
    NEEDED.into_iter().filter(|tool| !is_installed(tool.program)).collect()
}

/// One sentence that names the missing tools, their packages and the way out.
pub fn missing_text(tools: &[Tool]) -> String {
    let programs: Vec<_> = tools.iter().map(|tool| format!("`{}`", tool.program)).collect();
    let packages: Vec<_> = tools.iter().map(|tool| tool.package).collect();
    format!(
        "the lab needs {}: run `apt-get install {}`, or pass --install-missing",
        programs.join(", "),
        packages.join(" ")
    )
}

/// Installs the packages of `tools` with apt-get.
///
/// # Errors
/// When apt-get is not there, may not install, or cannot find a package.
pub fn install(tools: &[Tool]) -> Result<(), LabError> {
    apt_get(&["update", "-qq"])?;
    let mut words = vec!["install", "-y", "-qq", "--no-install-recommends"];
    words.extend(tools.iter().map(|tool| tool.package));
    apt_get(&words)
}

fn apt_get(words: &[&str]) -> Result<(), LabError> {
    let output = Command::new("apt-get")
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .map_err(|source| LabError::Start { program: "apt-get".into(), source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Refused {
        command: format!("apt-get {}", words.join(" ")),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A plain user's PATH may lack the sbin folders where ip and nft live.
    let extra = ["/usr/sbin", "/sbin"].map(Path::new).map(Path::to_path_buf);
    std::env::split_paths(&path).chain(extra).any(|folder| folder.join(program).is_file())
}
