//! What a node costs that carries nothing.

use std::time::{Duration, Instant};

use ipop_lab::Nat;

use crate::report::Figure;
use crate::stage::{BenchError, Node, Stage};
use crate::throughput::{cpu_seconds, resident_mib};

/// How long a quiet link is watched.
const TIME: Duration = Duration::from_secs(30);

/// Measures two linked nodes that are left alone.
pub(crate) fn measure() -> Result<Vec<Figure>, BenchError> {
    let stage = Stage::build(&[Nat::None, Nat::None], Duration::ZERO)?;
    let nodes = [stage.start_node(0)?, stage.start_node(1)?];
    nodes[0].wait(&stage, 0, 1)?;
    std::thread::sleep(Duration::from_secs(2));
    eprintln!("idle for {} s", TIME.as_secs());
    let (start, before) = (Instant::now(), cpu_seconds(&nodes)?);
    std::thread::sleep(TIME);
    let used = cpu_seconds(&nodes)? - before;
    let share = used / start.elapsed().as_secs_f64() / nodes.len() as f64 * 100.0;
    let mut cpu = Figure::new("idle node, datapath and controller, of one core", "%");
    cpu.values.push(share);
    let mut memory = Figure::new("resident memory of an idle datapath", "MiB");
    for node in &nodes {
        memory.values.push(resident_mib(node.pids()?[0])?);
    }
    nodes.into_iter().for_each(Node::stop);
    Ok(vec![cpu, memory])
}
