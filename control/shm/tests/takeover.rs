//! Processes that are killed while they write, and others that go on where those stopped.
//!
//! The killed ones are this test program again, run for the test [`the_killed`] alone, with the
//! role and the path in its environment.
#![cfg(not(loom))]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ipop_shm::*;

const ROLE: &str = "IPOP_SHM_TEST_ROLE";
const PATH: &str = "IPOP_SHM_TEST_PATH";
const WORDS: u32 = 1;
const RECORD_LEN_MAX: usize = 4096;

/// What a controller in these tests writes: either the next number of its own, or the number of an
/// event that it has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Own,
    Echo,
}

/// A record whose every byte follows from its first ones, so that a torn one is noticed.
fn record(kind: Kind, epoch: u64, number: u64) -> Vec<u8> {
    let mix = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ epoch;
    let mut record = vec![kind as u8];
    record.extend(epoch.to_le_bytes());
    record.extend(number.to_le_bytes());
    let len = 17 + (mix >> 20) as usize % (RECORD_LEN_MAX - 17);
    record.extend((17..len).map(|at| (mix >> (at % 7)) as u8));
    record
}

fn read(bytes: &[u8]) -> (Kind, u64, u64) {
    let kind = if bytes[0] == Kind::Own as u8 { Kind::Own } else { Kind::Echo };
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    let (epoch, number) = (word(1), word(9));
    assert!(bytes == record(kind, epoch, number), "a torn record");
    (kind, epoch, number)
}

/// A process that does not outlive the test, even if that fails.
struct Victim(Child);

impl Victim {
    fn kill(&mut self) {
        self.0.kill().expect("a living child");
        self.0.wait().expect("a dead child");
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(role: &str, path: &Path) -> Victim {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["the_killed", "--exact"]).env(ROLE, role).env(PATH, path);
    Victim(command.stdout(Stdio::null()).spawn().expect("this program again"))
}

/// No test, but the other process of the tests below: works until it is killed.
#[test]
fn the_killed() {
    let (Ok(role), Ok(path)) = (std::env::var(ROLE), std::env::var(PATH)) else { return };
    match &role[..] {
        "controller" => control(Path::new(&path)),
        "datapath" => carry(Path::new(&path)),
        role => panic!("no role {role}"),
    }
}

fn control(path: &Path) {
    let mut end = attach(path, WORDS).expect("a segment without a controller");
    let epoch = end.holder.epoch();
    let mut push = |record: &[u8]| {
        while let Err(error) = end.commands.push(record) {
            assert_eq!(error, PushError::Full);
            std::thread::yield_now();
        }
    };
    for number in 0.. {
        push(&record(Kind::Own, epoch, number));
        end.note.write(0, &record(Kind::Own, epoch, number)).expect("the note");
        if let Some(event) = end.events.pop().expect("a sound ring") {
            let (_, _, event) = read(event);
            push(&record(Kind::Echo, epoch, event));
        }
    }
}

fn carry(path: &Path) {
    let mut end = create(path, &Layout::new(WORDS, 1, 1)).expect("a segment of its own");
    for number in 0u64.. {
        end.counters[0].add(0, 1);
        end.links.write(number as usize % 8, &[number as u8; 512]).expect("a row");
        let _ = end.events.push(&record(Kind::Own, 0, number));
        end.errors.observe(number, "an error of the datapath");
    }
}

/// The datapath's side of the first test: what came from controllers, checked as it comes.
#[derive(Default)]
struct Ledger {
    epoch: u64,
    /// Numbers that came from the controller of this epoch.
    own: u64,
    /// The last event that any controller has taken, plus one.
    echoed: u64,
    /// Events that a controller took, and died before it could say so.
    unsaid: u64,
    /// Whether this epoch has echoed anything yet.
    echoing: bool,
}

impl Ledger {
    fn enter(&mut self, bytes: &[u8]) {
        let (kind, epoch, number) = read(bytes);
        if epoch != self.epoch {
            assert!(epoch > self.epoch, "a record of the dead after one of the living");
            *self = Self { epoch, own: 0, echoing: false, ..*self };
        }
        match kind {
            Kind::Own => {
                assert_eq!(number, self.own, "a record was lost or came twice");
                self.own += 1;
            }
            Kind::Echo => {
                let unsaid = number.checked_sub(self.echoed).expect("an event came twice");
                // The one that the last controller had in its hands when it died.
                assert!(unsaid <= u64::from(!self.echoing), "events were lost");
                self.unsaid += unsaid;
                (self.echoed, self.echoing) = (number + 1, true);
            }
        }
    }

