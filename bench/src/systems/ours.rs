//! `ipop` in its variants, with its own hub for signalling.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use ipop_lab::Namespace;

use super::Launch;
use crate::error::BenchError;
use crate::process::Process;
use crate::stage::{OUTER, Stage, socket};
use crate::stop::Stop;
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

impl Variant {
    /// One with further words for `ipop up`.
    pub(crate) fn new(name: &str, up: &str) -> Self {
        let up = up.split_whitespace().map(str::to_owned).collect();
        Self { name: name.to_owned(), up, ..Self::default() }
    }
}

/// The variants that are measured: a new one is one more line.
pub(super) fn variants() -> Vec<Variant> {
    vec![
        Variant::new("ipop", ""),
        Variant::new("ipop-1-worker", "--workers 1"),
        Variant::new("ipop-2-pinned", "--workers 2 --pin"),
        Variant::new("ipop-busy-poll", "--busy-poll"),
        Variant::new("ipop-realtime", "--realtime"),
        Variant::new("ipop-poll-loop", "--io poll"),
        Variant::new("ipop-aegis", "--ciphers aegis-128x4"),
        // Our own ceiling: the same path without a cipher.
        Variant { is_plain: true, ..Variant::new("ipop-plain", "--ciphers plain") },
    ]
}

/// What all programs of a group have in common.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// The binary `ipop`.
    pub program: PathBuf,
    /// How it runs.
    pub variant: Variant,
    /// For tickets, keys and output.
    pub folder: PathBuf,
    /// Whether somebody wants the end.
    pub stop: Stop,
}

impl Group {
    /// Starts a hub, which has written its ticket then.
    pub(crate) fn start_hub(
        &self,
        machine: &Namespace,
        address: Ipv4Addr,
    ) -> Result<Process, BenchError> {
        let ticket = self.ticket();
        let mut command = machine.command(&self.program);
        command
            .args(["hub", "--domain", "hub.bench", "--listen", &socket(address, 5222)])
            .arg("--state")
            .arg(self.folder.join("hub"))
            .arg("--ticket-file")
            .arg(&ticket)
            .args(&self.variant.hub);
        let mut hub = Process::start(command, &self.folder, "hub")?;
        let found = self.stop.wait(Duration::from_secs(10), || {
            hub.check()?;
            Ok(ticket.exists().then_some(()))
        })?;
        found.map(|()| hub).ok_or_else(|| BenchError::new("the hub writes no ticket"))
    }

    /// Starts the node `name`, which is also its interface, with an address and prefix length.
    pub(crate) fn start_node(
        &self,
        machine: &Namespace,
        name: &str,
        address: &str,
    ) -> Result<Process, BenchError> {
        let mut command = machine.command(&self.program);
        command
            .args(["up", "--join", &format!("@{}", self.ticket().display())])
            .args(["--name", name, "--interface", name, "--address", address])
            .arg("--identity")
            .arg(self.folder.join(format!("{name}.pem")))
            .args(&self.variant.up);
        Process::start(command, &self.folder, &format!("node-{name}"))
    }

    fn ticket(&self) -> PathBuf {
        self.folder.join("ticket")
    }
}

/// Starts a hub on the first end, before the clock starts: a server is there before its members.
/// It carries no traffic, so it is not counted either.
pub(super) fn prepare(
    stage: &Stage,
    program: PathBuf,
    variant: Variant,
) -> Result<Launch<'_>, BenchError> {
    let (folder, stop) = (stage.folder().to_owned(), stage.stop.clone());
    let group = Group { program, variant, folder, stop };
    let hub = group.start_hub(&stage.ends[0], OUTER[0])?;
    Ok(Box::new(move || {
        let mut tunnel = Tunnel::new();
        tunnel.add_helper(hub);
        for end in [0, 1] {
            let (name, address) = (stage.interface(end), stage.inner(end));
            tunnel.add(end, group.start_node(&stage.ends[end], &name, &address)?);
        }
        Ok(tunnel)
    }))
}
