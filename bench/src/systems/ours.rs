//! `ipop` in its variants, with its own hub for signalling.

use std::path::PathBuf;
use std::time::Duration;

use super::Launch;
use crate::error::BenchError;
use crate::process::Process;
use crate::stage::{OUTER, Stage, socket};
use crate::tunnel::Tunnel;

/// One way to run `ipop`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variant {
    /// Its name in flags and reports.
    pub name: String,
    /// Further words for `ipop up`.
    pub up: Vec<String>,
    /// Further words for `ipop hub`.
    pub hub: Vec<String>,
    /// Whether traffic goes in the clear.
    pub is_plain: bool,
}

/// The variants that are measured: a new one is one more line.
pub(super) fn variants() -> Vec<Variant> {
    vec![Variant { name: "ipop".to_owned(), ..Variant::default() }]
}

/// Starts a hub on the first end, before the clock starts: a server is there before its members.
/// It carries no traffic, so it is not counted either.
pub(super) fn prepare(
    stage: &Stage,
    program: PathBuf,
    variant: Variant,
) -> Result<Launch<'_>, BenchError> {
    let ticket = stage.folder().join("ticket");
    let mut command = stage.ends[0].command(&program);
    command
        .args(["hub", "--domain", "hub.bench", "--listen", &socket(OUTER[0], 5222)])
        .arg("--state")
        .arg(stage.folder().join("hub"))
        .arg("--ticket-file")
        .arg(&ticket)
        .args(&variant.hub);
    let mut hub = Process::start(command, stage.folder(), "hub")?;
    let found = stage.stop.wait(Duration::from_secs(10), || {
        hub.check()?;
        Ok(ticket.exists().then_some(()))
    })?;
    found.ok_or_else(|| BenchError::new("the hub writes no ticket"))?;
    Ok(Box::new(move || {
        let mut tunnel = Tunnel::new();
        tunnel.add_helper(hub);
        for end in [0, 1] {
            let name = stage.interface(end);
            let mut command = stage.ends[end].command(&program);
            command
                .args(["up", "--join", &format!("@{}", ticket.display())])
                .args(["--name", &name, "--interface", &name, "--address", &stage.inner(end)])
                .arg("--identity")
                .arg(stage.folder().join(format!("{end}.pem")))
                .args(&variant.up);
            tunnel.add(end, Process::start(command, stage.folder(), &format!("node-{end}"))?);
        }
        Ok(tunnel)
    }))
}