    fn drain(&mut self, commands: &mut Consumer) {
        while let Some(bytes) = commands.pop().expect("a sound ring") {
            self.enter(bytes);
        }
    }
}

#[test]
fn controllers_come_and_are_killed_and_nothing_is_lost_or_torn() {
    let scratch = Scratch::new("controllers");
    let path = &scratch.0;
    let mut end = create(path, &Layout::new(WORDS, 1, 1)).expect("a segment");
    let mut ledger = Ledger::default();
    let (mut event, mut records) = (0, 0);
    for round in 1..=30u64 {
        let mut child = spawn("controller", path);
        let mut killed_at = None;
        // The time to live runs from the first record on, so that every child gets to write.
        while killed_at.is_none_or(|at| Instant::now() < at) {
            if end.events.push(&record(Kind::Own, 0, event)).is_ok() {
                event += 1;
            }
            end.commands.wait(Duration::from_millis(1));
            ledger.drain(&mut end.commands);
            if killed_at.is_none() && ledger.epoch == round {
                killed_at = Some(Instant::now() + Duration::from_micros(500 + round * 613 % 7000));
            }
            assert!(child.0.try_wait().expect("a child").is_none(), "the child has failed");
        }
        child.kill();
        ledger.drain(&mut end.commands);
        assert_eq!(ledger.epoch, round);

        // What the dead controller knew it had published is here; it may have died before noting
        // the last one, or while noting it.
        let observer = observe(path, WORDS).expect("an observer");
        assert!(!observer.controller.presence().expect("locks").alive);
        let mut note = vec![0; 4096];
        match observer.controller_note.read(0, &mut note) {
            Ok(Some(noted)) if read(noted).1 == round => {
                assert!(ledger.own - read(noted).2 <= 2, "a published record was lost");
            }
            Ok(_) => assert!(ledger.own <= 1),
            Err(error) => assert_eq!(error, RowError::Unsettled),
        }
        assert!(ledger.own > 0);
        records += ledger.own;
    }
    // The last event that was taken is at most one behind the ring's head.
    let waiting = end.events.state().used;
    let unread: u64 = (0..event)
        .rev()
        .scan(0, |words, number| {
            *words += 8 + record(Kind::Own, 0, number).len().next_multiple_of(8) as u64;
            (*words <= waiting).then_some(1)
        })
        .sum();
    assert!(event - unread - ledger.echoed <= 1, "events were lost");
    println!("{records} records, {} events, {} taken by the dying", ledger.echoed, ledger.unsaid);
}

#[test]
fn a_killed_datapath_leaves_a_segment_to_look_at_and_to_replace() {
    let scratch = Scratch::new("datapath");
    let path = &scratch.0;
    for generation in 1..=10 {
        let mut child = spawn("datapath", path);
        let mut controller = attach_to(path, generation);
        let mut taken = 0;
        while taken < 200 {
            controller.events.wait(Duration::from_millis(100));
            // Records are dropped when the ring is full, and whole and in order otherwise.
            while let Some(event) = controller.events.pop().expect("a sound ring") {
                let (.., number) = read(event);
                assert!(number >= taken);
                taken = number + 1;
            }
        }
        child.kill();
        assert!(!controller.datapath.presence().expect("locks").alive);
        while let Some(event) = controller.events.pop().expect("a sound ring") {
            read(event);
        }
        assert!(matches!(attach_again(path), AttachError::DatapathGone { .. }));
        look_at_the_dead(path);
    }
}

/// Attaches once the datapath of that generation is there.
fn attach_to(path: &Path, generation: u64) -> ControllerEnd {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        match attach(path, WORDS) {
            Ok(end) => {
                assert_eq!(end.generation, generation);
                return end;
            }
            Err(error) => assert!(Instant::now() < patience, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn attach_again(path: &Path) -> AttachError {
    attach(path, WORDS).map(drop).expect_err("nothing to steer")
}

fn look_at_the_dead(path: &Path) {
    let observer = observe(path, WORDS).expect("a segment to look at");
    assert!(observer.counters.totals()[0] > 0);
    let mut torn = 0;
    for index in 0..8 {
        match observer.links.read(index, &mut [0; 768]) {
            Ok(Some(row)) => assert_eq!(row, [row[0]; 512]),
            Ok(None) => panic!("row {index} is empty"),
            Err(_) => torn += 1,
        }
    }
    assert!(torn <= 1, "one writer can leave one row unfinished");
    assert!(observer.datapath_errors.entries().len() <= 1);
}

/// A path for a segment, on tmpfs if there is one; the file goes away with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let base = Path::new("/dev/shm");
        let base = if base.is_dir() { base } else { Path::new(env!("CARGO_TARGET_TMPDIR")) };
        Self(base.join(format!("ipop-shm-{name}-{}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
