//! VpnCloud with the cipher that its own speed test finds fastest.

use std::path::PathBuf;

use super::Launch;
use crate::error::BenchError;
use crate::install::Need;
use crate::process::Process;
use crate::stage::{OUTER, Stage, socket};
use crate::tunnel::Tunnel;

pub(super) const NEEDS: &[Need] = &[Need::of_crate("vpncloud", "vpncloud")];

const PORT: u16 = 3210;

pub(super) fn prepare(stage: &Stage, program: PathBuf) -> Result<Launch<'_>, BenchError> {
    Ok(Box::new(move || {
        let mut tunnel = Tunnel::new();
        for end in [0, 1] {
            let device = stage.interface(end);
            let (address, mtu) = (stage.inner(end), stage.underlay.inner_mtu());
            // Its own `--ip` sets the bytes of addresses the wrong way round (2.3.0).
            let up =
                format!("ip address add {address} dev {device}; ip link set {device} mtu {mtu} up");
            let mut command = stage.ends[end].command(&program);
            command
                .args(["--device", &device, "--type", "tap", "--mode", "switch"])
                .args(["--listen", &socket(OUTER[end], PORT), "--password", "bench"])
                .args(["--peer", &socket(OUTER[1 - end], PORT)])
                .args(["--ifup", &up, "--no-port-forwarding"]);
            tunnel.add(end, Process::start(command, stage.folder(), &format!("node-{end}"))?);
        }
        Ok(tunnel)
    }))
}
