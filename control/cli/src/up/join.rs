//! A node that has nothing but a ticket: its key, its account, its name.

use std::path::Path;

use crate::args::Up;
use crate::failure::Failure;
use crate::keygen;
use crate::settings::{InstanceSettings, from_ticket, state_dir};

pub(super) fn settings(_: &str, _: &Up) -> Result<InstanceSettings, Failure> {
    Err(Failure::usage("not in this build yet"))
}
/// Makes the key when there is none yet.
///
/// # Errors
/// When it cannot be written, or read.
pub(super) fn ensure_identity(path: &Path) -> Result<(), Failure> {
    if path.exists() {
        return keygen::read(path).map(drop);
    }
    let identity = keygen::create(path)?;
    tracing::info!("new key {} with fingerprint {}", path.display(), identity.fingerprint());
    Ok(())
}

/// The machine's own name, as far as it can be an instance's.
fn default_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let first = host.split('.').next().unwrap_or_default();
    let kept: String =
        first.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
    if kept.is_empty() { "ipop".to_owned() } else { kept }
}
