//! Creating, attaching and observing a segment.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::counters::{CounterReader, WorkerCounters};
use crate::error::{AttachError, CreateError, OpenError};
use crate::error_log::{ErrorLog, ErrorLogReader};
use crate::file::{Draft, Predecessor, io_error, map, open, pid_in_file};
use crate::journal::{Journal, JournalReader, Slots};
use crate::layout::{Header, Layout, Plan, Region};
use crate::lock;
use crate::memory::{Access, Memory, Span};
use crate::presence::{Holder, Role, Watch};
use crate::ring::{Consumer, Producer, Ring, RingState};
use crate::rows::{RowReader, RowWriter, Table};

/// How often `create` looks again when others come first, and how long it waits while another one
/// is at it, which takes that one some milliseconds.
const CREATE_TRIES: usize = 200;
const CREATE_PAUSE: Duration = Duration::from_millis(5);

/// The datapath's end of a segment. The parts may go to different threads; the role is held until
/// the last of them is dropped.
pub struct DatapathEnd {
    /// This segment among those that were at this path, counted from 1.
    pub generation: u64,
    /// What the controller wants.
    pub commands: Consumer,
    /// What the controller is told.
    pub events: Producer,
    /// The link table.
    pub links: RowWriter,
    /// The counters of worker 0, 1, ...
    pub counters: Vec<WorkerCounters>,
    /// Errors for people to see.
    pub errors: ErrorLog,
    /// One row of free content for observers.
    pub note: RowWriter,
    /// What happened, for observers.
    pub journal: Journal,
    /// The role of datapath.
    pub holder: Holder,
    /// Who controls.
    pub controller: Watch,
}

/// The controller's end of a segment. The parts may go to different threads; the role is held
/// until the last of them is dropped.
pub struct ControllerEnd {
    /// This segment among those that were at this path, counted from 1.
    pub generation: u64,
    /// What the datapath shall do.
    pub commands: Producer,
    /// What the datapath says. What it said to an earlier controller may still be in here: skip it
    /// with [`Consumer::skip_all`], or read on where that one stopped.
    pub events: Consumer,
    /// The link table.
    pub links: RowReader,
    /// All counters.
    pub counters: CounterReader,
    /// Errors for people to see.
    pub errors: ErrorLog,
    /// One row of free content for observers.
    pub note: RowWriter,
    /// The role of controller.
    pub holder: Holder,
    /// The datapath; once it is gone, this segment is history and a new one may be at the path.
    pub datapath: Watch,
}

/// A view of a segment that changes nothing, of a dead one too.
pub struct Observer {
    /// This segment among those that were at this path, counted from 1.
    pub generation: u64,
    /// The sizes.
    pub layout: Layout,
    /// The link table.
    pub links: RowReader,
    /// All counters.
    pub counters: CounterReader,
    /// The datapath's errors.
    pub datapath_errors: ErrorLogReader,
    /// The controller's errors.
    pub controller_errors: ErrorLogReader,
    /// The datapath's note.
    pub datapath_note: RowReader,
    /// The controller's note.
    pub controller_note: RowReader,
    /// What happened in the datapath.
    pub journal: JournalReader,
    /// The datapath.
    pub datapath: Watch,
    /// The controller.
    pub controller: Watch,
    commands: Ring,
    events: Ring,
}

impl Observer {
    /// How the command ring is doing.
    pub fn commands(&self) -> RingState {
        self.commands.state()
    }

    /// How the event ring is doing.
    pub fn events(&self) -> RingState {
        self.events.state()
    }
}

/// Creates the segment at `path`, as its datapath, with permissions for the owner only.
///
/// A segment whose datapath is gone is replaced by a new file: who has the old one attached keeps
/// it, and sees that its datapath is gone. The directory should be on tmpfs, so that no counter
/// waits for a disk; any file system that keeps locks works.
pub fn create(path: &Path, layout: &Layout) -> Result<DatapathEnd, CreateError> {
    let plan = layout.plan()?;
    for _ in 0..CREATE_TRIES {
        let old = Predecessor::at(path)?;
        if let Predecessor::Busy = old {
            std::thread::sleep(CREATE_PAUSE);
            continue;
        }
        let header =
            Header { layout: *layout, plan, generation: old.generation().saturating_add(1) };
        let draft = Draft::new(path)?;
        let end = DatapathEnd::new(&draft.fill(&header)?, &header);
        if draft.publish(path, &old)? {
            return Ok(end);
        }
    }
    Err(CreateError::Contended { path: path.to_owned() })
}

/// Attaches to the segment at `path`, as its controller. `words_version` has to be the datapath's.
///
/// The role of a controller that died is taken over: both rings go on where it stopped.
pub fn attach(path: &Path, words_version: u32) -> Result<ControllerEnd, AttachError> {
    let (file, header) = open(path, Access::Write)?;
    check_words(path, &header, words_version)?;
    if !lock::is_locked(&file, Role::Datapath.lock_byte())
        .map_err(io_error(path, "ask for locks"))?
    {
        let pid = pid_in_file(&file, Role::Datapath);
        return Err(AttachError::DatapathGone { path: path.to_owned(), pid });
    }
    if !lock::try_lock(&file, Role::Controller.lock_byte()).map_err(io_error(path, "lock"))? {
        let pid = pid_in_file(&file, Role::Controller);
        return Err(AttachError::ControllerLives { path: path.to_owned(), pid });
    }
    let memory = map(path, file, &header, Access::Write)?;
    Ok(ControllerEnd::new(&memory, &header))
}

