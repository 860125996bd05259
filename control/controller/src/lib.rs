//! Runs a group policy between the control ring on one side and signalling on the other.
//!
//! The controller is a process that may die at any time: it owns nothing that traffic needs. It
//! attaches to the datapath's segment, asks for a snapshot, enters the room, and from then on
//! carries words to and fro: events and happenings into the policy, commands and actions out of
//! it. What it decides is the policy's (`ipop-group`); what it says on the wire is signalling's
//! (`ipop-xmpp`). The names of STUN and TURN servers are looked up here, beside all that, and the
//! policy hears addresses (`servers.rs`).
//!
//! Left out on purpose: packets, and any state on disk but what the policy remembers of its peers
//! (`cache.rs`) and what makes the next start quick (`last_servers.rs`). Read
//! [`run`] and [`Settings`] first.

#![forbid(unsafe_code)]

mod cache;
mod datapath;
mod last_servers;
mod network;
mod runtime;
mod servers;
mod servers_file;
mod settings;
mod status;

pub use runtime::{EXIT_FATAL, RunError, run};
pub use settings::{
    Account, Address, Endpoint, LoginOffer, Relay, Settings, Trust, TurnTransport, UriError,
};

/// Looks for whatever in the settings can be seen to be wrong before anything is started.
///
/// # Errors
/// The text names the key of the configuration and what it should be.
pub fn check(settings: &Settings) -> Result<(), RunError> {
    settings.plan().map_err(|error| RunError::Settings(format!("overlay.address: {error}")))?;
    Ok(network::check(settings)?)
}

/// The file in the run directory that the supervisor writes the settings to.
pub const SETTINGS_FILE: &str = "controller.json";

/// The file in the run directory that lists the STUN and TURN servers in use, for `ipop netcheck`:
/// `{"stun": ["ADDRESS:PORT"], "turn": [{"address", "transport", "name", "username",
/// "password"}], "ca_file", "unresolved": [{"name", "text"}]}`.
pub const SERVERS_FILE: &str = "servers.json";

/// Fills `bytes` from the system's generator.
///
/// # Errors
/// When the system has none.
pub fn fill_random(mut bytes: &mut [u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let filled = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty())?;
        bytes = &mut bytes[filled..];
    }
    Ok(())
}
