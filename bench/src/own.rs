//! Our own binary, fresh from the sources that this program was built from.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::BenchError;
use crate::install::{cargo, target_folder};

/// The binary at `given`, or the one that cargo builds in the profile of this program.
pub(crate) fn binary(given: Option<&Path>) -> Result<PathBuf, BenchError> {
    if let Some(path) = given {
        let path = path.canonicalize();
        return path.map_err(|error| BenchError::new(format!("--ipop: {error}")));
    }
    let program = std::env::current_exe()?;
    let profile = program.parent().and_then(|folder| folder.file_name()?.to_str());
    let profile = match profile {
        // The folder of cargo's `dev` has another name.
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("Cargo.toml");
    let mut command = Command::new(cargo());
    command.args(["build", "--quiet", "--package", "ipop", "--profile", profile]);
    command.arg("--manifest-path").arg(manifest);
    if let Some(target) = target_folder() {
        command.arg("--target-dir").arg(target);
    }
    let status = command.status()?;
    if !status.success() {
        let text = format!("building ipop failed ({status}); --ipop names a binary that is there");
        return Err(BenchError::new(text));
    }
    Ok(program.with_file_name("ipop"))
}