/// Looks at the segment at `path`, be its datapath alive or not. `words_version` has to be the
/// datapath's: with another one, rows and counters would be taken for others.
pub fn observe(path: &Path, words_version: u32) -> Result<Observer, OpenError> {
    let (file, header) = open(path, Access::Read)?;
    check_words(path, &header, words_version)?;
    let memory = map(path, file, &header, Access::Read)?;
    Ok(Observer::new(&memory, &header))
}

fn check_words(path: &Path, header: &Header, ours: u32) -> Result<(), OpenError> {
    let found = header.layout.words_version;
    if found == ours {
        return Ok(());
    }
    Err(OpenError::Words { path: path.to_owned(), found, ours })
}

impl DatapathEnd {
    fn new(memory: &Arc<Memory>, header: &Header) -> Self {
        let parts = Parts { memory, header };
        let layout = &header.layout;
        let counters = span(memory, header.plan.counters);
        Self {
            generation: header.generation,
            commands: Consumer::resume(parts.ring(header.plan.commands)),
            events: Producer::resume(parts.ring(header.plan.events)),
            links: RowWriter::new(parts.links()),
            counters: WorkerCounters::all(
                &counters,
                layout.workers as usize,
                layout.counters as usize,
            ),
            errors: ErrorLog::resume(RowWriter::new(parts.errors(header.plan.datapath_errors))),
            note: RowWriter::new(parts.note(header.plan.datapath_note)),
            journal: Journal::resume(parts.journal()),
            holder: Holder::enter(memory, Role::Datapath),
            controller: Watch::new(memory, Role::Controller),
        }
    }
}

impl ControllerEnd {
    fn new(memory: &Arc<Memory>, header: &Header) -> Self {
        let parts = Parts { memory, header };
        Self {
            generation: header.generation,
            commands: Producer::resume(parts.ring(header.plan.commands)),
            events: Consumer::resume(parts.ring(header.plan.events)),
            links: RowReader::new(parts.links()),
            counters: parts.counters(),
            errors: ErrorLog::resume(RowWriter::new(parts.errors(header.plan.controller_errors))),
            note: RowWriter::new(parts.note(header.plan.controller_note)),
            holder: Holder::enter(memory, Role::Controller),
            datapath: Watch::new(memory, Role::Datapath),
        }
    }
}

impl Observer {
    fn new(memory: &Arc<Memory>, header: &Header) -> Self {
        let parts = Parts { memory, header };
        let plan: &Plan = &header.plan;
        let errors = |region| ErrorLogReader::new(RowReader::new(parts.errors(region)));
        Self {
            generation: header.generation,
            layout: header.layout,
            links: RowReader::new(parts.links()),
            counters: parts.counters(),
            datapath_errors: errors(plan.datapath_errors),
            controller_errors: errors(plan.controller_errors),
            datapath_note: RowReader::new(parts.note(plan.datapath_note)),
            controller_note: RowReader::new(parts.note(plan.controller_note)),
            journal: JournalReader::new(parts.journal()),
            datapath: Watch::new(memory, Role::Datapath),
            controller: Watch::new(memory, Role::Controller),
            commands: parts.ring(plan.commands),
            events: parts.ring(plan.events),
        }
    }
}

/// The regions of a mapped segment as what they hold.
struct Parts<'a> {
    memory: &'a Arc<Memory>,
    header: &'a Header,
}

impl Parts<'_> {
    fn ring(&self, region: Region) -> Ring {
        Ring::new(span(self.memory, region), self.header.layout.record_len_max as usize)
    }

    fn table(&self, region: Region, count: u32, row_len: u32) -> Table {
        Table::new(span(self.memory, region), count as usize, row_len as usize)
    }

    fn links(&self) -> Table {
        let layout = &self.header.layout;
        self.table(self.header.plan.links, layout.link_rows, layout.link_row_len)
    }

    fn errors(&self, region: Region) -> Table {
        let layout = &self.header.layout;
        self.table(region, layout.error_rows, layout.error_row_len)
    }

    fn note(&self, region: Region) -> Table {
        self.table(region, 1, self.header.layout.note_len)
    }

    fn journal(&self) -> Slots {
        let layout = &self.header.layout;
        let (records, record_len) = (layout.journal_records, layout.journal_record_len);
        let region = span(self.memory, self.header.plan.journal);
        Slots::new(region, records as usize, record_len as usize)
    }

    fn counters(&self) -> CounterReader {
        let layout = &self.header.layout;
        let (workers, counters) = (layout.workers as usize, layout.counters as usize);
        CounterReader::new(span(self.memory, self.header.plan.counters), workers, counters)
    }
}

fn span(memory: &Arc<Memory>, region: Region) -> Span {
    Span::new(memory, region.start, region.len)
}
