//! What the kernel does itself: the cable, and VXLAN over it. References without encryption.

use ipop_lab::Namespace;

use super::Launch;
use crate::error::BenchError;
use crate::stage::{CABLE, OUTER, Stage};
use crate::tunnel::Tunnel;

/// The cable without anything on top.
pub(super) fn raw<'a>() -> Launch<'a> {
    Box::new(|| Ok(Tunnel::to(OUTER[1])))
}

/// A VXLAN between both ends, with the inner MTU that the kernel gives it (50 bytes less).
pub(super) fn vxlan(stage: &Stage) -> Launch<'_> {
    Box::new(|| {
        let mut tunnel = Tunnel::new();
        for end in [0, 1] {
            let name = stage.interface(end);
            let (local, remote) = (OUTER[end], OUTER[1 - end]);
            stage.ends[end].ip(&format!(
                "link add {name} type vxlan id 42 local {local} remote {remote} dstport 4789 \
                 dev {CABLE}"
            ))?;
            tunnel.add_interface(stage, end, &name);
            stage.ends[end].ip(&format!("address add {} dev {name}", stage.inner(end)))?;
            stage.ends[end].ip(&format!("link set {name} up"))?;
        }
        Ok(tunnel)
    })
}

/// Whether the kernel makes interfaces of a kind.
pub(super) fn probe(name: &str, kind: &str) -> Result<(), BenchError> {
    let namespace = Namespace::create("bench-probe")?;
    namespace
        .ip(&format!("link add probe {kind}"))
        .map(drop)
        .map_err(|error| BenchError::new(format!("the kernel has no {name}: {error}")))
}

/// The kernel's release.
pub(super) fn version() -> String {
    format!("Linux {}", rustix::system::uname().release().to_string_lossy())
}
