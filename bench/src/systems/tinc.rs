//! Tinc 1.0 in router mode, with its default cipher and digest.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Launch;
use crate::error::BenchError;
use crate::install::Need;
use crate::process::Process;
use crate::stage::{INNER, OUTER, Stage};
use crate::tunnel::Tunnel;

pub(super) const NEEDS: &[Need] = &[Need::debian("tincd", "tinc")];

const PORT: u16 = 655;
/// Tinc as it is built by default cuts off what is larger.
const MTU_MAX: u16 = 1500;

pub(super) fn prepare(stage: &Stage, program: PathBuf) -> Result<Launch<'_>, BenchError> {
    let folders = [0, 1].map(|end| stage.folder().join(format!("tinc{end}")));
    for (end, folder) in folders.iter().enumerate() {
        write_configuration(stage, end, folder)?;
        let mut command = std::process::Command::new(&program);
        command.arg("-c").arg(folder).args(["-K", "2048"]);
        stage.run(command, "tinc-key", Duration::from_secs(60))?;
    }
    for end in [0, 1] {
        let host = format!("hosts/node{end}");
        fs::copy(folders[end].join(&host), folders[1 - end].join(&host))?;
    }
    Ok(Box::new(move || {
        let mut tunnel = Tunnel::new();
        for (end, folder) in folders.iter().enumerate() {
            let mut command = stage.ends[end].command(&program);
            command.arg("-c").arg(folder).arg("-D").arg("--pidfile").arg(folder.join("pid"));
            tunnel.add(end, Process::start(command, stage.folder(), &format!("node-{end}"))?);
        }
        Ok(tunnel)
    }))
}

fn write_configuration(stage: &Stage, end: usize, folder: &Path) -> Result<(), BenchError> {
    fs::create_dir_all(folder.join("hosts"))?;
    // Only one end calls: two that call at once may refuse each other at first.
    let calls = if end == 1 { "ConnectTo = node0\n" } else { "" };
    let device = stage.interface(end);
    let text = format!("Name = node{end}\nInterface = {device}\nAddressFamily = ipv4\n{calls}");
    fs::write(folder.join("tinc.conf"), text)?;
    let (outer, inner) = (OUTER[end], INNER[end]);
    let host = format!("Address = {outer} {PORT}\nSubnet = {inner}/32\n");
    fs::write(folder.join(format!("hosts/node{end}")), host)?;
    let mtu = stage.underlay.inner_mtu().min(MTU_MAX);
    let up = folder.join("tinc-up");
    let address = stage.inner(end);
    let script = format!(
        "#!/bin/sh\nip link set $INTERFACE mtu {mtu} up\nip address add {address} dev $INTERFACE\n"
    );
    fs::write(&up, script)?;
    fs::set_permissions(&up, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
