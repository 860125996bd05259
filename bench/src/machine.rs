//! What a report has to say about the machine, so that figures can be compared.

use std::fs;
use std::num::NonZero;

use serde::{Deserialize, Serialize};

/// The machine that was measured on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// What the processor calls itself.
    pub processor: String,
    /// Cores that programs may use.
    pub cores: usize,
    /// Memory, MiB.
    pub memory_mib: u64,
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            processor: processor(&read("/proc/cpuinfo")),
            cores: std::thread::available_parallelism().map_or(1, NonZero::get),
            memory_mib: memory_mib(&read("/proc/meminfo")),
        }
    }

    /// One line.
    pub(crate) fn text(&self) -> String {
        let Self { kernel, processor, cores, memory_mib } = self;
        format!("{cores} cores of {processor}, {memory_mib} MiB, Linux {kernel}")
    }
}

fn processor(cpuinfo: &str) -> String {
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let name = name.and_then(|rest| rest.split_once(':')).map(|(_, name)| name.trim());
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}

fn memory_mib(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        assert_eq!(processor("processor\t: 0\nmodel name\t: A B\nmodel name\t: C\n"), "A B");
        assert_eq!(memory_mib("MemFree: 1 kB\nMemTotal:       4096 kB\n"), 4);
        assert_eq!(processor(""), std::env::consts::ARCH);
    }
}
