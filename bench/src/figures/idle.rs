//! What a node costs that carries nothing.

use std::time::{Duration, Instant};

use super::{Figure, Values};
use crate::cost::cpu_seconds;
use crate::error::BenchError;
use crate::stage::Stage;
use crate::tunnel::Tunnel;

/// Until what came before has calmed down.
const REST: Duration = Duration::from_secs(2);
/// How long a quiet link is watched: the kernel counts in steps of 10 ms.
const TIME: Duration = Duration::from_secs(20);

/// CPU of a node, of one core, in percent: half of what both use. Nothing for what the kernel does
/// itself.
pub(super) fn measure(stage: &Stage, tunnel: &Tunnel) -> Result<Values, BenchError> {
    let pids = tunnel.all_pids();
    if pids.is_empty() {
        return Ok(Vec::new());
    }
    stage.stop.sleep(REST)?;
    let (start, before) = (Instant::now(), cpu_seconds(&pids)?);
    stage.stop.sleep(TIME)?;
    let used = cpu_seconds(&pids)? - before;
    let share = used / start.elapsed().as_secs_f64() / 2.0;
    Ok(vec![(Figure::Idle, share * 100.0)])
}
