//! EasyTier over UDP, with encryption and its own choice of the inner MTU.

use std::path::PathBuf;

use super::Launch;
use crate::error::BenchError;
use crate::install::Need;
use crate::process::Process;
use crate::stage::{INNER, OUTER, Stage, socket};
use crate::tunnel::Tunnel;

pub(super) const NEEDS: &[Need] = &[Need::of_crate("easytier-core", "easytier")
    .built_with(&["protobuf-compiler", "libprotobuf-dev"])];

const PORT: u16 = 11010;

pub(super) fn prepare(stage: &Stage, program: PathBuf) -> Result<Launch<'_>, BenchError> {
    Ok(Box::new(move || {
        let mut tunnel = Tunnel::new();
        for end in [0, 1] {
            let url = |address| format!("udp://{}", socket(address, PORT));
            let mut command = stage.ends[end].command(&program);
            command
                .args(["--ipv4", &INNER[end].to_string(), "--dev-name", &stage.interface(end)])
                .args(["--network-name", "bench", "--network-secret", "bench"])
                .args(["--listeners", &url(OUTER[end]), "--rpc-portal", "127.0.0.1:0"]);
            if end == 1 {
                command.args(["--peers", &url(OUTER[0])]);
            }
            tunnel.add(end, Process::start(command, stage.folder(), &format!("node-{end}"))?);
        }
        Ok(tunnel)
    }))
}
