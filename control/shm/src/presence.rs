//! Who is there: the role of datapath and the role of controller, each held by at most one process.
//!
//! Whether a role is held is a lock on the file ([`crate::lock`]). The numbers in the header only
//! explain: who it was, how many there were, and when the holder last showed that it turns.

use std::io;
use std::sync::Arc;

use crate::layout::{CONTROLLER_WORD, DATAPATH_WORD, ROLE_WORDS};
use crate::lock;
use crate::memory::{Memory, Span};
use crate::sync::Ordering;

const PID: usize = 0;
const EPOCH: usize = 1;
const HEARTBEAT: usize = 2;

/// A side of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Datapath,
    Controller,
}

impl Role {
    /// The byte of the file whose lock is the role.
    pub(crate) fn lock_byte(self) -> i64 {
        match self {
            Self::Datapath => 0,
            Self::Controller => 1,
        }
    }

    /// The word of the header where the holder's numbers start.
    pub(crate) fn start(self) -> usize {
        match self {
            Self::Datapath => DATAPATH_WORD,
            Self::Controller => CONTROLLER_WORD,
        }
    }

    fn span(self, memory: &Arc<Memory>) -> Span {
        Span::new(memory, self.start(), ROLE_WORDS)
    }
}

/// What is known of a role's holder, living or dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// Whether it lives. A living one may still be stuck: see the heartbeat.
    pub alive: bool,
    /// Its process id in its own process id namespace; 0 if there never was one.
    pub pid: u32,
    /// How many held the role in this segment, up to and with this one.
    pub epoch: u64,
    /// When it last turned, Unix time in milliseconds; 0 for never.
    pub heartbeat_ms: u64,
}

/// The role that this process holds. It is given up when all handles from the same attachment are
/// dropped, or when the process dies.
pub struct Holder {
    numbers: Span,
    epoch: u64,
}

impl Holder {
    /// Enters this process as holder. The caller has the lock.
    pub(crate) fn enter(memory: &Arc<Memory>, role: Role) -> Self {
        let numbers = role.span(memory);
        let epoch = numbers.word(EPOCH).load(Ordering::Relaxed).wrapping_add(1);
        numbers.word(PID).store(std::process::id().into(), Ordering::Relaxed);
        numbers.word(HEARTBEAT).store(0, Ordering::Relaxed);
        numbers.word(EPOCH).store(epoch, Ordering::Release);
        Self { numbers, epoch }
    }

    /// How many held the role before, plus one: grows with each controller that attaches. Command
    /// numbers that start from it in their upper half differ from those of all earlier controllers.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Shows that this process turns. Once a second will do.
    pub fn beat(&self, now_ms: u64) {
        self.numbers.word(HEARTBEAT).store(now_ms, Ordering::Relaxed);
    }
}

/// Watches the holder of a role in another process.
#[derive(Clone)]
pub struct Watch {
    numbers: Span,
    role: Role,
}

impl Watch {
    pub(crate) fn new(memory: &Arc<Memory>, role: Role) -> Self {
        Self { numbers: role.span(memory), role }
    }

    /// What is known now. Costs a system call.
    ///
    /// # Errors
    /// If the file system keeps no locks (any more).
    pub fn presence(&self) -> io::Result<Presence> {
        let alive = lock::is_locked(self.numbers.memory().file(), self.role.lock_byte())?;
        let number = |index: usize| self.numbers.word(index).load(Ordering::Relaxed);
        Ok(Presence {
            epoch: self.numbers.word(EPOCH).load(Ordering::Acquire),
            alive,
            pid: u32::try_from(number(PID)).unwrap_or(0),
            heartbeat_ms: number(HEARTBEAT),
        })
    }
}
