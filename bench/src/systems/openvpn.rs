//! OpenVPN from point to point over UDP with AES-256-GCM, in user space.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{Launch, tool};
use crate::error::BenchError;
use crate::install::Need;
use crate::process::Process;
use crate::stage::{INNER, OUTER, Stage};
use crate::tunnel::Tunnel;

const OPENSSL: Need = Need::debian("openssl", "openssl");
pub(super) const NEEDS: &[Need] = &[Need::debian("openvpn", "openvpn"), OPENSSL];

const PORT: &str = "1194";

pub(super) fn prepare(stage: &Stage, program: PathBuf) -> Result<Launch<'_>, BenchError> {
    let fingerprints = [certify(stage, 0)?, certify(stage, 1)?];
    Ok(Box::new(move || {
        let mut tunnel = Tunnel::new();
        for end in [0, 1] {
            let mut command = stage.ends[end].command(&program);
            words(stage, &mut command, end, &fingerprints[1 - end]);
            tunnel.add(end, Process::start(command, stage.folder(), &format!("node-{end}"))?);
        }
        Ok(tunnel)
    }))
}

/// The first end is the server of the TLS handshake.
fn words(stage: &Stage, command: &mut Command, end: usize, peer: &str) {
    let file = |kind: &str| stage.folder().join(format!("{end}.{kind}"));
    command
        .args(["--dev", &stage.interface(end), "--dev-type", "tun", "--proto", "udp4"])
        .args(["--ifconfig", &INNER[end].to_string(), &INNER[1 - end].to_string()])
        .arg("--cert")
        .arg(file("crt"))
        .arg("--key")
        .arg(file("key"))
        .args(["--peer-fingerprint", peer, "--data-ciphers", "AES-256-GCM", "--disable-dco"])
        .args(["--tun-mtu", &stage.underlay.inner_mtu().to_string(), "--mssfix", "0"])
        .args(["--ping", "10", "--verb", "1"]);
    if end == 0 {
        command.args(["--tls-server", "--dh", "none", "--local", &OUTER[0].to_string()]);
        command.args(["--lport", PORT]);
    } else {
        command.args(["--tls-client", "--nobind", "--remote", &OUTER[0].to_string(), PORT]);
    }
}

/// Makes an end's certificate and returns its fingerprint.
fn certify(stage: &Stage, end: usize) -> Result<String, BenchError> {
    let openssl = tool(OPENSSL)?;
    let (crt, key) = (format!("{end}.crt"), format!("{end}.key"));
    let run = |words: &[&str]| {
        let mut command = Command::new(&openssl);
        command.current_dir(stage.folder()).args(words);
        stage.run(command, "openssl", Duration::from_secs(20))
    };
    let subject = format!("/CN=node{end}");
    run(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        &subject,
        "-keyout",
        &key,
        "-out",
        &crt,
    ])?;
    let text = run(&["x509", "-in", &crt, "-noout", "-fingerprint", "-sha256"])?;
    let fingerprint = text.trim().split_once('=').map(|(_, digits)| digits.to_owned());
    fingerprint.ok_or_else(|| BenchError::new(format!("openssl names no fingerprint: {text}")))
}
