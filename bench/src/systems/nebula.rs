//! Nebula: each end knows the other's address, so no lighthouse is needed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Launch, tool};
use crate::error::BenchError;
use crate::install::Need;
use crate::process::Process;
use crate::stage::{INNER, OUTER, Stage};
use crate::tunnel::Tunnel;

const CERT: Need = Need::debian("nebula-cert", "nebula");
pub(super) const NEEDS: &[Need] = &[Need::debian("nebula", "nebula"), CERT];

const PORT: u16 = 4242;

pub(super) fn prepare(stage: &Stage, program: PathBuf) -> Result<Launch<'_>, BenchError> {
    let folder = stage.folder();
    // A release that the user brings has its own tool beside it.
    let cert = program.with_file_name(CERT.program);
    let cert = if cert.is_file() { cert } else { tool(CERT)? };
    sign(stage, &cert, &["ca", "-name", "bench", "-out-crt", "ca.crt", "-out-key", "ca.key"])?;
    for end in [0, 1] {
        let (name, address) = (format!("node{end}"), stage.inner(end));
        let (crt, key) = (format!("{end}.crt"), format!("{end}.key"));
        sign(
            stage,
            &cert,
            &["sign", "-name", &name, "-ip", &address, "-out-crt", &crt, "-out-key", &key],
        )?;
        fs::write(folder.join(format!("{end}.yaml")), configuration(stage, end))?;
    }
    Ok(Box::new(move || {
        let mut tunnel = Tunnel::new();
        for end in [0, 1] {
            let mut command = stage.ends[end].command(&program);
            command.arg("-config").arg(folder.join(format!("{end}.yaml")));
            tunnel.add(end, Process::start(command, folder, &format!("node-{end}"))?);
        }
        Ok(tunnel)
    }))
}

fn sign(stage: &Stage, cert: &Path, words: &[&str]) -> Result<(), BenchError> {
    let mut command = std::process::Command::new(cert);
    command.current_dir(stage.folder()).args(words);
    stage.run(command, "nebula-cert", Duration::from_secs(20)).map(drop)
}

fn configuration(stage: &Stage, end: usize) -> String {
    let folder = stage.folder().display();
    let (inner, outer) = (INNER[1 - end], OUTER[1 - end]);
    let (device, mtu) = (stage.interface(end), stage.underlay.inner_mtu());
    format!(
        "pki: {{ca: {folder}/ca.crt, cert: {folder}/{end}.crt, key: {folder}/{end}.key}}\n\
         static_host_map: {{\"{inner}\": [\"{outer}:{PORT}\"]}}\n\
         lighthouse: {{am_lighthouse: false, hosts: []}}\n\
         listen: {{host: 0.0.0.0, port: {PORT}}}\n\
         cipher: aes\n\
         tun: {{dev: {device}, mtu: {mtu}}}\n\
         logging: {{level: warning, format: text}}\n\
         firewall:\n\
         \x20 outbound: [{{port: any, proto: any, host: any}}]\n\
         \x20 inbound: [{{port: any, proto: any, host: any}}]\n"
    )
}
