//! The control ring: a record from one end to the other, in a file of its own.

use std::hint::black_box;
use std::path::PathBuf;

use ipop_shm::{ControllerEnd, DatapathEnd, Layout};

use crate::cases::Case;
use crate::{RingError, Work};

/// Version of the words; none are spoken here.
const WORDS_VERSION: u32 = 1;

/// Both ends, and the file that they share.
pub(crate) struct Turn {
    datapath: DatapathEnd,
    controller: ControllerEnd,
    record: Vec<u8>,
    records: usize,
    popped: usize,
    pushed: usize,
    path: PathBuf,
}

impl Turn {
    pub(crate) fn new(case: Case) -> Result<Self, RingError> {
        let path = std::env::temp_dir().join(format!("ipop-perf-{}", std::process::id()));
        let layout = Layout::new(WORDS_VERSION, 1, 1);
        let datapath = ipop_shm::create(&path, &layout);
        let datapath = datapath.map_err(|error| RingError(error.to_string()))?;
        let controller = ipop_shm::attach(&path, WORDS_VERSION);
        let controller = controller.map_err(|error| RingError(error.to_string()))?;
        let record = vec![0xa5; case.payload_len()];
        Ok(Self {
            datapath,
            controller,
            record,
            records: case.packets(),
            popped: 0,
            pushed: 0,
            path,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Left behind, the file would only be one more in the folder for such.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Work for Turn {
    fn prepare(&mut self) {}

    fn work(&mut self) {
        for _ in 0..self.records {
            self.pushed += usize::from(self.controller.commands.push(&self.record).is_ok());
        }
        while let Ok(Some(record)) = self.datapath.commands.pop() {
            self.popped += usize::from(black_box(record).len() == self.record.len());
        }
    }

    fn verify(&self) {
        assert!(self.pushed > 0 && self.pushed == self.popped, "every record arrives");
    }
}
