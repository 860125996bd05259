//! A node that has nothing but a ticket: its key, its account, its name.

use std::path::Path;

use ipop_controller::{Account, LoginOffer, Trust};
use ipop_crypto::Identity;
use ipop_hub::{Ticket, account_for};

use crate::args::Up;
use crate::failure::Failure;
use crate::keygen;
use crate::settings::{InstanceSettings, from_ticket, state_dir};

/// Settings from a ticket, or from the file that `@FILE` names.
///
/// # Errors
/// When the ticket is mistyped, or its file or the key cannot be read.
pub(super) fn settings(ticket: &str, flags: &Up) -> Result<InstanceSettings, Failure> {
    let text = match ticket.strip_prefix('@') {
        None => ticket.to_owned(),
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| Failure::usage(format!("--join @{file}: {error}")))?,
    };
    let ticket: Ticket =
        text.trim().parse().map_err(|error| Failure::usage(format!("--join: {error}")))?;
    let name = flags.name.clone().unwrap_or_else(default_name);
    let path = flags.identity.clone().unwrap_or_else(|| state_dir(&name).join("identity.pem"));
    let identity = ensure_identity(&path)?;
    let (jid, password) = account_for(&ticket, &identity.uid_hex());
    let account = Account {
        jid,
        password,
        servers: ticket.addresses.iter().map(ToString::to_string).collect(),
        trust: Trust::Pinned(ticket.certificate),
        direct_tls: true,
        allow_plain: false,
        resource: String::new(),
        offer: Some(LoginOffer {
            mechanisms: ipop_hub::MECHANISMS.map(str::to_owned).to_vec(),
            binds_exporter: false,
            pipelines: true,
        }),
    };
    from_ticket(name, account, &ticket, flags)
}

/// The node's key, which is made when there is none yet.
///
/// # Errors
/// When it cannot be written, or read.
pub(super) fn ensure_identity(path: &Path) -> Result<Identity, Failure> {
    if path.exists() {
        return keygen::read(path);
    }
    let identity = keygen::create(path)?;
    tracing::info!("new key {} with fingerprint {}", path.display(), identity.fingerprint());
    Ok(identity)
}

/// The machine's own name, as far as it can be an instance's.
fn default_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let first = host.split('.').next().unwrap_or_default();
    let kept: String =
        first.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).collect();
    if kept.is_empty() { "ipop".to_owned() } else { kept }
}
