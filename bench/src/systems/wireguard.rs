//! What all WireGuards share: keys and their configuration by `wg`; and the kernel's own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{Launch, tool};
use crate::error::BenchError;
use crate::install::Need;
use crate::process::Process;
use crate::stage::{INNER_NETWORK, OUTER, Stage, socket};
use crate::tunnel::Tunnel;

/// Configures every WireGuard.
pub(super) const WG: Need = Need::debian("wg", "wireguard-tools");
/// What the kernel's own takes.
pub(super) const NEEDS: &[Need] = &[WG];

const PORT: u16 = 51820;
/// Where programs make their control sockets, whatever their namespace.
const SOCKETS: &str = "/var/run/wireguard";

/// Keys of both ends, and the tool.
pub(super) struct Keys {
    wg: PathBuf,
    /// Files with the private keys.
    private: [PathBuf; 2],
    public: [String; 2],
}

impl Keys {
    /// Makes a key for each end.
    pub(super) fn make(stage: &Stage) -> Result<Self, BenchError> {
        let wg = tool(WG)?;
        let mut private = [PathBuf::new(), PathBuf::new()];
        let mut public = [String::new(), String::new()];
        for end in [0, 1] {
            private[end] = stage.folder().join(format!("{end}.key"));
            let key = output(Command::new(&wg).arg("genkey"))?;
            fs::write(&private[end], key)?;
            let input = fs::File::open(&private[end])?;
            public[end] = output(Command::new(&wg).arg("pubkey").stdin(Stdio::from(input)))?;
        }
        Ok(Self { wg, private, public })
    }

    /// Tells an interface its key and its peer, gives it its address and sets it up.
    pub(super) fn configure(&self, stage: &Stage, end: usize) -> Result<(), BenchError> {
        let name = stage.interface(end);
        let namespace = &stage.ends[end];
        let (wg, key) = (self.wg.display(), self.private[end].display());
        let (peer, at) = (self.public[1 - end].trim(), socket(OUTER[1 - end], PORT));
        namespace.run(&format!(
            "{wg} set {name} private-key {key} listen-port {PORT} peer {peer} endpoint {at} \
             allowed-ips {INNER_NETWORK}"
        ))?;
        namespace.ip(&format!("address add {} dev {name}", stage.inner(end)))?;
        namespace.ip(&format!("link set {name} mtu {} up", stage.underlay.inner_mtu()))?;
        Ok(())
    }
}

/// The kernel's WireGuard.
pub(super) fn in_kernel(stage: &Stage) -> Result<Launch<'_>, BenchError> {
    let keys = Keys::make(stage)?;
    Ok(Box::new(move || {
        let mut tunnel = Tunnel::new();
        for end in [0, 1] {
            let name = stage.interface(end);
            stage.ends[end].ip(&format!("link add {name} type wireguard"))?;
            tunnel.add_interface(stage, end, &name);
            keys.configure(stage, end)?;
        }
        Ok(tunnel)
    }))
}

/// A WireGuard in user space: a program that makes the interface named last on its command line,
/// and a socket to configure it by.
pub(super) fn in_user_space<'a>(
    stage: &'a Stage,
    program: PathBuf,
    words: &'static [&'static str],
) -> Result<Launch<'a>, BenchError> {
    let keys = Keys::make(stage)?;
    Ok(Box::new(move || {
        let mut tunnel = Tunnel::new();
        let mut nodes = Vec::new();
        for end in [0, 1] {
            let name = stage.interface(end);
            let mut command = stage.ends[end].command(&program);
            command.args(words).arg(&name);
            nodes.push(Process::start(command, stage.folder(), &format!("node-{end}"))?);
            tunnel.add_leftover(PathBuf::from(SOCKETS).join(format!("{name}.sock")));
        }
        for (end, mut node) in nodes.into_iter().enumerate() {
            wait_for_control(stage, end, &mut node)?;
            tunnel.add(end, node);
            keys.configure(stage, end)?;
        }
        Ok(tunnel)
    }))
}

fn wait_for_control(stage: &Stage, end: usize, node: &mut Process) -> Result<(), BenchError> {
    let path = PathBuf::from(SOCKETS).join(format!("{}.sock", stage.interface(end)));
    let found = stage.stop.wait(Duration::from_secs(5), || {
        node.check()?;
        Ok(path.exists().then_some(()))
    })?;
    found.ok_or_else(|| BenchError::new(format!("{} does not appear", path.display())))
}

/// Runs a short command that says something.
fn output(command: &mut Command) -> Result<String, BenchError> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(BenchError::new(format!("{command:?}: {}", text.trim())))
}
