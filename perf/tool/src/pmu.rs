//! The processor's own counters, where the machine has them.

use std::io;

use perf_event2::events::Hardware;
use perf_event2::{Builder, Counter, Group};

/// Cycles and instructions in user space.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) cycles: u64,
    pub(crate) instructions: u64,
}

/// Both counters, switched on and off together.
pub(crate) struct Pmu {
    group: Group,
    cycles: Counter,
    instructions: Counter,
}

impl Pmu {
    /// Opens the counters for this thread.
    ///
    /// # Errors
    /// When there are none (most virtual machines), or `kernel.perf_event_paranoid` forbids it.
    pub(crate) fn open() -> io::Result<Self> {
        let mut group = Group::new()?;
        let cycles = group.add(&Builder::new(Hardware::CPU_CYCLES))?;
        let instructions = group.add(&Builder::new(Hardware::INSTRUCTIONS))?;
        Ok(Self { group, cycles, instructions })
    }

    /// Adds what `work` takes to `counts`.
    ///
    /// # Errors
    /// When the kernel does not read the counters.
    pub(crate) fn count(&mut self, counts: &mut Counts, work: impl FnOnce()) -> io::Result<()> {
        self.group.reset()?;
        self.group.enable()?;
        work();
        self.group.disable()?;
        let read = self.group.read()?;
        counts.cycles += read[&self.cycles];
        counts.instructions += read[&self.instructions];
        Ok(())
    }
}
