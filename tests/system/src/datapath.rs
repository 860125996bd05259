//! A bare datapath, steered by the test itself over the control ring: a controller of one's own.

use std::time::{Duration, Instant};

use ipop_lab::Namespace;
use ipop_shm::ControllerEnd;
use ipop_steer::{Candidate, Command, DropReason, Event, Fingerprint, Request, WORDS_VERSION};

use crate::{Process, Scratch, binary};

/// A running `ipop datapath`, with the test as its controller.
pub struct Datapath {
    /// Its own fingerprint.
    pub fingerprint: Fingerprint,
    /// Its candidates so far.
    pub candidates: Vec<Candidate>,
    /// The test's end of the ring.
    pub end: ControllerEnd,
    /// The process.
    pub process: Process,
    /// Everything that was heard.
    pub heard: Vec<Event>,
    sequence: u64,
    _scratch: Scratch,
}

impl Datapath {
    /// Starts one in a namespace, and waits until it is ready and has a candidate.
    pub fn start(namespace: &Namespace) -> Self {
        let scratch = Scratch::new();
        let identity = scratch.path("identity.pem");
        let made =
            ipop_lab::run(&format!("{} keygen --out {}", binary().display(), identity.display()));
        made.expect("ipop keygen");
        let mut command = namespace.command(binary());
        command
            .args(["datapath", "--name", "bare", "--interface", "ipop0", "--run-dir"])
            .arg(scratch.folder())
            .arg("--identity")
            .arg(&identity);
        let process = Process::start(command, scratch.path("log"));
        let segment = scratch.path("segment");
        let deadline = Instant::now() + Duration::from_secs(10);
        let end = loop {
            match ipop_shm::attach(&segment, WORDS_VERSION) {
                Ok(end) => break end,
                Err(error) => {
                    assert!(Instant::now() < deadline, "{error}: {}", process.log());
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        };
        let mut datapath = Self {
            fingerprint: Fingerprint([0; 32]),
            candidates: Vec::new(),
            end,
            process,
            heard: Vec::new(),
            sequence: 0,
            _scratch: scratch,
        };
        datapath.command(Command::Snapshot);
        datapath.wait_for("ready, with a candidate", |datapath| {
            !datapath.candidates.is_empty() && datapath.fingerprint.0 != [0; 32]
        });
        datapath
    }

    /// Sends a command; returns its number.
    pub fn command(&mut self, command: Command) -> u64 {
        self.sequence += 1;
        let mut record = Vec::new();
        Request { sequence: self.sequence, command }.encode(&mut record).unwrap();
        self.end.commands.push(&record).unwrap();
        self.sequence
    }

    /// Listens until `holds`; panics with what was heard when it does not within ten seconds.
    pub fn wait_for(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !holds(self) {
            assert!(Instant::now() < deadline, "not {what}: {:#?}", self.heard);
            self.end.events.wait(Duration::from_millis(20));
            self.listen();
        }
    }

    /// How often something was dropped for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.end.counters.totals().get(reason.slot()).copied().unwrap_or(0)
    }

    /// How often anything was dropped.
    pub fn all_drops(&self) -> u64 {
        DropReason::ALL.iter().map(|reason| self.drops(*reason)).sum()
    }

    /// Takes what has been said by now.
    pub fn listen(&mut self) {
        while let Some(record) = self.end.events.pop().unwrap() {
            let event = Event::decode(record).unwrap();
            match &event {
                Event::Ready { fingerprint, .. } => self.fingerprint = *fingerprint,
                Event::LocalCandidate { candidate } => self.candidates.push(candidate.clone()),
                _ => {}
            }
            self.heard.push(event);
        }
    }
}
