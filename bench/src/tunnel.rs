//! One system, running at both ends.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipop_lab::run;

use crate::error::BenchError;
use crate::process::Process;
use crate::stage::{INNER, Stage};

/// A way from end to end; dropped, all of it is gone.
#[derive(Debug)]
pub(crate) struct Tunnel {
    /// The far end's address in it.
    pub far: Ipv4Addr,
    /// The programs of each end: what they use is the system's cost. None for the kernel's own.
    nodes: [Vec<Process>; 2],
    /// What has to run besides and is not counted.
    helpers: Vec<Process>,
    /// Commands that take away what no program takes with it.
    undo: Vec<String>,
    /// Files that programs leave outside the stage's folder.
    leftovers: Vec<PathBuf>,
}

impl Tunnel {
    /// A tunnel to the overlay address of the far end, without anything that runs yet.
    pub(crate) fn new() -> Self {
        Self::to(INNER[1])
    }

    /// The same to another address.
    pub(crate) fn to(far: Ipv4Addr) -> Self {
        let nodes = [Vec::new(), Vec::new()];
        Self { far, nodes, helpers: Vec::new(), undo: Vec::new(), leftovers: Vec::new() }
    }

    /// Adds a program of an end, whose cost counts.
    pub(crate) fn add(&mut self, end: usize, process: Process) {
        self.nodes[end].push(process);
    }

    /// Adds a program that ends with the tunnel and does not count.
    pub(crate) fn add_helper(&mut self, process: Process) {
        self.helpers.push(process);
    }

    /// Adds an interface that has to be taken away in the end.
    pub(crate) fn add_interface(&mut self, stage: &Stage, end: usize, name: &str) {
        self.undo.push(format!("ip -n {} link delete {name}", stage.ends[end].name()));
    }

    /// Adds a file that has to be taken away in the end.
    pub(crate) fn add_leftover(&mut self, path: PathBuf) {
        self.leftovers.push(path);
    }

    /// An error with its last words when a program has ended on its own.
    pub(crate) fn check(&mut self) -> Result<(), BenchError> {
        self.nodes.iter_mut().flatten().chain(&mut self.helpers).try_for_each(Process::check)
    }

    /// Ids of the programs of an end, without their children.
    pub(crate) fn pids(&self, end: usize) -> Vec<u32> {
        self.nodes[end].iter().map(Process::id).collect()
    }

    /// Ids of the programs of both ends.
    pub(crate) fn all_pids(&self) -> Vec<u32> {
        [self.pids(0), self.pids(1)].concat()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(Vec::clear);
        self.helpers.clear();
        for line in &self.undo {
            let _ = run(line);
        }
        for path in &self.leftovers {
            let _ = fs::remove_file(path);
        }
    }
}
