//! boringtun: WireGuard in Rust, with its default of four threads.

use std::path::PathBuf;

use super::{Launch, wireguard};
use crate::error::BenchError;
use crate::install::Need;
use crate::stage::Stage;

pub(super) const NEEDS: &[Need] =
    &[Need::of_crate("boringtun-cli", "boringtun-cli"), wireguard::WG];

pub(super) fn prepare(stage: &Stage, program: PathBuf) -> Result<Launch<'_>, BenchError> {
    // It would drop to the user who called `sudo`, whom not every machine has.
    wireguard::in_user_space(stage, program, &["-f", "--disable-drop-privileges"])
}
