//! wireguard-go: WireGuard in Go; since 2022 with segmentation offloads.

use std::path::PathBuf;

use super::{Launch, wireguard};
use crate::error::BenchError;
use crate::install::Need;
use crate::stage::Stage;

pub(super) const NEEDS: &[Need] = &[Need::debian("wireguard-go", "wireguard-go"), wireguard::WG];

pub(super) fn prepare(stage: &Stage, program: PathBuf) -> Result<Launch<'_>, BenchError> {
    wireguard::in_user_space(stage, program, &["-f"])
}
